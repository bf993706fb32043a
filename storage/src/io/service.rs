//! One engine on a thread of its own, with a bounded queue for each lane (device).
//!
//! Guarantees: a request's callback runs exactly once, on the I/O thread, with the operation and its buffer; a read or
//! write is whole or an error; within a lane the order is priority, then deadline, then arrival; the depth of each lane
//! is bounded. Idle, the thread sleeps in the engine.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::ladder::{self, EngineChoice, EngineReport};
use super::{Completion, IoEngine, Op, OpKind, Waker};
use crate::buf::{Arena, Slot};
use crate::device::DeviceFile;
use crate::error::{Error, ErrorKind, Result};
use crate::host::channel::{Receiver, Sender, bounded};
use crate::host::{JoinHandle, spawn};
use crate::units::to_u64;

/// Transient failures of one operation that are tried again before it fails.
const RETRIES_MAX: u32 = 16;
/// Requests that may wait for the I/O thread to look at them; more make their senders wait.
const MAILBOX: usize = 4096;

/// What a request is for. Lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for it.
    Demand,
    /// A plan says when it will be needed.
    Announced,
    /// A guess says that it may be needed.
    Predicted,
    /// Migration, scrubbing, packing.
    Background,
}

/// Which device's queue a request joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// L2.
    Fast,
    /// L3.
    Slow,
}

/// What happens afterwards. The operation is missing only when the engine itself broke down and kept its buffer.
pub type Done = Box<dyn FnOnce(Option<Op>, Result<()>) + Send>;

/// An operation with its place in the queue and what happens afterwards.
pub struct Request {
    /// What to do. Its `tag` names the request to [`IoService::raise`].
    pub op: Op,
    /// Whose queue.
    pub lane: Lane,
    /// How urgent.
    pub priority: Priority,
    /// Within one priority the lowest goes first.
    pub deadline: u64,
    /// Called once, on the I/O thread, with the operation: it must be quick and must not wait.
    pub done: Done,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({:?} {:?} {:?})", self.lane, self.priority, self.op)
    }
}

/// How a service is set up.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Which engine.
    pub engine: EngineChoice,
    /// Operations in flight on the fast lane.
    pub fast_depth: usize,
    /// Operations in flight on the slow lane.
    pub slow_depth: usize,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        // 32 reaches the cap of one NVMe queue with one thread; a disk sorts a handful, and more would only add latency
        // to a demand read behind them.
        Self { engine: EngineChoice::Auto, fast_depth: 32, slow_depth: 8 }
    }
}

enum Message {
    Submit(Request),
    Raise { lane: Lane, tag: u64, priority: Priority },
    Stop,
}

/// The handle to an I/O thread. The thread ends when the handle is dropped: requests in flight are waited for, queued
/// ones are given back with `Closed`.
pub struct IoService {
    mailbox: Sender<Message>,
    // What was posted while the thread was ending, to be refused by whoever posted it.
    leftovers: Receiver<Message>,
    sleeping: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    waker: Arc<dyn Waker>,
    report: EngineReport,
    thread: Mutex<Option<JoinHandle>>,
}

impl fmt::Debug for IoService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoService({})", self.report)
    }
}

impl IoService {
    /// Starts the thread and, on it, the engine. `arena` is registered with the engine if it takes it.
    ///
    /// # Errors
    /// `Unsupported` when the engine asked for is not available, `Full` without a thread.
    pub fn start(config: &ServiceConfig, arena: Option<&Arc<Arena>>) -> Result<Self> {
        let (choice, depth, arena) = (config.engine, config.fast_depth + config.slow_depth, arena.cloned());
        Self::start_with(config, move || ladder::open(choice, depth, arena.as_ref()))
    }

