//! What was missed, in order: a ring of the last misses with a link to the next one of the same stream, and for each
//! block where in the ring it was missed last and the time before.
//!
//! Only reads that memory alone would have missed are kept: these are what a prefetch can save, and the rest is noise.

use super::hash::{index, spread, tag};

/// A place in the ring, counted from one; wraps after four billion misses, when all old places look too old.
pub(super) type Place = u32;

#[derive(Clone, Copy, Default)]
struct Entry {
    id: u64,
    // The next miss of the same stream.
    next: Place,
}

/// Where a block was missed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    tag: u32,
    pub(super) last: Place,
    pub(super) before: Place,
    /// Times it was seen, and how its last proposals ended, one bit each.
    pub(super) times: u16,
    pub(super) outcomes: u16,
}

pub(super) struct History {
    ring: Box<[Entry]>,
    newest: Place,
    seen: Box<[[Seen; 4]]>,
}

impl History {
    /// Keeps `2^bits` misses, and as many blocks.
    pub(super) fn new(bits: u32) -> Self {
        Self {
            ring: vec![Entry::default(); 1 << bits].into(),
            newest: 0,
            seen: vec![[Seen::default(); 4]; 1 << (bits - 2)].into(),
        }
    }

    pub(super) fn newest(&self) -> Place {
        self.newest
    }

    fn cell(&self, place: Place) -> usize {
        index(u64::from(place), self.ring.len() - 1)
    }

    /// The block missed at `place`, and the next place of the same stream, if the ring still has them.
    pub(super) fn at(&self, place: Place) -> Option<(u64, Place)> {
        let age = self.newest.wrapping_sub(place);
        if place == 0 || usize::try_from(age).unwrap_or(usize::MAX) >= self.ring.len() {
            return None;
        }
        let entry = self.ring[self.cell(place)];
        Some((entry.id, entry.next))
    }

    /// What is known of a block.
    pub(super) fn seen(&self, id: u64) -> Option<Seen> {
        let hash = spread(id);
        let bucket = &self.seen[index(hash, self.seen.len() - 1)];
        bucket.iter().find(|seen| seen.last != 0 && seen.tag == tag(hash)).copied()
    }

    /// Notes a miss behind `previous`, the last one of its stream; returns its place and what was known of the block.
    pub(super) fn push(&mut self, id: u64, previous: Place) -> (Place, Option<Seen>) {
        self.newest = self.newest.wrapping_add(1).max(1);
        let place = self.newest;
        let cell = self.cell(place);
        self.ring[cell] = Entry { id, next: 0 };
        if previous != 0
            && usize::try_from(place.wrapping_sub(previous)).unwrap_or(usize::MAX) < self.ring.len()
        {
            let before = self.cell(previous);
            self.ring[before].next = place;
        }
        let hash = spread(id);
        let at = index(hash, self.seen.len() - 1);
        let bucket = &mut self.seen[at];
        let mut oldest = 0;
        for way in 0..4 {
            if bucket[way].last != 0 && bucket[way].tag == tag(hash) {
                let known = bucket[way];
                bucket[way].before = known.last;
                bucket[way].last = place;
                bucket[way].times = known.times.saturating_add(1);
                return (place, Some(known));
            }
            if place.wrapping_sub(bucket[way].last) > place.wrapping_sub(bucket[oldest].last) {
                oldest = way;
            }
        }
        bucket[oldest] = Seen { tag: tag(hash), last: place, before: 0, times: 1, outcomes: 0 };
        (place, None)
    }

    /// Notes how a proposal of the block ended.
    pub(super) fn note(&mut self, id: u64, used: bool) {
        let hash = spread(id);
        let at = index(hash, self.seen.len() - 1);
        if let Some(seen) = self.seen[at].iter_mut().find(|seen| seen.last != 0 && seen.tag == tag(hash)) {
            // A leading one tells how many there are; three are kept.
            let ends = (seen.outcomes.max(1) << 1) | u16::from(used);
            seen.outcomes = if ends < 16 { ends } else { 8 | (ends & 7) };
        }
    }
}
