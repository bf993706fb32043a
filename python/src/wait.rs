//! Waiting on behalf of Python: without its lock, and with an eye on signals, so that Ctrl-C ends every wait.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::prelude::*;
use tierstream_storage::{Error, ErrorKind, Result};

use crate::error::{raise, raised};
use crate::log;

/// How often a wait looks for signals: Ctrl-C is answered within it.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// How long an end is waited for before it is left to itself: a device that answers needs less.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Runs `work` on a thread of its own until it is done or a signal handler raises, as Ctrl-C's does; it is left to itself
/// then, and what it makes is dropped.
pub(crate) fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let (done, waiting) = channel();
    let started = std::thread::Builder::new().name("tier-python".to_owned()).spawn(move || {
        let _nobody_waits = done.send(work());
    });
    started.map_err(|error| raise(Error::new(ErrorKind::Full, "start", format!("no thread: {error}"))))?;
    // A receiver is not shared between threads: it is handed to each wait and comes back.
    let mut waiting = waiting;
    loop {
        let (back, got) = py.detach(move || {
            let got = waiting.recv_timeout(TICK);
            (waiting, got)
        });
        waiting = back;
        log::tell(py)?;
        match got {
            Ok(result) => return raised(result),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                let why = "its thread panicked";
                return Err(raise(
                    Error::new(ErrorKind::Closed, "work", why)
                        .hint("its message is on stderr; please report it"),
                ));
            }
        }
    }
}

/// Drops `value`, which may wait for a device: for a while, then it is left to a thread.
pub(crate) fn end<T: Send + 'static>(value: T) {
    let (done, waiting) = channel::<()>();
    let started = std::thread::Builder::new().name("tier-end".to_owned()).spawn(move || {
        drop(value);
        drop(done);
    });
    if started.is_ok() {
        // Nothing is sent: the end of the channel is the end of the value.
        let _ended = waiting.recv_timeout(END_PATIENCE);
    }
}
