//! The daemon beside what it replaces: leases beside copies over the socket, its clients' loaders beside one with a store
//! of its own, and two jobs beside one.
//!
//! Server and clients are threads of this process, each client with its own connection and its own mapping of L1, as
//! processes would have; what they pay to wake each other is the same. Rounds of both sides alternate; medians count.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tierstream_crypto::KeyProvider;
use tierstream_daemon::{AuthConfig, Client, ClientConfig, Server, ServerConfig};
use tierstream_loader::pack::{Input, Layout, PackConfig, PackProgress, pack};
use tierstream_loader::{Dataset, Dtype, Loader};
use tierstream_prefetch::Prefetcher;
use tierstream_storage::clock::Clock;
use tierstream_storage::format::capacity;
use tierstream_storage::tier::L2Config;
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeRead, RangeSource, Result, Store, StoreConfig};

use crate::random::Random;
use crate::store::read::{Place, location, random_keys};

const SEED: u64 = 10;
const LARGE_BLOCK: u32 = 1 << 20;
const SMALL_BLOCK: u32 = 64 << 10;
/// Bytes of each data set: some hundred small blocks, some dozens of large ones.
const SET_BYTES: usize = 48 << 20;
/// A context of 128 tokens and the token to predict, as bytes.
const SAMPLE_BYTES: u64 = 129;
const BATCH: u64 = 64;
/// Leases that are asked for together.
const TOGETHER: usize = 64;
const MICROS_MAX: u64 = 60_000_000_000;

/// What to measure.
#[derive(Clone, Debug)]
pub struct DaemonBench {
    /// An existing directory; what is made there is removed again.
    pub directory: PathBuf,
    /// How often each side is measured.
    pub rounds: usize,
    /// How long each time.
    pub window: Duration,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Micros {
    /// Half took less.
    pub p50: f64,
    /// 99 of 100 took less.
    pub p99: f64,
    /// How many were timed.
    pub count: u64,
}

/// The speed of a loader.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tokens {
    /// Median over the rounds.
    pub samples_per_s: f64,
    /// Each round.
    pub rounds: Vec<f64>,
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// A block of 1 MiB that L1 has, asked for through the ring until it can be read in place.
    pub lease_1m_us: Micros,
    /// The same bytes, copied over the socket.
    pub socket_copy_1m_us: Micros,
    /// How many times longer the copy takes, by the medians.
    pub copy_to_lease: f64,
    /// Leases on blocks of 64 KiB taken and given back by one client, 64 asked for together.
    pub leases_per_s: f64,
    /// By two clients.
    pub leases_per_s_two_clients: f64,
    /// Two clients beside one.
    pub two_clients_ratio: f64,
    /// A shuffled loader over a daemon, everything in L1.
    pub tokens_daemon: Tokens,
    /// The same loader over a store in the job's own process, with the prefetcher.
    pub tokens_embedded: Tokens,
    /// The first beside the second.
    pub daemon_to_embedded: f64,
    /// Bytes of L3 that one cold job reads, with half of the data in L1 and all of it on L2.
    pub one_job_l3_bytes: u64,
    /// Bytes that two jobs together read, in orders of their own, at the same time.
    pub two_jobs_l3_bytes: u64,
    /// Two jobs beside one.
    pub two_jobs_l3_ratio: f64,
}

