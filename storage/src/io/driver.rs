//! One engine with a bounded queue for each lane, driven by whoever owns it: the I/O thread of a service, or a thread
//! that does nothing else and saves the hop.
//!
//! Guarantees: a request's callback runs exactly once with the operation and its buffer; a read or write is whole or an
//! error; depth and bytes in flight of each lane are bounded. Neighbouring reads become one, whose bytes are copied to
//! their buffers; when it fails each is read by itself, so that an error names the read it belongs to.

use std::fmt;
use std::sync::Arc;

use super::config::{Lane, Priority, ServiceConfig};
use super::queue::LaneQueue;
use super::{Completion, Done, IoEngine, Op, OpKind, Request};
use crate::buf::{Arena, HeapAllocator};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{IoCounted, IoCounters};
use crate::units::{to_u64, to_usize};

/// Transient failures of one operation that are tried again before it fails.
const RETRIES_MAX: u32 = 16;
/// Merged reads that can be in flight on one lane at a time; more go one by one.
const MERGED_MAX: usize = 8;

/// An operation that the engine has, and whom it is for.
struct Flight {
    lane: usize,
    retries: u32,
    len: usize,
    whose: Whose,
}

enum Whose {
    One { tag: u64, done: Done },
    // The requests of a merged read, with their own buffers.
    Merged(Vec<Request>),
}

/// An engine with its queues. Made and used on one thread.
pub struct IoDriver {
    engine: Box<dyn IoEngine>,
    lanes: Vec<LaneQueue>,
    // Buffers of merged reads, one arena for each lane that merges.
    merging: Vec<Option<Arc<Arena>>>,
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    completed: Vec<Completion>,
    counted: IoCounted,
    counters: Arc<IoCounters>,
    stopping: bool,
}

impl fmt::Debug for IoDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoDriver({:?}, {} waiting)", self.engine, self.waiting())
    }
}

impl IoDriver {
    /// Queues before `engine` as `config` says.
    ///
    /// # Errors
    /// `Full` without memory for the buffers of merged reads.
    pub fn new(engine: Box<dyn IoEngine>, config: &ServiceConfig, counters: Arc<IoCounters>) -> Result<Self> {
        let mut merging = Vec::new();
        let lanes: Vec<_> = (0..config.lanes()).map(|lane| LaneQueue::new(config.limits(lane))).collect();
        for lane in &lanes {
            let span = lane.limits.merge.span_bytes;
            // Memory is taken from the system when it is first written.
            let make = || Arena::new("merge", span, MERGED_MAX.min(lane.limits.depth.max(1)), &HeapAllocator);
            merging.push((span > 0).then(make).transpose()?);
        }
        counters.engine(engine.report().name);
        Ok(Self {
            engine,
            lanes,
            merging,
            flights: Vec::new(),
            free: Vec::new(),
            completed: Vec::new(),
            counted: IoCounted::default(),
            counters,
            stopping: false,
        })
    }

