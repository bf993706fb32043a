//! Loading a block: read its sealed bytes from L2 or L3, authenticate and open them into an L1 slot, offer them to L2.
//!
//! Reads run on the I/O thread, opening on the codec threads; a load passes between them by channels that have room for
//! every buffer there is, so that no thread ever waits for another's queue. Blocks that lie side by side are read as one
//! and opened out of one buffer; when that read fails each is read by itself, so that an error names the block it belongs
//! to. A load that is lost on the way (shutdown) still ends its flight, with `Closed`.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::core::Core;
use super::sealed_file::{SealedFile, ShardPlace};
use crate::buf::Slot;
use crate::codec::Scratch;
use crate::error::{Error, ErrorKind, Result};
use crate::format::BlockKind;
use crate::home::RangedRead;
use crate::host::Mistake;
use crate::io::{Lane, Op, Priority, Request};
use crate::metrics::TierName;
use crate::tier::{Blank, BlockKey, Flight, L2Block, Reservation};
use crate::units::to_u64;

/// Reads of one block from L3 before its error is final: one more than once, because a transfer can go wrong between
/// device and memory while the device holds the right bytes.
const L3_ATTEMPTS: u32 = 2;

/// Where the sealed bytes of a block are read from.
pub(super) enum Source {
    L2(L2Block),
    L3(ShardPlace),
}

impl Source {
    /// The file, as numbers that tell it from others and order those of a device, and the offset there.
    pub(super) fn place(&self) -> ((u64, usize), u64) {
        match self {
            Self::L2(L2Block { place, .. }) => {
                ((place.file.order(), Arc::as_ptr(&place.file).addr()), place.offset)
            }
            // One call asks for blocks of one file of L3.
            Self::L3(place) => ((0, Arc::as_ptr(&place.file).cast::<()>().addr()), place.offset),
        }
    }

    /// Length of the stored bytes.
    fn len(&self) -> usize {
        match self {
            Self::L2(block) => block.place.len,
            Self::L3(place) => place.len,
        }
    }

    /// The error at this place.
    fn at_place(&self, error: Error) -> Error {
        let path = match self {
            Self::L2(block) => block.place.file.path(),
            Self::L3(place) => place.file.path(),
        };
        error.at_offset(self.place().1, to_u64(self.len())).at(path)
    }

    /// What reads from its file.
    fn reader(&self, core: &Arc<Core>) -> impl FnOnce(RangedRead) + use<> {
        let core = Arc::clone(core);
        let from = match self {
            Self::L2(block) => Ok((Arc::clone(&block.place.file), Lane::fast(block.device))),
            Self::L3(place) => Err(Arc::clone(&place.file)),
        };
        move |read| match from {
            Ok((file, lane)) => {
                let RangedRead { offset, len, buf, tag, more_tags, priority, deadline, done } = read;
                let op = Op { tag, more_tags, ..Op::read(file, offset, len, buf) };
                let done = Box::new(move |op: Option<Op>, result| done(op.and_then(|op| op.buf), result));
                core.io.submit(Request { op, lane, priority, deadline, done });
            }
            Err(file) => file.read(&core.io, read),
        }
    }

    fn tier(&self) -> TierName {
        match self {
            Self::L2(_) => TierName::L2,
            Self::L3(_) => TierName::L3,
        }
    }
}

/// A block on its way into L1.
pub(super) struct Load {
    core: Arc<Core>,
    key: BlockKey,
    file: Arc<SealedFile>,
    flight: Arc<Flight>,
    // The frame of L1 to open into; taken when the load ends.
    slot: Option<Blank>,
    priority: Priority,
    deadline: u64,
    l3_attempts: u32,
    // It was damaged or unreadable on L2.
    dropped: bool,
    // When its bytes were asked for.
    asked_at: Duration,
}

/// Blocks that a codec thread opens before it looks for other work: enough to pay for waking it, few enough that two
/// threads share a read of 1 MiB.
const JOB_BLOCKS: usize = 4;

/// A load whose read ended.
pub(super) struct Arrived {
    load: Load,
    from: Source,
    outcome: Result<()>,
    buf: Option<Slot>,
}

/// What the I/O thread hands to the codec threads.
pub(super) enum Job {
    /// A read of one block ended.
    One(Arrived),
    /// A read of several ended, of which these are some.
    Several(Vec<Arrived>),
    /// No more jobs will come.
    Stop,
}

