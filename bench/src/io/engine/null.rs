//! No I/O at all: what the bench itself costs.

use std::io;

use super::{Buffers, Engine, Queued, Step};

pub(super) struct Null {
    buffers: Buffers,
}

impl Null {
    pub(super) fn new(buffers: Buffers) -> Self {
        Self { buffers }
    }
}

impl Engine for Null {
    fn report(&self) -> String {
        "no I/O".to_owned()
    }

    fn buffer(&mut self, tag: usize) -> &mut [u8] {
        self.buffers.slot(tag)
    }

    fn queue(&mut self, _tag: usize, step: &Step, done: usize) -> Queued {
        let bytes: io::Result<usize> = Ok(crate::to_usize(u64::from(step.len)) - done);
        Queued::Done(bytes)
    }
}
