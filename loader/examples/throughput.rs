//! Measures the loader on token samples that are in L1: `cargo run --release -p tierstream-loader --example throughput
//! [SAMPLES] [WORKERS]`. Samples of 4 to 8 KiB, shuffled, batches of 64, SM4-GCM; prints one line of JSON.

use std::sync::Arc;
use std::time::Duration;

use tierstream_loader::pack::{PackConfig, Writer};
use tierstream_loader::{Batch, Dataset, Dtype, Field, Loader, LoaderBuilder, Schema};
use tierstream_prefetch::Prefetcher;
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::keys::{KeyProvider, RootKey};
use tierstream_storage::testing::Random;
use tierstream_storage::{Error, ErrorKind, Result, Store, StoreConfig};

/// CPU time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Anonymous memory of this process, L1 included.
fn anonymous_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let samples = arguments.next().and_then(|number| number.ok()).unwrap_or(60_000);
    let workers = arguments.next().and_then(|number| number.ok()).unwrap_or(2);
    let dir = tempfile::tempdir().map_err(|error| Error::io("make", std::path::Path::new("/tmp"), error))?;
    let keys: Arc<dyn KeyProvider> = Arc::new(RootKey::random("throughput")?);
    let path = dir.path().join("set");
    let config = PackConfig { output: path.clone(), ..PackConfig::default() };
    let schema = Schema::new(Field::ragged("tokens", Dtype::U16))?;
    let mut writer = Writer::create(config, schema, Arc::clone(&keys))?;
    let mut random = Random::new(1);
    let mut tokens = vec![0; 8192];
    random.fill(&mut tokens);
    for _ in 0..samples {
        let len = usize::try_from(2048 + random.below(2048)).unwrap_or(2048) * 2;
        writer.write(&[&tokens[..len]])?;
    }
    let bytes = writer.finish()?.input_bytes;

    let store = Store::open(
        StoreConfig { l1_bytes: bytes + (bytes >> 3) + (64 << 20), ..StoreConfig::default() },
        keys,
    )?;
    let location = path.to_str().ok_or_else(|| Error::new(ErrorKind::Misuse, "open", "no UTF-8"))?;
    let dataset = Dataset::open(Arc::new(store.clone()), location)?;
    let workers = usize::try_from(workers).unwrap_or(2);
    let build = |seed, announced: bool| -> LoaderBuilder {
        let builder = Loader::builder(dataset.clone()).batch_size(64).seed(seed).num_workers(workers);
        if announced { builder.prefetcher(Prefetcher::new(&store)) } else { builder }
    };
    // Everything into L1.
    for batch in build(0, true).build()? {
        drop(batch?);
    }
    for (name, announced) in [("plain", false), ("announced", true)] {
        let capacity = measure(name, build(1, announced).shuffle(true), samples, None)?;
        // A consumer that takes four fifths of what the loader can give.
        measure(name, build(2, announced).shuffle(true), samples, Some(0.8 * capacity))?;
    }
    Ok(())
}

/// Reads all samples, at `pace` samples a second or as fast as they come. Returns how many came a second.
fn measure(name: &str, builder: LoaderBuilder, samples: u64, pace: Option<f64>) -> Result<f64> {
    let clock = SystemClock::new();
    let (began, cpu_began) = (clock.now(), cpu());
    let mut loader = builder.build()?;
    let mut waits = Vec::new();
    let mut seen = 0_u64;
    let mut first = None;
    while let Some(batch) = loader.next() {
        let batch: Batch = batch?;
        first.get_or_insert_with(|| clock.now() - began);
        seen += u64::try_from(batch.len()).unwrap_or(0);
        waits.push(loader.last_wait());
        // Asleep, as a consumer is whose work a GPU does; it makes up for having slept too long.
        let due = pace.map_or(Duration::ZERO, |pace| Duration::from_secs_f64(seen as f64 / pace));
        std::thread::park_timeout(due.saturating_sub(clock.now() - began));
    }
    let took = clock.now() - began;
    assert_eq!(seen, samples, "each sample once");
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    let line = serde_json::json!({
        "loader": name,
        "pace": pace,
        "samples_per_s": seen as f64 / took.as_secs_f64(),
        "cpu_us_per_sample": (cpu() - cpu_began).as_secs_f64() * 1e6 / seen as f64,
        "first_batch_ms": first.unwrap_or_default().as_secs_f64() * 1e3,
        "wait_us": {"p50": at(50), "p99": at(99)},
        "anonymous_mb": anonymous_kb() as f64 / 1e3,
    });
    tierstream_storage::testing::tell(&line.to_string());
    Ok(seen as f64 / took.as_secs_f64())
}
