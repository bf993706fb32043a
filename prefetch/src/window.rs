//! What is held ahead of a job: a pure state machine, given fetches and progress, that decides what to fetch and what
//! to let go.
//!
//! A block stays held until its last use within the window, so that two samples in one block cost one read.

use std::collections::{HashMap, VecDeque};
use std::iter::Peekable;

use tierstream_storage::tier::{BlockKey, FileNo};
use tierstream_storage::units::to_u64;

use crate::budget::{Budget, Permit};
use crate::plan::{Plan, PlannedRead};

/// Reads ahead of the job, and uses of held blocks, that are remembered at most: where many reads share a block, bytes
/// alone would not bound them, and a plan over a data set that fits the window would be followed to its end. 65536 reads
/// are minutes of an HDD's work and cost a few megabytes.
const AHEAD_MAX: usize = 1 << 16;

/// Why [`Window::extend`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// As far ahead as it may be: the job must go on first.
    Full,
    /// The store has no buffer or slot free at this moment.
    NoRoom,
    /// The plan has no more reads.
    End,
}

/// The answer to a fetch ahead of need. `T` keeps a block in L1 as long as it lives.
pub(crate) enum Fetched<T> {
    /// It is there or on its way.
    Coming(T),
    /// It cannot be had ahead of need.
    Absent,
    /// The store has no buffer or slot free at this moment.
    NoRoom,
}

pub(crate) struct Window<T> {
    plan: Peekable<Plan>,
    files: std::sync::Arc<[FileNo]>,
    // Payload bytes of a full block, and what one costs of L1.
    capacity: u64,
    slot_bytes: u64,
    held: HashMap<BlockKey, Held<T>>,
    // Every use of a held block, in order of need.
    uses: VecDeque<(u64, BlockKey)>,
    // Reads of the plan that are in the window or behind it.
    planned: u64,
    // Blocks of the next read that are held already, when the window stopped in the middle of it.
    partly: u64,
}

struct Held<T> {
    last_use: u64,
    _ticket: T,
    _permit: Permit,
}

impl<T> Window<T> {
    pub(crate) fn new(plan: Plan, files: std::sync::Arc<[FileNo]>, capacity: u64, slot_bytes: u64) -> Self {
        Self {
            plan: plan.peekable(),
            files,
            capacity,
            slot_bytes,
            held: HashMap::new(),
            uses: VecDeque::new(),
            planned: 0,
            partly: 0,
        }
    }

