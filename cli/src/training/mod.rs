//! One training run as `train` and `demo` make it: the flags of the model, where it runs, the progress bar, the report.

mod place;
mod report;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use tierstream_loader::{Dataset, Loader};
use tierstream_prefetch::Prefetcher;
use tierstream_storage::Result;
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_train::job::{self, JobConfig};
use tierstream_train::{GptConfig, Precision, Recipe, StepRecord};

use crate::args::{parse, parse_positive};
use crate::interrupt::Interrupt;
use crate::output;
use place::DeviceChoice;
pub(crate) use place::Placement;
pub(crate) use report::{PeakMemory, TrainingReport};

const DEMO: Recipe = Recipe::DEMO;

/// What to train and for how long. The defaults are numbers that were tried together.
#[derive(Clone, Debug, Args)]
pub(crate) struct TrainingArgs {
    /// Steps to train
    #[arg(long, value_name = "N", default_value_t = DEMO.steps, value_parser = parse_positive)]
    pub(crate) steps: u64,

    /// Samples per step
    #[arg(long, value_name = "N", default_value_t = DEMO.batch as u64, value_parser = parse_positive)]
    pub(crate) batch_size: u64,

    /// Transformer blocks
    #[arg(long, value_name = "N", default_value_t = DEMO.model.layers)]
    pub(crate) layers: usize,

    /// Features per token; a multiple of --heads
    #[arg(long, value_name = "N", default_value_t = DEMO.model.d_model)]
    pub(crate) d_model: usize,

    /// Attention heads
    #[arg(long, value_name = "N", default_value_t = DEMO.model.heads)]
    pub(crate) heads: usize,

    /// Peak of the learning rate
    #[arg(long, value_name = "RATE", default_value_t = DEMO.learning_rate)]
    pub(crate) lr: f64,

    /// Steps until the peak; default: a quarter of --steps, 200 at most
    #[arg(long, value_name = "N")]
    pub(crate) warmup: Option<u64>,

    /// Seed of the initial weights and of the shuffle
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// fp32, bf16 or fp16; the master weights are FP32 in each
    #[arg(long, value_name = "NAME", default_value = "bf16", value_parser = parse::<Precision>)]
    pub(crate) precision: Precision,

    /// auto, cpu or cuda
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = parse::<DeviceChoice>)]
    pub(crate) device: DeviceChoice,
}

impl TrainingArgs {
    fn job(&self, context: usize, placement: &Placement) -> JobConfig {
        JobConfig {
            model: GptConfig { layers: self.layers, d_model: self.d_model, heads: self.heads, context },
            batch_size: usize::try_from(self.batch_size).unwrap_or(usize::MAX),
            steps: self.steps,
            learning_rate: self.lr,
            warmup_steps: self.warmup.unwrap_or((self.steps / 4).min(DEMO.warmup_steps)),
            seed: self.seed,
            precision: self.precision,
            device: placement.device,
        }
    }
}

/// Trains on `dataset` in an order shuffled anew each epoch, announced to `prefetcher` where there is one.
/// `io_engine` is what the report calls the way to the bytes.
pub(crate) fn run(
    dataset: &Dataset,
    prefetcher: Option<&Prefetcher>,
    args: &TrainingArgs,
    placement: &Placement,
    io_engine: &str,
    interrupt: &Interrupt,
) -> Result<TrainingReport> {
    let config = args.job(job::context_of(dataset)?, placement);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut loader = Loader::builder(dataset.clone())
        .batch_size(args.batch_size)
        .shuffle(true)
        .seed(args.seed)
        .drop_last(true)
        .num_epochs(u64::MAX)
        .allocator(Arc::clone(&placement.allocator))
        .clock(Arc::clone(&clock));
    if let Some(prefetcher) = prefetcher {
        loader = loader.prefetcher(prefetcher.clone());
    }
    let mut loader = loader.build()?;
    let mut progress = Progress::new(args);
    let report =
        job::run(&mut loader, &config, &*clock, &|| interrupt.is_set(), &mut |record| progress.show(record));
    progress.bar.finish_and_clear();
    drop(loader);
    let prefetch = prefetcher.map(Prefetcher::stats);
    Ok(TrainingReport::new(dataset, &report?, &config, placement, io_engine, prefetch, interrupt.is_set()))
}

/// The bar; on a stderr that is no terminal, a line at every tenth of the run.
struct Progress {
    bar: ProgressBar,
    steps: u64,
    batch_size: u64,
    loss: f64,
    wait: Duration,
    busy: Duration,
}

/// How much of the shown loss is the newest step's.
const SMOOTHING: f64 = 0.1;

impl Progress {
    fn new(args: &TrainingArgs) -> Self {
        let (wait, busy) = (Duration::ZERO, Duration::ZERO);
        let bar = output::step_bar(args.steps);
        Self { bar, steps: args.steps, batch_size: args.batch_size, loss: f64::NAN, wait, busy }
    }

    fn show(&mut self, record: &StepRecord) {
        let loss = f64::from(record.loss);
        if loss.is_finite() {
            self.loss = if self.loss.is_nan() { loss } else { self.loss + SMOOTHING * (loss - self.loss) };
        }
        self.wait += Duration::from_micros(record.data_wait_us);
        self.busy += Duration::from_micros(record.compute_us);
        let seconds = (self.wait + self.busy).as_secs_f64().max(1e-9);
        let samples = (record.step * self.batch_size) as f64;
        let stall = 100.0 * self.wait.as_secs_f64() / seconds;
        let text = format!("loss {:.3}  {:.0} samples/s  stall {stall:.1} %", self.loss, samples / seconds);
        if self.bar.is_hidden() && record.step.is_multiple_of(self.steps.div_ceil(10)) {
            output::say(&format!("step {}/{}  {text}", record.step, self.steps));
        }
        self.bar.set_message(text);
        self.bar.set_position(record.step);
    }
}
