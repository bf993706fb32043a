//! A data set, or a part of one, that is open in this process.

use std::ops::Range;
use std::sync::Arc;

use pyo3::prelude::*;
use tierstream_loader::{Dataset, Loader};
use tierstream_storage::{Error, ErrorKind};

use crate::batch::{Batch, Held};
use crate::error::{raise, raised};
use crate::process::InProcess;
use crate::store::Tiers;
use crate::wait::{end, interruptible};

/// An open data set.
#[pyclass(frozen, module = "tierstream._tierstream")]
pub(crate) struct Source {
    dataset: InProcess<Dataset>,
    tiers: Arc<InProcess<Tiers>>,
}

impl Source {
    pub(crate) fn new(dataset: Dataset, tiers: Arc<InProcess<Tiers>>) -> Self {
        Self { dataset: InProcess::new(dataset), tiers }
    }

    pub(crate) fn dataset(&self) -> PyResult<&Dataset> {
        self.dataset.get("data set")
    }

    pub(crate) fn tiers(&self) -> &Arc<InProcess<Tiers>> {
        &self.tiers
    }

    fn view(&self, dataset: Dataset) -> Self {
        Self::new(dataset, Arc::clone(&self.tiers))
    }
}

#[pymethods]
impl Source {
    fn __len__(&self) -> PyResult<usize> {
        usize::try_from(self.dataset()?.len())
            .map_err(|error| raise(Error::new(ErrorKind::Unsupported, "count samples", error.to_string())))
    }

    /// Name, element type and shape of each field.
    fn fields(&self) -> PyResult<Vec<(String, String, Vec<i64>)>> {
        let fields = self.dataset()?.schema().fields().iter();
        Ok(fields.map(|field| (field.name.clone(), field.dtype.to_string(), field.shape.clone())).collect())
    }

    /// What the source says of the data set, as JSON.
    fn info(&self) -> PyResult<String> {
        Ok(serde_json::json!(&**self.dataset()?.info()).to_string())
    }

    /// Samples `start..end` of these.
    fn subset(&self, start: u64, end: u64) -> PyResult<Self> {
        Ok(self.view(raised(self.dataset()?.subset(Range { start, end }))?))
    }

    /// Samples at these places of these, in this order.
    fn select(&self, indexes: Vec<u64>) -> PyResult<Self> {
        Ok(self.view(raised(self.dataset()?.select(indexes))?))
    }

    /// Random parts in proportion to `ratios`.
    fn split(&self, ratios: Vec<f64>, seed: u64) -> PyResult<Vec<Self>> {
        let parts = raised(self.dataset()?.split(&ratios, seed))?;
        Ok(parts.into_iter().map(|part| self.view(part)).collect())
    }

    /// Places of the samples for which `keep(number, bytes)` is true.
    fn keep(&self, keep: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
        let (mut failed, mut place, mut kept) = (None, 0, Vec::new());
        raised(self.dataset()?.filter(|number, bytes| {
            if failed.is_none() {
                match keep.call1((number, bytes)).and_then(|answer| answer.is_truthy()) {
                    Ok(true) => kept.push(place),
                    Ok(false) => {}
                    Err(error) => failed = Some(error),
                }
            }
            place += 1;
            false
        }))?;
        failed.map_or(Ok(kept), Err)
    }

    /// The samples at these places as one batch.
    fn read(&self, py: Python<'_>, indexes: Vec<u64>) -> PyResult<Batch> {
        let dataset = self.dataset()?.clone();
        let batch = interruptible(py, move || {
            let count = u64::try_from(indexes.len()).unwrap_or(u64::MAX);
            let mut loader =
                Loader::builder(dataset.select(indexes)?).batch_size(count).num_workers(1).build()?;
            loader.next().unwrap_or_else(|| Err(Error::new(ErrorKind::Misuse, "read", "no samples")))
        })?;
        Ok(Batch(Held::of(batch)))
    }

    /// Whether this process opened it.
    #[getter]
    fn is_ours(&self) -> bool {
        self.dataset.is_ours()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(dataset) = self.dataset.take() {
            // The last one of a store ends it.
            if Arc::strong_count(&self.tiers) == 1 {
                end(dataset);
            }
        }
    }
}