    /// Bytes of L1 held.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.slot_bytes * to_u64(self.held.len())
    }

    /// Lets go of every block whose last use lies behind `consumed` reads.
    pub(crate) fn release(&mut self, consumed: u64) {
        while let Some((_, key)) = self.uses.front().copied().filter(|(position, _)| *position < consumed) {
            self.uses.pop_front();
            if self.held.get(&key).is_some_and(|held| held.last_use < consumed) {
                self.held.remove(&key);
            }
        }
    }

    /// Takes reads of the plan into the window, up to `window_bytes` and the budget. `fetch` gets each new block with
    /// its place in the order.
    pub(crate) fn extend(
        &mut self,
        consumed: u64,
        window_bytes: u64,
        budget: &Budget,
        mut fetch: impl FnMut(BlockKey, u64) -> Fetched<T>,
    ) -> Stop {
        loop {
            if self.planned.saturating_sub(consumed) >= to_u64(AHEAD_MAX) {
                return Stop::Full;
            }
            let Some(PlannedRead { shard, range }) = self.plan.peek().cloned() else { return Stop::End };
            // A read the job has made already needs no help.
            if self.planned >= consumed && range.start < range.end {
                let first = range.start / self.capacity + self.partly;
                for number in first..range.end.div_ceil(self.capacity) {
                    if let (Some(file), Ok(block)) = (self.files.get(shard), u32::try_from(number)) {
                        let key = BlockKey { file: *file, block };
                        if let Err(stop) = self.hold(key, window_bytes, budget, &mut fetch) {
                            return stop;
                        }
                    }
                    self.partly += 1;
                }
            }
            self.partly = 0;
            self.planned += 1;
            self.plan.next();
        }
    }

    /// Holds a block for the read at `self.planned`.
    fn hold(
        &mut self,
        key: BlockKey,
        window_bytes: u64,
        budget: &Budget,
        fetch: &mut impl FnMut(BlockKey, u64) -> Fetched<T>,
    ) -> Result<(), Stop> {
        let position = self.planned;
        if self.uses.len() >= AHEAD_MAX {
            return Err(Stop::Full);
        }
        if let Some(held) = self.held.get_mut(&key) {
            held.last_use = position;
        } else {
            // One block is always allowed, so that a small budget slows but never stops.
            if self.held_bytes() + self.slot_bytes > window_bytes && !self.held.is_empty() {
                return Err(Stop::Full);
            }
            let permit = budget.take(self.slot_bytes).ok_or(Stop::Full)?;
            match fetch(key, position) {
                Fetched::Coming(ticket) => {
                    self.held.insert(key, Held { last_use: position, _ticket: ticket, _permit: permit });
                }
                Fetched::Absent => return Ok(()),
                Fetched::NoRoom => return Err(Stop::NoRoom),
            }
        }
        self.uses.push_back((position, key));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const SLOT: u64 = 100;
    const CAPACITY: u64 = 90;

    fn window(reads: Vec<PlannedRead>) -> Window<()> {
        let files: Arc<[FileNo]> = (0..4).map(FileNo).collect();
        Window::new(Box::new(reads.into_iter()), files, CAPACITY, SLOT)
    }

    fn read(shard: usize, start: u64, end: u64) -> PlannedRead {
        PlannedRead { shard, range: start..end }
    }

    #[test]
    fn a_block_is_fetched_once_and_held_to_its_last_use() {
        let mut window = window(vec![read(0, 0, 10), read(0, 200, 210), read(0, 20, 30), read(1, 0, 300)]);
        let budget = Budget::new(1000);
        let mut fetched = Vec::new();
        let stop = window.extend(0, 1000, &budget, |key, position| {
            fetched.push((key.file.0, key.block, position));
            Fetched::Coming(())
        });
        assert_eq!(stop, Stop::End);
        assert_eq!(fetched, [(0, 0, 0), (0, 2, 1), (1, 0, 3), (1, 1, 3), (1, 2, 3), (1, 3, 3)]);
        assert_eq!(window.held_bytes(), 600);
        window.release(2);
        assert_eq!(window.held_bytes(), 500, "the first block is used again by the third read");
        window.release(3);
        assert_eq!(window.held_bytes(), 400);
        window.release(4);
        assert_eq!((window.held_bytes(), budget.used()), (0, 0));
    }

    #[test]
    fn it_stops_at_its_bounds_and_goes_on_where_it_stopped() {
        let mut window = window((0..10).map(|n| read(0, n * CAPACITY, (n + 1) * CAPACITY)).collect());
        let budget = Budget::new(350);
        assert_eq!(window.extend(0, 200, &budget, |_, _| Fetched::Coming(())), Stop::Full);
        assert_eq!(window.held_bytes(), 200);
        assert_eq!(window.extend(0, 1000, &budget, |_, _| Fetched::Coming(())), Stop::Full);
        assert_eq!(window.held_bytes(), 300, "the shared budget is the limit");
        window.release(2);
        assert_eq!(window.extend(2, 1000, &budget, |_, _| Fetched::NoRoom), Stop::NoRoom);
        assert_eq!((window.held_bytes(), budget.used()), (100, 100), "a refused fetch holds nothing");
        let mut order = Vec::new();
        window.extend(2, 1000, &budget, |key, _| {
            order.push(key.block);
            Fetched::Coming(())
        });
        assert_eq!(order, [3, 4]);
        // The job ran ahead of the window: what it has read is skipped.
        window.release(9);
        order.clear();
        assert_eq!(
            window.extend(9, 1000, &budget, |key, _| {
                order.push(key.block);
                Fetched::Coming(())
            }),
            Stop::End
        );
        assert_eq!(order, [9]);
    }

    #[test]
    fn what_cannot_be_had_holds_nothing() {
        let mut window = window(vec![read(9, 0, 10), read(0, 0, 1000), read(1, 0, 10)]);
        let budget = Budget::new(1000);
        let stop = window.extend(0, 1000, &budget, |key, _| {
            if key.file == FileNo(0) { Fetched::Absent } else { Fetched::Coming(()) }
        });
        assert_eq!((stop, window.held_bytes(), budget.used()), (Stop::End, 100, 100));
    }

    #[test]
    fn a_plan_without_end_is_followed_a_bounded_way() {
        for reads in [read(0, 0, 2 * CAPACITY), read(0, 7, 7), read(9, 0, 10)] {
            let files: Arc<[FileNo]> = Arc::new([FileNo(0)]);
            let mut window = Window::new(Box::new(std::iter::repeat(reads)), files, CAPACITY, SLOT);
            let budget = Budget::new(1000);
            for consumed in [0, 10, 200_000] {
                window.release(consumed);
                assert_eq!(window.extend(consumed, 1000, &budget, |_, _| Fetched::Coming(())), Stop::Full);
                assert!(window.uses.len() <= AHEAD_MAX && window.planned <= consumed + to_u64(AHEAD_MAX));
            }
        }
    }

    proptest! {
        #[test]
        fn every_block_is_there_when_its_read_comes(
            reads in prop::collection::vec((0_usize..4, 0_u64..2000, 0_u64..300), 1..60),
            window_slots in 1_u64..12,
            refusals in 0_u64..4,
        ) {
            let plan: Vec<PlannedRead> = reads.iter().map(|(shard, start, len)| read(*shard, *start, start + len)).collect();
            let mut window = window(plan.clone());
            let budget = Budget::new(100 * SLOT);
            let mut calls = 0;
            let mut held_max = 0;
            for (position, read) in (0_u64..).zip(&plan) {
                let mut stop = Stop::NoRoom;
                while stop == Stop::NoRoom {
                    stop = window.extend(position, window_slots * SLOT, &budget, |_, _| {
                        calls += 1;
                        if refusals > 0 && calls % (refusals + 1) == 0 { Fetched::NoRoom } else { Fetched::Coming(()) }
                    });
                }
                held_max = held_max.max(window.held_bytes());
                let needed: HashSet<u64> =
                    (read.range.start / CAPACITY..read.range.end.div_ceil(CAPACITY)).filter(|_| !read.range.is_empty()).collect();
                let room = window_slots >= u64::try_from(needed.len()).unwrap();
                for number in needed {
                    let key = BlockKey { file: FileNo(u32::try_from(read.shard).unwrap()), block: u32::try_from(number).unwrap() };
                    prop_assert!(!room || window.held.contains_key(&key), "read {position} misses block {number}");
                }
                window.release(position + 1);
            }
            prop_assert!(held_max <= window_slots * SLOT);
            prop_assert_eq!((window.held_bytes(), budget.used()), (0, 0));
        }
    }
}
