//! The portable engine: `pread`, `pwrite` and `fdatasync` on a few threads. The reference the others are compared with,
//! and the rung below io_uring.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{Completion, EngineReport, IoEngine, Op, OpKind, Waker};
use crate::error::{Error, ErrorKind, Result};

/// Blocking system calls on `depth` threads.
#[derive(Debug)]
pub struct PsyncEngine {
    // `None` only while dropping.
    work: Option<Sender<Op>>,
    finished: Receiver<Message>,
    waker: Arc<ChannelWaker>,
    threads: Vec<JoinHandle<()>>,
    in_flight: usize,
    depth: usize,
}

#[derive(Debug)]
enum Message {
    Done(Completion),
    Wake,
}

#[derive(Debug)]
struct ChannelWaker {
    channel: Sender<Message>,
    // At most one wake-up is on its way: with it and `depth` results the channel is full and no sender waits.
    pending: AtomicBool,
}

impl Waker for ChannelWaker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::SeqCst) {
            let _engine_is_gone = self.channel.try_send(Message::Wake);
        }
    }
}

impl PsyncEngine {
    /// Starts `depth` threads.
    ///
    /// # Errors
    /// `Full` when the system gives no thread.
    pub fn new(depth: usize) -> Result<Self> {
        let (work, todo) = bounded::<Op>(depth);
        let (results, finished) = bounded(depth + 1);
        let mut threads = Vec::with_capacity(depth);
        for number in 0..depth {
            let (todo, results) = (todo.clone(), results.clone());
            let thread = std::thread::Builder::new()
                .name(format!("tier-psync-{number}"))
                .spawn(move || run(&todo, &results))
                .map_err(|error| {
                    Error::new(ErrorKind::Full, "start", format!("no thread for I/O: {error}"))
                        .caused_by(error)
                })?;
            threads.push(thread);
        }
        let waker = Arc::new(ChannelWaker { channel: results, pending: AtomicBool::new(false) });
        Ok(Self { work: Some(work), finished, waker, threads, in_flight: 0, depth })
    }

    fn take(&mut self, message: Message, completed: &mut Vec<Completion>) {
        match message {
            Message::Done(completion) => {
                self.in_flight -= 1;
                completed.push(completion);
            }
            Message::Wake => self.waker.pending.store(false, Ordering::SeqCst),
        }
    }
}

fn run(todo: &Receiver<Op>, results: &Sender<Message>) {
    while let Ok(mut op) = todo.recv() {
        let result = attempt(&mut op);
        // The engine may be gone; the buffer is then freed here, after the system call.
        if results.send(Message::Done(Completion { op, result })).is_err() {
            return;
        }
    }
}

fn attempt(op: &mut Op) -> std::io::Result<usize> {
    let (offset, done, len) = (op.next_offset(), op.done, op.len);
    match (op.kind, op.buf.as_deref_mut()) {
        (OpKind::Read, Some(buf)) => op.file.read_at(&mut buf[done..len], offset),
        (OpKind::Write, Some(buf)) => op.file.write_at(&buf[done..len], offset),
        (OpKind::Sync, _) => op.file.sync_data().map(|()| 0),
        (OpKind::Read | OpKind::Write, None) => Err(std::io::Error::from(std::io::ErrorKind::InvalidInput)),
    }
}

impl IoEngine for PsyncEngine {
    fn submit(&mut self, op: Op) {
        assert!(self.room() > 0, "more than {} operations", self.depth);
        self.in_flight += 1;
        if let Some(work) = &self.work {
            work.send(op).expect("the I/O threads run as long as the engine");
        }
    }

    fn room(&self) -> usize {
        self.depth - self.in_flight
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn wait(&mut self, completed: &mut Vec<Completion>) -> Result<()> {
        let message = self.finished.recv().expect("the engine holds a sender itself");
        self.take(message, completed);
        while let Ok(message) = self.finished.try_recv() {
            self.take(message, completed);
        }
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Waker> {
        Arc::clone(&self.waker) as Arc<dyn Waker>
    }

    fn report(&self) -> EngineReport {
        EngineReport {
            name: "psync",
            detail: format!("preadv2 and pwritev2 on {} threads", self.depth),
            fallback: Vec::new(),
        }
    }
}

impl Drop for PsyncEngine {
    fn drop(&mut self) {
        // Each thread finishes its system call, finds room for the result and then no more work.
        drop(self.work.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an I/O thread panicked");
            }
        }
    }
}
