//! Replays access traces: how much of what a job waits for a prefetcher saves, at what price, and what eviction policies
//! miss.
//!
//! The predictor and the policies are those that a store runs. Rows that were asked for at once are one request: all its
//! blocks are demanded together, so that fetching the second because of the first saves nothing. A prefetcher predicts
//! before it learns, and begins with nothing.

mod baseline;
mod cache;
mod eviction;
mod replay;
mod report;
mod trace;

use std::path::PathBuf;

use tierstream_storage::clock::Clock;
use tierstream_storage::{Error, ErrorKind, Result};

pub use replay::Replayed;
pub use report::{ByName, Evicted, Report};
pub use trace::{Trace, TraceRequest};

use baseline::{Leap, Markov, Nothing, ReadAhead};
use replay::{Policy, Setting, learned, replay};

/// Prefetchers that can be replayed; `belady` fetches nothing and evicts as nobody can.
pub const POLICIES: [&str; 6] = ["none", "readahead", "leap", "markov", "learned", "belady"];

/// What to replay and how.
#[derive(Clone, Debug)]
pub struct PrefetchBench {
    /// The trace, CSV or CSV compressed with zstd.
    pub trace: PathBuf,
    /// Memory in percent of the trace's blocks.
    pub cache_percent: f64,
    /// Names of [`POLICIES`].
    pub policies: Vec<String>,
    /// Requests that pass while a fetch is under way.
    pub fetch_delay: u64,
    /// Compare eviction policies instead.
    pub eviction: bool,
}

/// Replays.
///
/// # Errors
/// As [`Trace::read`]; `Misuse` for a policy that is not there.
pub fn run(bench: &PrefetchBench, clock: &dyn Clock) -> Result<Report> {
    for name in &bench.policies {
        if !POLICIES.contains(&name.as_str()) {
            let why = format!("no policy `{name}`, expected one of {}", POLICIES.join(", "));
            return Err(Error::new(ErrorKind::Misuse, "replay", why));
        }
    }
    let trace = Trace::read(&bench.trace)?;
    let capacity = trace.capacity(bench.cache_percent);
    let mut report = Report {
        trace: bench.trace.display().to_string(),
        rows: trace.ids.len(),
        requests: trace.requests.len(),
        objects: trace.objects,
        cache_percent: bench.cache_percent,
        cache_blocks: capacity,
        fetch_delay: bench.fetch_delay,
        numbering_leak: trace.numbering_leak(),
        policies: ByName(Vec::new()),
        eviction: ByName(Vec::new()),
    };
    if bench.eviction {
        let ratios = eviction::ratios(&trace, capacity);
        report.eviction.0 =
            ratios.into_iter().map(|(name, miss_ratio)| (name.to_owned(), Evicted { miss_ratio })).collect();
    } else {
        report.policies.0 = compare(&trace, capacity, bench, clock);
    }
    Ok(report)
}

fn compare(
    trace: &Trace,
    capacity: usize,
    bench: &PrefetchBench,
    clock: &dyn Clock,
) -> Vec<(String, Replayed)> {
    let setting = Setting { capacity, fetch_delay: bench.fetch_delay };
    let base = replay(trace, setting, &mut Nothing, clock);
    let beside = |replayed: Replayed| Replayed {
        coverage: 1.0 - replayed.misses as f64 / base.misses as f64,
        traffic_ratio: (replayed.misses + replayed.issued) as f64 / base.misses as f64,
        ..replayed
    };
    let one = |name: &String| {
        let mut policy: Box<dyn Policy> = match name.as_str() {
            "readahead" => Box::<ReadAhead>::default(),
            "leap" => Box::<Leap>::default(),
            "markov" => Box::<Markov>::default(),
            "learned" => Box::new(learned(capacity)),
            "belady" => {
                let misses = eviction::belady(trace, capacity);
                let miss_ratio = misses as f64 / trace.ids.len() as f64;
                let best = Replayed { misses, miss_ratio, stall: miss_ratio, ..Replayed::default() };
                return (name.clone(), beside(best));
            }
            _ => return (name.clone(), beside(base.clone())),
        };
        (name.clone(), beside(replay(trace, setting, &mut *policy, clock)))
    };
    bench.policies.iter().map(one).collect()
}