impl Job {
    /// Does it, on a codec thread; false when no more will come.
    pub(super) fn run(self, scratch: &mut Scratch) -> bool {
        let open = |Arrived { load, from, outcome, buf }: Arrived, scratch: &mut Scratch| {
            let core = Arc::clone(&load.core);
            (core, load.arrived(from, outcome, buf, scratch))
        };
        match self {
            Self::One(arrived) => {
                if let (core, Some(offer)) = open(arrived, scratch) {
                    offer_to_l2(&core, [offer]);
                }
            }
            Self::Several(several) => {
                // Offered together, so that they lie side by side there as well.
                let opened: Vec<_> = several.into_iter().map(|arrived| open(arrived, scratch)).collect();
                let Some(core) = opened.first().map(|(core, _)| Arc::clone(core)) else { return true };
                offer_to_l2(&core, opened.into_iter().filter_map(|(_, offer)| offer));
            }
            Self::Stop => return false,
        }
        true
    }
}

/// Loads whose sealed bytes lie side by side, each where the one before ends.
pub(super) struct Run {
    loads: Vec<(Load, Source)>,
    bytes: usize,
}

impl Run {
    pub(super) fn new(load: Load, from: Source) -> Self {
        let bytes = from.len();
        Self { loads: vec![(load, from)], bytes }
    }

    /// Takes a load that begins where the run ends, or gives it back.
    pub(super) fn extend(&mut self, load: Load, from: Source) -> Option<(Load, Source)> {
        let (_, last) = self.loads.last()?;
        let (file, offset) = last.place();
        if (file, offset + to_u64(last.len())) != from.place() {
            return Some((load, from));
        }
        self.bytes += from.len();
        self.loads.push((load, from));
        None
    }

    /// Reads all of them as one into bytes cut from `buf`, which has enough.
    pub(super) fn start(mut self, buf: &mut Slot) {
        let buf = buf.cut(self.bytes);
        if self.loads.len() == 1
            && let Some((load, from)) = self.loads.pop()
        {
            return load.read(from, buf);
        }
        let Some((first, from)) = self.loads.first() else { return };
        let (core, offset, len) = (Arc::clone(&first.core), from.place().1, self.bytes);
        let read = from.reader(&core);
        let tags = || self.loads.iter().map(|(load, _)| load.key.tag());
        let tag = tags().min().unwrap_or(0);
        let more_tags = tags().max().unwrap_or(0) - tag;
        let (priority, deadline) = (first.priority, first.deadline);
        let now = core.config.clock.now();
        self.loads.iter_mut().for_each(|(load, _)| load.asked_at = now);
        let done = Box::new(move |buf, outcome: Result<()>| self.arrived(buf, &outcome));
        read(RangedRead { offset, len, buf, tag, more_tags, priority, deadline, done });
    }

    /// On the I/O thread: hands out what was read.
    fn arrived(self, buf: Option<Slot>, outcome: &Result<()>) {
        let Some(core) = self.loads.first().map(|(load, _)| Arc::clone(&load.core)) else { return };
        let mut buf = buf;
        // What is to lie side by side on L2 is one job; an L3 is too slow to keep a second thread busy.
        let for_l2 = core.l2.is_some() && self.loads.iter().any(|(_, from)| matches!(from, Source::L3(_)));
        let job_blocks = if for_l2 { self.loads.len() } else { JOB_BLOCKS };
        let mut several = Vec::with_capacity(job_blocks.min(self.loads.len()));
        let mut left = self.loads.len();
        for (load, from) in self.loads {
            let own = buf.as_mut().map(|buf| buf.cut(from.len()));
            left -= 1;
            match (own, outcome) {
                // As one it could not be read: by itself, unless the store is closing.
                (Some(own), Err(error)) if error.kind() != ErrorKind::Closed => load.read(from, own),
                (own, outcome) => {
                    several.push(Arrived { load, from, outcome: outcome.clone(), buf: own });
                    if several.len() == job_blocks || left == 0 {
                        let next = Vec::with_capacity(job_blocks.min(left));
                        core.hand_over(Job::Several(std::mem::replace(&mut several, next)));
                    }
                }
            }
        }
    }
}

impl Load {
    pub(super) fn new(
        core: &Arc<Core>,
        key: BlockKey,
        file: Arc<SealedFile>,
        (flight, slot): (Arc<Flight>, Blank),
        (priority, deadline): (Priority, u64),
    ) -> Self {
        let (core, slot) = (Arc::clone(core), Some(slot));
        let (dropped, asked_at) = (false, Duration::ZERO);
        Self { core, key, file, flight, slot, priority, deadline, l3_attempts: 0, dropped, asked_at }
    }

