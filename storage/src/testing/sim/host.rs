//! The simulated machine: one processor that its threads take in turns, a clock that moves only when nobody can run, and
//! random numbers, all by one seed.
//!
//! Threads are real ones, but only the one whose turn it is runs; the others sleep until they are given it. A turn ends
//! where a thread waits (see [`crate::host`]); who is next is drawn from the seed. When all wait, the clock jumps to the
//! earliest deadline: hours of patience cost nothing. When all wait without a deadline, that is a deadlock, and the
//! process ends after saying who waits.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk::Disk;
use crate::clock::Clock;
use crate::host::{Mistake, SimulatedFiles, SimulatedHost, enter};
use crate::testing::Random;
use crate::units::{to_u64, to_usize};

/// A simulated machine.
pub struct SimHost {
    seed: u64,
    mistake: Option<Mistake>,
    turns: Mutex<Turns>,
    disk: Disk,
}

struct Turns {
    threads: Vec<Thread>,
    running: usize,
    now: Duration,
    random: Random,
    // Bytes for ids, apart from the schedule's numbers.
    bytes: Random,
    yield_one_in: u64,
    switches: u64,
    trace: u64,
    panics: Vec<String>,
    history: Vec<String>,
}

struct Thread {
    name: String,
    state: State,
    turn: Arc<Condvar>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Waiting { key: usize, deadline: Option<Duration> },
    Ended,
}

impl fmt::Debug for SimHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimHost(seed {})", self.seed)
    }
}

impl SimHost {
    /// A machine of `seed` with these disks, whose store makes the mistake.
    #[must_use]
    pub fn new(seed: u64, yield_one_in: u64, disk: Disk, mistake: Option<Mistake>) -> Arc<Self> {
        let mut random = Random::new(seed ^ 0x5eed_5c4e);
        let turns = Turns {
            threads: Vec::new(),
            running: 0,
            now: Duration::ZERO,
            bytes: Random::new(random.next_u64()),
            random,
            yield_one_in,
            switches: 0,
            trace: seed,
            panics: Vec::new(),
            history: Vec::new(),
        };
        Arc::new(Self { seed, mistake, turns: Mutex::new(turns), disk })
    }

