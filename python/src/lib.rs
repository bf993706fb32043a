//! The Python package's extension module: what of the loader Python sees, as few classes as carry it.
//!
//! Everything here moves values and owns memory; what users call (defaults, hooks, epochs, PyTorch) is Python in
//! `python/tierstream/`. Guarantees: bytes that Python sees were authenticated; a batch's buffer is not used again while
//! an array or tensor of it lives; no wait holds the interpreter's lock, and Ctrl-C ends every one; in a forked child
//! every handle refuses, and none waits for threads that the child does not have.
//!
//! Deliberately knows no PyTorch: tensors are made of numpy arrays and DLPack.

mod array;
mod batch;
mod dlpack;
mod engine;
mod error;
mod key;
mod loading;
mod log;
mod pack;
mod process;
mod source;
mod store;
mod wait;
mod writer;

use pyo3::prelude::*;

/// The extension module. Its names belong to the package `tierstream`; nobody else uses them.
#[pymodule]
fn _tierstream(module: &Bound<'_, PyModule>) -> PyResult<()> {
    log::start();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<key::Key>()?;
    module.add_class::<store::StoreHandle>()?;
    module.add_class::<source::Source>()?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<batch::Batch>()?;
    module.add_class::<array::Array>()?;
    module.add_class::<writer::Writer>()?;
    module.add_function(wrap_pyfunction!(pack::pack, module)?)
}
