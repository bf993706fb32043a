//! Memory as the replay sees it: LRU by block, with a share for blocks that were fetched ahead and not used yet.

use tierstream_prefetch::learned::Outcome;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    id: u64,
    older: u32,
    newer: u32,
    // Request at which it is here.
    arrives: u64,
    ahead: bool,
    // Insertions before it.
    at: u64,
}

#[derive(Clone, Copy, Debug)]
struct List {
    oldest: u32,
    newest: u32,
    len: usize,
}

impl List {
    const EMPTY: Self = Self { oldest: NONE, newest: NONE, len: 0 };
}

/// Blocks that left not long ago.
struct Ghosts {
    cells: Box<[(u32, u32)]>,
    departures: u32,
}

impl Ghosts {
    fn new(count: usize) -> Self {
        Self { cells: vec![(0, 0); (4 * count).next_power_of_two().max(64)].into(), departures: 0 }
    }

    fn cell(&self, id: u64) -> (usize, u32) {
        let mixed = (id ^ (id >> 31)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (
            usize::try_from(mixed >> 32).unwrap_or(0) & (self.cells.len() - 1),
            u32::try_from(mixed & 0xffff_ffff).unwrap_or(0),
        )
    }

    fn remember(&mut self, id: u64) {
        self.departures += 1;
        let (cell, print) = self.cell(id);
        self.cells[cell] = (print, self.departures);
    }

    fn recall(&mut self, id: u64, window: usize) -> bool {
        let (cell, print) = self.cell(id);
        let (found, at) = self.cells[cell];
        if at == 0 || found != print {
            return false;
        }
        self.cells[cell].1 = 0;
        ((self.departures - at) as usize) < window
    }
}

/// See the module.
pub(super) struct Cache {
    table: Box<[u32]>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    lists: [List; 2],
    capacity: usize,
    apart: usize,
    apart_min: usize,
    apart_max: usize,
    ghosts: [Ghosts; 2],
    insertions: u64,
}

fn at(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(0)
}

impl Cache {
    /// A cache of `capacity` blocks, of which `apart` at most are unused blocks fetched ahead; with none apart they mix
    /// with the rest.
    pub(super) fn new(capacity: usize, apart: usize) -> Self {
        let slot = Slot { id: 0, older: NONE, newer: NONE, arrives: 0, ahead: false, at: 0 };
        Self {
            table: vec![NONE; (2 * capacity).next_power_of_two().max(16)].into(),
            slots: vec![slot; capacity],
            free: (0..u32::try_from(capacity).unwrap_or(NONE)).rev().collect(),
            lists: [List::EMPTY; 2],
            capacity,
            apart: apart.min(apart / 5 + 1),
            apart_min: (apart / 5).max(apart.min(4)),
            apart_max: apart,
            ghosts: [Ghosts::new(apart), Ghosts::new(apart)],
            insertions: 0,
        }
    }

