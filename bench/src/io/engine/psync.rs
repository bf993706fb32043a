//! `pread(2)` and `pwrite(2)` on the thread of the job: one I/O at a time, what every other engine is compared with.

use std::io;
use std::sync::Arc;

use super::{Buffers, Direction, Engine, OpenFile, Queued, Setup, Step};
use crate::{to_u64, to_usize};

pub(super) struct Psync {
    files: Vec<Arc<OpenFile>>,
    buffers: Buffers,
}

impl Psync {
    pub(super) fn new(setup: &Setup<'_>, buffers: Buffers) -> Self {
        Self { files: setup.files.to_vec(), buffers }
    }
}

impl Engine for Psync {
    fn report(&self) -> String {
        format!("pread/pwrite on the thread of the job, {}", self.buffers.pages())
    }

    fn buffer(&mut self, tag: usize) -> &mut [u8] {
        self.buffers.slot(tag)
    }

    fn queue(&mut self, tag: usize, step: &Step, done: usize) -> Queued {
        let file = &self.files[to_usize(u64::from(step.file))];
        let len = to_usize(u64::from(step.len));
        let at = step.offset + to_u64(done);
        let buffer = &mut self.buffers.slot(tag)[done..len];
        let moved = match step.direction {
            Direction::Read => rustix::io::pread(file, buffer, at),
            Direction::Write => rustix::io::pwrite(file, buffer, at),
        };
        Queued::Done(moved.map_err(io::Error::from))
    }
}