    /// As [`IoService::start`], with an engine of the caller's making, for at least the depth of both lanes.
    ///
    /// # Errors
    /// What `make` returns, `Full` without a thread.
    pub fn start_with<F>(config: &ServiceConfig, make: F) -> Result<Self>
    where
        F: FnOnce() -> Result<(Box<dyn IoEngine>, EngineReport)> + Send + 'static,
    {
        let (mailbox, incoming) = bounded(MAILBOX);
        let (ready, started) = bounded(1);
        let (sleeping, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (config, sleeping_flag, ended_flag) = (config.clone(), Arc::clone(&sleeping), Arc::clone(&ended));
        let leftovers = incoming.clone();
        let run = move || match make() {
            Ok((engine, report)) => {
                // The starter waits for this message, so that it is there to receive it.
                let _starter_is_gone = ready.send(Ok((engine.waker(), report)));
                Worker::new(engine, &config, incoming.clone(), sleeping_flag).run();
                ended_flag.store(true, Ordering::SeqCst);
                refuse_posted(&incoming);
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        let thread = spawn("tier-io", run)
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no I/O thread: {error}")))?;
        let (waker, report) =
            started.recv().map_err(|_| Error::new(ErrorKind::Closed, "start", "the I/O thread ended"))??;
        Ok(Self { mailbox, leftovers, sleeping, ended, waker, report, thread: Mutex::new(Some(thread)) })
    }

    /// Which engine runs and why.
    #[must_use]
    pub fn report(&self) -> &EngineReport {
        &self.report
    }

    /// Queues a request. Waits only when thousands of others have not been looked at yet.
    pub fn submit(&self, request: Request) {
        self.post(Message::Submit(request));
    }

    /// Raises the priority of a queued request; one that is in flight or done is not affected.
    pub fn raise(&self, lane: Lane, tag: u64, priority: Priority) {
        self.post(Message::Raise { lane, tag, priority });
    }

    fn post(&self, message: Message) {
        // `leftovers` keeps the channel connected as long as this service lives.
        let _connected = self.mailbox.send(message);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
        // Either the ending thread saw the message when it refused what was left, or we see that it has ended.
        if self.ended.load(Ordering::SeqCst) {
            refuse_posted(&self.leftovers);
        }
    }

    /// Does one operation, waits for it and gives it back.
    ///
    /// # Errors
    /// As the operation.
    pub fn run(&self, op: Op, lane: Lane, priority: Priority) -> Result<Op> {
        let (send, receive) = bounded(1);
        // The receiver below waits, so that there is always somebody to take the answer.
        let done = Box::new(move |op, result| drop(send.send((op, result))));
        self.submit(Request { op, lane, priority, deadline: 0, done });
        let (op, result): (Option<Op>, Result<()>) = receive.recv().map_err(|_| closed())?;
        result?;
        op.ok_or_else(closed)
    }

    /// Reads `len` bytes at `offset` of `file` into `buf` and waits for them.
    ///
    /// # Errors
    /// As read(2); `Corrupt` when the file ends before.
    pub fn read(
        &self,
        file: &Arc<DeviceFile>,
        offset: u64,
        len: usize,
        buf: Slot,
        lane: Lane,
    ) -> Result<Slot> {
        let op = self.run(Op::read(Arc::clone(file), offset, len, buf), lane, Priority::Demand)?;
        op.buf.ok_or_else(closed)
    }
}

impl IoService {
    /// Ends the thread: requests in flight are waited for, queued ones are given back with `Closed`, and so is every
    /// later one.
    pub fn shut_down(&self) {
        self.post(Message::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the I/O thread panicked");
        }
    }
}

impl Drop for IoService {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn refuse_posted(mailbox: &Receiver<Message>) {
    while let Ok(message) = mailbox.try_recv() {
        if let Message::Submit(request) = message {
            (request.done)(Some(request.op), Err(closed()));
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "submit", "the I/O thread has ended")
}

type QueueKey = (Priority, u64, u64);

struct LaneQueue {
    waiting: BTreeMap<QueueKey, Request>,
    in_flight: usize,
    depth: usize,
}

struct Flight {
    lane: Lane,
    request_tag: u64,
    done: Done,
    retries: u32,
}

struct Worker {
    engine: Box<dyn IoEngine>,
    incoming: Receiver<Message>,
    sleeping: Arc<AtomicBool>,
    lanes: [LaneQueue; 2],
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    arrivals: u64,
    stopping: bool,
}

impl Worker {
    fn new(
        engine: Box<dyn IoEngine>,
        config: &ServiceConfig,
        incoming: Receiver<Message>,
        sleeping: Arc<AtomicBool>,
    ) -> Self {
        let lane = |depth| LaneQueue { waiting: BTreeMap::new(), in_flight: 0, depth };
        Self {
            engine,
            incoming,
            sleeping,
            lanes: [lane(config.fast_depth), lane(config.slow_depth)],
            flights: Vec::new(),
            free: Vec::new(),
            arrivals: 0,
            stopping: false,
        }
    }

    fn run(mut self) {
        let mut completed = Vec::new();
        loop {
            while let Ok(message) = self.incoming.try_recv() {
                self.take(message);
            }
            if self.stopping {
                self.refuse_waiting();
                if self.engine.in_flight() == 0 {
                    return;
                }
            }
            self.start_what_fits();
            // Announce the sleep, then look once more: a message posted in between would otherwise not wake us.
            self.sleeping.store(true, Ordering::SeqCst);
            if !self.incoming.is_empty() {
                self.sleeping.store(false, Ordering::SeqCst);
                continue;
            }
            let waited = self.engine.wait(&mut completed);
            self.sleeping.store(false, Ordering::SeqCst);
            for completion in completed.drain(..) {
                self.finish(completion);
            }
            if let Err(error) = waited {
                self.break_down(&error);
                return;
            }
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneQueue {
        match lane {
            Lane::Fast => &mut self.lanes[0],
            Lane::Slow => &mut self.lanes[1],
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(request) => {
                self.arrivals += 1;
                let key = (request.priority, request.deadline, self.arrivals);
                self.lane(request.lane).waiting.insert(key, request);
            }
            Message::Raise { lane, tag, priority } => {
                let waiting = &mut self.lane(lane).waiting;
                // Rare (a demand meets its own announced read), and the queue is bounded by the buffers there are.
                let found = waiting.iter().find(|(_, request)| request.op.tag == tag).map(|(key, _)| *key);
                if let Some(key) = found.filter(|key| key.0 > priority)
                    && let Some(request) = waiting.remove(&key)
                {
                    waiting.insert((priority, key.1, key.2), request);
                }
            }
            Message::Stop => self.stopping = true,
        }
    }

    fn start_what_fits(&mut self) {
        for index in 0..self.lanes.len() {
            while self.lanes[index].in_flight < self.lanes[index].depth && self.engine.room() > 0 {
                let Some((_, request)) = self.lanes[index].waiting.pop_first() else { break };
                self.lanes[index].in_flight += 1;
                let Request { mut op, lane, done, .. } = request;
                let flight = self.free.pop().unwrap_or_else(|| {
                    self.flights.push(None);
                    self.flights.len() - 1
                });
                let request_tag = std::mem::replace(&mut op.tag, to_u64(flight));
                self.flights[flight] = Some(Flight { lane, request_tag, done, retries: 0 });
                self.engine.submit(op);
            }
        }
    }

    /// Resumes an operation that came back before its end, or answers its request.
    fn finish(&mut self, completion: Completion) {
        let Completion { mut op, result } = completion;
        let index = crate::units::to_usize(op.tag);
        let flight = self.flights[index].as_mut().expect("a completion belongs to a flight");
        let verdict = match result {
            Ok(moved) if op.kind == OpKind::Sync || op.done + moved >= op.len => {
                op.done += moved;
                Ok(())
            }
            Ok(0) => Err(ended_early(&op)),
            Ok(moved) => {
                op.done += moved;
                self.engine.submit(op);
                return;
            }
            Err(error) if is_transient(&error) && flight.retries < RETRIES_MAX && !self.stopping => {
                flight.retries += 1;
                self.engine.submit(op);
                return;
            }
            Err(error) => Err(op.file.error(op.kind.name(), error, op.next_offset(), op.left())),
        };
        let flight = self.flights[index].take().expect("looked at above");
        self.free.push(index);
        self.lane(flight.lane).in_flight -= 1;
        op.tag = flight.request_tag;
        (flight.done)(Some(op), verdict);
    }

    fn refuse_waiting(&mut self) {
        for lane in &mut self.lanes {
            while let Some((_, request)) = lane.waiting.pop_first() {
                (request.done)(Some(request.op), Err(closed()));
            }
        }
    }

    /// The engine failed as a whole: nobody may wait for it any more. Operations in flight stay with the engine, which
    /// gives up their buffers.
    fn break_down(&mut self, error: &Error) {
        tracing::error!(%error, "the I/O engine broke down");
        for flight in self.flights.iter_mut().filter_map(Option::take) {
            (flight.done)(None, Err(error.clone()));
        }
        self.refuse_waiting();
    }
}

fn is_transient(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

fn ended_early(op: &Op) -> Error {
    let (kind, why) = match op.kind {
        OpKind::Read => (ErrorKind::Corrupt, "the file ends before these bytes"),
        OpKind::Write | OpKind::Sync => (ErrorKind::Device, "the device took no more bytes"),
    };
    Error::new(kind, op.kind.name(), why).at(op.file.path()).at_offset(op.next_offset(), to_u64(op.left()))
}
