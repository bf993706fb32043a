//! One of a job's threads: the loop that makes, queues, reaps and counts I/Os as fio's does.
//!
//! Nothing is allocated for an I/O, and the clock is read at most twice: when a batch was submitted and when completions
//! were taken. The next I/O starts at the later of the two.

mod complete;

use std::time::Duration;

use super::super::engine::{self, Engine, Event, Queued};
use super::super::iolog::{Action, LogWriter, Replay};
use super::super::job::Job;
use super::super::logs::Logs;
use super::super::pattern::{Direction, Generator, Step};
use super::super::record::Record;
use super::super::target::Target;
use super::super::timer::Timer;
use super::super::verify::VerifyOptions;
use super::depth::{DepthSearch, Verdict};
use super::filler::Filler;
use super::pace::Pace;
use super::progress::{Progress, Shared};
use super::source::{Next, Source};
use crate::os::Usage;
use crate::{Error, ErrorKind, Result, to_u64, to_usize};

/// How often progress is told, in nanoseconds.
const TELL_NANOS: u64 = 20_000_000;
/// Where no latency is measured, the clock is read once for so many I/Os.
const UNTIMED_IOS: u64 = 64;
/// Sleeping is this late at times: the rest is spent spinning.
const SLEEP_SLACK_NANOS: u64 = 80_000;

/// What a thread did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) record: Record,
    pub(crate) usage: Usage,
    pub(crate) elapsed_nanos: u64,
    pub(crate) engine: String,
    pub(crate) direct: bool,
    pub(crate) depth: usize,
    pub(crate) laid_out_bytes: u64,
    pub(crate) notes: Vec<String>,
}

/// An I/O that has a buffer.
#[derive(Clone, Copy, Debug)]
struct Unit {
    step: Step,
    done: usize,
    start: u64,
    issue: Option<u64>,
}

pub(super) struct Worker<'a> {
    job: &'a Job,
    timer: &'a Timer,
    shared: &'a Shared,
    progress: &'a Progress,
    target: Target,
    engine: Box<dyn Engine>,
    record: Record,
    units: Vec<Unit>,
    free: Vec<usize>,
    queued: Vec<usize>,
    events: Vec<Event>,
    in_flight: usize,
    depth: usize,
    batch: usize,
    complete_min: usize,
    complete_max: usize,
    low: usize,
    times: bool,
    synchronous: bool,
    now: u64,
    started: u64,
    tell_at: u64,
    ticks: u64,
    pace: Option<Pace>,
    search: Option<DepthSearch>,
    filler: Filler,
    verify: Option<VerifyOptions>,
    checks_reads: bool,
    scratch: Vec<u8>,
    logs: Option<Logs>,
    log_writer: Option<LogWriter>,
    notes: Vec<String>,
    writes_since_sync: u64,
    since_think: u64,
    thought_at: u64,
    cycle: (u64, [u64; 2], [u64; 2]),
    ramping: bool,
    finishing: bool,
    /// What the thread had used when counting began.
    usage: Usage,
}

