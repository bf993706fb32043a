//! Values that belong to the process that made them.
//!
//! A child of fork(2) has one thread and a copy of every handle. The threads behind a store do not exist there, its rings
//! are the parent's, and locks may be held by nobody: using such a handle would hang, and so would dropping it.

use pyo3::PyResult;
use tierstream_storage::{Error, ErrorKind};

use crate::error::raise;

/// A value that refuses itself to the children of its process and is never dropped there.
pub(crate) struct InProcess<T> {
    // None only while dropping.
    value: Option<T>,
    process: u32,
}

impl<T> InProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value), process: std::process::id() }
    }

    /// Whether this is the process that made the value.
    pub(crate) fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    /// The value, in the process that made it; `what` names it for the error.
    pub(crate) fn get(&self, what: &str) -> PyResult<&T> {
        match &self.value {
            Some(value) if self.is_ours() => Ok(value),
            _ => {
                let why = format!("this {what} was made by process {}, before a fork", self.process);
                Err(raise(
                    Error::new(ErrorKind::Closed, "use", why)
                        .hint("make a new one in this process, or start workers with the spawn method"),
                ))
            }
        }
    }

    /// Takes the value out, in the process that made it.
    pub(crate) fn take(&mut self) -> Option<T> {
        if self.is_ours() { self.value.take() } else { None }
    }
}

impl<T> Drop for InProcess<T> {
    fn drop(&mut self) {
        if !self.is_ours() {
            #[expect(
                clippy::mem_forget,
                reason = "its threads and locks are the parent's; the kernel frees the rest"
            )]
            std::mem::forget(self.value.take());
        }
    }
}
