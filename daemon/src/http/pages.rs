//! What the numbers look like: Prometheus text, JSON, and the dashboard that shows the JSON.

use tierstream_storage::RangeSource;
use tierstream_storage::metrics::names::{Kind, METRICS};

use crate::server::Shared;

/// One page: styles and script are in it, nothing comes from elsewhere.
pub(crate) const DASHBOARD: &str = include_str!("dashboard.html");

/// Numbers of the daemon itself, beside those of its store: name, whether it only goes up, what it says.
const OWN: [(&str, bool, &str); 6] = [
    ("clients", false, "Clients at the socket now"),
    ("leases", false, "Blocks of L1 that clients hold now"),
    ("prefetch.announced_blocks", true, "Blocks asked for ahead of need"),
    ("prefetch.consumed_reads", true, "Announced reads that jobs have made"),
    ("prefetch.late_blocks", true, "Blocks that were not there yet when a job needed them"),
    ("prefetch.window_bytes", false, "How far ahead is looked now"),
];

fn value(shared: &Shared) -> serde_json::Value {
    let store = serde_json::to_value(shared.store.metrics()).unwrap_or_default();
    let prefetch = serde_json::to_value(shared.prefetcher.stats()).unwrap_or_default();
    serde_json::json!({
        "store": store,
        "clients": shared.clients(),
        "leases": shared.leases.held(),
        "prefetch": prefetch,
        "l1_blocks": shared.store.l1_blocks(),
        "engine": shared.store.io_report().to_string(),
    })
}

/// All numbers as JSON.
pub(crate) fn status(shared: &Shared) -> String {
    format!("{}\n", value(shared))
}

fn at<'a>(value: &'a serde_json::Value, name: &str) -> Option<&'a serde_json::Number> {
    match name.split('.').try_fold(value, |value, level| value.get(level))? {
        serde_json::Value::Number(number) => Some(number),
        _ => None,
    }
}

/// All numbers as Prometheus reads them: `l1.hits` is `tierstream_l1_hits_total`.
pub(crate) fn prometheus(shared: &Shared) -> String {
    let value = value(shared);
    let store = value.get("store").cloned().unwrap_or_default();
    let mut text = String::new();
    let mut line = |name: &str, counts: bool, help: &str, number: Option<&serde_json::Number>| {
        let Some(number) = number else { return };
        let name = format!("tierstream_{}{}", name.replace('.', "_"), if counts { "_total" } else { "" });
        let kind = if counts { "counter" } else { "gauge" };
        text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {number}\n");
    };
    for metric in &METRICS {
        line(metric.name, metric.kind == Kind::Counter, metric.help, at(&store, metric.name));
    }
    for (name, counts, help) in OWN {
        line(name, counts, help, at(&value, name));
    }
    text
}
