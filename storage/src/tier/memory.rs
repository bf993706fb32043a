//! L1: opened blocks in a fixed number of frames, with one load under way per block.
//!
//! A hit takes no lock and allocates nothing: it finds the frame in a table of atomics, counts itself in as a reader of
//! that frame, and raises the frame's count of reads for the eviction policy. Loads, evictions and misses share a lock.
//! A frame costs some 40 bytes beside the block, all of them allocated at the start.
//!
//! Blocks that would leave much of a frame empty share frames. They are found in an index of their own, where a hit takes
//! a lock as one of its readers; a frame of them is one to the eviction policy. Such a block costs some 35 bytes.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frames::{Blank, BlockRef, Frames};
use super::packed::{Link, PackedIndex, Part};
use super::packs::Packs;
use super::table::FrameTable;
use super::{BlockKey, EvictionPolicy, Flight, Residents, Ticket};
use crate::buf::HostAllocator;
use crate::error::{Error, Result};
use crate::units::{to_u64, to_usize};

/// More reads than this since it was last looked at do not make a block hotter.
const READS_MAX: u8 = 3;

/// The memory tier.
#[derive(Debug)]
pub struct MemoryTier {
    frames: Arc<Frames>,
    table: FrameTable,
    reads: Box<[AtomicU8]>,
    packed: PackedIndex,
    evictions: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    loading: HashMap<BlockKey, Arc<Flight>>,
    policy: Box<dyn EvictionPolicy>,
    packs: Packs,
    // The blocks of each frame that is shared.
    shared: HashMap<u32, Link>,
}

/// What L1 says to somebody who wants to load a block.
#[derive(Debug)]
pub enum Lookup {
    /// It is here or on its way.
    Found(Ticket),
    /// The caller must load it into this frame and end the flight by [`MemoryTier::publish`] or [`MemoryTier::fail`].
    Load(Arc<Flight>, Blank),
    /// All frames hold blocks in use.
    Full,
}

/// How the memory of L1 is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L1Usage {
    /// Frames there are.
    pub frames: u64,
    /// Frames that hold blocks.
    pub resident: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Of those, blocks that share frames with others.
    pub packed_blocks: u64,
    /// Memory of the frames that hold blocks.
    pub committed_bytes: u64,
    /// Bytes of those blocks.
    pub used_bytes: u64,
    /// Blocks that were taken out to make room.
    pub evictions: u64,
}

impl L1Usage {
    /// Committed memory that holds nothing, in percent.
    #[must_use]
    pub fn fragmentation_percent(&self) -> f64 {
        let wasted = self.committed_bytes - self.used_bytes;
        if self.committed_bytes == 0 { 0.0 } else { 100.0 * wasted as f64 / self.committed_bytes as f64 }
    }
}

