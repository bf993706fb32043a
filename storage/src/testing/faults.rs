//! An engine that carries out operations on a real one and spoils some of them, by seed.
//!
//! Faults: a short read or write, EINTR, EIO, ENOSPC, one flipped bit in what was read. Each is confined to files whose
//! path contains a given text, so that a test can ruin L2 and leave L3 whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Random;
use crate::error::Result;
use crate::io::{Completion, EngineReport, IoEngine, Op, OpKind, Waker};

/// Which faults, how often (one in N operations, 0 for never), where.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    /// The same seed gives the same faults for the same sequence of operations.
    pub seed: u64,
    /// Only files whose path contains this text are touched.
    pub path_contains: String,
    /// Transfers half of what was asked, in whole sectors.
    pub short: u64,
    /// Fails with EINTR before anything is done.
    pub interrupted: u64,
    /// Reads fail with EIO.
    pub read_error: u64,
    /// Writes fail with EIO.
    pub write_error: u64,
    /// Syncs fail with EIO.
    pub sync_error: u64,
    /// Writes fail with ENOSPC.
    pub no_space: u64,
    /// One bit of what was read is flipped.
    pub bit_flip: u64,
}

impl FaultPlan {
    fn io_error(&self, kind: OpKind) -> u64 {
        match kind {
            OpKind::Read => self.read_error,
            OpKind::Write => self.write_error,
            OpKind::Sync => self.sync_error,
        }
    }
}

/// Devices that die while a test runs: files whose path contains the text fail with EIO once its switch is on.
pub type Deaths = Arc<[(&'static str, AtomicBool)]>;

/// Wraps an engine and applies a [`FaultPlan`].
#[derive(Debug)]
pub struct FaultEngine {
    inner: Box<dyn IoEngine>,
    plan: FaultPlan,
    random: Random,
    deaths: Deaths,
}

impl FaultEngine {
    /// Spoils the work of `inner` by `plan`.
    #[must_use]
    pub fn new(inner: Box<dyn IoEngine>, plan: FaultPlan) -> Self {
        let random = Random::new(plan.seed);
        Self { inner, plan, random, deaths: Arc::default() }
    }

    /// Lets files fail for good once a test says so.
    #[must_use]
    pub fn with_deaths(self, deaths: Deaths) -> Self {
        Self { deaths, ..self }
    }

    fn spoil(&mut self, completion: &mut Completion) {
        let Completion { op, result } = completion;
        let fail = |code| Err(std::io::Error::from_raw_os_error(code));
        let path = op.file.path().to_string_lossy();
        if self.deaths.iter().any(|(name, dead)| dead.load(Ordering::SeqCst) && path.contains(name)) {
            *result = fail(libc::EIO);
            return;
        }
        if !path.contains(&self.plan.path_contains) {
            return;
        }
        if self.random.one_in(self.plan.interrupted) {
            *result = fail(libc::EINTR);
        } else if self.random.one_in(self.plan.io_error(op.kind)) {
            *result = fail(libc::EIO);
        } else if op.kind == OpKind::Write && self.random.one_in(self.plan.no_space) {
            *result = fail(libc::ENOSPC);
        } else if let (Ok(moved), Some(buf)) = (result, &mut op.buf) {
            if self.random.one_in(self.plan.short) {
                *moved = (*moved / 2).next_multiple_of(crate::units::ALIGN_BYTES).min(*moved);
            }
            if op.kind == OpKind::Read && *moved > 0 && self.random.one_in(self.plan.bit_flip) {
                let byte = self.random.below(crate::units::to_u64(*moved));
                buf[op.done + crate::units::to_usize(byte)] ^= 1 << self.random.below(8);
            }
        }
    }
}

impl IoEngine for FaultEngine {
    fn submit(&mut self, op: Op) {
        self.inner.submit(op);
    }

    fn room(&self) -> usize {
        self.inner.room()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn wait(&mut self, completed: &mut Vec<Completion>) -> Result<()> {
        let first = completed.len();
        let waited = self.inner.wait(completed);
        for completion in &mut completed[first..] {
            self.spoil(completion);
        }
        waited
    }

    fn waker(&self) -> Arc<dyn Waker> {
        self.inner.waker()
    }

    fn report(&self) -> EngineReport {
        self.inner.report()
    }
}
