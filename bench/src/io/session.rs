//! One job while it runs: engines ask it for the next I/O and tell it what came of each.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tierstream_storage::clock::Clock;
use tierstream_storage::device::DeviceFile;
use tierstream_storage::units::{to_u64, to_usize};

use super::job::IoJob;
use super::plan::{Direction, Plan};
use super::record::{Record, Times};
use super::target::Target;
use crate::os::Usage;
use crate::random::Random;
use crate::{Error, ErrorKind, Result};

/// Every this many bytes of what is written, the offset replaces eight: no two blocks are alike for a device that
/// looks for duplicates (fio's `scramble_buffers`).
const STAMP_BYTES: usize = 512;

/// One I/O to carry out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Io {
    pub(super) direction: Direction,
    /// Offset in the file, in bytes.
    pub(super) offset: u64,
    /// When it was made.
    pub(super) start: Duration,
}

/// Sees the bytes of every completed I/O.
pub(super) type Inspect = Arc<dyn Fn(&Io, &[u8]) + Send + Sync>;

/// A job and what it counts. Used by one thread.
pub(super) struct Session {
    pub(super) file: Arc<DeviceFile>,
    /// Bytes of each I/O.
    pub(super) block_bytes: usize,
    /// Bytes of the file that are used.
    pub(super) size: u64,
    /// I/Os in flight.
    pub(super) depth: usize,
    pub(super) fixedbufs: bool,
    pub(super) random: bool,
    pub(super) direct: bool,
    /// What the engine is, in its own words.
    pub(super) engine: String,
    /// What a reader of the numbers has to know.
    pub(super) notes: Vec<String>,
    pub(super) record: Record,
    /// From the first I/O to the last completion.
    pub(super) elapsed: Duration,
    /// What the thread used in that time.
    pub(super) usage: Usage,
    clock: Arc<dyn Clock>,
    plan: Plan,
    seed: u64,
    runtime: Option<Duration>,
    started: Duration,
    stopped: bool,
    inspect: Option<Inspect>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}, {} done)", self.file.path().display(), self.record.ios())
    }
}

impl Session {
    /// Job `number` on its file.
    pub(super) fn new(
        job: &IoJob,
        number: usize,
        target: &Target,
        clock: Arc<dyn Clock>,
        inspect: Option<Inspect>,
    ) -> Self {
        Self {
            file: Arc::clone(&target.file),
            block_bytes: to_usize(job.bs),
            size: job.size,
            depth: job.iodepth,
            fixedbufs: job.fixedbufs,
            random: job.rw.is_random(),
            direct: target.direct,
            engine: String::new(),
            notes: target.notes.clone(),
            record: Record::new(Duration::ZERO),
            elapsed: Duration::ZERO,
            usage: Usage::default(),
            clock,
            plan: Plan::new(job, number),
            seed: job.randseed ^ to_u64(number),
            runtime: job.runtime,
            started: Duration::ZERO,
            stopped: false,
            inspect,
        }
    }

    /// Now, for the times of I/Os.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Fills the buffers of I/Os, so that their memory is there before the first and written bytes are not zeros.
    pub(super) fn prepare<'a>(&self, buffers: impl Iterator<Item = &'a mut [u8]>) {
        let mut random = Random::new(self.seed);
        buffers.for_each(|buffer| random.fill(buffer));
    }

    /// The engine is set up: what follows is measured.
    pub(super) fn begin(&mut self) {
        self.started = self.clock.now();
        self.record = Record::new(self.started);
        self.usage = Usage::of_thread();
    }

    /// The last I/O completed: what follows is not measured.
    pub(super) fn end(&mut self) {
        self.usage = Usage::of_thread().since(self.usage);
        let now = self.clock.now();
        self.elapsed = now - self.started;
        self.record.read.windows.pass(now);
        self.record.write.windows.pass(now);
    }

    /// The next I/O; none when all are done, the time is up or one failed.
    pub(super) fn next(&mut self) -> Option<Io> {
        let start = self.clock.now();
        if self.stopped || self.runtime.is_some_and(|runtime| start - self.started >= runtime) {
            return None;
        }
        let (direction, offset) = self.plan.next()?;
        Some(Io { direction, offset, start })
    }

    /// Readies `buffer` for `io`: what a write writes says where.
    pub(super) fn stamp(&self, io: &Io, buffer: &mut [u8]) {
        if io.direction == Direction::Write {
            for (sector, offset) in
                buffer.chunks_exact_mut(STAMP_BYTES).zip((io.offset..).step_by(STAMP_BYTES))
            {
                sector[..8].copy_from_slice(&offset.to_le_bytes());
            }
        }
    }

    /// `io` moved all of `bytes`.
    pub(super) fn done(&mut self, io: &Io, issue: Option<Duration>, end: Duration, bytes: &[u8]) {
        let times = Times { start: io.start, issue, end };
        self.record.of(io.direction).done(times, to_u64(bytes.len()));
        if let Some(inspect) = &self.inspect {
            inspect(io, bytes);
        }
    }

    /// `io` moved `moved` bytes of those it still had to.
    ///
    /// # Errors
    /// `Corrupt` when it moved none: the file ends where it did not before.
    pub(super) fn short(&mut self, io: &Io, moved: usize) -> Result<()> {
        if moved == 0 {
            self.stopped = true;
            let why = "no bytes were moved: the file has become shorter";
            let error = Error::new(ErrorKind::Corrupt, self.op(io), why).at(self.file.path());
            return Err(error.at_offset(io.offset, to_u64(self.block_bytes)));
        }
        self.record.of(io.direction).short_ios += 1;
        Ok(())
    }

    /// The error of an I/O that failed; nothing more is started after it.
    pub(super) fn failed(&mut self, io: &Io, error: std::io::Error) -> Error {
        self.stopped = true;
        self.file.error(self.op(io), error, io.offset, self.block_bytes)
    }

    fn op(&self, io: &Io) -> &'static str {
        match io.direction {
            Direction::Read => "read",
            Direction::Write => "write",
        }
    }
}
