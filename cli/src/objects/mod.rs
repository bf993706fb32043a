//! What the verbs on objects share: where they live, what opening repaired, progress, draining.

mod file;
mod get;
mod ls;
mod put;
mod rm;
mod tensors;

pub(crate) use get::Get;
pub(crate) use ls::Ls;
pub(crate) use put::Put;
pub(crate) use rm::Rm;
pub(crate) use tensors::Tensors;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::Args;
use tierstream_storage::store::object::{DrainMode, Payload, PutReport, Sink};
use tierstream_storage::tensor::TensorTable;
use tierstream_storage::tier::L2Config;
use tierstream_storage::{Error, ErrorKind, ObjectConfig, PutOptions, Result, Store, StoreConfig};

use crate::args::{TierArgs, parse_block_size};
use crate::interrupt::Interrupt;
use crate::key::KeyArgs;
use crate::output;

/// Of each L2, this part is for objects and the rest for blocks of data sets: a checkpoint is written at once and read
/// seldom, so that it needs room for what is not yet drained.
const L2_PART: u64 = 4;

/// Stored length of a block of an object, if nobody says otherwise.
pub(crate) const OBJECT_BLOCK_BYTES: u32 = 256 << 10;

/// How the commands keep objects that live in `l3`: they get their part of the first device of L2.
pub(crate) fn object_config(l2: &mut [L2Config], l3: &Path) -> ObjectConfig {
    let mut l2_bytes = 0;
    if let Some(first) = l2.first_mut() {
        l2_bytes = first.bytes / L2_PART;
        first.bytes -= l2_bytes;
    }
    ObjectConfig { drain: DrainMode::Manual, ..ObjectConfig::new(l3.to_owned(), l2_bytes) }
}

/// Where objects live.
#[derive(Debug, Args)]
pub(crate) struct ObjectArgs {
    /// Existing directory on L3 where the objects live, in its subdirectory `objects`
    #[arg(long, value_name = "DIR")]
    l3: PathBuf,

    #[command(flatten)]
    key: KeyArgs,

    /// Stored length of a block: at least that of every object to be read
    #[arg(long, value_name = "SIZE", default_value = "256K", value_parser = parse_block_size)]
    block_size: u32,

    #[command(flatten)]
    tiers: TierArgs,
}

impl ObjectArgs {
    /// Opens the store and tells what that repaired. `change` edits how objects are kept.
    pub(crate) fn open(&self, change: impl FnOnce(&mut ObjectConfig)) -> Result<Store> {
        let mut config = self.tiers.config(self.block_size);
        let mut objects = object_config(&mut config.l2, &self.l3);
        change(&mut objects);
        let store = Store::open(StoreConfig { objects: Some(objects), ..config }, self.key.open()?)?;
        let recovery = store.recovery()?;
        if !recovery.is_clean() {
            let lines = recovery.details.join("\n  ");
            output::say(&format!(
                "repaired while opening: {} found, {} corrected, {} leftovers removed, {} unreadable, {} lost\n  {lines}",
                recovery.adopted,
                recovery.corrected,
                recovery.leftovers_removed,
                recovery.unreadable,
                recovery.lost
            ));
        }
        Ok(store)
    }
}

/// A payload that counts what was taken of it, and ends when the user asks to.
struct Watched<'a> {
    payload: &'a dyn Payload,
    done: &'a AtomicU64,
    stop: &'a AtomicBool,
}

impl Payload for Watched<'_> {
    fn payload_bytes(&self, block_capacity: u64) -> Option<u64> {
        self.payload.payload_bytes(block_capacity)
    }

    fn write(&self, block_capacity: u64, sink: &mut Sink<'_>) -> Result<()> {
        // Written again from the start, perhaps, to another tier.
        self.done.store(0, Ordering::Relaxed);
        self.payload.write(block_capacity, &mut |piece| {
            if self.stop.load(Ordering::Relaxed) {
                return Err(stopped("put"));
            }
            sink(piece)?;
            self.done.fetch_add(u64::try_from(piece.len()).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        })
    }

    fn tensors(&self) -> Option<&TensorTable> {
        self.payload.tensors()
    }
}

fn stopped(op: &'static str) -> Error {
    Error::new(ErrorKind::Interrupted, op, "stopped before the end")
}

/// Puts with a bar.
fn put(
    store: &Store,
    name: &str,
    payload: &dyn Payload,
    options: &PutOptions,
    interrupt: &Interrupt,
) -> Result<PutReport> {
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let bar = output::byte_bar(payload.payload_bytes(1 << 20).unwrap_or(0), "writing");
    let watched = Watched { payload, done: &done, stop: &stop };
    let report = interrupt.watch(&bar, &done, &stop, || store.put(name, &watched, options));
    bar.finish_and_clear();
    report
}

/// Drains what is dirty with a bar. What is left when the user stops stays on L2, durable.
fn drain(store: &Store, interrupt: &Interrupt) -> Result<()> {
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let bar = output::byte_bar(store.object_status()?.dirty_bytes, "to L3");
    let drained = interrupt.watch(&bar, &done, &stop, || {
        while let Some(drained) = store.drain_one()? {
            done.fetch_add(drained.bytes, Ordering::Relaxed);
            if stop.load(Ordering::Relaxed) {
                return Err(stopped("drain"));
            }
        }
        Ok(())
    });
    bar.finish_and_clear();
    drained.map_err(|error| error.hint("what was put is durable on L2; the next put drains it to L3"))
}
