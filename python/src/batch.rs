//! A batch in Python's hands: memory, and where the arrays of its fields lie in it.
//!
//! Arrays, tensors and capsules share one [`Held`] by count. Its memory goes back to the loader's pool when the last of
//! them is gone, never before.

use std::fmt;
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};
use tierstream_loader::Dtype;

use crate::array::{Array, Which};
use crate::process::InProcess;

/// The array of one field.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    /// Row major and contiguous. Ragged fields: all samples' values end to end.
    pub(crate) shape: Vec<usize>,
    /// Of its first byte.
    pub(crate) address: usize,
    /// Ragged fields: where each sample begins along the first dimension, and where the last one ends.
    pub(crate) offsets: Option<Vec<u64>>,
}

/// Memory with arrays in it, that nothing in Rust touches any more.
pub(crate) struct Held {
    pub(crate) parts: Vec<Part>,
    pub(crate) sample_ids: Vec<u64>,
    pub(crate) sources: Vec<u32>,
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    // Whoever owns the bytes; dropped last.
    _memory: InProcess<Box<dyn Send + Sync>>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({} samples, {} fields)", self.sample_ids.len(), self.parts.len())
    }
}

impl Held {
    /// A batch of the loader.
    pub(crate) fn of(mut batch: tierstream_loader::Batch) -> Arc<Self> {
        // Arrays may be written to: their addresses come from a pointer that may be.
        batch.as_mut_ptr().expose_provenance();
        let parts = batch.fields().map(|view| Part {
            name: view.field().name.clone(),
            dtype: view.field().dtype,
            shape: view.shape(),
            address: view.bytes().as_ptr().addr(),
            offsets: view.offsets().map(<[u64]>::to_vec),
        });
        Arc::new(Self {
            parts: parts.collect(),
            sample_ids: batch.sample_ids().to_vec(),
            sources: batch.sources().to_vec(),
            epoch: batch.epoch(),
            number: batch.number(),
            _memory: InProcess::new(Box::new(batch)),
        })
    }
}

/// Samples as arrays: the raw form of a batch, for `output="batch"`.
#[pyclass(frozen, module = "tierstream")]
pub(crate) struct Batch(pub(crate) Arc<Held>);

static AS_ARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static RAGGED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn attribute<'py>(
    py: Python<'py>,
    slot: &'static PyOnceLock<Py<PyAny>>,
    module: &str,
    name: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let found = slot.get_or_try_init(py, || Ok::<_, PyErr>(py.import(module)?.getattr(name)?.unbind()))?;
    Ok(found.bind(py).clone())
}

impl Batch {
    fn array(&self, which: Which) -> Array {
        Array::new(Arc::clone(&self.0), which)
    }

    fn numpy_of<'py>(&self, py: Python<'py>, which: Which) -> PyResult<Bound<'py, PyAny>> {
        attribute(py, &AS_ARRAY, "numpy", "asarray")?.call1((self.array(which),))
    }

    /// Field `number` as a numpy array, or as a `Ragged`.
    fn value<'py>(&self, py: Python<'py>, number: usize) -> PyResult<Bound<'py, PyAny>> {
        let values = self.numpy_of(py, Which::Values(number))?;
        if self.0.parts[number].offsets.is_none() {
            return Ok(values);
        }
        let offsets = self.numpy_of(py, Which::Offsets(number))?;
        attribute(py, &RAGGED, "tierstream._ragged", "Ragged")?.call1((values, offsets))
    }
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.0.sample_ids.len()
    }

    /// The epoch it belongs to, from 0.
    #[getter]
    fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// Its number in the epoch, from 0.
    #[getter]
    fn number(&self) -> u64 {
        self.0.number
    }

    /// Numbers of the samples in their data set, as a numpy array of int64 of shape `(len,)`.
    #[getter]
    fn sample_ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.numpy_of(py, Which::SampleIds)
    }

    /// The number of each sample's data set among those that are mixed; empty where there is one.
    #[getter]
    fn sources(&self) -> Vec<u32> {
        self.0.sources.clone()
    }

    /// Names of the fields, in the schema's order.
    #[getter]
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.parts.iter().map(|part| PyString::intern(py, &part.name)))
    }

    /// The exporters of all fields by name: buffers for `numpy.asarray` and `from_dlpack`, (values, offsets) for ragged
    /// fields.
    fn arrays<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for (number, part) in self.0.parts.iter().enumerate() {
            let (name, values) = (PyString::intern(py, &part.name), self.array(Which::Values(number)));
            match part.offsets {
                None => all.set_item(name, values)?,
                Some(_) => all.set_item(name, (values, self.array(Which::Offsets(number))))?,
            }
        }
        Ok(all)
    }

    /// The fields by name, as numpy arrays that share the batch's memory.
    pub(crate) fn as_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for (number, part) in self.0.parts.iter().enumerate() {
            all.set_item(PyString::intern(py, &part.name), self.value(py, number)?)?;
        }
        Ok(all)
    }

    /// As `as_dict`, in the schema's order and without names.
    pub(crate) fn as_tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let all = (0..self.0.parts.len()).map(|number| self.value(py, number));
        PyTuple::new(py, all.collect::<PyResult<Vec<_>>>()?)
    }

    fn __getitem__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        match self.0.parts.iter().position(|part| part.name == name) {
            Some(number) => self.value(py, number),
            None => Err(pyo3::exceptions::PyKeyError::new_err(name.to_owned())),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let fields = self.fields(py)?.repr()?;
        let (epoch, number, len) = (self.0.epoch, self.0.number, self.0.sample_ids.len());
        let class = intern!(py, "tierstream.Batch");
        Ok(format!("{class}({len} samples, {number} of epoch {epoch}, fields {fields})"))
    }
}
