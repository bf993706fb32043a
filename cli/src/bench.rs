//! `tierstream bench`: measurements of this machine, layer by layer; fio's command line where no verb is named.

mod fio;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use tierstream_bench::catalog::{self, CatalogBench};
use tierstream_bench::crypto;
use tierstream_bench::daemon::{self, DaemonBench};
use tierstream_bench::gpu::{self, GpuBench};
use tierstream_bench::prefetch::{self, POLICIES, PrefetchBench};
use tierstream_bench::read::{self, ReadBench};
use tierstream_bench::store::{self, StoreBench};
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::args::{TierArgs, block_bytes_of, parse_positive, parse_size};
use crate::key::KeyArgs;
use crate::output;

/// Measure this machine: I/O in fio's words, the store beside fio, ciphers beside memcpy, data sets through the loader,
/// catalogs by number of objects
///
/// Without a verb it is fio: `tierstream bench job.fio`, `tierstream bench --name=a --rw=randread --bs=4k ...`.
/// `--cmdhelp` lists fio's options and ours, `--cmdhelp=NAME` explains one; docs/reference/bench.md has all. Also
/// --output-format=normal,json,json+, --output=FILE, --report=FILE.html, --status-interval=T (NDJSON on stderr), --eta,
/// --section=NAME, --showcmd, --parse-only, --readonly, --compare A.json B.json, --tune=DIRECTORY [--tune-budget=60s].
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    verb: Option<Verb>,

    /// Job files and options of fio
    #[arg(value_name = "JOBFILE | --OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    fio: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Read or write files as fio does, with fio's options; the same as without a verb
    Io {
        /// fio's options: --rw=randread --filename=/mnt/nvme/test --size=1g --bs=64k --ioengine=io_uring --iodepth=32
        #[arg(value_name = "OPTION", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Seal and open with each cipher, beside memcpy
    Crypto {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Copy to GPUs, open sealed blocks on them, and feed them batches; without a GPU it says so
    ///
    /// Copies from plain and pinned memory, the cipher by share of the GPU, sealed blocks copied and opened in overlap,
    /// batches from L1, and the stall beside a kernel that needs 0.8 of the link. A data set of 512 MiB is made and removed.
    Gpu {
        /// One GPU by its number; all without
        #[arg(long, value_name = "N")]
        gpu: Option<u32>,
        /// Existing directory for the data set
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read data sets through the loader, as a job does; several take turns and are compared with the first
    ///
    /// L1 and the kernel's page cache are empty at the start of each run; an L2 keeps what earlier runs brought there.
    Read(Read),
    /// Measure the store and its I/O engine beside fio
    ///
    /// 4 KiB random and 1 MiB sequential reads of a file, in rounds that alternate with fio's; reads of a packed data set
    /// through lookup and cipher; hits in memory; what memory is wasted. The defaults take a minute. Buffers lie on huge
    /// pages where the machine has some: sysctl vm.nr_hugepages=64.
    Store {
        /// Existing directory on the device to measure; what is made there is removed again
        #[arg(default_value = ".")]
        directory: PathBuf,
        /// Existing directory on a second device, to stripe over both
        #[arg(long, value_name = "DIR")]
        stripe: Option<PathBuf>,
        /// Size of the file that is read
        #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
        size: u64,
        /// How often each side is measured; the median counts
        #[arg(long, value_name = "N", default_value = "5", value_parser = parse_positive)]
        rounds: u64,
        /// How long each time, in milliseconds
        #[arg(long, value_name = "MS", default_value = "1000", value_parser = parse_positive)]
        window_ms: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure a daemon beside what it replaces: leases beside copies, its clients' loaders beside one with its own store
    Daemon {
        /// Existing directory; what is made there is removed again
        #[arg(default_value = ".")]
        directory: PathBuf,
        /// How often each side is measured; the median counts
        #[arg(long, value_name = "N", default_value = "5", value_parser = parse_positive)]
        rounds: u64,
        /// How long each time, in milliseconds
        #[arg(long, value_name = "MS", default_value = "500", value_parser = parse_positive)]
        window_ms: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Replay an access trace through the prefetcher, beside simple ones and Belady
    ///
    /// A trace is CSV with a header line, perhaps compressed with zstd: t, id, size, op, stream, of which id is needed.
    /// Consecutive rows of one t and stream are one request.
    Prefetch(Prefetch),
    /// Compare the catalogs of this build
    Catalog {
        /// Existing directory on the device to measure; what is made there is removed again
        directory: PathBuf,
        /// Numbers of objects
        #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = parse_positive)]
        objects: Vec<u64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// The flags of `bench prefetch`.
#[derive(Debug, Args)]
struct Prefetch {
    /// The trace
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Memory, in percent of the trace's blocks
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    cache: f64,
    /// Prefetchers, or all
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_values = POLICIES)]
    policy: Vec<String>,
    /// Requests that pass while a fetch is under way
    #[arg(long, value_name = "N", default_value_t = 0)]
    fetch_delay: u64,
    /// Compare eviction policies instead
    #[arg(long)]
    eviction: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Prefetch {
    fn run(self, clock: &dyn Clock) -> Result<()> {
        if !(self.cache > 0.0 && self.cache <= 100.0) {
            let why = format!("--cache is {}, expected more than 0 and at most 100", self.cache);
            return Err(Error::new(ErrorKind::Misuse, "replay", why));
        }
        let all = self.policy.iter().any(|name| name == "all");
        let policies = if all { POLICIES.map(str::to_owned).into() } else { self.policy };
        let bench = PrefetchBench {
            trace: self.trace,
            cache_percent: self.cache,
            policies,
            fetch_delay: self.fetch_delay,
            eviction: self.eviction,
        };
        show(&prefetch::run(&bench, clock)?, self.json)
    }
}

/// The flags of `bench read`.
#[derive(Debug, Args)]
struct Read {
    /// Directories of data sets
    #[arg(value_name = "DATA", required = true)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    tiers: TierArgs,
    /// Samples to read of each; by default one epoch
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    samples: Option<u64>,
    /// Samples per batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = parse_positive)]
    batch_size: u64,
    /// Read in the order of the data set, not shuffled
    #[arg(long)]
    in_order: bool,
    /// Announce nothing to the prefetcher: each batch is read when its turn comes
    #[arg(long)]
    no_prefetch: bool,
    /// Times that each data set is read
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Read {
    fn run(self, clock: &Arc<dyn Clock>) -> Result<()> {
        let sized = self.data.iter().map(|path| Ok((path.clone(), block_bytes_of(path)?)));
        let data_sets = sized.collect::<Result<Vec<_>>>()?;
        let config = self.tiers.config(data_sets.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0));
        let bench = ReadBench {
            data_sets,
            config,
            samples: self.samples.unwrap_or(u64::MAX),
            batch_size: self.batch_size,
            shuffle: !self.in_order,
            prefetch: !self.no_prefetch,
            repeat: self.repeat,
        };
        show(&read::run(&bench, &self.key.open()?, clock)?, self.json)
    }
}

impl Bench {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let Some(verb) = self.verb else { return fio::run(&self.fio, &clock) };
        match verb {
            Verb::Io { options } => return fio::run(&options, &clock),
            Verb::Crypto { json } => show(&crypto::run(&*clock)?, json)?,
            Verb::Gpu { gpu, dir, json } => {
                let directory = dir.unwrap_or_else(std::env::temp_dir);
                show(&gpu::run(&GpuBench { gpu, cache: kernel_cache(), directory }, &clock)?, json)?;
            }
            Verb::Read(read) => read.run(&clock)?,
            Verb::Prefetch(prefetch) => prefetch.run(&*clock)?,
            Verb::Store { directory, stripe, size, rounds, window_ms, json } => {
                let bench = StoreBench {
                    stripe,
                    file_bytes: size,
                    rounds: usize::try_from(rounds).unwrap_or(usize::MAX),
                    window: Duration::from_millis(window_ms),
                    ..StoreBench::new(&directory)
                };
                show(&store::run(&bench, &clock)?, json)?;
            }
            Verb::Daemon { directory, rounds, window_ms, json } => {
                let rounds = usize::try_from(rounds).unwrap_or(usize::MAX);
                let window = Duration::from_millis(window_ms);
                show(&daemon::run(&DaemonBench { directory, rounds, window }, &clock)?, json)?;
            }
            Verb::Catalog { directory, objects, json } => {
                let mut bench = CatalogBench::new(&directory);
                if !objects.is_empty() {
                    bench.objects = objects;
                }
                show(&catalog::run(&bench, &*clock)?, json)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where compiled GPU kernels are kept; nowhere without a home.
#[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
fn kernel_cache() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    cache.map(|cache| cache.join("tierstream/kernels"))
}

fn show(report: &(impl Serialize + Display), json: bool) -> Result<()> {
    if json { output::json(report) } else { output::result(&report.to_string()) }
}
