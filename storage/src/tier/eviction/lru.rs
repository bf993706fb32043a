//! LRU: the block that was not read for longest leaves.

use super::list::{Links, List};
use super::{EvictionPolicy, Residents};
use crate::tier::BlockKey;

/// See the module.
#[derive(Debug)]
pub struct Lru {
    links: Links,
    list: List,
}

impl Lru {
    /// A policy for frames `0..frames`.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        Self { links: Links::new(frames), list: List::EMPTY }
    }
}

impl EvictionPolicy for Lru {
    fn inserted(&mut self, frame: u32, _: BlockKey) {
        self.list.push(frame, &mut self.links);
    }

    fn hit(&mut self, frame: u32) {
        self.list.remove(frame, &mut self.links);
        self.list.push(frame, &mut self.links);
    }

    fn evict(&mut self, residents: &mut dyn Residents) -> Option<u32> {
        for _ in 0..self.list.len() {
            let frame = self.list.pop(&mut self.links)?;
            if residents.take_out(frame) {
                return Some(frame);
            }
            self.list.push(frame, &mut self.links);
        }
        None
    }
}
