//! One array of a batch, for numpy and for everything that speaks DLPack.
//!
//! numpy keeps the exporter as the base of its array, and a DLPack capsule keeps the memory itself: either way the
//! batch's buffer is in use until the last of them is gone.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyTuple};
use tierstream_loader::Dtype;
use tierstream_storage::{Error, ErrorKind};

use crate::batch::Held;
use crate::dlpack;
use crate::error::raise;

/// Which of a batch's arrays.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    Values(usize),
    Offsets(usize),
    SampleIds,
}

/// Exports memory of a batch: `numpy.asarray(array)`, `torch.from_dlpack(array)`, without a copy.
#[pyclass(frozen, module = "tierstream._tierstream")]
pub(crate) struct Array {
    held: Arc<Held>,
    which: Which,
}

/// What an exporter says of an array.
pub(crate) struct View {
    pub(crate) address: usize,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Numbers that tell where samples lie are not the user's to change.
    pub(crate) read_only: bool,
}

impl Array {
    pub(crate) fn new(held: Arc<Held>, which: Which) -> Self {
        Self { held, which }
    }

    fn view(&self) -> View {
        // Both are below 2^63: as signed numbers they are what numpy and PyTorch index with.
        let numbers = |numbers: &[u64]| View {
            address: numbers.as_ptr().expose_provenance(),
            dtype: Dtype::I64,
            shape: vec![numbers.len()],
            read_only: true,
        };
        match self.which {
            Which::Values(number) => {
                let part = &self.held.parts[number];
                View { address: part.address, dtype: part.dtype, shape: part.shape.clone(), read_only: false }
            }
            Which::Offsets(number) => numbers(self.held.parts[number].offsets.as_deref().unwrap_or_default()),
            Which::SampleIds => numbers(&self.held.sample_ids),
        }
    }
}

/// numpy's spelling of an element type; it has no brain floats and gets their bits.
fn typestr(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::U8 => "|u1",
        Dtype::I8 => "|i1",
        Dtype::U16 | Dtype::Bf16 => "<u2",
        Dtype::I16 => "<i2",
        Dtype::U32 => "<u4",
        Dtype::I32 => "<i4",
        Dtype::U64 => "<u8",
        Dtype::I64 => "<i8",
        Dtype::F16 => "<f2",
        Dtype::F32 => "<f4",
        Dtype::F64 => "<f8",
    }
}

#[pymethods]
impl Array {
    /// numpy's array interface, version 3.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let view = self.view();
        let interface = PyDict::new(py);
        interface.set_item(pyo3::intern!(py, "version"), 3)?;
        interface.set_item(pyo3::intern!(py, "typestr"), typestr(view.dtype))?;
        interface.set_item(pyo3::intern!(py, "shape"), PyTuple::new(py, &view.shape)?)?;
        interface.set_item(pyo3::intern!(py, "data"), (view.address, view.read_only))?;
        Ok(interface)
    }

    /// Its element type, as data sets name it ("u16", "bf16").
    #[getter]
    fn dtype(&self) -> String {
        self.view().dtype.to_string()
    }

    /// Its shape.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.view().shape)
    }

    /// DLPack: a capsule that keeps the batch's memory until its consumer has dropped it.
    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<i64>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let refused = |why: &str| {
            let error = Error::new(ErrorKind::Unsupported, "export through DLPack", why);
            Err(raise(error.hint("take the array as it is, in memory of the CPU, and copy it there")))
        };
        if stream.is_some_and(|stream| stream != -1) {
            return refused("a stream of a GPU for memory of the CPU");
        }
        if dl_device.is_some_and(|device| device != dlpack::CPU) {
            return refused("another device than the CPU");
        }
        if copy == Some(true) {
            return refused("a copy");
        }
        let versioned = max_version.is_some_and(|(major, _)| major >= 1);
        let view = self.view();
        if view.read_only && !versioned {
            return refused("an array that may not be written, to a reader that does not know of such");
        }
        dlpack::capsule(py, &view, Arc::clone(&self.held), versioned)
    }

    /// DLPack: where the memory is. Always the CPU's.
    fn __dlpack_device__(&self) -> (i32, i32) {
        dlpack::CPU
    }
}