impl<'a> Worker<'a> {
    #[expect(clippy::too_many_arguments, reason = "what a thread of a job is given")]
    pub(super) fn new(
        job: &'a Job,
        number: usize,
        log_number: usize,
        target: Target,
        timer: &'a Timer,
        shared: &'a Shared,
        progress: &'a Progress,
        longest: usize,
    ) -> Result<Self> {
        let mut notes = target.notes.clone();
        let options = &job.engine;
        let synchronous = options.name.is_synchronous();
        let mut depth = options.depth;
        if synchronous && depth > 1 {
            // In fio's words.
            let note =
                "both iodepth >= 1 and synchronous I/O engine are selected, queue depth will be capped at 1";
            notes.push(note.to_owned());
            depth = 1;
        }
        let mut engine = engine::open(job, &target, depth, longest.max(1), &mut notes)?;
        let seed = job.pattern.seed ^ to_u64(number);
        let mut filler = Filler::new(&job.buffer, seed);
        if job.writes() || options.pretouch {
            (0..depth).for_each(|tag| filler.prepare(engine.buffer(tag)));
        }
        let now = timer.now();
        let nothing = Step { direction: Direction::Read, file: 0, offset: 0, len: 0 };
        let log_writer = match &job.write_iolog {
            Some(path) => {
                let names = target.files.iter().map(|file| file.path.display().to_string()).collect();
                Some(LogWriter::create(path, names)?)
            }
            None => None,
        };
        Ok(Self {
            job,
            timer,
            shared,
            progress,
            record: Record::new(&job.stats, now),
            units: vec![Unit { step: nothing, done: 0, start: 0, issue: None }; depth],
            free: (0..depth).rev().collect(),
            queued: Vec::with_capacity(depth),
            events: Vec::with_capacity(depth),
            in_flight: 0,
            depth,
            batch: options.batch.min(depth),
            complete_min: options.complete_min.min(depth),
            complete_max: options.complete_max.clamp(1, depth),
            low: options.low.min(depth),
            times: job.stats.times() || job.rate.is_limited() || job.think.nanos > 0,
            synchronous,
            now,
            started: now,
            tell_at: now,
            ticks: 0,
            pace: None,
            search: None,
            filler,
            verify: job.verify.clone(),
            checks_reads: job.verify.is_some() && !job.pattern.writes,
            scratch: Vec::new(),
            logs: Logs::create(job, log_number, now)?,
            log_writer,
            notes,
            writes_since_sync: 0,
            since_think: 0,
            thought_at: now,
            cycle: (now + job.rate.cycle_nanos, [0; 2], [0; 2]),
            ramping: job.ramp_nanos > 0,
            finishing: false,
            usage: Usage::default(),
            engine,
            target,
        })
    }

    /// Runs the job to its end.
    ///
    /// # Errors
    /// As the first I/O that failed, with file, offset and length; as `rate_min`, `max_latency` and `latency_target` say.
    pub(super) fn run(mut self, number: usize, replay: Option<&Replay>) -> Result<Done> {
        let generator = Generator::new(self.job, number, &self.target.spans, self.target.pass_bytes);
        let only_verifies = self.verify.as_ref().is_some_and(|verify| verify.only);
        let keeps = self.verify.is_some() && self.job.writes();
        let mut source = match replay {
            Some(replay) => Source::replay(replay),
            None => Source::generator(generator, keeps),
        };
        if only_verifies {
            source.skip_writing();
        }
        self.begin();
        let outcome = self.main_loop(&mut source);
        let drained = self.drain();
        let usage_after = Usage::of_thread().since(self.usage);
        self.now = self.timer.now();
        let mut elapsed_nanos = self.now - self.started;
        outcome.and(drained)?;
        if self.job.sync.at_end && self.job.writes() {
            self.sync_all()?;
            self.now = self.timer.now();
            elapsed_nanos = self.now - self.started;
        }
        let mut usage = usage_after;
        if keeps && self.verify.as_ref().is_some_and(|verify| verify.after_writing) {
            self.finishing = true;
            let more = Usage::of_thread();
            self.verify_written(&mut source, u64::MAX)?;
            usage = usage.and(Usage::of_thread().since(more));
        }
        self.finish(usage, elapsed_nanos)
    }

    fn begin(&mut self) {
        self.now = self.timer.now();
        self.started = self.now;
        self.thought_at = self.now;
        self.record = Record::new(&self.job.stats, self.now);
        self.pace = Pace::new(self.job, self.job.pattern.seed, self.now);
        if let Some(target) = self.job.latency_target {
            self.search = Some(DepthSearch::new(target, self.depth, self.now));
        }
        self.cycle.0 = self.now + self.job.rate.cycle_nanos;
        self.usage = Usage::of_thread();
    }