    /// Reads the block from the highest tier that has it, into `buf`.
    pub(super) fn start(self, buf: Slot) {
        if let Some((load, from)) = self.locate() {
            load.read(from, buf);
        }
    }

    /// Where the highest tier that has the block has it; a load that cannot know has failed.
    pub(super) fn locate(mut self) -> Option<(Self, Source)> {
        if let Some(block) = self.core.l2.as_ref().and_then(|l2| l2.lookup(self.key)) {
            return Some((self, Source::L2(block)));
        }
        self.l3_attempts += 1;
        match self.file.place(BlockKind::Data, u64::from(self.key.block)) {
            Ok(place) => Some((self, Source::L3(place))),
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    fn read_from_l3(mut self, buf: Slot) {
        self.l3_attempts += 1;
        match self.file.place(BlockKind::Data, u64::from(self.key.block)) {
            Ok(place) => self.read(Source::L3(place), buf),
            Err(error) => self.fail(error),
        }
    }

    fn read(mut self, from: Source, buf: Slot) {
        let core = Arc::clone(&self.core);
        self.asked_at = core.config.clock.now();
        let len = from.len();
        if len > buf.len() {
            // Cut for the block's copy on another tier, which was shorter: what is read here is not the same file.
            let why = format!("{len} stored bytes, expected at most {}", buf.len());
            let error = from.at_place(Error::new(ErrorKind::Corrupt, "read", why));
            return self.fail(error);
        }
        let (read, offset, tag) = (from.reader(&core), from.place().1, self.key.tag());
        let (priority, deadline) = (self.priority, self.deadline);
        let done = Box::new(move |buf, outcome| {
            core.hand_over(Job::One(Arrived { load: self, from, outcome, buf }));
        });
        read(RangedRead { offset, len, buf, tag, more_tags: 0, priority, deadline, done });
    }

    /// On a codec thread: opens what arrived, or tries the next place. Returns what L2 may have.
    fn arrived(
        mut self,
        from: Source,
        outcome: Result<()>,
        buf: Option<Slot>,
        scratch: &mut Scratch,
    ) -> Option<Offer> {
        let core = Arc::clone(&self.core);
        let _span = tracing::trace_span!("arrived", key = ?self.key, tier = ?from.tier()).entered();
        // Without its buffer the engine broke down, and without its slot the load has ended.
        let (Some(buf), Some(mut slot)) = (buf, self.slot.take()) else {
            self.fail(Error::new(ErrorKind::Closed, "read", "the I/O engine broke down"));
            return None;
        };
        if let Err(error) = outcome {
            core.metrics.read_error();
            self.slot = Some(slot);
            self.next_place(&from, error, buf);
            return None;
        }
        core.metrics.took(from.tier(), core.config.clock.now().saturating_sub(self.asked_at));
        let stored = &buf[..from.len()];
        let mut opened = open(&core, &self.file, self.key, stored, &mut slot, scratch);
        if from.tier() == TierName::L2 && Mistake::TrustsL2.is_made() {
            opened = Ok(self.file.plain_bytes(u64::from(self.key.block)));
        }
        match opened {
            Ok(len) => {
                let on_l2 = self.file.is_on_l2();
                let (tier, bytes) = (if on_l2 { TierName::L2 } else { from.tier() }, to_u64(from.len()));
                core.metrics.hit(tier, bytes);
                core.l1.publish(self.key, &self.flight, slot, len);
                match from {
                    Source::L2(block) => {
                        if let Some(l2) = &core.l2 {
                            l2.read_succeeded(block.device);
                        }
                        None
                    }
                    // An object that lies on L2 itself needs no second copy there.
                    Source::L3(_) if on_l2 => None,
                    Source::L3(place) => {
                        let (file, healing) = (Arc::clone(&self.file), self.dropped);
                        Some(Offer { key: self.key, file, len: place.len, buf, healing })
                    }
                }
            }
            Err(error) => {
                self.slot = Some(slot);
                self.next_place(&from, from.at_place(error), buf);
                None
            }
        }
    }

    /// L2 failed: forget the block there and go to L3. L3 failed: once more, then give up.
    fn next_place(mut self, from: &Source, error: Error, buf: Slot) {
        if error.kind() == ErrorKind::Closed {
            return self.fail(error);
        }
        if let Source::L2(block) = from {
            tracing::warn!(%error, "a block of L2 is dropped and read from L3");
            self.core.metrics.dropped();
            self.dropped = true;
            if let Some(l2) = &self.core.l2 {
                l2.forget(self.key, block, &error);
            }
        } else if self.l3_attempts >= L3_ATTEMPTS {
            let verify =
                "run `tierstream verify` to see what else is damaged, then restore the shard from its source";
            return self.fail(error.hint(verify));
        }
        self.read_from_l3(buf);
    }

    pub(super) fn fail(mut self, error: Error) {
        // The slot is free again before anybody who waits hears of the failure and asks for it.
        drop(self.slot.take());
        self.core.l1.fail(self.key, &self.flight, error);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            drop(slot);
            let error = Error::new(ErrorKind::Closed, "read", "the store is shutting down");
            self.core.l1.fail(self.key, &self.flight, error);
        }
    }
}

/// Opens `stored` into `slot`; returns the payload bytes of the block.
fn open(
    core: &Core,
    file: &SealedFile,
    key: BlockKey,
    stored: &[u8],
    slot: &mut [u8],
    scratch: &mut Scratch,
) -> Result<usize> {
    let number = u64::from(key.block);
    let len = file.plain_bytes(number);
    let began = core.config.clock.now();
    file.codec().open(BlockKind::Data, number, len, stored, slot, scratch)?;
    core.metrics.opened(to_u64(stored.len()), core.config.clock.now().saturating_sub(began));
    Ok(len)
}

/// Sealed bytes that were just read from L3 and are right.
struct Offer {
    key: BlockKey,
    file: Arc<SealedFile>,
    len: usize,
    buf: Slot,
    healing: bool,
}

/// Blocks that are written to L2 as one: each where the one before ends, on the device and in memory.
struct Admitted {
    reservations: Vec<(Reservation, bool)>,
    bytes: usize,
    buf: Slot,
}

impl Admitted {
    /// Takes a block that lies behind, or gives it back.
    fn extend(&mut self, reservation: Reservation, offer: Offer) -> Option<(Reservation, Offer)> {
        let (first, next) = (&self.reservations[0].0.place, &reservation.place);
        if !Arc::ptr_eq(&first.file, &next.file) || first.offset + to_u64(self.bytes) != next.offset {
            return Some((reservation, offer));
        }
        let Offer { key, file, len, buf, healing } = offer;
        match self.buf.join(buf) {
            None => {
                self.reservations.push((reservation, healing));
                self.bytes += len;
                None
            }
            Some(buf) => Some((reservation, Offer { key, file, len, buf, healing })),
        }
    }