impl MemoryTier {
    /// A tier of `count` frames of `frame_bytes` bytes under `policy`, which was made for as many.
    ///
    /// # Errors
    /// `Full` without memory.
    pub fn new(
        frame_bytes: usize,
        count: usize,
        allocator: &dyn HostAllocator,
        policy: Box<dyn EvictionPolicy>,
    ) -> Result<Self> {
        Ok(Self {
            frames: Frames::new(frame_bytes, count, allocator)?,
            table: FrameTable::new(count),
            reads: (0..count).map(|_| AtomicU8::new(0)).collect(),
            evictions: AtomicU64::new(0),
            packed: PackedIndex::default(),
            inner: Mutex::new(Inner {
                loading: HashMap::new(),
                policy,
                packs: Packs::default(),
                shared: HashMap::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many blocks fit.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.frames.count()
    }

    /// Longest block that fits.
    #[must_use]
    pub fn slot_bytes(&self) -> usize {
        self.frames.frame_bytes()
    }

    /// The sealed file behind the frames, where they lie in memory that other processes can map.
    #[must_use]
    pub fn shared_file(&self) -> Option<BorrowedFd<'_>> {
        self.frames.shared_file()
    }

    /// A view of the block, if it is here: without allocation, without a copy, and without a lock unless it shares a
    /// frame.
    #[must_use]
    pub fn view(&self, key: BlockKey) -> Option<BlockRef> {
        let view = match self.table.find(key.tag(), |frame| self.frames.tag(frame)) {
            Some(frame) => self.frames.view(frame, key),
            None => self.packed.find(key.tag(), |part| self.frames.view_part(part, key)),
        }?;
        // Two readers at once may count as one: it is a hint. A hot block costs no write at all.
        let reads = &self.reads[to_usize(u64::from(view.frame()))];
        let seen = reads.load(Ordering::Relaxed);
        if seen < READS_MAX {
            reads.store(seen + 1, Ordering::Relaxed);
        }
        Some(view)
    }

    /// Tells the eviction policy of reads that were hits.
    pub fn tell_hits(&self, keys: &[BlockKey]) {
        let mut inner = self.lock();
        for key in keys {
            // Under the lock the table does not change.
            if let Some(frame) = self.table.find(key.tag(), |frame| self.frames.tag(frame)) {
                inner.policy.hit(frame);
            }
        }
    }

    /// Whether the block seems to be here; it may come or go at any time.
    #[must_use]
    pub fn has(&self, key: BlockKey) -> bool {
        self.table.find(key.tag(), |frame| self.frames.tag(frame)).is_some()
            || self.packed.find(key.tag(), Some).is_some()
    }

    /// The block, if it is here or on its way.
    #[must_use]
    pub fn get(&self, key: BlockKey) -> Option<Ticket> {
        if let Some(view) = self.view(key) {
            return Some(Ticket::ready(view));
        }
        self.find(&self.lock(), key)
    }

    /// Under the lock nothing moves: what is not found is not there.
    fn find(&self, inner: &Inner, key: BlockKey) -> Option<Ticket> {
        match self.view(key) {
            Some(view) => Some(Ticket::ready(view)),
            None => inner.loading.get(&key).map(|flight| Ticket::pending(key, Arc::clone(flight))),
        }
    }

    /// The block, or the duty to load it into a frame. Evicts to make room; never waits.
    #[must_use]
    pub fn get_or_load(&self, key: BlockKey) -> Lookup {
        self.get_or_load_of(key, self.slot_bytes())
    }

    /// The block, or the duty to load its `len` bytes: into a frame, or into a part of one when it would leave much of it
    /// empty. Evicts to make room; never waits.
    #[must_use]
    pub fn get_or_load_of(&self, key: BlockKey, len: usize) -> Lookup {
        if let Some(view) = self.view(key) {
            return Lookup::Found(Ticket::ready(view));
        }
        let mut inner = self.lock();
        if let Some(ticket) = self.find(&inner, key) {
            return Lookup::Found(ticket);
        }
        let blank = if Packs::shares(len, self.slot_bytes()) {
            self.take_part(&mut inner, key, len)
        } else {
            self.take_frame(&mut inner)
        };
        let Some(blank) = blank else { return Lookup::Full };
        let flight = Arc::new(Flight::default());
        inner.loading.insert(key, Arc::clone(&flight));
        Lookup::Load(flight, blank)
    }

    fn take_frame(&self, inner: &mut Inner) -> Option<Blank> {
        self.frames.take_blank().or_else(|| self.evict(inner))
    }

    fn take_part(&self, inner: &mut Inner, key: BlockKey, len: usize) -> Option<Blank> {
        let frame_bytes = self.slot_bytes();
        let place = match inner.packs.take(len, frame_bytes) {
            Some(place) => Some(place),
            None => {
                let frame = self.frames.share(self.take_frame(inner)?, key);
                self.reads[to_usize(u64::from(frame))].store(0, Ordering::Relaxed);
                inner.shared.insert(frame, Link::default());
                // It counts from now on, since it may be evicted as soon as nobody fills a part of it.
                inner.policy.inserted(frame, key);
                inner.packs.open(frame);
                inner.packs.take(len, frame_bytes)
            }
        };
        let (frame, start) = place?;
        let u32_of = |bytes| u32::try_from(bytes).expect("a frame of at most 16 MiB");
        self.frames.part(Part { frame, start: u32_of(start), len: u32_of(len) })
    }

    fn evict(&self, inner: &mut Inner) -> Option<Blank> {
        let mut leaving = Leaving { tier: self, taken: None };
        inner.policy.evict(&mut leaving)?;
        let blank = leaving.taken?;
        let evicted = match inner.shared.remove(&blank.frame()) {
            None => {
                let tag = self.frames.tag(blank.frame());
                self.table.remove(tag, |frame| self.frames.tag(frame));
                1
            }
            Some(blocks) => {
                inner.packs.forget(blank.frame());
                self.packed.remove_all(blocks)
            }
        };
        self.evictions.fetch_add(to_u64(evicted), Ordering::Relaxed);
        Some(blank)
    }

    /// Ends a load with the first `len` bytes of `blank`.
    pub fn publish(&self, key: BlockKey, flight: &Flight, blank: Blank, len: usize) {
        let (frame, start, shared) = (blank.frame(), blank.start(), blank.is_part());
        let mut inner = self.lock();
        let view = self.frames.publish(blank, key, len);
        if shared {
            let len = u32::try_from(len).expect("within a frame");
            let blocks = inner.shared.entry(frame).or_default();
            *blocks = self.packed.insert(key.tag(), Part { frame, start, len }, *blocks);
        } else {
            self.reads[to_usize(u64::from(frame))].store(0, Ordering::Relaxed);
            self.table.insert(key.tag(), frame);
            inner.policy.inserted(frame, key);
        }
        inner.loading.remove(&key);
        drop(inner);
        flight.end(Ok(view));
    }

    /// Ends a load with an error; the next one who asks loads again.
    pub fn fail(&self, key: BlockKey, flight: &Flight, error: Error) {
        self.lock().loading.remove(&key);
        flight.end(Err(error));
    }

    /// How its memory is used. Looks at every frame.
    #[must_use]
    pub fn usage(&self) -> L1Usage {
        let shared = self.lock().shared.len();
        let (resident, used_bytes) = self.frames.used();
        L1Usage {
            blocks: to_u64((resident + self.packed.len()).saturating_sub(shared)),
            frames: to_u64(self.frames.count()),
            resident: to_u64(resident),
            packed_blocks: to_u64(self.packed.len()),
            committed_bytes: to_u64(resident * self.frames.frame_bytes()),
            used_bytes,
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}

impl Drop for MemoryTier {
    fn drop(&mut self) {
        self.frames.let_go();
    }
}

/// What a policy sees of the tier while it chooses.
struct Leaving<'a> {
    tier: &'a MemoryTier,
    taken: Option<Blank>,
}

impl Residents for Leaving<'_> {
    fn reads(&self, frame: u32) -> u8 {
        self.tier.reads[to_usize(u64::from(frame))].load(Ordering::Relaxed)
    }

    fn set_reads(&mut self, frame: u32, reads: u8) {
        self.tier.reads[to_usize(u64::from(frame))].store(reads, Ordering::Relaxed);
    }

    fn key(&self, frame: u32) -> BlockKey {
        // Of the first block of those that share it.
        BlockKey::of_tag(self.tier.frames.tag(frame))
    }

    fn take_out(&mut self, frame: u32) -> bool {
        if self.taken.is_none() {
            self.taken = self.tier.frames.take_out(frame);
            return self.taken.is_some();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::buf::HeapAllocator;
    use crate::error::ErrorKind;
    use crate::testing::{Random, announce_seed};
    use crate::tier::{FileNo, S3Fifo};

    fn tier(slots: usize) -> MemoryTier {
        MemoryTier::new(4096, slots, &HeapAllocator, Box::new(S3Fifo::new(slots))).unwrap()
    }

    fn key(block: u32) -> BlockKey {
        BlockKey { file: FileNo(1), block }
    }

    fn load(tier: &MemoryTier, block: u32) {
        let Lookup::Load(flight, mut slot) = tier.get_or_load(key(block)) else {
            panic!("{block} is not to be loaded")
        };
        slot[0] = u8::try_from(block % 256).unwrap();
        tier.publish(key(block), &flight, slot, 1);
    }

    #[test]
    fn one_load_serves_all_who_wait() {
        let tier = tier(2);
        let Lookup::Load(flight, mut slot) = tier.get_or_load(key(7)) else { panic!("empty tier") };
        let Lookup::Found(second) = tier.get_or_load(key(7)) else { panic!("a second load") };
        assert!(second.try_get().is_none() && tier.view(key(7)).is_none());
        assert_eq!(second.wait(Duration::ZERO).unwrap_err().kind(), ErrorKind::Retry);
        slot[..2].copy_from_slice(b"hi");
        tier.publish(key(7), &flight, slot, 2);
        assert_eq!(&second.wait(Duration::ZERO).unwrap()[..], b"hi");
        assert_eq!(&tier.get(key(7)).unwrap().try_get().unwrap().unwrap()[..], b"hi");
        assert_eq!(&tier.view(key(7)).unwrap()[..], b"hi");
    }

    #[test]
    fn a_failed_load_is_told_to_all_and_tried_again_by_the_next() {
        let tier = tier(2);
        let Lookup::Load(flight, slot) = tier.get_or_load(key(1)) else { panic!("empty tier") };
        let waiting = tier.get(key(1)).unwrap();
        drop(slot);
        tier.fail(key(1), &flight, Error::new(ErrorKind::Corrupt, "read", "bad"));
        assert_eq!(waiting.wait(Duration::ZERO).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(matches!(tier.get_or_load(key(1)), Lookup::Load(..)));
    }

    #[test]
    fn blocks_in_use_are_never_evicted() {
        let tier = tier(3);
        (0..3).for_each(|block| load(&tier, block));
        let held = tier.get(key(1)).unwrap().wait(Duration::ZERO).unwrap();
        (3..50).for_each(|block| load(&tier, block));
        assert_eq!(held[0], 1);
        let usage = tier.usage();
        assert_eq!(
            (usage.resident, usage.committed_bytes, usage.used_bytes, usage.evictions),
            (3, 12288, 3, 47)
        );
        assert!((usage.fragmentation_percent() - 99.97).abs() < 0.01);
        let all: Vec<Ticket> = (0..50).filter_map(|block| tier.get(key(block))).collect();
        assert_eq!(all.len(), 3);
        assert!(matches!(tier.get_or_load(key(99)), Lookup::Full));
        drop((all, held));
        load(&tier, 99);
    }

    #[test]
    fn small_blocks_share_frames_and_leave_together() {
        let tier = tier(3);
        let load = |block: u32, len: usize| {
            let Lookup::Load(flight, mut slot) = tier.get_or_load_of(key(block), len) else { return false };
            assert_eq!(slot.len(), if len > 3840 { 4096 } else { len });
            slot.fill(u8::try_from(block % 256).unwrap());
            tier.publish(key(block), &flight, slot, len);
            true
        };
        assert!((0..8).all(|block| load(block, 500)) && load(8, 4000));
        let usage = tier.usage();
        assert_eq!((usage.resident, usage.blocks, usage.packed_blocks, usage.used_bytes), (2, 9, 8, 8000));
        let view = tier.view(key(3)).unwrap();
        assert!(view[..] == [3; 500] && tier.view(key(9)).is_none() && tier.has(key(7)));
        // Two frames more than there are: the whole one goes, and the shared one not while a block of it is viewed.
        assert!(load(20, 4096) && load(21, 4096));
        assert!((0..8).all(|block| tier.view(key(block)).is_some()) && tier.view(key(8)).is_none());
        let others = [tier.view(key(20)), tier.view(key(21))];
        assert!(matches!(tier.get_or_load_of(key(30), 4096), Lookup::Full));
        drop(view);
        assert!(load(30, 4096), "all eight leave for it");
        assert!((0..8).all(|block| !tier.has(key(block))));
        assert_eq!((tier.usage().packed_blocks, tier.usage().evictions), (0, 9));
        drop(others);
        // A load that fails leaves a part empty, and a frame that can be evicted all the same.
        let Lookup::Load(flight, slot) = tier.get_or_load_of(key(40), 10) else { panic!("it is not here") };
        drop(slot);
        tier.fail(key(40), &flight, Error::new(ErrorKind::Corrupt, "read", "bad"));
        assert!((50..60).all(|block| load(block, 4096)) && !tier.has(key(40)));
    }

    #[test]
    fn packed_and_whole_blocks_come_and_go_as_in_a_model() {
        for seed in 0..8 {
            announce_seed("L1 with blocks of all lengths", seed);
            let mut random = Random::new(seed);
            let tier = tier(12);
            let len_of = |block: u32| to_usize(u64::from(block) * 7919 % 4097);
            let byte_of = |block: u32| u8::try_from(block % 251).unwrap();
            let mut held: Vec<BlockRef> = Vec::new();
            for _ in 0..30_000 {
                let block = u32::try_from(random.below(300)).unwrap();
                match tier.get_or_load_of(key(block), len_of(block)) {
                    Lookup::Found(ticket) => held.push(ticket.try_get().unwrap().unwrap()),
                    Lookup::Load(flight, slot) if random.one_in(20) => {
                        drop(slot);
                        tier.fail(key(block), &flight, Error::new(ErrorKind::Device, "read", "bad"));
                    }
                    Lookup::Load(flight, mut slot) => {
                        slot[..len_of(block)].fill(byte_of(block));
                        tier.publish(key(block), &flight, slot, len_of(block));
                    }
                    Lookup::Full => held.clear(),
                }
                if held.len() > 4 {
                    held.swap_remove(to_usize(random.below(4)));
                }
                for view in &held {
                    let of = view.key().block;
                    assert!(view.len() == len_of(of) && view.iter().all(|byte| *byte == byte_of(of)));
                }
            }
            let usage = tier.usage();
            assert!(usage.resident <= 12 && usage.used_bytes <= usage.committed_bytes, "{usage:?}");
        }
    }

    #[test]
    fn readers_get_their_block_or_none_while_others_come_and_go() {
        const BLOCKS: u64 = 40;
        let tier = tier(16);
        let seed = 5;
        announce_seed("L1 under two readers and two loaders", seed);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let tier = &tier;
                scope.spawn(move || {
                    let mut random = Random::new(seed + thread);
                    for _ in 0..30_000 {
                        let block = u32::try_from(random.below(BLOCKS)).unwrap();
                        let view = if thread < 2 {
                            tier.view(key(block))
                        } else {
                            match tier.get_or_load(key(block)) {
                                Lookup::Found(ticket) => Some(ticket.wait(Duration::from_secs(60)).unwrap()),
                                Lookup::Full => None,
                                Lookup::Load(flight, mut slot) => {
                                    slot.fill(u8::try_from(block).unwrap());
                                    tier.publish(key(block), &flight, slot, 4096);
                                    None
                                }
                            }
                        };
                        if let Some(view) = view {
                            assert_eq!(view.key(), key(block));
                            assert!(view.iter().all(|byte| u32::from(*byte) == block), "block {block}");
                        }
                    }
                });
            }
        });
        let usage = tier.usage();
        assert!(usage.resident == 16 && usage.evictions > 100, "{usage:?}");
    }
}
