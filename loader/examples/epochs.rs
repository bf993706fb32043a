//! Reads a packed data set cold and then warm, and prints a line of JSON for each: the Rust row of `bench/peers/run`.
//!
//! `epochs SET KEY L1_BYTES BATCH WORKERS SECONDS [pace]`: an epoch from a store that is opened for it, as far as SECONDS
//! go; then, with all of it in L1, another. Samples begin with their number, u64 little endian, by which lost and doubled
//! ones are counted. `pace` adds an epoch consumed at 0.8 of what the warm one reached.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tierstream_loader::{Dataset, Loader};
use tierstream_prefetch::Prefetcher;
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::keys::{KeyProvider, read_key_file};
use tierstream_storage::{Error, ErrorKind, Result, Store, StoreConfig};

struct Settings {
    batch: u64,
    workers: usize,
    seconds: f64,
    clock: SystemClock,
}

/// CPU time of this process and the threads it had.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn main() -> Result<()> {
    let misuse =
        || Error::new(ErrorKind::Misuse, "start", "epochs SET KEY L1_BYTES BATCH WORKERS SECONDS [pace]");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [set, key, l1_bytes, batch, workers, seconds, more @ ..] = &arguments[..] else {
        return Err(misuse());
    };
    let number = |text: &String| text.parse::<u64>().map_err(|_| misuse());
    let settings = Settings {
        batch: number(batch)?,
        workers: usize::try_from(number(workers)?).map_err(|_| misuse())?,
        seconds: seconds.parse().map_err(|_| misuse())?,
        clock: SystemClock::new(),
    };
    let (keys, l1_bytes) = (Arc::new(read_key_file(Path::new(key))?), number(l1_bytes)?);
    let open = || -> Result<(Store, Dataset)> {
        let keys: Arc<dyn KeyProvider> = keys.clone();
        let store = Store::open(StoreConfig { l1_bytes, ..StoreConfig::default() }, keys)?;
        let dataset = Dataset::open(Arc::new(store.clone()), set)?;
        Ok((store, dataset))
    };

    let clock = &settings.clock;
    let began = clock.now();
    let (store, dataset) = open()?;
    measure("cold", &store, &dataset, &settings, (1, began), None)?;
    for epoch in
        Loader::builder(dataset.clone()).batch_size(64).prefetcher(Prefetcher::new(&store)).build()?
    {
        drop(epoch?);
    }
    let per_second = measure("warm", &store, &dataset, &settings, (2, clock.now()), None)?;
    if !more.is_empty() {
        measure("paced", &store, &dataset, &settings, (3, clock.now()), Some(per_second * 0.8))?;
    }
    Ok(())
}

fn measure(
    name: &str,
    store: &Store,
    dataset: &Dataset,
    settings: &Settings,
    (seed, began): (u64, Duration),
    pace: Option<f64>,
) -> Result<f64> {
    let clock = &settings.clock;
    let cpu_began = cpu();
    let mut loader = Loader::builder(dataset.clone())
        .batch_size(settings.batch)
        .num_workers(settings.workers)
        .shuffle(true)
        .seed(seed)
        .prefetcher(Prefetcher::new(store))
        .build()?;
    let (mut waits, mut first, mut seen) =
        (Vec::new(), None, vec![0_u8; usize::try_from(dataset.len()).unwrap_or(0)]);
    let mut samples = 0.0;
    while let Some(batch) = loader.next() {
        let batch = batch?;
        waits.push(loader.last_wait());
        let now = clock.now() - began;
        first.get_or_insert(now);
        for index in 0..batch.len() {
            let head = batch.sample(index).get(..8).and_then(|head| head.try_into().ok()).unwrap_or_default();
            if let Some(count) =
                usize::try_from(u64::from_le_bytes(head)).ok().and_then(|at| seen.get_mut(at))
            {
                *count = count.saturating_add(1);
            }
            samples += 1.0;
        }
        if now.as_secs_f64() > settings.seconds {
            break;
        }
        // The work that a job would do: computing, not sleeping.
        while pace.is_some_and(|pace| (clock.now() - began).as_secs_f64() < samples / pace) {
            std::hint::spin_loop();
        }
    }
    let took = (clock.now() - began).as_secs_f64();
    let cpu_us = (cpu() - cpu_began).as_secs_f64() * 1e6 / samples;
    let complete = samples >= dataset.len() as f64;
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    let line = serde_json::json!({
        "what": name,
        "samples": samples,
        "samples_per_s": samples / took,
        "cpu_us_per_sample": cpu_us,
        "first_batch_ms": first.unwrap_or_default().as_secs_f64() * 1e3,
        "wait_us": {"p50": at(50), "p99": at(99)},
        "complete": complete,
        "lost": if complete { seen.iter().filter(|count| **count == 0).count() } else { 0 },
        "doubled": seen.iter().filter(|count| **count > 1).count(),
    });
    // What is told by tests goes to the error output; this is a result.
    writeln!(std::io::stdout(), "{line}")
        .map_err(|error| Error::io("write", Path::new("standard output"), error))?;
    Ok(samples / took)
}
