//! The one list of metrics: every number of a [`Snapshot`](super::Snapshot) with its kind, its unit and what it says.
//! A test holds the list against the snapshot, and docs/reference/metrics.md against the list.

/// How a number moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only up, from zero at the start of the store.
    Counter,
    /// Up and down.
    Gauge,
    /// A quantile of a latency since the start.
    Quantile,
}

impl Kind {
    /// The word in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Quantile => "quantile",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Where it stands in a snapshot's JSON; dots separate levels.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Its unit.
    pub unit: &'static str,
    /// What it says.
    pub help: &'static str,
}

const fn metric(name: &'static str, kind: Kind, unit: &'static str, help: &'static str) -> Metric {
    Metric { name, kind, unit, help }
}

/// All metrics, in the order of a snapshot.
pub const METRICS: [Metric; 55] = [
    metric("l1.hits", Kind::Counter, "reads", "Reads of a block answered from memory at once"),
    metric("l1.bytes", Kind::Counter, "bytes", "Plain bytes delivered by those reads"),
    metric("l1.latency.count", Kind::Counter, "reads", "Hits of L1 that were timed: one in 64"),
    metric("l1.latency.p50_ns", Kind::Quantile, "ns", "Finding a block in L1, half of the time"),
    metric("l1.latency.p99_ns", Kind::Quantile, "ns", "The same, 99 times of 100"),
    metric("l1.latency.p999_ns", Kind::Quantile, "ns", "The same, 999 times of 1000"),
    metric("l1.latency.max_ns", Kind::Gauge, "ns", "The same, at worst"),
    metric("l2.hits", Kind::Counter, "blocks", "Blocks read from L2, ahead of need or on demand"),
    metric("l2.bytes", Kind::Counter, "bytes", "Stored bytes of those blocks"),
    metric("l2.latency.count", Kind::Counter, "blocks", "Reads of L2 that were timed: all"),
    metric(
        "l2.latency.p50_ns",
        Kind::Quantile,
        "ns",
        "Reading a block from L2, its queue included, half of the time",
    ),
    metric("l2.latency.p99_ns", Kind::Quantile, "ns", "The same, 99 times of 100"),
    metric("l2.latency.p999_ns", Kind::Quantile, "ns", "The same, 999 times of 1000"),
    metric("l2.latency.max_ns", Kind::Gauge, "ns", "The same, at worst"),
    metric("l3.hits", Kind::Counter, "blocks", "Blocks read from L3, ahead of need or on demand"),
    metric("l3.bytes", Kind::Counter, "bytes", "Stored bytes of those blocks"),
    metric("l3.latency.count", Kind::Counter, "blocks", "Reads of L3 that were timed: all"),
    metric(
        "l3.latency.p50_ns",
        Kind::Quantile,
        "ns",
        "Reading a block from L3, its queue included, half of the time",
    ),
    metric("l3.latency.p99_ns", Kind::Quantile, "ns", "The same, 99 times of 100"),
    metric("l3.latency.p999_ns", Kind::Quantile, "ns", "The same, 999 times of 1000"),
    metric("l3.latency.max_ns", Kind::Gauge, "ns", "The same, at worst"),
    metric("demand_waits", Kind::Counter, "reads", "Reads that had to wait for a block"),
    metric("demand_wait.count", Kind::Counter, "reads", "Of those, reads whose wait is over"),
    metric("demand_wait.p50_ns", Kind::Quantile, "ns", "How long they waited, half of the time"),
    metric("demand_wait.p99_ns", Kind::Quantile, "ns", "The same, 99 times of 100"),
    metric("demand_wait.p999_ns", Kind::Quantile, "ns", "The same, 999 times of 1000"),
    metric("demand_wait.max_ns", Kind::Gauge, "ns", "The same, at worst"),
    metric("open_bytes", Kind::Counter, "bytes", "Stored bytes authenticated and opened"),
    metric("open_nanos", Kind::Counter, "ns", "Time that took, summed over threads"),
    metric("l1_blocks", Kind::Gauge, "blocks", "Blocks in L1"),
    metric("l1_committed_bytes", Kind::Gauge, "bytes", "Memory of the frames that hold them"),
    metric("l1_used_bytes", Kind::Gauge, "bytes", "Bytes of the blocks in them"),
    metric("l1_evictions", Kind::Counter, "blocks", "Blocks that left L1 to make room"),
    metric("l2_blocks", Kind::Gauge, "blocks", "Blocks on L2"),
    metric("l2_allocated_bytes", Kind::Gauge, "bytes", "What the segments of L2 take on its devices"),
    metric("l2_admitted_bytes", Kind::Counter, "bytes", "Stored bytes written to L2"),
    metric(
        "l2_throttled_bytes",
        Kind::Counter,
        "bytes",
        "Stored bytes not written to L2 because of its write rate",
    ),
    metric(
        "l2_dropped_blocks",
        Kind::Counter,
        "blocks",
        "Blocks damaged or unreadable on L2, read from L3 instead",
    ),
    metric("l2_healed_blocks", Kind::Counter, "blocks", "Of those, blocks that were written to L2 again"),
    metric("l2_errors", Kind::Counter, "operations", "Reads and writes that devices of L2 failed"),
    metric(
        "l2_retired_devices",
        Kind::Gauge,
        "devices",
        "Devices of L2 that failed too often and are not used any more",
    ),
    metric("read_errors", Kind::Counter, "reads", "Reads that a device failed, before retries"),
    metric(
        "io_queue_depth",
        Kind::Gauge,
        "operations",
        "Reads and writes of blocks that are queued or under way",
    ),
    metric("dirty_bytes", Kind::Gauge, "bytes", "Bytes that L2 alone has: acknowledged, and not on L3 yet"),
    metric("drained_objects", Kind::Counter, "objects", "Objects that were drained from L2 to L3"),
    metric("drained_bytes", Kind::Counter, "bytes", "Bytes of those"),
    metric("io.reads", Kind::Counter, "operations", "Reads that devices were asked for, a merged one once"),
    metric("io.read_bytes", Kind::Counter, "bytes", "Bytes that they asked for"),
    metric("io.writes", Kind::Counter, "operations", "Writes and syncs that devices were asked for"),
    metric("io.write_bytes", Kind::Counter, "bytes", "Bytes of those writes"),
    metric(
        "io.buffered",
        Kind::Counter,
        "operations",
        "Of all of them, those that went through the page cache",
    ),
    metric("io.merged_reads", Kind::Counter, "reads", "Reads that rode along with another's operation"),
    metric("io.merged_gap_bytes", Kind::Counter, "bytes", "Bytes read between merged reads and thrown away"),
    metric("io.short", Kind::Counter, "operations", "Transfers that ended early and were resumed"),
    metric(
        "io.retried",
        Kind::Counter,
        "operations",
        "Operations that the system put off and that were tried again",
    ),
];

/// The rows of docs/reference/metrics.md.
#[must_use]
pub fn reference() -> String {
    let row = |metric: &Metric| {
        format!("| `{}` | {} | {} | {} |\n", metric.name, metric.kind.name(), metric.unit, metric.help)
    };
    METRICS.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::metrics::Snapshot;

    fn flatten(prefix: &str, value: &Value, names: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    flatten(&format!("{prefix}{dot}{name}"), value, names);
                }
            }
            Value::Number(_) => names.push(prefix.to_owned()),
            _ => {}
        }
    }

    #[test]
    fn the_list_names_every_number_of_a_snapshot_and_no_other() {
        let mut found = Vec::new();
        flatten("", &serde_json::to_value(Snapshot::default()).unwrap(), &mut found);
        let mut listed: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        found.sort();
        listed.sort_unstable();
        assert_eq!(found, listed);
    }

    #[test]
    fn the_reference_is_the_list() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/metrics.md");
        let text = std::fs::read_to_string(path).unwrap();
        let rows: String =
            text.lines().filter(|line| line.starts_with("| `")).map(|line| format!("{line}\n")).collect();
        assert!(
            rows == reference(),
            "docs/reference/metrics.md differs from this, which is right:\n{}",
            reference()
        );
    }
}
