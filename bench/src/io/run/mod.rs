//! A run: jobs one after the other or side by side, watched while they run.

mod depth;
mod filler;
mod machine;
mod pace;
pub(crate) mod progress;
mod source;
mod steady;
mod worker;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tierstream_storage::clock::Clock;

pub(crate) use machine::DiskUse;
pub(crate) use steady::{Look, SteadyWatch};
pub(crate) use worker::Done;

pub(crate) const READ: Direction = Direction::Read;
pub(crate) const WRITE: Direction = Direction::Write;

use self::machine::Machine;
use self::progress::{Counts, Progress, Shared};

use self::worker::Worker;
use super::iolog::Replay;
use super::job::{EngineName, Job};
use super::pattern::Direction;
use super::target::Target;
use super::timer::Timer;
use crate::random::Random;
use crate::{Error, Result, to_u64, to_usize, workload};

/// How often the watcher looks.
const TICK: Duration = Duration::from_millis(50);

/// What one thread did, with its place in the report.
#[derive(Debug)]
pub(crate) struct ThreadOutcome {
    /// Number of its job in the run.
    pub(crate) job: usize,
    pub(crate) group: usize,
    pub(crate) done: Done,
    pub(crate) tiers: Option<workload::Outcome>,
}

/// What a run did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) threads: Vec<ThreadOutcome>,
    pub(crate) disks: Vec<DiskUse>,
    pub(crate) steady: Vec<Option<SteadyWatch>>,
    pub(crate) notes: Vec<String>,
    pub(crate) started_unix_millis: u64,
}

/// How far a run is.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Seconds since the stage began.
    pub elapsed_seconds: f64,
    /// Seconds left; none where no end is known.
    pub eta_seconds: Option<f64>,
    /// Threads that run.
    pub running: usize,
    /// Percent done; none where no end is known.
    pub percent: Option<f64>,
    /// Bytes per second since the last look, of reads and writes.
    pub bw_bytes: [f64; 2],
    /// I/Os per second since the last look.
    pub iops: [f64; 2],
    /// Bytes so far.
    pub bytes: [u64; 2],
    /// I/Os so far.
    pub ios: [u64; 2],
}

/// Who watches a run.
pub trait Watcher {
    /// Looks at a running run, some times a second; false asks it to end.
    fn look(&mut self, status: &Status) -> bool;
}

/// One thread of a job before it starts.
struct Thread<'a> {
    job: &'a Job,
    job_number: usize,
    number: usize,
    log_number: usize,
    group: usize,
    target: Target,
    replay: Option<Arc<Replay>>,
    progress: Arc<Progress>,
    total_bytes: Option<u64>,
}

/// Runs `jobs`.
///
/// # Errors
/// As the first thread that failed.
pub(crate) fn run(
    jobs: &[Job],
    clock: &Arc<dyn Clock>,
    timer: &Timer,
    watcher: &mut dyn Watcher,
) -> Result<Outcome> {
    let mut outcome = Outcome {
        threads: Vec::new(),
        disks: Vec::new(),
        steady: vec![None; jobs.len()],
        notes: Vec::new(),
        started_unix_millis: super::report::unix_millis(),
    };
    let (mut group, mut stage_start, mut log_number) = (0, 0, 0);
    while stage_start < jobs.len() {
        let stage_end = (stage_start + 1..jobs.len()).find(|at| jobs[*at].stonewall).unwrap_or(jobs.len());
        let mut threads = Vec::new();
        for (job_number, job) in jobs.iter().enumerate().take(stage_end).skip(stage_start) {
            if job_number > 0 && (job.stonewall || job.new_group) {
                group += 1;
            }
            for number in 0..job.numjobs {
                log_number += 1;
                threads.push(prepare(job, job_number, number, log_number, group)?);
            }
        }
        let interrupted = stage(jobs, threads, clock, timer, watcher, &mut outcome)?;
        if interrupted {
            outcome.notes.push("interrupted: what follows is missing".to_owned());
            break;
        }
        stage_start = stage_end;
    }
    Ok(outcome)
}

fn prepare(
    job: &Job,
    job_number: usize,
    number: usize,
    log_number: usize,
    group: usize,
) -> Result<Thread<'_>> {
    let ours = matches!(job.engine.name, EngineName::Tier | EngineName::Loader);
    let replay = match &job.replay {
        Some(options) => {
            let filename = job.files.filename.first().map(String::as_str);
            Some(Arc::new(Replay::read(options, filename)?))
        }
        None => None,
    };
    let target = match (&replay, ours) {
        (_, true) => Target::default(),
        (Some(replay), _) => Target::of_replay(job, replay)?,
        (None, _) => Target::open(job, number)?,
    };
    let moved =
        job.files.io_size.is_none() && job.files.number_ios.is_none() && !job.time_based && replay.is_none();
    let total_bytes = moved.then_some(target.pass_bytes * job.loops);
    let progress = Arc::default();
    Ok(Thread { job, job_number, number, log_number, group, target, replay, progress, total_bytes })
}

