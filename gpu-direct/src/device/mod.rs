//! Batches where they are used: in GPU memory, or in host memory on machines without one.
//!
//! ```text
//! Loader ── batch in pinned memory ── copy stream ──▶ slot in GPU memory ── convert stream ──▶ DeviceBatch ── the job's stream
//!                    ▲                     ▲                                                        │
//!                    └── back when the     └── waits, on the device, for what the job still does ◀──┘ dropped
//!                        copy is done          with the slot's last batch
//! ```
//!
//! A thread keeps as many slots under way as there are: while the GPU computes on one batch the next are copied and
//! converted. Nothing on that way waits on the host for the GPU: events order copy, conversion, use and reuse on the
//! device. Without a GPU the same iterator gives the same bytes in host memory.
//!
//! Guarantees: a batch's values are those of the [`Loader`] it is of, converted as asked, whatever the machine; its memory
//! is not reused while a batch or a tensor of it is alive, nor before the streams it was handed to have passed its end.
//! Deliberately knows no model, and no framework but by DLPack and `__cuda_array_interface__`.

mod batch;
mod host;
mod pipeline;

pub use batch::{CudaArrayInterface, DeviceBatch, DeviceField};

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use tierstream_loader::{Loader, LoaderState, Schema};
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::convert::{Conversion, Prepared};
use crate::gpu::Gpu;
use crate::path::Path;
use host::HostPath;
use pipeline::{Pipeline, Returned};

/// Slots when none were asked for: one in use, one ready, one being copied.
const SLOTS: usize = 3;

/// How batches go to the device.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    gpu: std::result::Result<Arc<Gpu>, String>,
    slots: usize,
    conversions: Vec<(String, Conversion)>,
    clock: Arc<dyn Clock>,
}

impl DeviceConfig {
    /// Into the memory of `gpu`. The loader's allocator should be a [`PinnedAllocator`](crate::PinnedAllocator): copies
    /// from other memory hold up the thread that asks for them.
    #[must_use]
    pub fn gpu(gpu: Arc<Gpu>) -> Self {
        Self { gpu: Ok(gpu), slots: SLOTS, conversions: Vec::new(), clock: Arc::new(SystemClock::new()) }
    }

    /// Into host memory, `because` there is no GPU, say.
    #[must_use]
    pub fn host(because: impl Into<String>) -> Self {
        Self {
            gpu: Err(because.into()),
            slots: SLOTS,
            conversions: Vec::new(),
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// Batches in GPU memory at once: those ahead of their use, those in use, and those being copied. Default 3. Whoever
    /// holds batches while it asks for the next needs more slots than it holds.
    #[must_use]
    pub fn slots(self, slots: usize) -> Self {
        Self { slots, ..self }
    }

    /// Converts `field` of each batch.
    #[must_use]
    pub fn convert(mut self, field: &str, conversion: Conversion) -> Self {
        self.conversions.push((field.to_owned(), conversion));
        self
    }

    /// The clock that waits are measured with.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }
}

/// What a loader has moved, and how long its user waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceMetrics {
    /// Batches handed out.
    pub batches: u64,
    /// Their bytes as the loader made them: what crossed the link, where there is one.
    pub bytes: u64,
    /// How long calls of `next` waited in all.
    pub wait_ns: u64,
    /// The way they took, with the reason.
    #[serde(flatten)]
    pub path: Path,
}

/// An iterator of batches in device memory.
pub struct DeviceLoader {
    engine: Engine,
    metrics: DeviceMetrics,
    clock: Arc<dyn Clock>,
    state: Option<LoaderState>,
    last_wait: Duration,
}

enum Engine {
    Host(Box<HostPath>),
    Device {
        // None only while dropping.
        batches: Option<Receiver<Result<DeviceBatch>>>,
        returned: Sender<Returned>,
        thread: Option<JoinHandle<()>>,
    },
}

impl fmt::Debug for DeviceLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceLoader({:?})", self.metrics)
    }
}

