//! A running loader in Python's hands: batches, waited for without the interpreter's lock.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyAny;
use tierstream_gpu_direct::{choose, probe};
use tierstream_loader::{Batch as RustBatch, Loader, LoaderState};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::batch::{Batch, Held};
use crate::error::{raise, raised};
use crate::process::InProcess;
use crate::source::Source;

/// How often a wait looks for signals: Ctrl-C is answered within it.
const TICK: Duration = Duration::from_millis(50);

/// Makes batches on a thread of its own.
#[pyclass(frozen, module = "tierstream._tierstream")]
pub(crate) struct Engine(InProcess<Mutex<Loader>>);

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (
        source, *, batch_size, shuffle, seed, rank, world_size, drop_last, num_epochs, prefetch_factor, pin_memory, state
    ))]
    #[expect(clippy::too_many_arguments, reason = "the settings of a loader, by name")]
    fn new(
        py: Python<'_>,
        source: &Source,
        batch_size: u64,
        shuffle: bool,
        seed: u64,
        rank: u64,
        world_size: u64,
        drop_last: bool,
        num_epochs: u64,
        prefetch_factor: usize,
        pin_memory: bool,
        state: Option<String>,
    ) -> PyResult<Self> {
        let opened = source.opened()?;
        let mut builder = Loader::builder(opened.dataset.clone())
            .batch_size(batch_size)
            .shuffle(shuffle)
            .seed(seed)
            .rank(rank, world_size)
            .drop_last(drop_last)
            .num_epochs(num_epochs)
            .prefetch_factor(prefetch_factor);
        if let Some(prefetcher) = &opened.prefetcher {
            builder = builder.prefetcher(prefetcher.clone());
        }
        if let Some(state) = state {
            builder = builder.load_state_dict(raised(parse(&state))?);
        }
        raised(py.detach(|| {
            if pin_memory {
                builder = builder.allocator(choose(&probe()).1);
            }
            Ok(Self(InProcess::new(Mutex::new(builder.build()?))))
        }))
    }

    /// The next batch as a dict of arrays, a tuple of them or a `Batch`, as `output` says; None after the last one.
    /// Waits up to `timeout` seconds, or for ever.
    #[pyo3(signature = (output, timeout = None))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        output: &str,
        timeout: Option<f64>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(batch) = self.wait(py, timeout)? else { return Ok(None) };
        let batch = Batch(Held::of(batch));
        Ok(Some(match output {
            "dict" => batch.as_dict(py)?.into_any(),
            "tuple" => batch.as_tuple(py)?.into_any(),
            _ => Bound::new(py, batch)?.into_any(),
        }))
    }

    /// Whether this process started it.
    #[getter]
    fn is_ours(&self) -> bool {
        self.0.is_ours()
    }

    /// Where it stands: after the last batch that it gave out, as JSON.
    fn state(&self, py: Python<'_>) -> PyResult<String> {
        let loader = self.0.get("loader")?;
        let state = py.detach(|| lock(loader).state_dict());
        serde_json::to_string(&state)
            .map_err(|error| raise(Error::new(ErrorKind::Misuse, "save state", error.to_string())))
    }
}

impl Engine {
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<RustBatch>> {
        let loader = self.0.get("loader")?;
        let _ = (timeout, TICK);
        match py.detach(|| lock(loader).next()) {
            None => Ok(None),
            Some(made) => raised(made).map(Some),
        }
    }
}

fn lock(loader: &Mutex<Loader>) -> std::sync::MutexGuard<'_, Loader> {
    loader.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse(state: &str) -> Result<LoaderState> {
    serde_json::from_str(state).map_err(|error| {
        Error::new(ErrorKind::Misuse, "load state", format!("not the state of a loader: {error}"))
            .hint("give load_state_dict what state_dict returned")
    })
}
