//! What a workload measured: utilisation, waits, tiers, fairness.

use std::fmt::Write;

use tierstream_prefetch::PrefetchStats;
use tierstream_storage::metrics::Snapshot;

use crate::io::record::{Histogram, Stat};
use crate::io::report::json::{Node, Object};
use crate::number::ratio;

/// One pass over the data set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Epoch {
    samples: u64,
    bytes: u64,
    batches: u64,
    compute_nanos: u64,
    /// From asking for the first batch to the end of the last computation.
    nanos: u64,
    threads: u64,
    wait: Stat,
    waits: Histogram,
    /// What the tiers gave; told by the job's first thread alone.
    pub(super) tiers: Option<Snapshot>,
}

/// What a job measured.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(super) workload: &'static str,
    pub(super) engine: &'static str,
    pub(super) prefetch: bool,
    pub(super) cipher: String,
    pub(super) kernel: String,
    pub(super) compute_nanos: u64,
    pub(super) batch_size: u64,
    pub(super) au_target: f64,
    pub(super) epochs: Vec<Epoch>,
    /// Of each thread.
    pub(super) samples_per_s: Vec<f64>,
    pub(super) prefetched: Option<PrefetchStats>,
    /// Bytes and seconds of draining checkpoints to L3.
    pub(super) drained: Option<(u64, f64)>,
}

impl Epoch {
    pub(super) fn add(&mut self, samples: &u64, bytes: u64, wait_nanos: u64, compute_nanos: u64, nanos: u64) {
        self.samples += samples;
        self.bytes += bytes;
        self.batches += 1;
        self.compute_nanos += compute_nanos;
        self.nanos += nanos;
        self.threads = 1;
        self.wait.add(wait_nanos);
        self.waits.add(wait_nanos);
    }

    /// MLPerf Storage's rule: compute time as a share of all time, in percent.
    pub(crate) fn au_percent(&self) -> f64 {
        100.0 * ratio(self.compute_nanos as f64, self.nanos as f64)
    }

    /// Seconds that a thread took.
    fn seconds(&self) -> f64 {
        ratio(self.nanos as f64 / 1e9, self.threads.max(1) as f64)
    }

    fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.bytes += other.bytes;
        self.batches += other.batches;
        self.compute_nanos += other.compute_nanos;
        self.nanos += other.nanos;
        self.threads += other.threads;
        self.wait.merge(&other.wait);
        self.waits.merge(&other.waits);
        self.tiers = self.tiers.or(other.tiers);
    }

    fn json(&self, au_target: f64) -> Node {
        let percents = [50.0, 90.0, 99.0, 99.9, 99.99];
        let values = self.waits.percentiles(&percents);
        let ready =
            percents.iter().zip(values).map(|(percent, nanos)| (format!("{percent:.6}"), Node::from(nanos)));
        let au = self.au_percent();
        let mut object = Object::default()
            .with("samples", self.samples)
            .with("bytes", self.bytes)
            .with("batches", self.batches)
            .with("seconds", self.seconds())
            .with("samples_per_s", ratio(self.samples as f64, self.seconds()))
            .with("bw_bytes", ratio(self.bytes as f64, self.seconds()))
            .with("au_percent", au)
            .with("au_target", au_target)
            .with("au_met", au >= au_target)
            .with("stall_ms_per_step", self.wait.mean() / 1e6)
            .with("stall_ms_max", self.wait.max as f64 / 1e6)
            .with("batch_ready_ns", Node::Object(ready.collect()));
        if let Some(tiers) = &self.tiers {
            let tier = |hits: u64, bytes: u64| Object::default().with("hits", hits).with("bytes", bytes);
            object = object.with(
                "tiers",
                Object::default()
                    .with("l1", tier(tiers.l1.hits, tiers.l1.bytes))
                    .with("l2", tier(tiers.l2.hits, tiers.l2.bytes))
                    .with("l3", tier(tiers.l3.hits, tiers.l3.bytes))
                    .with("demand_waits", tiers.demand_waits)
                    .with("l2_admitted_bytes", tiers.l2_admitted_bytes)
                    .with("open_bytes", tiers.open_bytes)
                    .with("open_seconds", tiers.open_nanos as f64 / 1e9)
                    .with("open_gb_per_s", ratio(tiers.open_bytes as f64, tiers.open_nanos as f64)),
            );
        }
        object.into()
    }
}

/// What was counted from `before` to `now`; gauges are those of `now`.
pub(super) fn between(before: &Snapshot, now: &Snapshot) -> Snapshot {
    let mut since = *now;
    for (tier, earlier) in
        [(&mut since.l1, before.l1), (&mut since.l2, before.l2), (&mut since.l3, before.l3)]
    {
        tier.hits -= earlier.hits;
        tier.bytes -= earlier.bytes;
    }
    since.demand_waits -= before.demand_waits;
    since.open_bytes -= before.open_bytes;
    since.open_nanos -= before.open_nanos;
    since.l2_admitted_bytes -= before.l2_admitted_bytes;
    since
}

impl Outcome {
    pub(super) fn of_one_job(mut self, elapsed_nanos: u64) -> Self {
        let samples: u64 = self.epochs.iter().map(|epoch| epoch.samples).sum();
        self.samples_per_s = vec![ratio(samples as f64 * 1e9, elapsed_nanos as f64)];
        self
    }