    /// Requests that wait in the queues.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lanes.iter().map(LaneQueue::len).sum()
    }

    /// Operations that the engine has.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.engine.in_flight()
    }

    /// Queues a request.
    pub fn submit(&mut self, request: Request) {
        // A lane that this service was not set up with has no device of its own.
        let lane = request.lane.index();
        let lane = if lane < self.lanes.len() { lane } else { Lane::Fast.index() };
        self.lanes[lane].push(request);
    }

    /// Raises the priority of a queued request; one that is in flight or done is not affected.
    pub fn raise(&mut self, lane: Lane, tag: u64, priority: Priority) {
        if let Some(queue) = self.lanes.get_mut(lane.index()) {
            queue.raise(tag, priority);
        }
    }

    /// Hands the engine what fits: the first of every lane first.
    pub fn start(&mut self) {
        for index in 0..self.lanes.len() {
            while self.engine.room() > 0 {
                let Some(request) = self.lanes[index].pop() else { break };
                self.start_one(index, request);
            }
        }
    }

    fn start_one(&mut self, lane: usize, request: Request) {
        // Nobody else takes buffers of this arena, so that one that is free stays so.
        if let Some(arena) = self.merging[lane].as_ref().filter(|_| self.lanes[lane].len() > 0)
            && arena.free_slots() > 0
        {
            let mut parts = self.lanes[lane].take_neighbours(&request);
            if !parts.is_empty() {
                let buffer = arena.try_take(0).expect("a free slot of the driver's own arena");
                let place = parts.partition_point(|part| part.op.offset < request.op.offset);
                parts.insert(place, request);
                return self.start_merged(lane, parts, buffer);
            }
        }
        let Request { mut op, done, .. } = request;
        let (tag, len) = (op.tag, op.len);
        op.tag = to_u64(self.take_off(Flight { lane, retries: 0, len, whose: Whose::One { tag, done } }));
        self.counted.started(op.kind == OpKind::Read, len, op.file.is_direct());
        self.engine.submit(op);
    }

    fn start_merged(&mut self, lane: usize, parts: Vec<Request>, buffer: crate::buf::Slot) {
        let (first, last) = (&parts[0].op, &parts[parts.len() - 1].op);
        let (offset, len) = (first.offset, to_usize(last.offset - first.offset) + last.len);
        let wanted: usize = parts.iter().map(|part| part.op.len).sum();
        self.counted.merged(parts.len(), len - wanted);
        self.counted.started(true, len, first.file.is_direct());
        let mut op = Op::read(Arc::clone(&first.file), offset, len, buffer);
        op.tag = to_u64(self.take_off(Flight { lane, retries: 0, len, whose: Whose::Merged(parts) }));
        self.engine.submit(op);
    }

    fn take_off(&mut self, flight: Flight) -> usize {
        let lane = &mut self.lanes[flight.lane];
        lane.in_flight += 1;
        lane.bytes_in_flight += flight.len;
        let index = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            self.flights.len() - 1
        });
        self.flights[index] = Some(flight);
        index
    }

    /// Waits until operations complete or the engine is woken, and answers what completed.
    ///
    /// # Errors
    /// When the engine itself is broken: every request was answered with that, and the driver is of no more use.
    pub fn wait(&mut self) -> Result<()> {
        self.wait_and(|| {})
    }

    /// As [`IoDriver::wait`], calling `awake` between the end of the wait and the first answer.
    pub(super) fn wait_and(&mut self, awake: impl FnOnce()) -> Result<()> {
        self.counters.add(&mut self.counted);
        let mut completed = std::mem::take(&mut self.completed);
        let waited = self.engine.wait(&mut completed);
        awake();
        for completion in completed.drain(..) {
            self.finish(completion);
        }
        self.completed = completed;
        waited.inspect_err(|error| self.break_down(error))
    }

    /// Refuses what waits, and stops trying again what fails.
    pub fn stop(&mut self) {
        self.stopping = true;
        for lane in &mut self.lanes {
            while let Some(request) = lane.pop_any() {
                (request.done)(Some(request.op), Err(closed()));
            }
        }
    }

    /// Resumes an operation that came back before its end, or answers its request.
    fn finish(&mut self, completion: Completion) {
        let Completion { mut op, result } = completion;
        let index = to_usize(op.tag);
        let flight = self.flights[index].as_mut().expect("a completion belongs to a flight");
        let verdict = match result {
            Ok(moved) if op.kind == OpKind::Sync || op.done + moved >= op.len => {
                op.done += moved;
                Ok(())
            }
            Ok(0) => Err(ended_early(&op)),
            Ok(moved) => {
                op.done += moved;
                self.counted.short += 1;
                self.engine.submit(op);
                return;
            }
            Err(error) if is_transient(&error) && flight.retries < RETRIES_MAX && !self.stopping => {
                flight.retries += 1;
                self.counted.retried += 1;
                self.engine.submit(op);
                return;
            }
            Err(error) => Err(op.file.error(op.kind.name(), error, op.next_offset(), op.left())),
        };
        let flight = self.flights[index].take().expect("looked at above");
        self.free.push(index);
        let lane = &mut self.lanes[flight.lane];
        lane.in_flight -= 1;
        lane.bytes_in_flight -= flight.len;
        match flight.whose {
            Whose::One { tag, done } => {
                op.tag = tag;
                done(Some(op), verdict);
            }
            Whose::Merged(parts) => self.finish_merged(flight.lane, &op, verdict, parts),
        }
    }

    fn finish_merged(&mut self, lane: usize, whole: &Op, verdict: Result<()>, parts: Vec<Request>) {
        let read = whole.buf.as_ref().filter(|_| verdict.is_ok());
        for mut part in parts {
            match (read, &mut part.op.buf) {
                (Some(read), Some(buf)) => {
                    let start = to_usize(part.op.offset - whole.offset);
                    buf[..part.op.len].copy_from_slice(&read[start..start + part.op.len]);
                    part.op.done = part.op.len;
                    (part.done)(Some(part.op), Ok(()));
                }
                _ if self.stopping => (part.done)(Some(part.op), Err(closed())),
                // By itself, ahead of the lane's limits: its room was that of the merged read. The engine has room, for
                // one of the parts now and for the others when they come back.
                _ if self.engine.room() > 0 => {
                    let Request { mut op, done, .. } = part;
                    let (tag, len) = (op.tag, op.len);
                    let whose = Whose::One { tag, done };
                    op.tag = to_u64(self.take_off(Flight { lane, retries: 0, len, whose }));
                    self.counted.started(true, len, op.file.is_direct());
                    self.engine.submit(op);
                }
                _ => self.lanes[lane].push(part),
            }
        }
    }

    /// The engine failed as a whole: nobody may wait for it any more. Operations in flight stay with the engine, which
    /// gives up their buffers.
    fn break_down(&mut self, error: &Error) {
        tracing::error!(%error, "the I/O engine broke down");
        for flight in self.flights.iter_mut().filter_map(Option::take) {
            match flight.whose {
                Whose::One { done, .. } => done(None, Err(error.clone())),
                Whose::Merged(parts) => {
                    parts.into_iter().for_each(|part| (part.done)(Some(part.op), Err(error.clone())));
                }
            }
        }
        self.stop();
    }
}

fn is_transient(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ECANCELED))
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "submit", "the I/O thread has ended")
}

fn ended_early(op: &Op) -> Error {
    let (kind, why) = match op.kind {
        OpKind::Read => (ErrorKind::Corrupt, "the file ends before these bytes"),
        OpKind::Write | OpKind::Sync => (ErrorKind::Device, "the device took no more bytes"),
    };
    Error::new(kind, op.kind.name(), why).at(op.file.path()).at_offset(op.next_offset(), to_u64(op.left()))
}
