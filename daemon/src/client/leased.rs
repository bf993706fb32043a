//! Reading under leases: blocks are asked for through the ring, copied out of L1 into the caller's buffers, and kept for
//! the next read as long as the daemon lets this client hold them.
//!
//! Small reads of a shuffled job come back to the same blocks: a block that is still held costs no request. What is held
//! is less than the daemon allows; the block that was not used for longest goes first (second chance).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::Timespec;
use tierstream_storage::format::capacity;
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeRead, Result};

use crate::local::fds;
use crate::local::ring::{ClientEnd, ENTRIES, Granted, LeaseId, Submission, WORDS};
use crate::local::service::SPINS;
use crate::local::shm::{BlockMemory, SharedWords};
use crate::protocol::{broken, misuse};

/// Requests open at a time: enough to keep a device busy, and a quarter of the ring.
const WINDOW: usize = ENTRIES / 4;
/// Releases that may wait in the ring of a daemon that sleeps.
const LAZY_RELEASES: u32 = 16;
/// A daemon that answers nothing for this long is stuck: longer than it waits for a device itself.
const SLEEPS_MAX: u32 = 90;
const SLEEP: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// A block, as the daemon knows it: data set, shard, number.
type Key = (u32, u32, u32);

/// Multiplies: keys are small numbers that nobody chooses to make them collide.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(value)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
struct Held {
    key: Key,
    granted: Granted,
    used: bool,
}

/// The ring and what is held through it.
#[derive(Debug)]
pub(crate) struct Leased {
    ring: ClientEnd,
    memory: Arc<BlockMemory>,
    // Rung by us, and by the daemon.
    submitted: OwnedFd,
    completed: OwnedFd,
    held: Vec<Held>,
    places: HashMap<Key, usize, BuildHasherDefault<Mix>>,
    hand: usize,
    // Leases that callers hold.
    lent: usize,
    lazy: u32,
}

/// What the daemon answered to a request by its number.
type Answer = (usize, Option<Granted>);

impl Leased {
    pub(crate) fn new(l1_bytes: u64, [l1, ring, submitted, completed]: [OwnedFd; fds::FDS]) -> Result<Self> {
        Ok(Self {
            ring: ClientEnd::new(SharedWords::map(&ring, WORDS)?),
            memory: BlockMemory::map(&l1, l1_bytes)?,
            submitted,
            completed,
            held: Vec::new(),
            places: HashMap::default(),
            hand: 0,
            lent: 0,
            lazy: 0,
        })
    }

    pub(crate) fn memory(&self) -> Arc<BlockMemory> {
        Arc::clone(&self.memory)
    }

