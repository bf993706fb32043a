//! Candidates whose end is not known yet: used while memory would have kept them, or not.
//!
//! Kept for candidates that were fetched and for those that were not, so that what is learned is not biased by what was
//! chosen; so a source that is off shows when it would be right again, without a single probing fetch.

use super::hash::{index, spread};
use super::model::Contexts;

/// A candidate that waits for its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    pub(super) id: u64,
    pub(super) contexts: Contexts,
    // Misses seen when it was proposed; zero in an empty cell.
    pub(super) at: u32,
    // Which proposer, and its step.
    pub(super) owner: u32,
    pub(super) step: u32,
    pub(super) source: u8,
    // Its chance in sixteenths.
    pub(super) chance: u8,
    pub(super) issued: bool,
    // Sources that found it likely enough, whether it was fetched or not.
    pub(super) likely: u8,
    pub(super) stream: u32,
    // Sources that proposed it, one bit each.
    pub(super) sources: u8,
    pub(super) next: u32,
}

impl Pending {
    /// Takes over what another proposer says of the same block.
    pub(super) fn replace(&mut self, by: Self) {
        let (owner, step) = if by.owner == 0 { (self.owner, self.step) } else { (by.owner, by.step) };
        *self = Self { at: self.at, next: self.next, likely: self.likely | by.likely, owner, step, ..by };
    }
}

const NONE: u32 = u32::MAX;

pub(super) struct PendingTable {
    cells: Box<[Pending]>,
    heads: Box<[u32]>,
    newest: u32,
    oldest: u32,
}

impl PendingTable {
    pub(super) fn new(bits: u32) -> Self {
        Self {
            cells: vec![Pending::default(); 1 << bits].into(),
            heads: vec![NONE; 1 << bits].into(),
            newest: 0,
            oldest: 0,
        }
    }

    fn cell(&self, number: u32) -> usize {
        index(u64::from(number), self.cells.len() - 1)
    }

    fn head(&self, id: u64) -> usize {
        index(spread(id) >> 7, self.heads.len() - 1)
    }

    fn find(&self, id: u64) -> Option<usize> {
        let mut at = self.heads[self.head(id)];
        while at != NONE {
            let cell = &self.cells[usize::try_from(at).unwrap_or(0)];
            if cell.id == id {
                return Some(usize::try_from(at).unwrap_or(0));
            }
            at = cell.next;
        }
        None
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Pending> {
        let at = self.find(id)?;
        Some(&mut self.cells[at])
    }

    pub(super) fn take(&mut self, id: u64) -> Option<Pending> {
        let at = self.find(id)?;
        Some(self.unlink(at))
    }

    fn unlink(&mut self, at: usize) -> Pending {
        let taken = self.cells[at];
        let head = self.head(taken.id);
        let mut link = self.heads[head];
        if usize::try_from(link).unwrap_or(0) == at {
            self.heads[head] = taken.next;
        } else {
            while link != NONE {
                let cell = usize::try_from(link).unwrap_or(0);
                link = self.cells[cell].next;
                if usize::try_from(link).unwrap_or(0) == at {
                    self.cells[cell].next = taken.next;
                    break;
                }
            }
        }
        self.cells[at] = Pending::default();
        taken
    }

    /// The oldest candidate, if it is older than `horizon` misses at `now` or the table is full.
    pub(super) fn expired(&mut self, now: u32, horizon: u32) -> Option<Pending> {
        while self.oldest != self.newest {
            let at = self.cell(self.oldest);
            let cell = &self.cells[at];
            if cell.at != 0 {
                let full = usize::try_from(self.newest - self.oldest).unwrap_or(0) >= self.cells.len() - 1;
                if !full && now.wrapping_sub(cell.at) <= horizon {
                    return None;
                }
                self.oldest = self.oldest.wrapping_add(1);
                return Some(self.unlink(at));
            }
            self.oldest = self.oldest.wrapping_add(1);
        }
        None
    }

    /// Adds a candidate. The caller has taken out what is expired.
    pub(super) fn push(&mut self, pending: Pending) {
        let at = self.cell(self.newest);
        self.newest = self.newest.wrapping_add(1);
        let head = self.head(pending.id);
        self.cells[at] = Pending { next: self.heads[head], ..pending };
        self.heads[head] = u32::try_from(at).unwrap_or(NONE);
    }
}
