//! Replay: when a block is missed that was missed before, what followed it then is likely to follow it now. A cursor
//! walks the history behind that place, and goes further the better it has been right.

use super::history::{History, Place};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    // The place it has walked to, and the same in the occurrence before that.
    pub(super) walked: Place,
    pub(super) other: Place,
    /// Proposals made, and the last one that was used.
    pub(super) step: u32,
    pub(super) confirmed: u32,
    /// How many proposals may be open.
    pub(super) depth: u32,
    /// How the last proposals ended, latest lowest, behind a leading one.
    pub(super) ends: u16,
    generation: u16,
    touched: u32,
}

impl Cursor {
    /// Goes to the next miss of the stream; says which block it is and whether the occurrence before agrees: 0 there is
    /// none, 1 it does not, 2 it does.
    pub(super) fn advance(&mut self, history: &History) -> Option<(u64, u32)> {
        let (_, next) = history.at(self.walked)?;
        let (id, _) = history.at(next)?;
        self.walked = next;
        let mut agrees = 0;
        if self.other != 0 {
            agrees = 1;
            let mut probe = self.other;
            // One more or one less in between is no disagreement.
            for _ in 0..3 {
                let Some((_, next)) = history.at(probe) else { break };
                let Some((other, _)) = history.at(next) else { break };
                probe = next;
                if other == id {
                    self.other = probe;
                    agrees = 2;
                    break;
                }
            }
        }
        Some((id, agrees))
    }

    /// Its proposal `step` was used.
    pub(super) fn confirm(&mut self, step: u32, depth_max: u32) {
        if step > self.confirmed {
            let skipped = (step - self.confirmed - 1).min(8);
            self.ends = push_end(self.ends, skipped, false);
            self.confirmed = step;
        }
        self.ends = push_end(self.ends, 1, true);
        self.depth = (self.depth * 2).min(depth_max);
    }
}

fn push_end(ends: u16, times: u32, used: bool) -> u16 {
    let mut ends = ends.max(1);
    for _ in 0..times {
        ends = (ends << 1) | u16::from(used);
        if ends >= 1 << 7 {
            ends = (1 << 6) | (ends & 0x3f);
        }
    }
    ends
}

pub(super) struct Cursors {
    cells: Box<[Cursor]>,
    turn: usize,
}

impl Cursors {
    pub(super) fn new(count: usize) -> Self {
        Self { cells: vec![Cursor::default(); count].into(), turn: 0 }
    }

    /// The cursor that made a proposal, unless it is gone.
    pub(super) fn get(&self, owner: u32) -> Option<(usize, Cursor)> {
        let at = usize::try_from(owner & 0xffff).unwrap_or(0);
        let cursor = *self.cells.get(at)?;
        (u32::from(cursor.generation) == owner >> 16).then_some((at, cursor))
    }

    /// A cursor at `walked`, in the place of one that was not right for long.
    pub(super) fn begin(&mut self, walked: Place, other: Place, now: u32) -> (usize, Cursor) {
        // The oldest of a few.
        let mut victim = self.turn;
        for _ in 0..4 {
            self.turn = (self.turn + 1) % self.cells.len();
            let age = |cursor: &Cursor| now.wrapping_sub(cursor.touched);
            if age(&self.cells[self.turn]) > age(&self.cells[victim]) {
                victim = self.turn;
            }
        }
        let generation = self.cells[victim].generation.wrapping_add(1);
        let cursor =
            Cursor { walked, other, depth: 4, ends: 1, generation, touched: now, ..Cursor::default() };
        self.cells[victim] = cursor;
        (victim, cursor)
    }

    /// What its proposals carry.
    pub(super) fn owner(at: usize, cursor: &Cursor) -> u32 {
        (u32::from(cursor.generation) << 16) | u32::try_from(at & 0xffff).unwrap_or(0)
    }

    pub(super) fn keep(&mut self, at: usize, cursor: Cursor, now: u32) {
        self.cells[at] = Cursor { touched: now, ..cursor };
    }
}