    /// Whether nothing more is to be issued; looks at the clock that was read last.
    fn is_over(&mut self) -> Result<bool> {
        if self.shared.is_stopped() {
            return Ok(true);
        }
        if self.ramping && self.now - self.started >= self.job.ramp_nanos {
            // What came before is not counted; what is in flight is, as fio counts it.
            self.ramping = false;
            self.started = self.now;
            self.record = Record::new(&self.job.stats, self.now);
            self.usage = Usage::of_thread();
        }
        if let Some(runtime) = self.job.runtime_nanos
            && !self.ramping
            && self.now - self.started >= runtime
        {
            return Ok(true);
        }
        if self.now >= self.tell_at {
            self.tell_at = self.now + TELL_NANOS;
            self.progress.tell(&self.record, self.in_flight);
            self.check_rate()?;
            if let Some(search) = &mut self.search {
                match search.look(self.now) {
                    Verdict::GoOn => {}
                    Verdict::Found => return Ok(true),
                    Verdict::Impossible => {
                        let target = self.job.latency_target.map_or(0, |target| target.nanos / 1000);
                        let why = format!(
                            "job `{}`: latency_target={target}us is missed at depth 1",
                            self.job.name
                        );
                        return Err(Error::new(ErrorKind::Device, "measure", why));
                    }
                }
            }
        }
        Ok(false)
    }

    /// fio's `rate_min` and `rate_iops_min`.
    fn check_rate(&mut self) -> Result<()> {
        if self.now < self.cycle.0 || self.ramping {
            return Ok(());
        }
        let seconds = self.job.rate.cycle_nanos as f64 / 1e9;
        for way in 0..2 {
            let of = &self.record.directions[way];
            let (ios, bytes) =
                (of.ios.saturating_sub(self.cycle.1[way]), of.bytes.saturating_sub(self.cycle.2[way]));
            let rates = [
                (self.job.rate.iops_min[way], ios, "rate_iops_min"),
                (self.job.rate.bytes_min[way], bytes, "rate_min"),
            ];
            for (least, moved, key) in rates {
                if let Some(least) = least
                    && (moved as f64) < least as f64 * seconds
                {
                    let found = moved as f64 / seconds;
                    let why = format!("job `{}`: {key}={least} is missed, found {found:.0}", self.job.name);
                    return Err(Error::new(ErrorKind::Device, "measure", why));
                }
            }
            (self.cycle.1[way], self.cycle.2[way]) = (of.ios, of.bytes);
        }
        self.cycle.0 = self.now + self.job.rate.cycle_nanos;
        Ok(())
    }

    fn main_loop(&mut self, source: &mut Source<'_>) -> Result<()> {
        loop {
            if !self.times {
                self.ticks += 1;
                if self.ticks.is_multiple_of(UNTIMED_IOS) {
                    self.now = self.timer.now();
                }
            }
            if self.is_over()? {
                return Ok(());
            }
            let limit = self.search.as_ref().map_or(self.depth, |search| search.depth);
            if self.in_flight + self.queued.len() >= limit && limit < self.depth {
                self.reap(1, self.complete_max, None)?;
                continue;
            }
            let Some(tag) = self.free.pop() else {
                self.make_room()?;
                continue;
            };
            match self.next_step(source) {
                Next::Move(step, start) => self.issue(tag, step, start, source)?,
                Next::Sync { file, data_only } => {
                    self.free.push(tag);
                    self.drain()?;
                    self.sync(file, data_only)?;
                }
                Next::Wait(until) => {
                    self.free.push(tag);
                    self.wait(until)?;
                }
                Next::End => {
                    self.free.push(tag);
                    return Ok(());
                }
            }
        }
    }

