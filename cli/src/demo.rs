//! `tierstream demo`: the whole path on real text, from files to a falling loss.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use tierstream_loader::pack::{Input, Layout, PackConfig, source_of};
use tierstream_loader::{Dataset, Dtype};
use tierstream_prefetch::Prefetcher;
use tierstream_storage::catalog::CatalogKind;
use tierstream_storage::keys::{Cipher, KeyProvider, RootKey, write_key_file};
use tierstream_storage::tier::L2Config;
use tierstream_storage::units::human_bytes;
use tierstream_storage::{Error, ErrorKind, Result, Store, StoreConfig};
use tierstream_train::{Device, Precision, Recipe};

use crate::args::{IoArgs, block_bytes_of, parse_positive};
use crate::interrupt::Interrupt;
use crate::key::open_key_file;
use crate::training::{self, PeakMemory, Placement, TrainingArgs, TrainingReport};
use crate::{corpus, output, pack};

/// A sample of 129 bytes costs a block of reading: a small one.
const BLOCK_BYTES: u32 = 16 << 10;
/// Half of the default corpus, so that all three tiers have work.
const L1_BYTES: u64 = 32 << 20;
const L2_BYTES: u64 = 512 << 20;
const SHARD_BYTES: u64 = 16 << 20;
/// One token more than the model's context: each is predicted from those before it.
const SAMPLE_BYTES: u64 = Recipe::DEMO.context as u64 + 1;
/// Memory is at its peak after the first steps.
const MEMORY_STEPS: u64 = 8;
/// L1 of the runs that measure memory: little, so that it hardly counts.
const MEMORY_L1: &str = "2M";

/// Train a small GPT on real text, through encrypted shards and all three tiers
///
/// Packs the source text of the crates that this program was built from (or the files of --input) into SM4-GCM sealed
/// shards, opens a store with memory, L2 and L3, announces the shuffled epoch, and trains in BF16 with FP32 master
/// weights. A second run finds its shards and a warm L2.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Where to keep key, shards and L2; default: ~/.cache/tierstream/demo
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Train on the files below this directory
    #[arg(long, value_name = "DIR")]
    input: Option<PathBuf>,

    /// Use the first so many MiB of the input
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = parse_positive)]
    corpus_mib: u64,

    #[command(flatten)]
    training: TrainingArgs,

    #[command(flatten)]
    io: IoArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Where things are.
#[derive(Debug, Serialize)]
struct Places {
    data_set: PathBuf,
    l2: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    training: TrainingReport,
    reused_shards: bool,
    corpus_files: usize,
    corpus_bytes: u64,
    #[serde(flatten)]
    places: Places,
}

