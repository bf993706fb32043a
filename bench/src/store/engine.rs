//! The raw engine: a closed loop of reads through [`IoService`], the one the store reads through, each answered on the
//! I/O thread by submitting the next.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tierstream_storage::buf::{Arena, SharedAllocator, Slot};
use tierstream_storage::clock::Clock;
use tierstream_storage::device::DeviceFile;
use tierstream_storage::io::{IoService, Lane, Op, Priority, Request, ServiceConfig};
use tierstream_storage::units::{to_u64, to_usize};

use super::Row;
use crate::os::Usage;
use crate::random::Random;
use crate::{Error, ErrorKind, Result};

/// Until the loop runs evenly.
const WARM_UP: Duration = Duration::from_millis(100);

/// What one measurement does.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Bytes of each read.
    pub(super) block_bytes: usize,
    /// Reads in flight on each file.
    pub(super) depth: usize,
    /// Random offsets, or from the start to the end and again.
    pub(super) random: bool,
    /// How long is measured.
    pub(super) window: Duration,
}

/// A loop over one file.
struct Loop {
    service: Arc<IoService>,
    file: Arc<DeviceFile>,
    lane: Lane,
    job: Job,
    blocks: u64,
    issued: AtomicU64,
    done: AtomicU64,
    stopped: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Loop {
    fn issue_first(self: Arc<Self>, slot: Slot) {
        let op = Op::read(Arc::clone(&self.file), 0, self.job.block_bytes, slot);
        self.issue(op);
    }

    /// Submits `op` again, elsewhere in the file.
    fn issue(self: Arc<Self>, mut op: Op) {
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let block =
            if self.job.random { Random::new(number).below(self.blocks) } else { number % self.blocks };
        let (service, lane) = (Arc::clone(&self.service), self.lane);
        (op.offset, op.done) = (block * to_u64(self.job.block_bytes), 0);
        let done = Box::new(move |op: Option<Op>, result| self.completed(op, result));
        service.submit(Request { op, lane, priority: Priority::Demand, deadline: 0, done });
    }

    fn completed(self: Arc<Self>, op: Option<Op>, result: Result<()>) {
        if let Err(error) = result {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            return self.stopped.store(true, Ordering::Relaxed);
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        if let Some(op) = op
            && !self.stopped.load(Ordering::Relaxed)
        {
            self.issue(op);
        }
    }
}

/// Reads `files`, each on a device and so a lane of its own, and counts what was read in the window.
///
/// # Errors
/// As the first read that failed.
pub(super) fn run(files: &[Arc<DeviceFile>], job: &Job, clock: &dyn Clock) -> Result<Row> {
    let stripes = u8::try_from(files.len().saturating_sub(1)).unwrap_or(u8::MAX);
    let slots = job.depth * files.len();
    let arena = Arena::new("bench", job.block_bytes, slots, &SharedAllocator { prefer_huge: true })?;
    let fast_bytes = job.block_bytes * job.depth;
    let config = ServiceConfig { fast_depth: job.depth, fast_bytes, stripes, ..ServiceConfig::default() };
    let service = Arc::new(IoService::start(&config, Some(&arena))?);
    let mut loops = Vec::new();
    for (number, file) in (0..).zip(files) {
        let lane = u8::checked_sub(number, 1).map_or(Lane::Fast, Lane::Stripe);
        let blocks = file.size_bytes()? / to_u64(job.block_bytes);
        if blocks == 0 {
            let why = format!("shorter than a block of {}", job.block_bytes);
            return Err(Error::new(ErrorKind::Misuse, "read", why).at(file.path()));
        }
        loops.push(Arc::new(Loop {
            service: Arc::clone(&service),
            file: Arc::clone(file),
            lane,
            job: job.clone(),
            blocks,
            issued: AtomicU64::new(0),
            done: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            failure: Mutex::default(),
        }));
    }
    for one in &loops {
        for _ in 0..job.depth {
            Arc::clone(one).issue_first(arena.take(Duration::ZERO)?);
        }
    }
    let done = || loops.iter().map(|one| one.done.load(Ordering::Relaxed)).sum::<u64>();
    std::thread::park_timeout(WARM_UP);
    let (began, usage, before) = (clock.now(), Usage::of_process(), done());
    std::thread::park_timeout(job.window);
    let (elapsed, used, after) = (clock.now() - began, Usage::of_process().since(usage), done());
    loops.iter().for_each(|one| one.stopped.store(true, Ordering::Relaxed));
    // Every slot comes back when its read ends: then nobody but this function holds the service.
    let patience = Duration::from_secs(10);
    let _all = (0..slots).map(|_| arena.take(patience)).collect::<Result<Vec<_>>>()?;
    service.shut_down();
    if let Some(error) = loops.iter().find_map(|one| one.failure.lock().ok()?.take()) {
        return Err(error);
    }
    let (ios, cpu) = (after - before, used.user + used.system);
    if ios == 0 {
        return Err(Error::new(ErrorKind::Device, "read", "nothing was read in the window"));
    }
    Ok(Row {
        iops: ios as f64 / elapsed.as_secs_f64(),
        gbps: to_usize(ios) as f64 * job.block_bytes as f64 / elapsed.as_secs_f64() / 1e9,
        cpu_us_per_io: cpu.as_secs_f64() * 1e6 / ios as f64,
    })
}