    /// Runs `work` as the machine's first thread, on the calling one.
    ///
    /// # Panics
    /// As `work`, whose threads must all have been joined.
    pub fn run<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                enter(None);
            }
        }
        let first = self.add_thread("main");
        assert_eq!(first, 0, "a machine runs once");
        enter(Some(Arc::clone(self) as Arc<dyn SimulatedHost>));
        let leave = Leave;
        let value = work();
        drop(leave);
        value
    }

    /// Its disks.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Turns taken so far.
    #[must_use]
    pub fn switches(&self) -> u64 {
        self.lock().switches
    }

    /// A number that stands for the whole schedule: which thread ran when, at what time, and what its disks did.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.lock().trace ^ self.disk.trace()
    }

    /// Remembers what happens, for those who look into a failing seed.
    pub fn tell(&self, what: &str) {
        let log = self.disk.take_log();
        let mut turns = self.lock();
        turns.history.extend(log.into_iter().map(|line| format!("                  {line}")));
        let line = format!("{:>12.6} s  {what}", turns.now.as_secs_f64());
        turns.history.push(line);
    }

    /// What was told.
    #[must_use]
    pub fn history(&self) -> Vec<String> {
        self.lock().history.clone()
    }

    /// Threads that ended by a panic.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        self.lock().panics.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the caller's turn and returns with its next; the caller has set its state before.
    fn take_turns(&self, mut turns: MutexGuard<'_, Turns>) {
        let caller = turns.running;
        let next = self.next(&mut turns);
        if next == caller {
            return;
        }
        turns.switches += 1;
        turns.running = next;
        turns.threads[next].turn.notify_one();
        if turns.threads[caller].state == State::Ended {
            return;
        }
        let turn = Arc::clone(&turns.threads[caller].turn);
        drop(turn.wait_while(turns, |turns| turns.running != caller).unwrap_or_else(PoisonError::into_inner));
    }

    fn next(&self, turns: &mut Turns) -> usize {
        loop {
            let is_ready = |thread: &Thread| thread.state == State::Ready;
            let ready = turns.threads.iter().filter(|thread| is_ready(thread)).count();
            if ready > 0 {
                let chosen = to_usize(turns.random.below(to_u64(ready)));
                let mut candidates = turns
                    .threads
                    .iter()
                    .enumerate()
                    .filter(|(_, thread)| is_ready(thread))
                    .map(|(index, _)| index);
                let next = candidates.nth(chosen).expect("one of those that were counted");
                turns.trace = mix(turns.trace, to_u64(next));
                return next;
            }
            let deadline = |thread: &Thread| match thread.state {
                State::Waiting { deadline, .. } => deadline,
                _ => None,
            };
            let Some(earliest) = turns.threads.iter().filter_map(deadline).min() else {
                self.deadlock(turns)
            };
            turns.now = turns.now.max(earliest);
            turns.trace = mix(turns.trace, u64::try_from(turns.now.as_nanos()).unwrap_or(u64::MAX));
            for thread in &mut turns.threads {
                if deadline(thread).is_some_and(|deadline| deadline <= turns.now) {
                    thread.state = State::Ready;
                }
            }
        }
    }

    #[expect(clippy::print_stderr, reason = "said on the way out: no thread is left to report it")]
    fn deadlock(&self, turns: &Turns) -> ! {
        eprintln!(
            "deadlock in the simulation of seed {}: replay with {}",
            self.seed,
            super::replay(self.seed)
        );
        for thread in turns.threads.iter().filter(|thread| thread.state != State::Ended) {
            eprintln!("  {}: {:?}", thread.name, thread.state);
        }
        // Nobody can run, so that nobody can unwind either.
        std::process::abort();
    }
}

/// Folds `value` into a running hash.
pub(super) fn mix(hash: u64, value: u64) -> u64 {
    Random::new(hash ^ value.rotate_left(17)).next_u64()
}

impl Clock for SimHost {
    fn now(&self) -> Duration {
        self.lock().now
    }
}

impl SimulatedHost for SimHost {
    fn now(&self) -> Duration {
        self.lock().now
    }

    fn yield_now(&self) {
        let mut turns = self.lock();
        let often = turns.yield_one_in;
        if turns.random.one_in(often) {
            self.take_turns(turns);
        }
    }

    fn wait(&self, key: usize, deadline: Option<Duration>) {
        let mut turns = self.lock();
        let running = turns.running;
        turns.threads[running].state = State::Waiting { key, deadline };
        self.take_turns(turns);
    }

    fn ring(&self, key: usize) {
        for thread in &mut self.lock().threads {
            if matches!(thread.state, State::Waiting { key: waits_for, .. } if waits_for == key) {
                thread.state = State::Ready;
            }
        }
    }

    fn add_thread(&self, name: &str) -> usize {
        let mut turns = self.lock();
        turns.threads.push(Thread { name: name.to_owned(), state: State::Ready, turn: Arc::default() });
        turns.threads.len() - 1
    }

    fn begin(&self, thread: usize) {
        let turns = self.lock();
        let turn = Arc::clone(&turns.threads[thread].turn);
        drop(turn.wait_while(turns, |turns| turns.running != thread).unwrap_or_else(PoisonError::into_inner));
    }

    fn end(&self, thread: usize) {
        let mut turns = self.lock();
        if std::thread::panicking() {
            let name = turns.threads[thread].name.clone();
            turns.panics.push(name);
        }
        turns.threads[thread].state = State::Ended;
        self.take_turns(turns);
    }

    fn random_bytes(&self, bytes: &mut [u8]) {
        self.lock().bytes.fill(bytes);
    }

    fn mistake(&self) -> Option<Mistake> {
        self.mistake
    }

    fn files(&self) -> &dyn SimulatedFiles {
        &self.disk
    }
}