/// Runs threads side by side; true when it was interrupted.
fn stage(
    jobs: &[Job],
    threads: Vec<Thread<'_>>,
    clock: &Arc<dyn Clock>,
    timer: &Timer,
    watcher: &mut dyn Watcher,
    outcome: &mut Outcome,
) -> Result<bool> {
    let machine = Machine::look(threads.iter().map(|thread| &thread.target));
    let targets: Vec<Target> = threads.iter().map(|thread| thread.target.clone()).collect();
    let shared = Shared::default();
    let began = timer.now();
    let mut watch = Watch::new(&threads, jobs, began);
    let (sender, receiver) = mpsc::channel();
    let mut interrupted = false;
    let mut failure: Option<Error> = None;
    std::thread::scope(|scope| {
        for (at, thread) in threads.into_iter().enumerate() {
            let (sender, shared) = (sender.clone(), &shared);
            scope.spawn(move || {
                let (job, job_number, group) = (thread.job, thread.job_number, thread.group);
                let result = work(thread, clock, timer, shared);
                // The receiver lives until all threads have ended.
                let _received = sender.send((at, job_number, group, job.exitall, result));
            });
        }
        drop(sender);
        loop {
            match receiver.recv_timeout(TICK) {
                Ok((at, job, group, exitall, result)) => {
                    watch.ended(at);
                    match result {
                        Ok((done, tiers)) => {
                            outcome.threads.push(ThreadOutcome { job, group, done, tiers });
                            if exitall {
                                shared.stop();
                            }
                        }
                        Err(error) => {
                            shared.stop();
                            failure.get_or_insert(error);
                        }
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if watch.look(timer.now(), &mut outcome.steady) {
                        shared.stop();
                    }
                    if !watcher.look(&watch.status) {
                        interrupted = true;
                        shared.stop();
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let after = Machine::look(targets.iter());
    let millis = (timer.now() - began) / 1_000_000;
    for disk in after.disks_since(&machine, millis) {
        outcome.disks.retain(|known| known.name != disk.name);
        outcome.disks.push(disk);
    }
    let own: f64 = outcome
        .threads
        .iter()
        .map(|thread| (thread.done.usage.user + thread.done.usage.system).as_secs_f64())
        .sum();
    outcome.notes.extend(after.busy_note(&machine, own));
    outcome.threads.sort_by_key(|thread| thread.job);
    Ok(interrupted)
}

type Worked = (Done, Option<workload::Outcome>);

fn work(thread: Thread<'_>, clock: &Arc<dyn Clock>, timer: &Timer, shared: &Shared) -> Result<Worked> {
    let Thread { job, number, log_number, target, replay, progress, .. } = thread;
    let (low, high) = job.start_delay_nanos;
    let mut random = Random::new(job.pattern.seed ^ to_u64(number) ^ 0xde1a);
    let delay = low + if high > low { random.scaled(high - low + 1) } else { 0 };
    let until = timer.now() + delay;
    while timer.now() < until && !shared.is_stopped() {
        std::thread::park_timeout(Duration::from_nanos((until - timer.now().min(until)).min(50_000_000)));
    }
    crate::os::place_thread(&cores(job, number), job.nice)?;
    if matches!(job.engine.name, EngineName::Tier | EngineName::Loader) {
        let (done, tiers) = workload::run(job, number, clock, timer, shared, &progress)?;
        return Ok((done, Some(tiers)));
    }
    let longest = match &replay {
        Some(replay) => to_usize(replay.longest),
        None => to_usize(job.pattern.block_bytes_max()),
    };
    let mut worker = Worker::new(job, number, log_number, target, timer, shared, &progress, longest)?;
    if let Some(replay) = &replay {
        worker.note(&replay.notes);
    }
    if job.files.create_only {
        return Ok((worker.idle()?, None));
    }
    Ok((worker.run(number, replay.as_deref())?, None))
}

/// The cores of thread `number`.
fn cores(job: &Job, number: usize) -> Vec<usize> {
    if job.cpus_split && !job.cpus.is_empty() {
        return vec![job.cpus[number % job.cpus.len()]];
    }
    job.cpus.clone()
}

/// What is known of threads while they run.
struct Watch {
    threads: Vec<(usize, Arc<Progress>, bool)>,
    began: u64,
    last: (u64, Counts),
    end_nanos: Option<u64>,
    end_bytes: Option<u64>,
    steady_last: Vec<(u64, Counts)>,
    options: Vec<Option<super::job::SteadyState>>,
    status: Status,
}

impl Watch {
    fn new(threads: &[Thread<'_>], jobs: &[Job], now: u64) -> Self {
        let ends = threads.iter().map(|thread| {
            let runs = thread.job.runtime_nanos?;
            Some(runs + thread.job.ramp_nanos + thread.job.start_delay_nanos.1)
        });
        let bytes: Option<u64> = threads.iter().map(|thread| thread.total_bytes).sum();
        Self {
            threads: threads
                .iter()
                .map(|thread| (thread.job_number, Arc::clone(&thread.progress), true))
                .collect(),
            began: now,
            last: (now, Counts::default()),
            end_nanos: ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max()),
            end_bytes: bytes.filter(|bytes| *bytes > 0),
            steady_last: vec![(now, Counts::default()); jobs.len()],
            options: jobs.iter().map(|job| job.steady).collect(),
            status: Status::default(),
        }
    }

    fn ended(&mut self, at: usize) {
        self.threads[at].2 = false;
    }

    fn counts(&self, job: Option<usize>) -> Counts {
        let of_job = self.threads.iter().filter(|thread| job.is_none_or(|job| thread.0 == job));
        of_job.fold(Counts::default(), |sum, thread| sum.and(thread.1.counts()))
    }

    /// Looks at all threads; true when a job is steady and the stage may end.
    fn look(&mut self, now: u64, steady: &mut [Option<SteadyWatch>]) -> bool {
        let counts = self.counts(None);
        let seconds = (now - self.last.0) as f64 / 1e9;
        let elapsed = now - self.began;
        let rate = |now: u64, before: u64| crate::number::ratio(now.saturating_sub(before) as f64, seconds);
        for way in 0..2 {
            self.status.bw_bytes[way] = rate(counts.bytes[way], self.last.1.bytes[way]);
            self.status.iops[way] = rate(counts.ios[way], self.last.1.ios[way]);
        }
        self.status.bytes = counts.bytes;
        self.status.ios = counts.ios;
        self.status.elapsed_seconds = elapsed as f64 / 1e9;
        self.status.running = self.threads.iter().filter(|thread| thread.2).count();
        let by_time = self.end_nanos.map(|end| elapsed as f64 / end.max(1) as f64);
        let moved = (counts.bytes[0] + counts.bytes[1]) as f64;
        let by_bytes = self.end_bytes.map(|end| moved / end as f64);
        let share = match (by_time, by_bytes) {
            (Some(time), Some(bytes)) => Some(time.max(bytes)),
            (time, bytes) => time.or(bytes),
        };
        self.status.percent = share.map(|share| (share * 100.0).min(100.0));
        self.status.eta_seconds = share
            .filter(|share| *share > 0.0)
            .map(|share| (elapsed as f64 / 1e9 * (1.0 / share - 1.0)).max(0.0));
        self.last = (now, counts);
        let mut all_steady = false;
        for (job, watch) in steady.iter_mut().enumerate() {
            let Some(options) = self.options[job] else { continue };
            if !self.threads.iter().any(|thread| thread.0 == job) {
                continue;
            }
            let watch = watch.get_or_insert_with(|| SteadyWatch::new(options, self.began));
            if !watch.is_due(now) {
                continue;
            }
            let counts = self.counts(Some(job));
            let (before, last) = self.steady_last[job];
            // The first look after the ramp only sets the mark.
            let is_first = watch.looks.is_empty() && watch.age(before) < options.ramp_nanos;
            let seconds = (now - before) as f64 / 1e9;
            let sum = |counts: [u64; 2]| counts[0] + counts[1];
            let ios = sum(counts.ios).saturating_sub(sum(last.ios)) as f64;
            let look = Look {
                iops: crate::number::ratio(ios, seconds),
                bw: crate::number::ratio(sum(counts.bytes).saturating_sub(sum(last.bytes)) as f64, seconds),
                lat: crate::number::ratio(counts.latency.saturating_sub(last.latency) as f64, ios),
            };
            self.steady_last[job] = (now, counts);
            if is_first {
                continue;
            }
            all_steady |= watch.add(look, now);
        }
        all_steady
    }
}
