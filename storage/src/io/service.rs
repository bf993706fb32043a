//! Engines on threads of their own, each with the queues of its lanes (devices).
//!
//! Guarantees: a request's callback runs exactly once, on the I/O thread, with the operation and its buffer; a read or
//! write is whole or an error; within a lane the order is priority, then deadline, then arrival; depth and bytes in
//! flight of each lane are bounded. Idle, the threads sleep in their engines.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::config::{Lane, Priority, ServiceConfig};
use super::driver::{IoDriver, closed};
use super::ladder::{self, EngineReport};
use super::mailbox::{Mailbox, Message};
use super::{IoEngine, Op, Request, Waker};
use crate::buf::{Arena, Slot};
use crate::device::DeviceFile;
use crate::error::{Error, ErrorKind, Result};
use crate::host::channel::bounded;
use crate::host::{JoinHandle, spawn};
use crate::metrics::IoCounters;

/// The handle to the I/O threads. They end when the handle is dropped: requests in flight are waited for, queued ones
/// are given back with `Closed`.
pub struct IoService {
    threads: Vec<IoThread>,
    report: EngineReport,
    counters: Arc<IoCounters>,
}

struct IoThread {
    mailbox: Arc<Mailbox>,
    waker: Arc<dyn Waker>,
    thread: Mutex<Option<JoinHandle>>,
}

impl fmt::Debug for IoService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoService({})", self.report)
    }
}

impl IoService {
    /// Starts the threads and, on each, an engine: one thread, and one more for each further device of L2 while there
    /// are cores. `arena` is registered with the engines if they take it.
    ///
    /// # Errors
    /// `Unsupported` when the engine asked for is not available, `Full` without a thread.
    pub fn start(config: &ServiceConfig, arena: Option<&Arc<Arena>>) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = config.threads(cores);
        let make = |thread| {
            let (choice, depth, arena) = (config.engine, config.depth_of(thread, threads), arena.cloned());
            move || ladder::open(choice, depth, arena.as_ref())
        };
        Self::start_threads(config, (0..threads).map(make))
    }

    /// As [`IoService::start`] on one thread, with an engine of the caller's making, for at least the depth of all lanes.
    ///
    /// # Errors
    /// What `make` returns, `Full` without a thread.
    pub fn start_with<F>(config: &ServiceConfig, make: F) -> Result<Self>
    where
        F: FnOnce() -> Result<(Box<dyn IoEngine>, EngineReport)> + Send + 'static,
    {
        Self::start_threads(config, [make])
    }

    fn start_threads<F>(config: &ServiceConfig, makes: impl IntoIterator<Item = F>) -> Result<Self>
    where
        F: FnOnce() -> Result<(Box<dyn IoEngine>, EngineReport)> + Send + 'static,
    {
        let counters = Arc::new(IoCounters::default());
        let mut service = Self { threads: Vec::new(), report: EngineReport::default(), counters };
        for make in makes {
            // What was started before is ended by the drop of `service` when the next fails.
            let (thread, report) = IoThread::start(config, make, Arc::clone(&service.counters))?;
            service.threads.push(thread);
            service.report = report;
        }
        if service.threads.len() > 1 {
            service.report.detail += &format!(", {} I/O threads", service.threads.len());
        }
        Ok(service)
    }

    /// Which engine runs and why.
    #[must_use]
    pub fn report(&self) -> &EngineReport {
        &self.report
    }

    /// What the threads count.
    #[must_use]
    pub fn counters(&self) -> &IoCounters {
        &self.counters
    }

    fn thread(&self, lane: Lane) -> &IoThread {
        &self.threads[ServiceConfig::thread_of(lane.index(), self.threads.len())]
    }

    /// Queues a request.
    pub fn submit(&self, request: Request) {
        self.thread(request.lane).post([Message::Submit(request)]);
    }

    /// Queues all of `requests`, which are of one lane, for the price of one: a lock and at most one wake-up.
    ///
    /// # Panics
    /// When they are of several lanes.
    pub fn submit_all(&self, requests: &mut Vec<Request>) {
        let Some(lane) = requests.first().map(|request| request.lane) else { return };
        assert!(requests.iter().all(|request| request.lane == lane), "requests of one batch are of one lane");
        self.thread(lane).post(requests.drain(..).map(Message::Submit));
    }

    /// Raises the priority of a queued request; one that is in flight or done is not affected.
    pub fn raise(&self, lane: Lane, tag: u64, priority: Priority) {
        self.thread(lane).post([Message::Raise { lane, tag, priority }]);
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

    /// Ends the threads: requests in flight are waited for, queued ones are given back with `Closed`, and so is every
    /// later one.
    pub fn shut_down(&self) {
        for thread in &self.threads {
            thread.post([Message::Stop]);
        }
        for thread in &self.threads {
            let thread = thread.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("an I/O thread panicked");
            }
        }
    }
}

impl Drop for IoService {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl IoThread {
    fn start<F>(config: &ServiceConfig, make: F, counters: Arc<IoCounters>) -> Result<(Self, EngineReport)>
    where
        F: FnOnce() -> Result<(Box<dyn IoEngine>, EngineReport)> + Send + 'static,
    {
        let (ready, started) = bounded(1);
        let mailbox = Arc::new(Mailbox::default());
        let (config, incoming) = (config.clone(), Arc::clone(&mailbox));
        let run = move || {
            let made = make().and_then(|(engine, report)| {
                let waker = engine.waker();
                Ok((IoDriver::new(engine, &config, counters)?, waker, report))
            });
            match made {
                Ok((driver, waker, report)) => {
                    // The starter waits for this message, so that it is there to receive it.
                    let _starter_is_gone = ready.send(Ok((waker, report)));
                    run(driver, &incoming);
                    refuse(incoming.close());
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        };
        let thread = spawn("tier-io", run)
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no I/O thread: {error}")))?;
        let (waker, report) =
            started.recv().map_err(|_| Error::new(ErrorKind::Closed, "start", "the I/O thread ended"))??;
        Ok((Self { mailbox, waker, thread: Mutex::new(Some(thread)) }, report))
    }

    fn post(&self, messages: impl IntoIterator<Item = Message>) {
        match self.mailbox.post(messages) {
            Ok(false) => {}
            Ok(true) => self.waker.wake(),
            Err(messages) => refuse(messages),
        }
    }
}

fn refuse(messages: Vec<Message>) {
    for message in messages {
        if let Message::Submit(request) = message {
            (request.done)(Some(request.op), Err(closed()));
        }
    }
}

/// The life of an I/O thread.
fn run(mut driver: IoDriver, mailbox: &Mailbox) {
    let mut messages = Vec::new();
    let mut stopping = false;
    loop {
        mailbox.take(&mut messages);
        for message in messages.drain(..) {
            match message {
                Message::Submit(request) => driver.submit(request),
                Message::Raise { lane, tag, priority } => driver.raise(lane, tag, priority),
                Message::Stop => stopping = true,
            }
        }
        if stopping {
            driver.stop();
            if driver.in_flight() == 0 {
                return;
            }
        }
        driver.start();
        if !mailbox.may_sleep() {
            continue;
        }
        if driver.wait_and(|| mailbox.awake()).is_err() {
            return;
        }
    }
}
