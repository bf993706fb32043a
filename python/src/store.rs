//! The tiers of this process, or a daemon's: what data sets are opened through.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::prelude::*;
use tierstream_daemon::Client;
use tierstream_loader::Dataset;
use tierstream_prefetch::Prefetcher;
use tierstream_storage::format::MANIFEST_NAME;
use tierstream_storage::io::ServiceConfig;
use tierstream_storage::keys::KeyProvider;
use tierstream_storage::store::peek_header;
use tierstream_storage::tier::L2Config;
use tierstream_storage::{Error, ErrorKind, RangeSource, Result, Store, StoreConfig};

use crate::error::raised;
use crate::key::{Key, ring};
use crate::process::InProcess;
use crate::source::Source;
use crate::wait::{end, interruptible};

/// An open store, or a connection to a daemon.
#[pyclass(frozen, module = "tierstream._tierstream")]
pub(crate) struct StoreHandle(Arc<InProcess<Tiers>>);

/// Where data sets come from, with what fetches their blocks ahead of need. None only while dropping.
pub(crate) struct Tiers(Option<(Arc<dyn RangeSource>, Option<Prefetcher>)>);

impl Tiers {
    fn new(source: Arc<dyn RangeSource>, prefetcher: Option<Prefetcher>) -> Self {
        Self(Some((source, prefetcher)))
    }

    fn source(&self) -> &Arc<dyn RangeSource> {
        &self.0.as_ref().expect("present until drop").0
    }

    pub(crate) fn prefetcher(&self) -> Option<&Prefetcher> {
        self.0.as_ref().and_then(|(_, prefetcher)| prefetcher.as_ref())
    }
}

#[pymethods]
impl StoreHandle {
    /// Opens a store in this process. Sizes in bytes; `l2` lists directories with their limits; blocks are as long as
    /// those of the data set at `fits`, or as `block_bytes`.
    #[new]
    #[pyo3(signature = (keys, *, l1_bytes, l2, io_engine, allow_rollback, block_bytes = None, fits = None))]
    #[expect(clippy::too_many_arguments, reason = "the settings of a store, by name")]
    fn new(
        py: Python<'_>,
        keys: Vec<PyRef<'_, Key>>,
        l1_bytes: u64,
        l2: Vec<(PathBuf, u64)>,
        io_engine: &str,
        allow_rollback: bool,
        block_bytes: Option<u32>,
        fits: Option<PathBuf>,
    ) -> PyResult<Self> {
        let keys: Arc<dyn KeyProvider> = Arc::new(ring(&keys)?);
        let io = ServiceConfig { engine: raised(io_engine.parse())?, ..ServiceConfig::default() };
        let l2 = l2.into_iter().map(|(path, bytes)| L2Config { path, bytes }).collect();
        let tiers = interruptible(py, move || {
            let block_bytes = match (block_bytes, fits) {
                (Some(bytes), _) => bytes,
                (None, Some(path)) => block_bytes_of(&path)?,
                (None, None) => StoreConfig::default().block_bytes,
            };
            let config =
                StoreConfig { l1_bytes, block_bytes, l2, io, allow_rollback, ..StoreConfig::default() };
            let store = Store::open(config, keys)?;
            let prefetcher = Some(Prefetcher::new(&store));
            Ok(Tiers::new(Arc::new(store), prefetcher))
        })?;
        Ok(Self(Arc::new(InProcess::new(tiers))))
    }

    /// Connects to the daemon at `socket`, which has the keys and the tiers.
    #[staticmethod]
    fn of_daemon(py: Python<'_>, socket: PathBuf) -> PyResult<Self> {
        let tiers = interruptible(py, move || Ok(Tiers::new(Arc::new(Client::connect(&socket)?), None)))?;
        Ok(Self(Arc::new(InProcess::new(tiers))))
    }

    /// Opens the data set at `location`.
    fn open(&self, py: Python<'_>, location: PathBuf) -> PyResult<Source> {
        let source = Arc::clone(self.0.get("store")?.source());
        let dataset = interruptible(py, move || {
            let text = location.to_str().ok_or_else(|| {
                Error::new(ErrorKind::Misuse, "open", "the path is not UTF-8").at(&location).hint("rename it")
            })?;
            Dataset::open(source, text)
        })?;
        Ok(Source::new(dataset, Arc::clone(&self.0)))
    }

    /// What was counted so far (docs/reference/metrics.md), as JSON.
    fn metrics(&self) -> PyResult<String> {
        let tiers = self.0.get("store")?;
        let prefetch = tiers.prefetcher().map(Prefetcher::stats);
        Ok(serde_json::json!({"tiers": tiers.source().metrics(), "prefetch": prefetch}).to_string())
    }

    /// Whether this process opened it.
    #[getter]
    fn is_ours(&self) -> bool {
        self.0.is_ours()
    }
}

impl Drop for Tiers {
    fn drop(&mut self) {
        // The last handle of a store ends it, which waits for what is under way.
        if let Some(tiers) = self.0.take() {
            end(tiers);
        }
    }
}

fn block_bytes_of(path: &Path) -> Result<u32> {
    let header = peek_header(&path.join(MANIFEST_NAME))
        .map_err(|error| error.hint("give a directory that `tierstream pack` or tierstream.Writer wrote"))?;
    Ok(header.params.block_bytes)
}
