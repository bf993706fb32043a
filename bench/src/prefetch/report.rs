//! What `tierstream bench prefetch` says.

use std::fmt;

use serde::Serialize;

use super::replay::Replayed;

/// Results by policy, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub struct ByName<T>(pub Vec<(String, T)>);

impl<T: Serialize> Serialize for ByName<T> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// What an eviction policy missed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Evicted {
    /// Missed rows among all.
    pub miss_ratio: f64,
}

/// One trace at one size of memory.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// File of the trace.
    pub trace: String,
    /// Rows, requests and blocks of it.
    pub rows: usize,
    /// See `rows`.
    pub requests: usize,
    /// See `rows`.
    pub objects: usize,
    /// Memory, in percent of all blocks, and in blocks.
    pub cache_percent: f64,
    /// See `cache_percent`.
    pub cache_blocks: usize,
    /// Requests that pass while a fetch is under way.
    pub fetch_delay: u64,
    /// Share of first-seen ids that are one more than the largest before: near one, the numbers tell the future.
    pub numbering_leak: f64,
    /// Prefetchers.
    #[serde(skip_serializing_if = "is_empty")]
    pub policies: ByName<Replayed>,
    /// Eviction policies.
    #[serde(skip_serializing_if = "is_empty")]
    pub eviction: ByName<Evicted>,
}

fn is_empty<T>(by: &ByName<T>) -> bool {
    by.0.is_empty()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} rows in {} requests, {} blocks; memory of {} % ({} blocks), a fetch takes {} requests",
            self.trace,
            self.rows,
            self.requests,
            self.objects,
            self.cache_percent,
            self.cache_blocks,
            self.fetch_delay
        )?;
        if self.numbering_leak > 0.9 {
            writeln!(
                f,
                "warning: blocks are numbered as they first appear: what prefetching saves here is an artefact"
            )?;
        }
        if !self.policies.0.is_empty() {
            writeln!(
                f,
                "{:<10} miss ratio  coverage  accuracy  traffic   stall  CPU ns p50  p99",
                "prefetch"
            )?;
        }
        for (name, policy) in &self.policies.0 {
            let accuracy = policy.accuracy.map_or("-".to_owned(), |accuracy| format!("{accuracy:.3}"));
            writeln!(
                f,
                "{name:<10} {:>10.4} {:>9.3} {accuracy:>9} {:>8.3} {:>7.4} {:>11} {:>4}",
                policy.miss_ratio,
                policy.coverage,
                policy.traffic_ratio,
                policy.stall,
                policy.cpu_ns_p50,
                policy.cpu_ns_p99
            )?;
        }
        if !self.eviction.0.is_empty() {
            writeln!(f, "{:<10} miss ratio", "eviction")?;
        }
        for (name, evicted) in &self.eviction.0 {
            writeln!(f, "{name:<10} {:>10.4}", evicted.miss_ratio)?;
        }
        Ok(())
    }
}
