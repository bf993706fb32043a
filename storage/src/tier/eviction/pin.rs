//! Pin: what came first stays. A pass over more than memory, again and again, hits what is pinned each time, where LRU
//! hits nothing; newcomers pass through a small window, so that all others are left alone.

use super::list::{Links, List};
use super::{EvictionPolicy, Residents};
use crate::tier::BlockKey;

/// Share of frames that newcomers pass through: one in so many.
const WINDOW_PART: usize = 50;

/// See the module.
#[derive(Debug)]
pub struct Pin {
    links: Links,
    window: List,
    pinned: List,
    frames: usize,
}

impl Pin {
    /// A policy for frames `0..frames`.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        Self { links: Links::new(frames), window: List::EMPTY, pinned: List::EMPTY, frames }
    }
}

impl EvictionPolicy for Pin {
    fn inserted(&mut self, frame: u32, _: BlockKey) {
        if self.pinned.len() + self.frames / WINDOW_PART + 1 < self.frames {
            self.pinned.push(frame, &mut self.links);
        } else {
            self.window.push(frame, &mut self.links);
        }
    }

    fn evict(&mut self, residents: &mut dyn Residents) -> Option<u32> {
        for list in [&mut self.window, &mut self.pinned] {
            for _ in 0..list.len() {
                let frame = list.pop(&mut self.links)?;
                if residents.take_out(frame) {
                    return Some(frame);
                }
                list.push(frame, &mut self.links);
            }
        }
        None
    }
}
