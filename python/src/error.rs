//! Errors as Python's exceptions: `tierstream.Error` and its subclasses, which are Python's own (python/tierstream/_errors.py).

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tierstream_storage::{Error, ErrorKind, Place};

static RAISE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The exception for `error`, with its kind, place and hint.
pub(crate) fn raise(error: Error) -> PyErr {
    Python::attach(|py| exception(py, &error).unwrap_or_else(|other| other))
}

/// As [`raise`], for a result.
pub(crate) fn raised<T>(result: Result<T, Error>) -> PyResult<T> {
    result.map_err(raise)
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let of = RAISE.get_or_try_init(py, || {
        Ok::<_, PyErr>(py.import("tierstream._errors")?.getattr("of_kind")?.unbind())
    })?;
    let place = error.place();
    let path = place.map(|place| place.path.clone());
    let block = place.and_then(|place| place.block);
    let (offset, len) = place.map_or((None, None), |Place { offset, len, .. }| (*offset, *len));
    let made = of.bind(py).call1((
        kind_name(error.kind()),
        error.to_string(),
        error.hint_text(),
        path,
        block.map(|(kind, number)| (kind.to_owned(), number)),
        offset,
        len,
    ))?;
    Ok(PyErr::from_value(made))
}

fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Retry => "retry",
        ErrorKind::Missing => "missing",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::Full => "full",
        ErrorKind::Misuse => "misuse",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Denied => "denied",
        ErrorKind::Device => "device",
        ErrorKind::Closed => "closed",
        ErrorKind::Interrupted => "interrupted",
    }
}