    /// Writes them. The buffer travels with the write.
    fn write(self, core: &Arc<Core>) {
        let Self { reservations, bytes, buf } = self;
        let first = &reservations[0].0;
        let op = Op::write(Arc::clone(&first.place.file), first.place.offset, bytes, buf);
        let (owner, lane) = (Arc::clone(core), Lane::fast(first.device));
        let done = Box::new(move |_, result: Result<()>| {
            let Some(l2) = &owner.l2 else { return };
            for (reservation, healing) in &reservations {
                match &result {
                    Ok(()) => {
                        owner.metrics.admitted(to_u64(reservation.place.len));
                        if *healing {
                            owner.metrics.healed();
                        }
                        l2.commit(reservation);
                    }
                    Err(error) => l2.give_up(reservation, error),
                }
            }
        });
        core.io.submit(Request { op, lane, priority: Priority::Background, deadline: 0, done });
    }
}

/// Writes to L2 what it takes of `offers`.
fn offer_to_l2(core: &Arc<Core>, offers: impl IntoIterator<Item = Offer>) {
    let Some(l2) = &core.l2 else { return };
    let mut writes: Vec<Admitted> = Vec::new();
    // One thread at a time, so that blocks that came together lie together.
    let turn = core.admitting.lock().unwrap_or_else(PoisonError::into_inner);
    for offer in offers {
        let Some(reservation) = l2.admit(offer.key, offer.file.header().params.data_set_id, offer.len) else {
            continue;
        };
        let next = match writes.last_mut() {
            Some(write) => write.extend(reservation, offer),
            None => Some((reservation, offer)),
        };
        if let Some((reservation, Offer { len, buf, healing, .. })) = next {
            writes.push(Admitted { reservations: vec![(reservation, healing)], bytes: len, buf });
        }
    }
    drop(turn);
    writes.into_iter().for_each(|write| write.write(core));
}