impl Demo {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let interrupt = Interrupt::catch(|| {})?;
        let placement = Placement::of(self.training.device)?;
        let dir = self.dir.clone().map_or_else(default_dir, Ok)?;
        let places =
            Places { data_set: dir.join("l3/corpus"), l2: dir.join("l2"), key: dir.join("keys/demo.key") };
        let keys = open_or_make_key(&places)?;
        let input = self.corpus()?;
        let reused_shards = self.prepare(&input, &places, &keys, &interrupt)?;
        let mut training = self.train(&places, keys, &placement, &interrupt)?;
        if !training.interrupted {
            training.peak_memory_mib = self.peak_memory(&places, &placement, &interrupt);
        }
        let interrupted = training.interrupted;
        let (corpus_files, corpus_bytes) = (input.files().len(), input.bytes());
        let report = Report { training, reused_shards, corpus_files, corpus_bytes, places };
        if self.json {
            output::json(&report)?;
        } else {
            output::result(&report.text())?;
        }
        Ok(if interrupted { ExitCode::from(130) } else { ExitCode::SUCCESS })
    }

    fn corpus(&self) -> Result<Input> {
        let bytes = self.corpus_mib.saturating_mul(1 << 20);
        match &self.input {
            Some(directory) => Ok(Input::scan(directory)?.first_bytes(bytes)),
            None => corpus::of_cargo(bytes),
        }
    }

    /// Packs the corpus, unless that was done before; says which.
    fn prepare(
        &self,
        input: &Input,
        places: &Places,
        keys: &Arc<dyn KeyProvider>,
        interrupt: &Interrupt,
    ) -> Result<bool> {
        let config = PackConfig {
            output: places.data_set.clone(),
            overwrite: true,
            cipher: Cipher::Sm4Gcm,
            block_bytes: BLOCK_BYTES,
            shard_bytes: SHARD_BYTES,
            layout: Layout::Cut { sample_bytes: SAMPLE_BYTES, dtype: Dtype::U8 },
            io: self.io.config(),
            ..PackConfig::default()
        };
        if places.data_set.exists() && packed_from(places, keys)? == source_of(input, &config) {
            output::say(&format!("reusing the sealed shards in {}", places.data_set.display()));
            return Ok(true);
        }
        let packed = pack::run(input, &config, keys, interrupt)?;
        output::say(&format!(
            "packed {} files, {}, into {} SM4-GCM sealed shards in {}",
            packed.files,
            human_bytes(packed.input_bytes),
            packed.shards,
            places.data_set.display()
        ));
        Ok(false)
    }

    fn train(
        &self,
        places: &Places,
        keys: Arc<dyn KeyProvider>,
        placement: &Placement,
        interrupt: &Interrupt,
    ) -> Result<TrainingReport> {
        make_directory(&places.l2)?;
        let config = StoreConfig {
            l1_bytes: L1_BYTES,
            block_bytes: BLOCK_BYTES,
            l2: vec![L2Config { path: places.l2.clone(), bytes: L2_BYTES }],
            catalog: CatalogKind::Redb,
            io: self.io.config(),
            tells_status: true,
            ..StoreConfig::default()
        };
        let store = Store::open(config, keys)?;
        let dataset = Dataset::open(Arc::new(store.clone()), text_of(&places.data_set)?)?;
        let warm = dataset.info().l2_warm_bytes;
        if warm > 0 {
            output::say(&format!("L2 is warm: {} of the data set are there from before", human_bytes(warm)));
        }
        output::say(&format!(
            "announcing the shuffled epoch: {} samples; reading through {}",
            dataset.len(),
            store.io_report()
        ));
        let prefetcher = Prefetcher::new(&store);
        let engine = store.io_report().name;
        training::run(&dataset, Some(&prefetcher), &self.training, placement, engine, interrupt)
    }

    /// Peak memory in FP32 and in the run's precision, each measured in a process of its own: what one run frees, the
    /// allocator may keep, and the next would look smaller than it is.
    fn peak_memory(&self, places: &Places, placement: &Placement, interrupt: &Interrupt) -> PeakMemory {
        let mut peak = PeakMemory::default();
        if placement.device != Device::Cpu {
            peak.null_because = Some("memory of a GPU is not measured".to_owned());
            return peak;
        }
        output::say("measuring the memory of training in FP32 and in mixed precision");
        let mixed = if self.training.precision == Precision::Fp32 {
            Precision::Bf16
        } else {
            self.training.precision
        };
        for (precision, name) in [(Precision::Fp32, "fp32"), (mixed, "mixed")] {
            if interrupt.is_set() {
                peak.null_because = Some("interrupted".to_owned());
                return peak;
            }
            match self.peak_memory_of(precision, name, places) {
                Ok(mib) if precision == Precision::Fp32 => peak.fp32 = Some(mib),
                Ok(mib) => peak.mixed = Some(mib),
                Err(why) => peak.null_because = Some(why),
            }
        }
        peak
    }

    fn peak_memory_of(
        &self,
        precision: Precision,
        name: &str,
        places: &Places,
    ) -> std::result::Result<f64, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let args = &self.training;
        let numbers = [
            ("--steps", MEMORY_STEPS.to_string()),
            ("--batch-size", args.batch_size.to_string()),
            ("--layers", args.layers.to_string()),
            ("--d-model", args.d_model.to_string()),
            ("--heads", args.heads.to_string()),
            ("--lr", args.lr.to_string()),
            ("--precision", precision.to_string()),
            ("--l1-size", MEMORY_L1.to_owned()),
            ("--io-engine", self.io.io_engine.to_string()),
        ];
        let mut command = Command::new(program);
        command
            .arg("train")
            .arg(&places.data_set)
            .arg("--key")
            .arg(&places.key)
            .args(["--device", "cpu", "--json"]);
        for (flag, value) in &numbers {
            command.arg(flag).arg(value);
        }
        let run = command.output().map_err(|error| error.to_string())?;
        let report: Option<serde_json::Value> = serde_json::from_slice(&run.stdout).ok();
        report.and_then(|report| report["peak_memory_mib"][name].as_f64()).ok_or_else(|| {
            let said = String::from_utf8_lossy(&run.stderr);
            format!("the {precision} run ended with {}: {}", run.status, said.trim())
        })
    }
}

impl Report {
    fn text(&self) -> String {
        let mut rows = self.training.rows();
        rows.push(("corpus", format!("{} files, {}", self.corpus_files, human_bytes(self.corpus_bytes))));
        rows.push(("shards (L3)", self.places.data_set.display().to_string()));
        rows.push(("L2", self.places.l2.display().to_string()));
        rows.push(("key", self.places.key.display().to_string()));
        format!("\n{}", output::table(&rows))
    }
}

/// What the data set that is there says it was made from.
fn packed_from(places: &Places, keys: &Arc<dyn KeyProvider>) -> Result<serde_json::Value> {
    let damaged = |error: Error| {
        let shards = places.data_set.display();
        error.hint(format!("the demo's shards cannot be reused; to have them packed anew: rm -r {shards}"))
    };
    let block_bytes = block_bytes_of(&places.data_set).map_err(damaged)?;
    let config = StoreConfig { l1_bytes: u64::from(block_bytes) * 16, block_bytes, ..StoreConfig::default() };
    let store = Store::open(config, Arc::clone(keys))?;
    let dataset = Dataset::open(Arc::new(store), text_of(&places.data_set)?).map_err(damaged)?;
    Ok(dataset.info().source.clone())
}

fn open_or_make_key(places: &Places) -> Result<Arc<dyn KeyProvider>> {
    for path in [&places.key, &places.data_set] {
        make_directory(path.parent().unwrap_or(Path::new(".")))?;
    }
    if !places.key.exists() {
        if places.data_set.exists() {
            return Err(Error::new(ErrorKind::Missing, "demo", "the key of the shards from before is gone")
                .at(&places.key)
                .hint(format!("to have them packed anew: rm -r {}", places.data_set.display())));
        }
        write_key_file(&places.key, &RootKey::random("demo")?)?;
    }
    open_key_file(&places.key)
}

/// For this user alone: what is below is sealed, but its sizes and times are nobody else's business either.
fn make_directory(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::io("make directory", path, error).hint("give another place with --dir DIR"))
}

pub(crate) fn text_of(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::new(ErrorKind::Misuse, "demo", "the path is not UTF-8")
            .at(path)
            .hint("give another with --dir DIR")
    })
}

#[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
fn default_dir() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    cache.map(|cache| cache.join("tierstream/demo")).ok_or_else(|| {
        Error::new(ErrorKind::Missing, "demo", "no HOME to keep things in")
            .hint("give a place with --dir DIR")
    })
}
