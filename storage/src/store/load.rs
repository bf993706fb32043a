//! Loading a block: read its sealed bytes from L2 or L3, authenticate and open them into an L1 slot, offer them to L2.
//!
//! Reads run on the I/O thread, opening on the codec threads; a load passes between them by channels that have room for
//! every buffer there is, so that no thread ever waits for another's queue. A load that is lost on the way (shutdown)
//! still ends its flight, with `Closed`.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::sealed_file::SealedFile;
use crate::buf::Slot;
use crate::codec::Scratch;
use crate::error::{Error, ErrorKind, Result};
use crate::format::BlockKind;
use crate::host::Mistake;
use crate::io::{Lane, Op, Priority, Request};
use crate::metrics::TierName;
use crate::tier::{Blank, BlockKey, Flight, L2Block, SealedPlace};
use crate::units::to_u64;

/// Reads of one block from L3 before its error is final: one more than once, because a transfer can go wrong between
/// device and memory while the device holds the right bytes.
const L3_ATTEMPTS: u32 = 2;

/// Where the sealed bytes of a block are read from.
pub(super) enum Source {
    L2(L2Block),
    L3(SealedPlace),
}

impl Source {
    fn place(&self) -> &SealedPlace {
        match self {
            Self::L2(block) => &block.place,
            Self::L3(place) => place,
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

/// What the I/O thread hands to the codec threads.
pub(super) enum Job {
    /// A read ended.
    Arrived { load: Load, from: Source, outcome: Result<()>, buf: Option<Slot> },
    /// No more jobs will come.
    Stop,
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
        match self.core.l2.as_ref().and_then(|l2| l2.lookup(self.key)) {
            Some(block) => self.read(Source::L2(block), buf),
            None => self.read_from_l3(buf),
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
        let place = from.place();
        let mut op = Op::read(Arc::clone(&place.file), place.offset, place.len, buf);
        op.tag = self.key.tag();
        let (priority, deadline) = (self.priority, self.deadline);
        let lane = match &from {
            Source::L2(block) => Lane::fast(block.device),
            Source::L3(_) if self.file.is_on_l2() => Lane::Fast,
            Source::L3(_) => Lane::Slow,
        };
        let done = Box::new(move |op: Option<Op>, result: Result<()>| {
            let core = Arc::clone(&self.core);
            let buf = op.and_then(|op| op.buf);
            core.hand_over(Job::Arrived { load: self, from, outcome: result, buf });
        });
        core.io.submit(Request { op, lane, priority, deadline, done });
    }

    /// On a codec thread: opens what arrived, or tries the next place.
    pub(super) fn arrived(
        mut self,
        from: &Source,
        outcome: Result<()>,
        buf: Option<Slot>,
        scratch: &mut Scratch,
    ) {
        let core = Arc::clone(&self.core);
        let _span = tracing::trace_span!("arrived", key = ?self.key, tier = ?from.tier()).entered();
        // Without its buffer the engine broke down, and without its slot the load has ended.
        let (Some(buf), Some(mut slot)) = (buf, self.slot.take()) else {
            return self.fail(Error::new(ErrorKind::Closed, "read", "the I/O engine broke down"));
        };
        if let Err(error) = outcome {
            core.metrics.read_error();
            self.slot = Some(slot);
            return self.next_place(from, error, buf);
        }
        core.metrics.took(from.tier(), core.config.clock.now().saturating_sub(self.asked_at));
        let place = from.place();
        let stored = &buf[..place.len];
        let mut opened = open(&core, &self.file, self.key, stored, &mut slot, scratch);
        if from.tier() == TierName::L2 && Mistake::TrustsL2.is_made() {
            opened = Ok(self.file.plain_bytes(u64::from(self.key.block)));
        }
        match opened {
            Ok(len) => {
                let on_l2 = self.file.is_on_l2();
                let (tier, bytes) = (if on_l2 { TierName::L2 } else { from.tier() }, to_u64(place.len));
                core.metrics.hit(tier, bytes);
                core.l1.publish(self.key, &self.flight, slot, len);
                match from {
                    Source::L2(block) => {
                        if let Some(l2) = &core.l2 {
                            l2.read_succeeded(block.device);
                        }
                    }
                    // An object that lies on L2 itself needs no second copy there.
                    Source::L3(_) if on_l2 => {}
                    Source::L3(_) => offer_to_l2(&core, &self.file, self.key, place.len, buf, self.dropped),
                }
            }
            Err(error) => {
                self.slot = Some(slot);
                let error = error.at_offset(place.offset, to_u64(place.len)).at(place.file.path());
                self.next_place(from, error, buf);
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

/// Writes the sealed bytes that were just read to L2, if it takes them. The buffer travels with the write.
fn offer_to_l2(core: &Arc<Core>, file: &SealedFile, key: BlockKey, len: usize, buf: Slot, healing: bool) {
    let Some(l2) = &core.l2 else { return };
    let Some(reservation) = l2.admit(key, file.header().params.data_set_id, len) else { return };
    let op = Op::write(Arc::clone(&reservation.place.file), reservation.place.offset, len, buf);
    let (owner, lane) = (Arc::clone(core), Lane::fast(reservation.device));
    let done = Box::new(move |_, result: Result<()>| {
        let Some(l2) = &owner.l2 else { return };
        match result {
            Ok(()) => {
                owner.metrics.admitted(to_u64(len));
                if healing {
                    owner.metrics.healed();
                }
                l2.commit(&reservation);
            }
            Err(error) => l2.give_up(&reservation, &error),
        }
    });
    core.io.submit(Request { op, lane, priority: Priority::Background, deadline: 0, done });
}