impl DeviceLoader {
    /// Brings the batches of `loader`, whose samples have `schema`, where `config` says.
    ///
    /// # Errors
    /// `Misuse` for conversions that do not fit their fields and for no slots; `Full` without memory on the GPU.
    pub fn new(loader: Loader, schema: &Schema, config: DeviceConfig) -> Result<Self> {
        let conversions = prepare(schema, &config.conversions)?;
        if config.slots == 0 {
            let why = "0 slots in device memory";
            return Err(Error::new(ErrorKind::Misuse, "start device loader", why).hint("use 2 or more"));
        }
        let clock = config.clock;
        let (engine, path) = match config.gpu {
            Err(because) => (
                Engine::Host(Box::new(HostPath::new(loader, conversions, config.slots))),
                Path::Host { because },
            ),
            Ok(gpu) => {
                let because = "batches are made in host memory".to_owned();
                let path = Path::Staged { device: gpu.report().name.clone(), because };
                (start(loader, gpu, conversions, config.slots)?, path)
            }
        };
        let metrics = DeviceMetrics { batches: 0, bytes: 0, wait_ns: 0, path };
        Ok(Self { engine, metrics, clock, state: None, last_wait: Duration::ZERO })
    }

    /// What was moved so far.
    #[must_use]
    pub fn metrics(&self) -> &DeviceMetrics {
        &self.metrics
    }

    /// How long the last call of `next` waited.
    #[must_use]
    pub fn last_wait(&self) -> Duration {
        self.last_wait
    }

    /// Where the loader stands: after the last batch that was handed out; none before the first.
    #[must_use]
    pub fn state_dict(&self) -> Option<LoaderState> {
        self.state.clone()
    }
}

fn prepare(schema: &Schema, conversions: &[(String, Conversion)]) -> Result<Vec<Option<Prepared>>> {
    let mut prepared: Vec<Option<Prepared>> = schema.fields().iter().map(|_| None).collect();
    for (name, conversion) in conversions {
        let Some(position) = schema.position(name) else {
            let known: Vec<&str> = schema.fields().iter().map(|field| field.name.as_str()).collect();
            let why = format!("no field `{name}`, there are: {}", known.join(", "));
            return Err(Error::new(ErrorKind::Misuse, "convert", why));
        };
        if prepared[position].replace(conversion.prepare(&schema.fields()[position])?).is_some() {
            return Err(Error::new(
                ErrorKind::Misuse,
                "convert",
                format!("field `{name}` is converted twice"),
            ));
        }
    }
    Ok(prepared)
}

fn start(loader: Loader, gpu: Arc<Gpu>, conversions: Vec<Option<Prepared>>, slots: usize) -> Result<Engine> {
    let (returned, free) = channel();
    let (send, batches) = sync_channel(slots);
    let pipeline = Pipeline::new(gpu, conversions, slots, returned.clone(), free)?;
    let thread = std::thread::Builder::new()
        .name("tier-device".to_owned())
        .spawn(move || pipeline.run(loader, &send))
        .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no device loader thread: {error}")))?;
    Ok(Engine::Device { batches: Some(batches), returned, thread: Some(thread) })
}

impl Iterator for DeviceLoader {
    type Item = Result<DeviceBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let asked = self.clock.now();
        let next = match &mut self.engine {
            Engine::Host(host) => host.next(),
            Engine::Device { batches, thread, .. } => {
                let received = batches.as_ref().and_then(|batches| batches.recv().ok());
                received.or_else(|| failure(thread).map(Err))
            }
        };
        self.last_wait = self.clock.now().saturating_sub(asked);
        self.metrics.wait_ns += u64::try_from(self.last_wait.as_nanos()).unwrap_or(u64::MAX);
        if let Some(Ok(batch)) = &next {
            self.metrics.batches += 1;
            self.metrics.bytes += batch.loaded_bytes();
            self.state = Some(batch.state().clone());
        }
        next
    }
}

/// Why the thread ended, when it was not because there were no more batches.
fn failure(thread: &mut Option<JoinHandle<()>>) -> Option<Error> {
    thread.take()?.join().err().map(|_| {
        Error::new(ErrorKind::Closed, "load batch", "the device loader thread panicked")
            .hint("its message is on stderr; please report it")
    })
}

impl Drop for DeviceLoader {
    fn drop(&mut self) {
        if let Engine::Device { batches, returned, thread } = &mut self.engine {
            // Batches that were made ahead give their slots back; then the thread, which may wait for one, is told to end.
            drop(batches.take());
            let _ended = returned.send(Returned::Stop);
            if let Some(error) = failure(thread) {
                tracing::error!(%error);
            }
        }
    }
}

#[cfg(test)]
mod tests;
