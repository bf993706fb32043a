//! One trace through one prefetcher.

use serde::Serialize;
use tierstream_prefetch::learned::{Access, Config, Outcome, Predictor};
use tierstream_storage::clock::Clock;

use super::cache::Cache;
use super::trace::Trace;

/// Something that says which blocks to fetch after each request.
pub(super) trait Policy {
    fn request(&mut self, stream: u64, accesses: &[Access], holds: &dyn Fn(u64) -> bool, out: &mut Vec<u64>);

    /// Fetched blocks that left unused.
    fn left(&mut self, _ids: &[u64]) {}

    /// Requests that a fetch takes.
    fn fetch_took(&mut self, _requests: u64) {}

    /// Whether unused blocks are kept apart.
    fn keeps_apart(&self) -> bool {
        false
    }
}

impl Policy for Predictor {
    fn request(&mut self, stream: u64, accesses: &[Access], holds: &dyn Fn(u64) -> bool, out: &mut Vec<u64>) {
        Predictor::request(self, stream, accesses, &holds, out);
    }

    fn left(&mut self, ids: &[u64]) {
        ids.iter().for_each(|id| self.wasted(*id));
    }

    fn fetch_took(&mut self, requests: u64) {
        Predictor::fetch_took(self, requests as f32);
    }

    fn keeps_apart(&self) -> bool {
        true
    }
}

/// How a replay is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) capacity: usize,
    pub(super) fetch_delay: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Replayed {
    /// Missed rows among all.
    pub miss_ratio: f64,
    /// Misses of no prefetching that were saved.
    pub coverage: f64,
    /// Fetched blocks that were used, among all fetched; none when nothing was fetched.
    pub accuracy: Option<f64>,
    /// Blocks moved, demanded and fetched ahead, beside those of no prefetching.
    pub traffic_ratio: f64,
    /// Waiting per row: 1 for a miss, the rest of its way for a block under way.
    pub stall: f64,
    /// CPU time per row, median.
    pub cpu_ns_p50: u64,
    /// CPU time per row, 99th percentile.
    pub cpu_ns_p99: u64,
    /// Blocks fetched ahead.
    pub issued: u64,
    /// Rows missed.
    pub misses: u64,
}

pub(super) fn learned(capacity: usize) -> Predictor {
    Predictor::new(Config { capacity: u64::try_from(capacity).unwrap_or(u64::MAX) })
}

pub(super) fn replay(
    trace: &Trace,
    setting: Setting,
    policy: &mut dyn Policy,
    clock: &dyn Clock,
) -> Replayed {
    let apart = if policy.keeps_apart() {
        (setting.capacity / 8).max(64.min(setting.capacity / 2)).max(1)
    } else {
        0
    };
    let mut cache = Cache::new(setting.capacity, apart);
    let (mut accesses, mut out, mut left) = (Vec::new(), Vec::with_capacity(4096), Vec::new());
    let (mut misses, mut issued, mut used, mut stall) = (0_u64, 0_u64, 0_u64, 0.0);
    let mut cpu =
        hdrhistogram::Histogram::<u64>::new_with_max(1_000_000_000, 3).expect("three digits of a second");
    for (number, request) in (0_u64..).zip(&trace.requests) {
        accesses.clear();
        for row in request.first..request.end {
            let id = trace.ids[row];
            let (outcome, away) = cache.read(id, number, &mut left);
            match outcome {
                Outcome::Miss => (misses, stall) = (misses + 1, stall + 1.0),
                Outcome::Late => (used, stall) = (used + 1, stall + away as f64 / setting.fetch_delay as f64),
                Outcome::FirstUse => used += 1,
                Outcome::Hit => {}
            }
            accesses.push(Access { id, outcome });
        }
        out.clear();
        let began = clock.now();
        policy.left(&left);
        left.clear();
        policy.request(request.stream, &accesses, &|id| cache.holds(id), &mut out);
        if !out.is_empty() {
            policy.fetch_took(setting.fetch_delay);
        }
        let took = clock.now().saturating_sub(began);
        let rows = u64::try_from(accesses.len()).unwrap_or(1);
        cpu.saturating_record_n(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / rows, rows);
        for id in &out {
            issued += u64::from(cache.fetch(*id, number + setting.fetch_delay, &mut left));
        }
    }
    let rows = trace.ids.len() as f64;
    Replayed {
        miss_ratio: misses as f64 / rows,
        coverage: 0.0,
        accuracy: (issued > 0).then(|| used as f64 / issued as f64),
        traffic_ratio: 0.0,
        stall: stall / rows,
        cpu_ns_p50: cpu.value_at_quantile(0.5),
        cpu_ns_p99: cpu.value_at_quantile(0.99),
        issued,
        misses,
    }
}
