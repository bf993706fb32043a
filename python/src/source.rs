//! A data set that is open in this process, through a store of its own or a daemon's.

use std::path::PathBuf;
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

use crate::error::{raise, raised};
use crate::key::{Key, ring};
use crate::process::InProcess;

/// An open data set.
#[pyclass(frozen, module = "tierstream._tierstream")]
pub(crate) struct Source(InProcess<Opened>);

pub(crate) struct Opened {
    pub(crate) dataset: Dataset,
    pub(crate) prefetcher: Option<Prefetcher>,
}

impl Source {
    pub(crate) fn opened(&self) -> PyResult<&Opened> {
        self.0.get("data set")
    }
}

#[pymethods]
impl Source {
    /// Opens `location` through a store in this process. Sizes in bytes; `l2` lists directories with their limits.
    #[new]
    #[pyo3(signature = (location, keys, *, l1_bytes, l2, io_engine, allow_rollback))]
    fn new(
        py: Python<'_>,
        location: PathBuf,
        keys: Vec<PyRef<'_, Key>>,
        l1_bytes: u64,
        l2: Vec<(PathBuf, u64)>,
        io_engine: &str,
        allow_rollback: bool,
    ) -> PyResult<Self> {
        let keys: Arc<dyn KeyProvider> = Arc::new(ring(&keys)?);
        let io = ServiceConfig { engine: raised(io_engine.parse())?, ..ServiceConfig::default() };
        let l2 = l2.into_iter().map(|(path, bytes)| L2Config { path, bytes }).collect();
        raised(py.detach(|| {
            let header = peek_header(&location.join(MANIFEST_NAME)).map_err(|error| {
                error.hint("give a directory that `tierstream pack` or tierstream.Writer wrote")
            })?;
            let config = StoreConfig {
                l1_bytes,
                block_bytes: header.params.block_bytes,
                l2,
                io,
                allow_rollback,
                ..StoreConfig::default()
            };
            let store = Store::open(config, keys)?;
            let dataset = Dataset::open(Arc::new(store.clone()), text(&location)?)?;
            let prefetcher = Some(Prefetcher::new(&store));
            Ok(Self(InProcess::new(Opened { dataset, prefetcher })))
        }))
    }

    /// Opens `location` through the daemon at `socket`, which has the keys and the tiers.
    #[staticmethod]
    fn of_daemon(py: Python<'_>, location: PathBuf, socket: PathBuf) -> PyResult<Self> {
        raised(py.detach(|| {
            let source: Arc<dyn RangeSource> = Arc::new(Client::connect(&socket)?);
            let dataset = Dataset::open(source, text(&location)?)?;
            Ok(Self(InProcess::new(Opened { dataset, prefetcher: None })))
        }))
    }

    fn __len__(&self) -> PyResult<usize> {
        usize::try_from(self.opened()?.dataset.len())
            .map_err(|error| raise(Error::new(ErrorKind::Unsupported, "count samples", error.to_string())))
    }

    /// Name, element type and shape of each field.
    fn fields(&self) -> PyResult<Vec<(String, String, Vec<i64>)>> {
        let field = self.opened()?.dataset.schema().field().clone();
        Ok(vec![(field.name, field.dtype.to_string(), field.shape)])
    }

    /// What the source says of the data set, as JSON.
    fn info(&self) -> PyResult<String> {
        Ok(serde_json::json!(&**self.opened()?.dataset.info()).to_string())
    }

    /// What was counted so far (docs/reference/metrics.md), as JSON.
    fn metrics(&self) -> PyResult<String> {
        let opened = self.opened()?;
        let prefetch = opened.prefetcher.as_ref().map(Prefetcher::stats);
        let tiers = opened.dataset.source().metrics();
        Ok(serde_json::json!({"tiers": tiers, "prefetch": prefetch}).to_string())
    }

    /// Whether this process opened it.
    #[getter]
    fn is_ours(&self) -> bool {
        self.0.is_ours()
    }
}

fn text(location: &std::path::Path) -> Result<&str> {
    location.to_str().ok_or_else(|| {
        Error::new(ErrorKind::Misuse, "open", "the path is not UTF-8").at(location).hint("rename it")
    })
}