    fn home(&self, id: u64) -> usize {
        let mixed = (id ^ (id >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from((mixed ^ (mixed >> 32)) & (self.table.len() as u64 - 1)).unwrap_or(0)
    }

    fn find(&self, id: u64) -> Option<usize> {
        let mut cell = self.home(id);
        while self.table[cell] != NONE {
            if self.slots[at(self.table[cell])].id == id {
                return Some(cell);
            }
            cell = (cell + 1) & (self.table.len() - 1);
        }
        None
    }

    /// Whether the block is here or on its way.
    pub(super) fn holds(&self, id: u64) -> bool {
        self.find(id).is_some()
    }

    fn list_of(&self, slot: u32) -> usize {
        usize::from(self.slots[at(slot)].ahead && self.apart_max > 0)
    }

    fn unlink(&mut self, slot: u32) {
        let list = self.list_of(slot);
        let Slot { older, newer, .. } = self.slots[at(slot)];
        if older == NONE {
            self.lists[list].oldest = newer
        } else {
            self.slots[at(older)].newer = newer
        }
        if newer == NONE {
            self.lists[list].newest = older
        } else {
            self.slots[at(newer)].older = older
        }
        self.lists[list].len -= 1;
    }

    fn link(&mut self, slot: u32) {
        let list = self.list_of(slot);
        let newest = self.lists[list].newest;
        (self.slots[at(slot)].older, self.slots[at(slot)].newer) = (newest, NONE);
        if newest == NONE {
            self.lists[list].oldest = slot
        } else {
            self.slots[at(newest)].newer = slot
        }
        self.lists[list].newest = slot;
        self.lists[list].len += 1;
    }

    fn forget(&mut self, id: u64) {
        let Some(mut hole) = self.find(id) else { return };
        self.table[hole] = NONE;
        // What was displaced by it moves back.
        let mask = self.table.len() - 1;
        let mut cell = (hole + 1) & mask;
        while self.table[cell] != NONE {
            let home = self.home(self.slots[at(self.table[cell])].id);
            if (cell.wrapping_sub(home) & mask) >= (cell.wrapping_sub(hole) & mask) {
                self.table[hole] = self.table[cell];
                self.table[cell] = NONE;
                hole = cell;
            }
            cell = (cell + 1) & mask;
        }
    }

    /// Reads a block at `request`, loading it if need be; what was said, and how many requests it is still away.
    pub(super) fn read(&mut self, id: u64, request: u64, left: &mut Vec<u64>) -> (Outcome, u64) {
        if let Some(cell) = self.find(id) {
            let slot = self.table[cell];
            self.unlink(slot);
            let Slot { ahead, arrives, .. } = self.slots[at(slot)];
            self.slots[at(slot)].ahead = false;
            self.slots[at(slot)].arrives = 0;
            self.link(slot);
            return match (ahead, arrives > request) {
                (_, true) => (Outcome::Late, arrives - request),
                (true, false) => (Outcome::FirstUse, 0),
                (false, false) => (Outcome::Hit, 0),
            };
        }
        if self.apart_max > 0 {
            // It would be here if more room, or less, were kept apart.
            if self.ghosts[1].recall(id, self.apart_max) {
                self.apart = (self.apart + 1).min(self.apart_max);
            }
            if self.ghosts[0].recall(id, self.apart_max) {
                self.apart = (self.apart - 1).max(self.apart_min);
            }
        }
        self.insert(id, 0, false, left);
        (Outcome::Miss, 0)
    }

    /// Fetches a block ahead, to be here at request `arrives`; whether that was done.
    pub(super) fn fetch(&mut self, id: u64, arrives: u64, left: &mut Vec<u64>) -> bool {
        if self.holds(id) {
            return false;
        }
        self.insert(id, arrives, true, left);
        true
    }

    fn insert(&mut self, id: u64, arrives: u64, ahead: bool, left: &mut Vec<u64>) {
        let crowded = ahead && self.apart_max > 0 && self.lists[1].len >= self.apart;
        if self.free.is_empty() || crowded {
            let oldest = self.lists[1].oldest;
            let stale = oldest != NONE && self.insertions - self.slots[at(oldest)].at > self.capacity as u64;
            let apart = crowded || stale || self.lists[0].len == 0 || self.lists[1].len > self.apart;
            let victim = self.lists[usize::from(apart)].oldest;
            let Slot { id: leaving, ahead: unused, .. } = self.slots[at(victim)];
            self.unlink(victim);
            self.forget(leaving);
            self.free.push(victim);
            if self.apart_max > 0 {
                self.ghosts[usize::from(unused)].remember(leaving);
            }
            if unused {
                left.push(leaving);
            }
        }
        let Some(slot) = self.free.pop() else { return };
        self.slots[at(slot)] = Slot { id, older: NONE, newer: NONE, arrives, ahead, at: self.insertions };
        self.insertions += 1;
        self.link(slot);
        let mut cell = self.home(id);
        while self.table[cell] != NONE {
            cell = (cell + 1) & (self.table.len() - 1);
        }
        self.table[cell] = slot;
    }
}