    /// The next I/O and when its latency begins, or why there is none now.
    fn next_step(&mut self, source: &mut Source<'_>) -> Next {
        match source {
            Source::Generated { generator, next, .. } => {
                let mut direction = next.take().unwrap_or_else(|| generator.direction());
                if let Some(pace) = &self.pace {
                    let due = pace.due(direction);
                    if self.now < due {
                        // The other way may go on meanwhile.
                        let other =
                            if direction == Direction::Read { Direction::Write } else { Direction::Read };
                        let mixed = self.job.pattern.reads && self.job.pattern.writes;
                        if mixed && self.now >= pace.due(other) && pace.due(other) > 0 {
                            direction = other;
                        } else {
                            *next = Some(direction);
                            return Next::Wait(if mixed { due.min(pace.due(other).max(1)) } else { due });
                        }
                    }
                }
                match generator.next(direction) {
                    Some(step) => {
                        let start = match &mut self.pace {
                            Some(pace) => {
                                let start = pace.start(direction, self.now);
                                pace.issued(direction, u64::from(step.len));
                                start
                            }
                            None => self.now,
                        };
                        Next::Move(step, start)
                    }
                    None => Next::End,
                }
            }
            Source::Replayed { entries, at } => {
                let Some(entry) = entries.get(*at) else { return Next::End };
                let due = entry.at.map_or(0, |nanos| self.started + nanos);
                if self.now < due {
                    return Next::Wait(due);
                }
                *at += 1;
                match entry.action {
                    Action::Move { direction, file, offset, len } => {
                        // Open loop: latency begins when the log says.
                        let start = if due > 0 { due } else { self.now };
                        Next::Move(Step { direction, file, offset, len }, start)
                    }
                    Action::Sync { file, data_only } => Next::Sync { file, data_only },
                }
            }
            Source::Listed { steps } => match steps.pop() {
                Some(step) => Next::Move(step, self.now),
                None => Next::End,
            },
        }
    }

    fn issue(&mut self, tag: usize, step: Step, start: u64, source: &mut Source<'_>) -> Result<()> {
        let mut start = start;
        if step.direction == Direction::Write {
            let len = to_usize(u64::from(step.len));
            let buffer = &mut self.engine.buffer(tag)[..len];
            self.filler.ready(buffer, step.offset, self.now);
            if let Some(verify) = &self.verify {
                verify.seal(buffer, step.offset, self.ticks);
            }
            if self.pace.is_none() && self.times && (self.filler.refills() || self.verify.is_some()) {
                // Making the bytes is no latency of the device.
                self.now = self.timer.now();
                start = self.now;
            }
            source.wrote(&step);
            self.writes_since_sync += 1;
        }
        if let Some(writer) = &mut self.log_writer {
            writer.add(&step)?;
        }
        self.units[tag] = Unit { step, done: 0, start, issue: None };
        self.push(tag)?;
        if self.job.think.nanos > 0 {
            self.think(source)?;
        }
        if self.job.sync.every > 0 && self.writes_since_sync >= self.job.sync.every {
            self.drain()?;
            self.writes_since_sync = 0;
            for file in 0..self.target.files.len() {
                self.sync(u32::try_from(file).expect("at most 65536 files"), self.job.sync.data_only)?;
            }
        }
        if let Some(verify) = &self.verify
            && let Some(backlog) = verify.backlog
            && source.kept() >= backlog
            && !self.finishing
        {
            let batch = verify.backlog_batch.max(1);
            self.drain()?;
            self.verify_written(source, batch)?;
        }
        if self.free.is_empty() {
            self.make_room()?;
        }
        Ok(())
    }

