//! What carries I/O out: one interface, an implementation for each of fio's engines that are carried out.
//!
//! A request is known by its tag, the number of its buffer. The caller touches a buffer only while nothing is in flight
//! on its tag; engines check that.

mod buffers;
mod libaio;
mod mmap;
mod null;
mod psync;
mod tokio_uring;
mod uring;

use std::io;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use buffers::Buffers;

use super::job::{EngineName, Job};
use super::pattern::{Direction, Step};
use super::target::{OpenFile, Target};
use crate::Result;

/// What became of a request that was queued.
#[derive(Debug)]
pub(crate) enum Queued {
    /// It is done: bytes moved.
    Done(io::Result<usize>),
    /// It waits for [`Engine::commit`].
    Pending,
}

/// A completion.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) tag: usize,
    /// Bytes moved.
    pub(crate) result: io::Result<usize>,
}

/// Carries I/O out. Lives on one thread.
pub(crate) trait Engine {
    /// What it is, with its flags.
    fn report(&self) -> String;

    /// The buffer of `tag`.
    ///
    /// # Panics
    /// While something is in flight on it.
    fn buffer(&mut self, tag: usize) -> &mut [u8];

    /// Queues `step` but for its first `done` bytes.
    fn queue(&mut self, tag: usize, step: &Step, done: usize) -> Queued;

    /// Hands what is queued to the kernel.
    ///
    /// # Errors
    /// As the system call says.
    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Takes at least `min` completions and at most `max`; fewer once `patience` is up.
    ///
    /// # Errors
    /// As the system call says.
    fn reap(
        &mut self,
        _min: usize,
        _max: usize,
        _patience: Option<Duration>,
        _events: &mut Vec<Event>,
    ) -> io::Result<()> {
        Ok(())
    }
}

/// What an engine needs to know of a job.
pub(crate) struct Setup<'a> {
    pub(crate) job: &'a Job,
    pub(crate) depth: usize,
    pub(crate) files: &'a [Arc<OpenFile>],
    pub(crate) slot_bytes: usize,
}

/// The engine of `job` on the files of `target`; what was asked and is not given goes to `notes`.
///
/// # Errors
/// `Unsupported` when this machine does not give the engine, `Full` when there is no memory.
pub(crate) fn open(
    job: &Job,
    target: &Target,
    depth: usize,
    slot_bytes: usize,
    notes: &mut Vec<String>,
) -> Result<Box<dyn Engine>> {
    let setup = Setup { job, depth, files: &target.files, slot_bytes };
    let options = &job.engine;
    if options.name != EngineName::IoUring {
        let switches = [
            (options.fixedbufs, "fixedbufs=1 is ignored: only io_uring registers its buffers"),
            (options.registerfiles, "registerfiles=1 is ignored: only io_uring registers its files"),
            (options.sqthread_poll, "sqthread_poll=1 is ignored: only io_uring has such a thread"),
            (options.hipri, "hipri=1 is ignored: only io_uring polls here"),
            (options.uncached, "uncached=1 is ignored: only io_uring has it"),
            (options.force_async, "force_async=1 is ignored: only io_uring has it"),
            (options.nowait, "nowait=1 is ignored: only io_uring has it"),
        ];
        notes.extend(switches.iter().filter(|(on, _)| *on).map(|(_, note)| (*note).to_owned()));
    }
    let buffers = Buffers::new(&setup, notes)?;
    Ok(match options.name {
        EngineName::Mmap => {
            if job.files.direct {
                notes.push("direct=1 is ignored: a mapping is the page cache".to_owned());
            }
            Box::new(mmap::Mmap::new(&setup, &target.spans, buffers)?)
        }
        EngineName::IoUring => Box::new(uring::Uring::new(&setup, buffers, notes)?),
        EngineName::Libaio => {
            if !target.direct {
                notes.push("libaio without direct=1 waits for each I/O when it is submitted".to_owned());
            }
            Box::new(libaio::Libaio::new(&setup, buffers)?)
        }
        EngineName::TokioUring => Box::new(tokio_uring::TokioUring::new(&setup)?),
        EngineName::Null => Box::new(null::Null::new(buffers)),
        EngineName::Psync | EngineName::Tier | EngineName::Loader => {
            Box::new(psync::Psync::new(&setup, buffers))
        }
    })
}

fn failed(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
