//! An I/O engine on simulated disks: operations end in an order and at times that the seed draws.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::disk::Disk;
use super::host::SimHost;
use crate::error::Result;
use crate::host::{Bell, SimulatedHost};
use crate::io::{Completion, EngineReport, IoEngine, Op, OpKind, Waker};

/// Carries out operations on the files of a [`SimHost`].
pub struct SimEngine {
    host: Arc<SimHost>,
    depth: usize,
    flights: Vec<(Duration, Op)>,
    waker: Arc<SimWaker>,
}

#[derive(Debug)]
struct SimWaker {
    woken: AtomicBool,
    bell: Bell,
}

impl Waker for SimWaker {
    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.bell.ring();
    }
}

impl fmt::Debug for SimEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimEngine({} in flight)", self.flights.len())
    }
}

impl SimEngine {
    /// An engine for up to `depth` operations, made on a thread of `host`.
    #[must_use]
    pub fn new(host: Arc<SimHost>, depth: usize) -> Self {
        let waker = Arc::new(SimWaker { woken: AtomicBool::new(false), bell: Bell::new() });
        Self { host, depth, flights: Vec::new(), waker }
    }

    fn disk(&self) -> &Disk {
        self.host.disk()
    }

    fn take_due(&mut self, completed: &mut Vec<Completion>) -> bool {
        let now = SimulatedHost::now(&*self.host);
        let before = completed.len();
        while let Some(index) = self.flights.iter().position(|(due, _)| *due <= now) {
            let (_, mut op) = self.flights.swap_remove(index);
            let result = attempt(&mut op);
            completed.push(Completion { op, result });
        }
        completed.len() > before
    }
}

fn attempt(op: &mut Op) -> std::io::Result<usize> {
    let (offset, done, len) = (op.next_offset(), op.done, op.len);
    match (op.kind, op.buf.as_deref_mut()) {
        (OpKind::Read, Some(buf)) => op.file.read_at(&mut buf[done..len], offset),
        (OpKind::Write, Some(buf)) => op.file.write_at(&buf[done..len], offset),
        (OpKind::Sync, _) => op.file.sync_data().map(|()| 0),
        (OpKind::Read | OpKind::Write, None) => Err(std::io::ErrorKind::InvalidInput.into()),
    }
}

impl IoEngine for SimEngine {
    fn submit(&mut self, op: Op) {
        assert!(self.room() > 0, "more than {} operations", self.depth);
        let latency = self.disk().latency(op.file.path());
        self.flights.push((SimulatedHost::now(&*self.host) + latency, op));
    }

    fn room(&self) -> usize {
        self.depth - self.flights.len()
    }

    fn in_flight(&self) -> usize {
        self.flights.len()
    }

    fn wait(&mut self, completed: &mut Vec<Completion>) -> Result<()> {
        loop {
            let woken = self.waker.woken.swap(false, Ordering::SeqCst);
            if self.take_due(completed) || woken {
                return Ok(());
            }
            let now = SimulatedHost::now(&*self.host);
            let next = self.flights.iter().map(|(due, _)| *due).min();
            let timeout = next.map(|due| due.saturating_sub(now));
            let waker = &self.waker;
            let woken = || waker.woken.load(Ordering::SeqCst).then_some(());
            waker.bell.wait_for(timeout, woken);
        }
    }

    fn waker(&self) -> Arc<dyn Waker> {
        Arc::clone(&self.waker) as Arc<dyn Waker>
    }

    fn report(&self) -> EngineReport {
        EngineReport {
            name: "simulated",
            detail: format!("seed and simulated disks, depth {}", self.depth),
            fallback: Vec::new(),
        }
    }
}