    /// Adds what another thread of the job measured.
    pub(crate) fn merge(&mut self, other: Self) {
        for (at, epoch) in other.epochs.iter().enumerate() {
            match self.epochs.get_mut(at) {
                Some(known) => known.merge(epoch),
                None => self.epochs.push(epoch.clone()),
            }
        }
        self.samples_per_s.extend(other.samples_per_s);
    }

    /// Jain's index of the threads' samples per second: 1 when all got the same, 1/n when one got all.
    pub(crate) fn fairness(&self) -> f64 {
        let sum: f64 = self.samples_per_s.iter().sum();
        let squares: f64 = self.samples_per_s.iter().map(|rate| rate * rate).sum();
        ratio(sum * sum, squares * self.samples_per_s.len() as f64)
    }

    pub(crate) fn json(&self) -> Node {
        let epochs: Vec<Node> = self.epochs.iter().map(|epoch| epoch.json(self.au_target)).collect();
        let rates: Vec<Node> = self.samples_per_s.iter().map(|rate| Node::from(*rate)).collect();
        let prefetch = self.prefetched.map(|stats| {
            Object::default()
                .with("announced_blocks", stats.announced_blocks)
                .with("consumed_reads", stats.consumed_reads)
                .with("late_blocks", stats.late_blocks)
                .with("window_bytes", stats.window_bytes)
                .with("budget_bytes", stats.budget_bytes)
        });
        let drained = self
            .drained
            .map(|(bytes, seconds)| Object::default().with("bytes", bytes).with("seconds", seconds));
        Object::default()
            .with("name", self.workload)
            .with("engine", self.engine)
            .with("prefetch", self.prefetch)
            .with("cipher", self.cipher.as_str())
            .with("cipher_kernel", self.kernel.as_str())
            .with("batch_size", self.batch_size)
            .with("compute_ms", self.compute_nanos as f64 / 1e6)
            .with("epochs", epochs)
            .with("job_samples_per_s", rates)
            .with("fairness", self.fairness())
            .maybe("prefetcher", prefetch)
            .maybe("drained", drained)
            .into()
    }

    /// Lines for people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _infallible = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "  workload     : {}, batch={}, compute={:.1} ms, prefetch={}, {} ({})",
            self.workload,
            self.batch_size,
            self.compute_nanos as f64 / 1e6,
            if self.prefetch { "on" } else { "off" },
            self.cipher,
            self.kernel
        )?;
        for (number, epoch) in self.epochs.iter().enumerate() {
            let au = epoch.au_percent();
            let verdict = if au >= self.au_target { "met" } else { "missed" };
            let percents = epoch.waits.percentiles(&[50.0, 99.0, 99.99]);
            let micros = |at: usize| percents.get(at).map_or(0, |nanos| nanos / 1_000);
            writeln!(
                out,
                "     epoch {number} ({}): AU={au:.2}% ({} % {verdict}), samples/s={:.1}, {:.1} MB/s, stall avg={:.2} ms, batch ready p50={} us p99={} us p99.99={} us",
                if number == 0 { "cold" } else { "warm" },
                self.au_target,
                ratio(epoch.samples as f64, epoch.seconds()),
                ratio(epoch.bytes as f64 / 1e6, epoch.seconds()),
                epoch.wait.mean() / 1e6,
                micros(0),
                micros(1),
                micros(2)
            )?;
            if let Some(tiers) = &epoch.tiers {
                writeln!(
                    out,
                    "       tiers   : L1 hits={} ({} MB), L2 hits={} ({} MB), L3 hits={} ({} MB), demand waits={}, cipher and codec={:.2} s at {:.2} GB/s",
                    tiers.l1.hits,
                    tiers.l1.bytes / 1_000_000,
                    tiers.l2.hits,
                    tiers.l2.bytes / 1_000_000,
                    tiers.l3.hits,
                    tiers.l3.bytes / 1_000_000,
                    tiers.demand_waits,
                    tiers.open_nanos as f64 / 1e9,
                    ratio(tiers.open_bytes as f64, tiers.open_nanos as f64)
                )?;
            }
        }
        if let Some((bytes, seconds)) = self.drained {
            writeln!(out, "     drained   : {} MB to L3 in {seconds:.2} s", bytes / 1_000_000)?;
        }
        if self.samples_per_s.len() > 1 {
            writeln!(out, "     fairness  : {:.4} over {} jobs", self.fairness(), self.samples_per_s.len())?;
        }
        Ok(())
    }

    /// Epochs, for the page.
    pub(crate) fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }
}

impl Epoch {
    /// Hits and bytes of L1, L2 and L3.
    pub(crate) fn tier_bytes(&self) -> Option<[(u64, u64); 3]> {
        self.tiers.map(|tiers| [tiers.l1, tiers.l2, tiers.l3].map(|tier| (tier.hits, tier.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utilisation_is_compute_over_all_time() {
        let mut epoch = Epoch::default();
        epoch.add(&4, 400, 100, 900, 1_000);
        epoch.add(&4, 400, 1_100, 900, 2_000);
        assert!((epoch.au_percent() - 60.0).abs() < 1e-9);
        let other = epoch.clone();
        epoch.merge(&other);
        assert!((epoch.au_percent() - 60.0).abs() < 1e-9);
        assert!((epoch.seconds() - 3e-6).abs() < 1e-12, "two threads side by side");
    }
}