    /// Fills what it can of `reads`; returns the numbers of those for which a lease was refused.
    pub(crate) fn read(
        &mut self,
        stream: &UnixStream,
        set: &DataSetInfo,
        remote: u32,
        reads: &mut [RangeRead<'_>],
    ) -> Result<Vec<usize>> {
        let capacity = capacity(set.block_bytes);
        let mut refused = Vec::new();
        // What each open request is for, and who else waits for the same block.
        let mut wanted: HashMap<Key, Vec<usize>, BuildHasherDefault<Mix>> = HashMap::default();
        let mut asked: Vec<Key> = Vec::new();
        for index in 0..reads.len() {
            let (shard, range) = (reads[index].shard, reads[index].range.clone());
            let shard = u32::try_from(shard).map_err(|_| misuse(format!("shard {shard}")))?;
            for number in range.start / capacity..range.end.div_ceil(capacity) {
                let number = u32::try_from(number).map_err(|_| misuse(format!("block {number}")))?;
                let key = (remote, shard, number);
                if let Some(place) = self.places.get(&key).copied() {
                    self.copy(place, capacity, &mut reads[index])?;
                    continue;
                }
                match wanted.get_mut(&key) {
                    Some(waiting) => waiting.push(index),
                    None => {
                        wanted.insert(key, vec![index]);
                        asked.push(key);
                    }
                }
                if asked.len() >= WINDOW.min(self.room()) {
                    self.fetch(stream, capacity, &mut asked, &mut wanted, reads, &mut refused)?;
                }
            }
        }
        self.fetch(stream, capacity, &mut asked, &mut wanted, reads, &mut refused)?;
        Ok(refused)
    }

    /// Asks for all blocks in `asked`, and fills the reads that want them.
    fn fetch(
        &mut self,
        stream: &UnixStream,
        capacity: u64,
        asked: &mut Vec<Key>,
        wanted: &mut HashMap<Key, Vec<usize>, BuildHasherDefault<Mix>>,
        reads: &mut [RangeRead<'_>],
        refused: &mut Vec<usize>,
    ) -> Result<()> {
        if asked.is_empty() {
            return Ok(());
        }
        self.make_room(stream, asked.len())?;
        let keys = std::mem::take(asked);
        let answers = self.ask(stream, &keys)?;
        for (number, granted) in answers {
            let key = *keys.get(number).ok_or_else(|| misuse("an answer to no request".to_owned()))?;
            let waiting = wanted.remove(&key).unwrap_or_default();
            let Some(granted) = granted else {
                refused.extend(waiting);
                continue;
            };
            self.places.insert(key, self.held.len());
            self.held.push(Held { key, granted, used: false });
            for index in waiting {
                self.copy(self.held.len() - 1, capacity, &mut reads[index])?;
            }
        }
        Ok(())
    }

    /// Copies what a held block has of a read to its place.
    fn copy(&mut self, place: usize, capacity: u64, read: &mut RangeRead<'_>) -> Result<()> {
        let held = self.held.get_mut(place).ok_or_else(|| misuse("a block that is not held".to_owned()))?;
        held.used = true;
        let block = self.memory.bytes(held.granted.offset, held.granted.len).unwrap_or_default();
        let block_start = u64::from(held.key.2) * capacity;
        let start = read.range.start.max(block_start);
        let end = read.range.end.min(block_start + to_u64(block.len()));
        let from = block.get(to_usize(start - block_start)..to_usize(end.max(start) - block_start));
        let to =
            read.to.get_mut(to_usize(start - read.range.start)..to_usize(end.max(start) - read.range.start));
        match (from, to) {
            (Some(from), Some(to)) if end == read.range.end.min(block_start + capacity) => {
                to.copy_from_slice(from);
                Ok(())
            }
            _ => Err(misuse(format!("block {:?} has {} bytes", held.key, block.len()))),
        }
    }

    /// Blocks that may be held for later.
    fn room(&self) -> usize {
        let quota = usize::try_from(self.ring.quota()).unwrap_or(usize::MAX);
        quota.saturating_sub(self.lent + WINDOW).max(1)
    }

    /// Lets go of blocks until `more` fit.
    fn make_room(&mut self, stream: &UnixStream, more: usize) -> Result<()> {
        let keep = self.room().saturating_sub(more);
        while self.held.len() > keep {
            self.hand = if self.hand >= self.held.len() { 0 } else { self.hand };
            let candidate = &mut self.held[self.hand];
            if std::mem::take(&mut candidate.used) {
                self.hand += 1;
                continue;
            }
            let gone = self.held.swap_remove(self.hand);
            self.places.remove(&gone.key);
            if let Some(moved) = self.held.get(self.hand) {
                self.places.insert(moved.key, self.hand);
            }
            self.submit(stream, Submission::Release(gone.granted.lease))?;
        }
        Ok(())
    }

    /// Leases for a caller to hold.
    pub(crate) fn lease_all(
        &mut self,
        stream: &UnixStream,
        remote: u32,
        blocks: &[(usize, u32)],
    ) -> Result<Vec<Granted>> {
        let mut granted = Vec::with_capacity(blocks.len());
        for blocks in blocks.chunks(WINDOW) {
            let key = |(shard, block): &(usize, u32)| {
                u32::try_from(*shard)
                    .map(|shard| (remote, shard, *block))
                    .map_err(|_| misuse(format!("shard {shard}")))
            };
            let keys = blocks.iter().map(key).collect::<Result<Vec<_>>>()?;
            let mut answers = self.ask(stream, &keys)?;
            answers.sort_unstable_by_key(|(number, _)| *number);
            granted.extend(answers.into_iter().filter_map(|(_, granted)| granted));
        }
        self.lent += granted.len();
        if granted.len() < blocks.len() {
            let why = format!("{} of {} blocks were leased", granted.len(), blocks.len());
            granted.into_iter().for_each(|granted| self.release(stream, granted.lease));
            return Err(Error::new(ErrorKind::Full, "lease", why)
                .hint("hold fewer at a time, or read copies: those say why a block cannot be read"));
        }
        Ok(granted)
    }

    /// Ends a caller's lease. The daemon is woken for it once in a while.
    pub(crate) fn release(&mut self, stream: &UnixStream, lease: LeaseId) {
        self.lent = self.lent.saturating_sub(1);
        // A daemon that is gone has no leases either.
        if self.submit(stream, Submission::Release(lease)).is_err() {
            return;
        }
        self.lazy += 1;
        if self.lazy >= LAZY_RELEASES {
            self.wake_daemon();
        }
    }

    fn wake_daemon(&mut self) {
        self.lazy = 0;
        if self.ring.must_wake_daemon() {
            fds::ring_bell(&self.submitted);
        }
    }

    fn submit(&mut self, stream: &UnixStream, submission: Submission) -> Result<()> {
        let mut turn = 0;
        while !self.ring.submit(submission) {
            // Full: the daemon takes entries in microseconds, unless it is gone.
            self.wake_daemon();
            turn += 1;
            if turn > SPINS {
                let now = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
                self.must_be_there(fds::wait(stream, &self.completed, Some(now))?, (turn - SPINS) / 1000)?;
            }
        }
        Ok(())
    }

    /// Asks for `keys`, at most [`WINDOW`], and waits for all answers.
    fn ask(&mut self, stream: &UnixStream, keys: &[Key]) -> Result<Vec<Answer>> {
        for (tag, (set, shard, block)) in keys.iter().enumerate() {
            let tag = u32::try_from(tag).map_err(|_| misuse(format!("request {tag}")))?;
            let (set, shard, block) = (*set, *shard, *block);
            self.submit(stream, Submission::Lease { tag, set, shard, block })?;
        }
        self.wake_daemon();
        let mut answers = Vec::with_capacity(keys.len());
        let (mut turn, mut sleeps) = (0, 0);
        while answers.len() < keys.len() {
            if let Some(completion) = self.ring.take()? {
                answers.push((to_usize(u64::from(completion.tag)), completion.granted));
                turn = 0;
                continue;
            }
            turn += 1;
            if turn >= SPINS && self.ring.may_sleep() {
                let said = fds::wait(stream, &self.completed, Some(SLEEP));
                self.ring.awake();
                sleeps += 1;
                self.must_be_there(said?, sleeps)?;
            }
        }
        Ok(answers)
    }

    /// While we wait at the ring the socket has nothing to say, but that the daemon hung up.
    fn must_be_there(&self, said: bool, sleeps: u32) -> Result<()> {
        if said && !self.ring.has_completions() {
            return Err(broken(std::io::ErrorKind::ConnectionReset.into()));
        }
        if sleeps >= SLEEPS_MAX {
            let why = format!("the daemon answered nothing for {sleeps} s");
            return Err(Error::new(ErrorKind::Retry, "read", why));
        }
        Ok(())
    }
}
