//! The store under simulation: ten thousand seeds in a normal run, one or a million on demand.
//!
//! `TIERSTREAM_SIM_SEED=n` runs seed n alone and prints what it drew; `TIERSTREAM_SIM_SEEDS=n` runs that many seeds,
//! from `TIERSTREAM_SIM_FROM` on. The first failing seed ends the run with the command that replays it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::testing::sim::{
    Failure, Mistake, Plan, Sabotage, Stats, simulate, simulate_in_detail, simulate_mistaken,
    simulate_sabotaged,
};
use tierstream_storage::testing::tell;

/// Seeds of a normal run.
const SEEDS: u64 = 10_000;

#[expect(clippy::disallowed_methods, reason = "the test's own switches; nothing in the product reads them")]
fn switch(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

/// Seeds within which a lie of the disks must be found.
const LIES: u64 = 500;

/// Runs `seeds` on every core; the sums, or the failing seeds that were found.
fn run(seeds: std::ops::Range<u64>) -> Result<Stats, Vec<Failure>> {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let (sums, failures) = (Mutex::new(Stats::default()), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut sum = Stats::default();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    match simulate(seed) {
                        Ok(run) => sum.add(&run.stats),
                        Err(failure) => {
                            failures.lock().expect("no worker panics").push(failure);
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
                sums.lock().expect("no worker panics").add(&sum);
            });
        }
    });
    let failures = failures.into_inner().expect("no worker panics");
    if failures.is_empty() { Ok(sums.into_inner().expect("no worker panics")) } else { Err(failures) }
}

#[test]
fn every_promise_holds_under_faults_and_crashes() {
    if let Some(seed) = switch("TIERSTREAM_SIM_SEED") {
        println!("{:#?}", Plan::draw(seed));
        let run = simulate_in_detail(seed)
            .unwrap_or_else(|failure| panic!("{}\n{failure}", failure.history.join("\n")));
        println!("{}\n  trace {:016x}", run.stats, run.trace);
        return;
    }
    let from = switch("TIERSTREAM_SIM_FROM").unwrap_or(0);
    let seeds = switch("TIERSTREAM_SIM_SEEDS").unwrap_or(SEEDS);
    let clock = SystemClock::new();
    match run(from..from + seeds) {
        Ok(stats) => tell(&format!("simulation: {stats}\n  in {:.1?}", clock.now())),
        Err(failures) => {
            let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
            panic!("{}", texts.join("\n\n"));
        }
    }
}

/// A simulation that cannot fail shows nothing.
#[test]
fn a_disk_that_lies_is_found() {
    for sabotage in [Sabotage::FileSyncs, Sabotage::DirectorySyncs, Sabotage::Renames] {
        let found = (0..LIES).find_map(|seed| simulate_sabotaged(seed, sabotage).err());
        let found = found.unwrap_or_else(|| panic!("{sabotage:?}: not found in {LIES} seeds"));
        tell(&format!("{sabotage:?}: found by seed {}: {}", found.seed, found.what));
    }
}

/// Each mistake of [`Mistake`] costs one promise of the store.
#[test]
fn a_store_that_errs_is_found() {
    for mistake in Mistake::ALL {
        let found = (0..LIES).find_map(|seed| simulate_mistaken(seed, mistake).err());
        let found = found.unwrap_or_else(|| panic!("{mistake:?}: not found in {LIES} seeds"));
        tell(&format!("{mistake:?}: found by seed {}: {}", found.seed, found.what));
    }
}

#[test]
fn a_seed_gives_the_same_schedule_every_time() {
    let traces = |seed| simulate(seed).map(|run| (run.trace, run.stats));
    for seed in 0..200 {
        let once = traces(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let again = traces(seed).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(once, again, "seed {seed} ran in two ways");
    }
}
