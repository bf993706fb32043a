//! Reading through a mapping of the file: the page cache's way, with a copy as fio's mmap engine makes one.

use super::super::pattern::Span;
use super::{Buffers, Engine, Queued, Setup, Step};
use crate::os::Mapping;
use crate::{Result, to_usize};

pub(super) struct Mmap {
    mappings: Vec<Mapping>,
    buffers: Buffers,
}

impl Mmap {
    pub(super) fn new(setup: &Setup<'_>, spans: &[Span], buffers: Buffers) -> Result<Self> {
        let mappings = setup.files.iter().zip(spans).map(|(file, span)| {
            let mapping = Mapping::new(file, &file.path, to_usize(span.offset + span.bytes))?;
            mapping.announce(setup.job.pattern.random);
            Ok(mapping)
        });
        Ok(Self { mappings: mappings.collect::<Result<_>>()?, buffers })
    }
}

impl Engine for Mmap {
    fn report(&self) -> String {
        "memcpy from a shared mapping".to_owned()
    }

    fn buffer(&mut self, tag: usize) -> &mut [u8] {
        self.buffers.slot(tag)
    }

    fn queue(&mut self, tag: usize, step: &Step, done: usize) -> Queued {
        let len = to_usize(u64::from(step.len));
        let buffer = &mut self.buffers.slot(tag)[done..len];
        self.mappings[to_usize(u64::from(step.file))].copy_to(to_usize(step.offset) + done, buffer);
        // Without a reader the copy could be left out.
        Queued::Done(Ok(std::hint::black_box(buffer).len()))
    }
}
