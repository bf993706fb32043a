//! Which engine this machine gives, tried from the fastest down, with the reason for every step taken down.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{IoEngine, MmapEngine, PsyncEngine, UringEngine};
use crate::buf::Arena;
use crate::error::{Error, ErrorKind, Result};

/// Which engine to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The fastest this machine gives.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// System calls on threads.
    Psync,
    /// Copies from mappings, read only; never fallen back to.
    Mmap,
}

impl FromStr for EngineChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "io_uring" => Ok(Self::Uring),
            "psync" => Ok(Self::Psync),
            "mmap" => Ok(Self::Mmap),
            _ => Err(Error::new(
                ErrorKind::Misuse,
                "parse",
                format!("unknown I/O engine `{text}`, expected auto, io_uring, psync or mmap"),
            )),
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "io_uring",
            Self::Psync => "psync",
            Self::Mmap => "mmap",
        })
    }
}

/// What an engine is and how it came to be chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineReport {
    /// `io_uring`, `psync` or `mmap`.
    pub name: &'static str,
    /// Flags, depth, registered buffers.
    pub detail: String,
    /// What was tried before and why it did not work; empty when the first choice did.
    pub fallback: Vec<String>,
}

impl fmt::Display for EngineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.detail)?;
        for reason in &self.fallback {
            write!(f, "; {reason}")?;
        }
        Ok(())
    }
}

/// The engine of `choice` for up to `depth` operations in flight, made on the calling thread. `arena`, where given, is
/// registered with the kernel if it takes it.
///
/// # Errors
/// `Unsupported` when `choice` insists on an engine that this machine does not give.
pub fn open(
    choice: EngineChoice,
    depth: usize,
    arena: Option<&Arc<Arena>>,
) -> Result<(Box<dyn IoEngine>, EngineReport)> {
    if choice == EngineChoice::Mmap {
        let engine = MmapEngine::new(depth);
        let report = engine.report();
        return Ok((Box::new(engine), report));
    }
    let mut fallback = Vec::new();
    if choice != EngineChoice::Psync {
        match UringEngine::new(depth, arena) {
            Ok(engine) => {
                let report = engine.report();
                return Ok((Box::new(engine), report));
            }
            Err(error) if choice == EngineChoice::Uring => {
                return Err(error.hint(
                    "allow io_uring (sysctl kernel.io_uring_disabled=0, the container's seccomp \
                     profile), or use --io-engine auto",
                ));
            }
            Err(error) => {
                tracing::warn!(%error, "io_uring is not available: reading with threads instead");
                fallback.push(error.to_string());
            }
        }
    }
    let engine = PsyncEngine::new(depth.min(PSYNC_THREADS_MAX))?;
    let report = EngineReport { fallback, ..engine.report() };
    Ok((Box::new(engine), report))
}

/// Beyond this many threads a device gains little and a small machine loses much to switching
/// (psync with 32 threads costs half as much CPU again per read as io_uring, on two cores).
const PSYNC_THREADS_MAX: usize = 16;