    /// Queues the I/O of `tag`, and completes it where the engine does so at once.
    fn push(&mut self, tag: usize) -> Result<()> {
        loop {
            let unit = &self.units[tag];
            let (step, done) = (unit.step, unit.done);
            match self.engine.queue(tag, &step, done) {
                Queued::Pending => {
                    self.queued.push(tag);
                    if self.queued.len() >= self.batch {
                        self.commit()?;
                    }
                    return Ok(());
                }
                Queued::Done(result) => {
                    if self.times {
                        self.now = self.timer.now();
                    }
                    if self.synchronous {
                        self.record.depths[0] += 1;
                        self.record.submits[1] += 1;
                        self.record.completes[1] += 1;
                    }
                    if self.complete(tag, result)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn commit(&mut self) -> Result<()> {
        if self.queued.is_empty() {
            return Ok(());
        }
        let first = self.queued[0];
        self.engine.commit().map_err(|error| self.failed(first, error))?;
        if self.times {
            self.now = self.timer.now();
        }
        let count = self.queued.len();
        self.in_flight += count;
        for tag in self.queued.drain(..) {
            self.units[tag].issue = Some(self.now);
        }
        self.record.submitted(self.in_flight, count);
        Ok(())
    }

    /// The queue is full: completes down to `iodepth_low`.
    fn make_room(&mut self) -> Result<()> {
        loop {
            self.reap(self.complete_min.max(1), self.complete_max, None)?;
            if self.in_flight <= self.low || self.in_flight == 0 {
                return Ok(());
            }
        }
    }

    fn reap(&mut self, min: usize, max: usize, patience: Option<Duration>) -> Result<()> {
        self.commit()?;
        if self.in_flight == 0 {
            return Ok(());
        }
        let mut events = std::mem::take(&mut self.events);
        let min = min.min(self.in_flight);
        let reaped = self.engine.reap(min, max.max(min), patience, &mut events);
        if self.times {
            self.now = self.timer.now();
        }
        let count = events.len();
        if count > 0 {
            self.record.completed(count);
        }
        self.in_flight -= count;
        let mut outcome = Ok(());
        for Event { tag, result } in events.drain(..) {
            let completed =
                self.complete(tag, result).and_then(|whole| if whole { Ok(()) } else { self.push(tag) });
            outcome = outcome.and(completed);
        }
        self.events = events;
        reaped.map_err(|error| {
            Error::new(ErrorKind::Device, "wait for I/O", error.to_string()).caused_by(error)
        })?;
        outcome
    }

    /// Waits until `until`, completing what is in flight meanwhile.
    fn wait(&mut self, until: u64) -> Result<()> {
        self.commit()?;
        loop {
            self.now = self.timer.now();
            if self.now >= until || self.shared.is_stopped() {
                return Ok(());
            }
            if let Some(runtime) = self.job.runtime_nanos
                && self.now - self.started >= runtime
                && !self.ramping
            {
                return Ok(());
            }
            let left = until - self.now;
            if self.in_flight > 0 {
                self.reap(1, self.complete_max, Some(Duration::from_nanos(left)))?;
            } else if left > SLEEP_SLACK_NANOS {
                // In short pieces, so that a request to stop is seen.
                let nap = (left - SLEEP_SLACK_NANOS).min(50_000_000);
                std::thread::park_timeout(Duration::from_nanos(nap));
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// fio's `thinktime`.
    fn think(&mut self, source: &mut Source<'_>) -> Result<()> {
        let think = &self.job.think;
        self.since_think += 1;
        let _source_is_idle = source;
        let due = if think.iotime_nanos > 0 {
            self.now - self.thought_at >= think.iotime_nanos
        } else {
            self.since_think >= think.blocks
        };
        if !due {
            return Ok(());
        }
        self.since_think = 0;
        let (nanos, spin) = (think.nanos, think.spin_nanos);
        if !self.job.think.on_issue {
            self.drain()?;
        }
        let began = self.timer.now();
        while self.timer.now() - began < spin {
            std::hint::spin_loop();
        }
        self.wait(began + nanos)?;
        self.thought_at = self.now;
        if let Some(pace) = &mut self.pace
            && self.job.rate.ignore_think
        {
            pace.paused(nanos);
        }
        Ok(())
    }

    /// Completes all that is queued or in flight.
    fn drain(&mut self) -> Result<()> {
        self.commit()?;
        while self.in_flight > 0 {
            self.reap(1, self.depth, None)?;
        }
        Ok(())
    }
}
