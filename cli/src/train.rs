//! `tierstream train`: trains a byte-level GPT on a packed data set.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use tierstream_daemon::Client;
use tierstream_loader::Dataset;
use tierstream_prefetch::Prefetcher;
use tierstream_storage::{Error, ErrorKind, Result, Store};

use crate::args::{TierArgs, block_bytes_of};
use crate::interrupt::Interrupt;
use crate::key::OptionalKeyArgs;
use crate::output;
use crate::training::{self, Placement, TrainingArgs};

/// Train a byte-level GPT on a packed data set
///
/// The data set must hold byte samples of one length, as `tierstream pack --sample-bytes N` makes them; the model's
/// context is N - 1 bytes. Samples come in an order that is shuffled over the whole data set, anew each epoch.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("from").args(["key", "daemon"]).required(true)))]
pub(crate) struct Train {
    /// Directory of the data set
    data: PathBuf,

    #[command(flatten)]
    key: OptionalKeyArgs,

    /// Read through the daemon at this socket, which has the key and the tiers
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["key", "l1_size", "l2", "l2_size", "l2_write_rate", "catalog",
        "allow_rollback", "io_engine"])]
    daemon: Option<PathBuf>,

    #[command(flatten)]
    tiers: TierArgs,

    #[command(flatten)]
    training: TrainingArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Train {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let interrupt = Interrupt::catch(|| {})?;
        let placement = Placement::of(self.training.device)?;
        let location = self.data.to_str().ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "train", "the data set's path is not UTF-8").at(&self.data)
        })?;
        let report = match &self.daemon {
            Some(socket) => {
                let dataset = Dataset::open(Arc::new(Client::connect(socket)?), location)?;
                training::run(&dataset, None, &self.training, &placement, "daemon", &interrupt)?
            }
            None => {
                let keys = self.key.open().expect("the parser asks for a key or a daemon")?;
                let store = Store::open(self.tiers.config(block_bytes_of(&self.data)?), keys)?;
                let dataset = Dataset::open(Arc::new(store.clone()), location)?;
                let prefetcher = Prefetcher::new(&store);
                let engine = store.io_report().name;
                training::run(&dataset, Some(&prefetcher), &self.training, &placement, engine, &interrupt)?
            }
        };
        if self.json {
            output::json(&report)?;
        } else {
            output::result(&output::table(&report.rows()))?;
        }
        Ok(if report.interrupted { ExitCode::from(130) } else { ExitCode::SUCCESS })
    }
}