/// A daemon with its clients' way to it.
struct Daemon {
    socket: PathBuf,
    server: Arc<Server>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Daemon {
    fn start(store: Store, place: &Path) -> Result<Self> {
        let socket = place.join("socket");
        let config = ServerConfig {
            socket: socket.clone(),
            roots: vec![place.to_owned()],
            clients_max: 16,
            auth: AuthConfig::default(),
            http: None,
        };
        let server = Arc::new(Server::bind(store, &config)?);
        let running = Arc::clone(&server);
        let thread = Some(std::thread::spawn(move || running.run()));
        Ok(Self { socket, server, thread })
    }

    fn client(&self, lease: bool) -> Result<Client> {
        Client::connect_with(ClientConfig { lease, ..ClientConfig::new(self.socket.to_string_lossy()) })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.server.handle().stop();
        // What went wrong there was met by the clients.
        let _ended = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn store(block_bytes: u32, l1_bytes: u64, share_l1: bool, keys: &Arc<dyn KeyProvider>) -> Result<Store> {
    let config = StoreConfig { block_bytes, l1_bytes, share_l1, ..StoreConfig::default() };
    Store::open(config, Arc::clone(keys))
}

/// Measures.
///
/// # Errors
/// As the stores, the daemon and its clients say.
pub fn run(bench: &DaemonBench, keys_clock: &Arc<dyn Clock>) -> Result<Report> {
    // Clients name what they read from the root of the file system on.
    let directory =
        std::path::absolute(&bench.directory).map_err(|error| Error::io("find", &bench.directory, error))?;
    let place = Place::new(&directory, "tierstream-bench-daemon")?;
    let keys = random_keys()?;
    let text = place.path().join("text");
    std::fs::create_dir(&text).map_err(|error| Error::io("create", &text, error))?;
    let mut bytes = vec![0; SET_BYTES];
    Random::new(SEED).fill(&mut bytes);
    let file = text.join("bytes");
    std::fs::write(&file, &bytes).map_err(|error| Error::io("write", &file, error))?;
    let mut sets = Vec::new();
    for (name, block_bytes) in [("large", LARGE_BLOCK), ("small", SMALL_BLOCK)] {
        let output = place.path().join(name);
        let layout = Layout::Cut { sample_bytes: SAMPLE_BYTES, dtype: Dtype::U8 };
        let config = PackConfig { output: output.clone(), block_bytes, layout, ..PackConfig::default() };
        pack(&Input::scan(&text)?, &config, &keys, &PackProgress::default())?;
        sets.push(output);
    }
    let mut report = Report::default();
    let work = Work { bench, place: place.path(), keys, clock: keys_clock };
    work.one_mebibyte(&sets[0], &mut report)?;
    work.many_small(&sets[1], &mut report)?;
    work.tokens(&sets[1], &mut report)?;
    work.two_jobs(&sets[1], &mut report)?;
    Ok(report)
}

struct Work<'a> {
    bench: &'a DaemonBench,
    place: &'a Path,
    keys: Arc<dyn KeyProvider>,
    clock: &'a Arc<dyn Clock>,
}

impl Work<'_> {
    fn one_mebibyte(&self, path: &Path, report: &mut Report) -> Result<()> {
        let daemon = Daemon::start(store(LARGE_BLOCK, 128 << 20, true, &self.keys)?, self.place)?;
        let (leasing, copying) = (daemon.client(true)?, daemon.client(false)?);
        let (set, same) = (leasing.open_data_set(location(path)?)?, copying.open_data_set(location(path)?)?);
        let full = full_blocks(&set);
        let bytes = capacity(set.block_bytes);
        let mut to = vec![0; to_usize(bytes)];
        let mut read = |block: u32| {
            let start = u64::from(block) * bytes;
            copying.read(&same, &mut [RangeRead { shard: 0, range: start..start + bytes, to: &mut to }])
        };
        // Into L1, and the pages of each mapping into place.
        for block in 0..full {
            read(block)?;
            let lease = leasing.lease(&set, 0, block)?;
            std::hint::black_box(lease.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>());
        }
        let (mut leases, mut copies) = (histogram(), histogram());
        for _ in 0..self.bench.rounds {
            self.timed(&mut leases, full, |block| leasing.lease(&set, 0, block).map(drop))?;
            self.timed(&mut copies, full, &mut read)?;
        }
        report.lease_1m_us = micros(&leases);
        report.socket_copy_1m_us = micros(&copies);
        report.copy_to_lease = report.socket_copy_1m_us.p50 / report.lease_1m_us.p50;
        Ok(())
    }

    /// Does `work` for one block after the other for one window, timing each.
    fn timed(
        &self,
        times: &mut Histogram<u64>,
        blocks: u32,
        mut work: impl FnMut(u32) -> Result<()>,
    ) -> Result<()> {
        let end = self.clock.now() + self.bench.window;
        for block in (0..blocks).cycle() {
            let began = self.clock.now();
            work(block)?;
            let now = self.clock.now();
            times.saturating_record(u64::try_from(now.saturating_sub(began).as_nanos()).unwrap_or(u64::MAX));
            if now >= end {
                break;
            }
        }
        Ok(())
    }

    fn many_small(&self, path: &Path, report: &mut Report) -> Result<()> {
        let daemon = Daemon::start(store(SMALL_BLOCK, 128 << 20, true, &self.keys)?, self.place)?;
        let one = || {
            let client = daemon.client(true)?;
            let set = client.open_data_set(location(path)?)?;
            // Once around unmeasured, so that L1 has every block.
            self.lease_for(&client, &set, Duration::ZERO)?;
            self.lease_for(&client, &set, self.bench.window)
        };
        let (mut ones, mut twos) = (Vec::new(), Vec::new());
        for _ in 0..self.bench.rounds {
            ones.push(one()?);
            let both =
                std::thread::scope(|scope| [scope.spawn(one), scope.spawn(one)].map(|thread| thread.join()));
            let mut sum = 0.0;
            for rate in both {
                sum += rate.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            twos.push(sum);
        }
        report.leases_per_s = median(&mut ones);
        report.leases_per_s_two_clients = median(&mut twos);
        report.two_clients_ratio = report.leases_per_s_two_clients / report.leases_per_s;
        Ok(())
    }

    /// Takes leases and gives them back, once around the data set and then for `window`; how many a second.
    fn lease_for(&self, client: &Client, set: &DataSetInfo, window: Duration) -> Result<f64> {
        let blocks: Vec<(usize, u32)> = (0..full_blocks(set)).map(|block| (0, block)).collect();
        let (began, mut count) = (self.clock.now(), 0_u64);
        loop {
            for together in blocks.chunks(TOGETHER) {
                let leases = client.lease_all(set, together)?;
                count += to_u64(leases.len());
            }
            let took = self.clock.now().saturating_sub(began);
            if took >= window {
                return Ok(count as f64 / took.as_secs_f64());
            }
        }
    }

    fn tokens(&self, path: &Path, report: &mut Report) -> Result<()> {
        let daemon = Daemon::start(store(SMALL_BLOCK, 128 << 20, true, &self.keys)?, self.place)?;
        let client: Arc<dyn RangeSource> = Arc::new(daemon.client(true)?);
        let embedded = store(SMALL_BLOCK, 128 << 20, false, &self.keys)?;
        let served = Dataset::open(client, location(path)?)?;
        let own = Dataset::open(Arc::new(embedded.clone()), location(path)?)?;
        let prefetcher = Prefetcher::new(&embedded);
        self.samples_per_s(&served, None, 1)?;
        self.samples_per_s(&own, Some(&prefetcher), 1)?;
        for round in 0..to_u64(self.bench.rounds) {
            report.tokens_embedded.rounds.push(self.samples_per_s(&own, Some(&prefetcher), round)?);
            report.tokens_daemon.rounds.push(self.samples_per_s(&served, None, round)?);
        }
        for tokens in [&mut report.tokens_daemon, &mut report.tokens_embedded] {
            tokens.samples_per_s = median(&mut tokens.rounds.clone());
        }
        report.daemon_to_embedded = report.tokens_daemon.samples_per_s / report.tokens_embedded.samples_per_s;
        Ok(())
    }

    /// One epoch.
    fn samples_per_s(&self, set: &Dataset, prefetcher: Option<&Prefetcher>, seed: u64) -> Result<f64> {
        let mut builder = Loader::builder(set.clone()).batch_size(BATCH).shuffle(true).seed(seed);
        if let Some(prefetcher) = prefetcher {
            builder = builder.prefetcher(prefetcher.clone());
        }
        let began = self.clock.now();
        let mut samples = 0;
        for batch in builder.build()? {
            samples += batch?.len();
        }
        Ok(samples as f64 / self.clock.now().saturating_sub(began).as_secs_f64())
    }

    fn two_jobs(&self, path: &Path, report: &mut Report) -> Result<()> {
        let l3_bytes = |jobs: u64| {
            let l2 = self.place.join(format!("l2-{jobs}"));
            std::fs::create_dir(&l2).map_err(|error| Error::io("create", &l2, error))?;
            let config = StoreConfig {
                block_bytes: SMALL_BLOCK,
                l1_bytes: to_u64(SET_BYTES / 2),
                share_l1: true,
                l2: vec![L2Config { path: l2, bytes: 1 << 30 }],
                ..StoreConfig::default()
            };
            let store = Store::open(config, Arc::clone(&self.keys))?;
            let daemon = Daemon::start(store.clone(), self.place)?;
            let before = store.metrics().l3.bytes;
            let ended = std::thread::scope(|scope| {
                let job = |seed| {
                    let daemon = &daemon;
                    move || {
                        let set = Dataset::open(Arc::new(daemon.client(true)?), location(path)?)?;
                        self.samples_per_s(&set, None, seed)
                    }
                };
                let threads: Vec<_> = (0..jobs).map(|seed| scope.spawn(job(seed))).collect();
                threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
            });
            for job in ended {
                job.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok::<_, Error>(store.metrics().l3.bytes - before)
        };
        report.one_job_l3_bytes = l3_bytes(1)?;
        report.two_jobs_l3_bytes = l3_bytes(2)?;
        report.two_jobs_l3_ratio = report.two_jobs_l3_bytes as f64 / report.one_job_l3_bytes as f64;
        if report.one_job_l3_bytes == 0 {
            return Err(Error::new(ErrorKind::Misuse, "bench daemon", "a cold job read nothing from L3"));
        }
        Ok(())
    }
}

/// Blocks of the first shard that are not cut short by its end.
fn full_blocks(set: &DataSetInfo) -> u32 {
    u32::try_from(set.shards[0].payload_bytes / capacity(set.block_bytes)).unwrap_or(u32::MAX)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(MICROS_MAX, 3).expect("bounds that are allowed")
}

fn micros(times: &Histogram<u64>) -> Micros {
    let at = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
    Micros { p50: at(0.5), p99: at(0.99), count: times.len() }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Micros { p50, p99, .. } = self.lease_1m_us;
        let copy = self.socket_copy_1m_us;
        writeln!(
            f,
            "1 MiB of L1    leased in {p50:.1} us (p99 {p99:.1}), copied in {:.1} us (p99 {:.1}): {:.1} x",
            copy.p50, copy.p99, self.copy_to_lease
        )?;
        writeln!(
            f,
            "64 KiB blocks  {:.0} leases/s, two clients {:.0}: {:.2} x",
            self.leases_per_s, self.leases_per_s_two_clients, self.two_clients_ratio
        )?;
        writeln!(
            f,
            "tokens         {:.0} samples/s over the daemon, {:.0} embedded: {:.2} x",
            self.tokens_daemon.samples_per_s, self.tokens_embedded.samples_per_s, self.daemon_to_embedded
        )?;
        writeln!(
            f,
            "L3, cold       {} bytes for one job, {} for two: {:.3} x",
            self.one_job_l3_bytes, self.two_jobs_l3_bytes, self.two_jobs_l3_ratio
        )
    }
}

#[cfg(test)]
mod tests {
    use tierstream_storage::clock::SystemClock;

    use super::*;

    #[test]
    fn every_number_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let bench =
            DaemonBench { directory: dir.path().to_owned(), rounds: 1, window: Duration::from_millis(20) };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let report = run(&bench, &clock).unwrap();
        println!("{report}");
        let json = serde_json::to_value(&report).unwrap();
        for (name, value) in json.as_object().unwrap() {
            let value = value.get("p50").or(value.get("samples_per_s")).unwrap_or(value);
            assert!(value.as_f64().unwrap() > 0.0, "{name}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
