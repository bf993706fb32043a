//! Lists of frames, linked both ways through a table that all lists of a policy share.

use crate::units::to_usize;

/// No frame.
pub(super) const NONE: u32 = u32::MAX;

/// Links of every frame. A frame is in one list at most.
#[derive(Debug)]
pub(super) struct Links(Box<[(u32, u32)]>);

/// A list, oldest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    oldest: u32,
    newest: u32,
    len: usize,
}

impl Links {
    pub(super) fn new(frames: usize) -> Self {
        Self(vec![(NONE, NONE); frames].into())
    }

    fn at(&mut self, frame: u32) -> &mut (u32, u32) {
        &mut self.0[to_usize(u64::from(frame))]
    }
}

impl List {
    pub(super) const EMPTY: Self = Self { oldest: NONE, newest: NONE, len: 0 };

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        (self.len > 0).then_some(self.oldest)
    }

    pub(super) fn push(&mut self, frame: u32, links: &mut Links) {
        *links.at(frame) = (self.newest, NONE);
        if self.len == 0 {
            self.oldest = frame;
        } else {
            links.at(self.newest).1 = frame;
        }
        self.newest = frame;
        self.len += 1;
    }

    /// Takes out a frame that is in this list.
    pub(super) fn remove(&mut self, frame: u32, links: &mut Links) {
        let (older, newer) = *links.at(frame);
        if older == NONE {
            self.oldest = newer;
        } else {
            links.at(older).1 = newer;
        }
        if newer == NONE {
            self.newest = older;
        } else {
            links.at(newer).0 = older;
        }
        self.len -= 1;
    }

    pub(super) fn pop(&mut self, links: &mut Links) -> Option<u32> {
        let frame = self.oldest()?;
        self.remove(frame, links);
        Some(frame)
    }
}
