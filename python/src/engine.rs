//! A running loader in Python's hands: batches, waited for without the interpreter's lock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};
use tierstream_loader::{Batch as RustBatch, Loader, LoaderState};
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::batch::{Batch, Held};
use crate::error::{raise, raised};
use crate::loading::{self, Stages};
use crate::log;
use crate::process::InProcess;
use crate::wait::{TICK, end, interruptible};

/// How the loader's error begins when a wait was cut short by us.
const TIMEOUT: &str = "timeout after";

/// Makes batches on threads of its own.
#[pyclass(frozen, module = "tierstream._tierstream")]
pub(crate) struct Engine {
    running: InProcess<Box<Mutex<Running>>>,
    clock: SystemClock,
}

struct Running {
    loader: Loader,
    // The epoch that the current loop reads.
    epoch: u64,
    // A batch that was met while looking for something else, and where the loader stood before it.
    early: Option<(RustBatch, LoaderState)>,
}

/// What came of looking for a batch.
enum Next {
    Batch(RustBatch),
    /// The loop's epoch is over, or everything.
    Over,
    /// Not yet.
    Late,
}

impl Running {
    /// The next batch, if it comes within `patience`; of the current epoch alone, if so wished.
    fn next(&mut self, patience: Duration, one_epoch: bool) -> Result<Next> {
        if one_epoch && self.is_over() {
            return Ok(Next::Over);
        }
        let next = match self.early.take() {
            Some((early, _)) => Ok(Some(early)),
            None => self.loader.next_within(patience),
        };
        match next {
            // The last batches of the epoch had nothing but samples that were left out.
            Ok(Some(batch)) if one_epoch && batch.epoch() > self.epoch => {
                let start =
                    LoaderState { epoch: batch.epoch(), done: 0, batches: 0, ..self.loader.state_dict() };
                self.early = Some((batch, start));
                Ok(Next::Over)
            }
            Ok(Some(batch)) => Ok(Next::Batch(batch)),
            Ok(None) => Ok(Next::Over),
            Err(error) if error.kind() == ErrorKind::Retry && error.to_string().contains(TIMEOUT) => {
                Ok(Next::Late)
            }
            Err(error) => Err(error),
        }
    }

    fn is_over(&self) -> bool {
        let LoaderState { epoch, done, .. } = self.state();
        epoch > self.epoch || epoch == self.epoch && done > 0 && self.batches_left() == 0
    }

    fn is_ready(&self) -> bool {
        self.early.is_some() || self.is_over() || self.loader.is_ready()
    }

    /// After the last batch that was given out.
    fn state(&self) -> LoaderState {
        match &self.early {
            Some((_, before)) => before.clone(),
            None => self.loader.state_dict(),
        }
    }

    fn batches_left(&self) -> u64 {
        self.loader.batches_left() + u64::from(self.early.is_some())
    }
}

#[pymethods]
impl Engine {
    /// Starts a loader of `stages`.
    #[new]
    fn new(py: Python<'_>, stages: Stages<'_>, settings: &Bound<'_, PyDict>) -> PyResult<Self> {
        let builder = loading::builder(&stages, settings)?;
        let loader = interruptible(py, move || builder.build())?;
        let epoch = loader.state_dict().epoch;
        let running = InProcess::new(Box::new(Mutex::new(Running { loader, epoch, early: None })));
        Ok(Self { running, clock: SystemClock::new() })
    }

    /// The next batch as a dict of arrays, a tuple of them or a `Batch`, as `output` says; None after the last one. Waits
    /// up to `timeout` seconds, or for ever, and logs after `stall_warning` what it waits for.
    fn next<'py>(
        &self,
        py: Python<'py>,
        output: &str,
        one_epoch: bool,
        timeout: Option<f64>,
        stall_warning: f64,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(batch) = self.wait(py, one_epoch, timeout, stall_warning)? else { return Ok(None) };
        let batch = Batch(Held::of(batch));
        Ok(Some(match output {
            "dict" => batch.as_dict(py)?.into_any(),
            "tuple" => batch.as_tuple(py)?.into_any(),
            _ => Bound::new(py, batch)?.into_any(),
        }))
    }

    /// From here on a loop reads `epoch`.
    fn begin_epoch(&self, py: Python<'_>, epoch: u64) -> PyResult<()> {
        let running = self.running()?;
        py.detach(|| lock(running).epoch = epoch);
        Ok(())
    }

    /// Where it stands: after the last batch that it gave out, as JSON.
    fn state(&self, py: Python<'_>) -> PyResult<String> {
        let state = self.ask(py, Running::state)?;
        serde_json::to_string(&state)
            .map_err(|error| raise(Error::new(ErrorKind::Misuse, "save state", error.to_string())))
    }

    /// Batches that are left of its epoch.
    fn batches_left(&self, py: Python<'_>) -> PyResult<u64> {
        self.ask(py, Running::batches_left)
    }

    /// Batches of a whole epoch.
    fn batches_per_epoch(&self, py: Python<'_>) -> PyResult<u64> {
        self.ask(py, |running| running.loader.batches_per_epoch())
    }

    /// Samples that were left out because they are corrupt, and sequences that were cut.
    fn counts(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        self.ask(py, |running| (running.loader.skipped_samples(), running.loader.truncated_samples()))
    }

    /// Whether this process started it.
    #[getter]
    fn is_ours(&self) -> bool {
        self.running.is_ours()
    }
}

impl Engine {
    fn running(&self) -> PyResult<&Mutex<Running>> {
        Ok(&**self.running.get("loader")?)
    }

    fn ask<T: Send>(&self, py: Python<'_>, what: impl FnOnce(&Running) -> T + Send) -> PyResult<T> {
        let running = self.running()?;
        // Another thread may wait for a batch with the lock in its hands, and needs the interpreter to give it back.
        Ok(py.detach(|| what(&lock(running))))
    }

    fn wait(
        &self,
        py: Python<'_>,
        one_epoch: bool,
        timeout: Option<f64>,
        stall_warning: f64,
    ) -> PyResult<Option<RustBatch>> {
        let running = self.running()?;
        // A batch that is there is taken with the interpreter's lock in hand: other threads of Python's may be busy, and
        // to give the lock up would be to wait for their turn to end.
        if let Ok(mut running) = running.try_lock()
            && running.is_ready()
        {
            match raised(running.next(Duration::ZERO, one_epoch))? {
                Next::Batch(batch) => return Ok(Some(batch)),
                Next::Over => return Ok(None),
                Next::Late => {}
            }
        }
        let began = self.clock.now();
        let mut warn_at = stall_warning;
        loop {
            let next = py.detach(|| lock(running).next(TICK, one_epoch));
            log::tell(py)?;
            match raised(next)? {
                Next::Batch(batch) => return Ok(Some(batch)),
                Next::Over => return Ok(None),
                Next::Late => {}
            }
            py.check_signals()?;
            let waited = self.clock.now().saturating_sub(began).as_secs_f64();
            let late = timeout.is_some_and(|timeout| waited >= timeout);
            if late || waited >= warn_at {
                let what = raised(py.detach(|| waits_for(&mut lock(running))))?;
                if late {
                    let why = format!("timeout: no batch within {waited:.1} s, waiting for {what}");
                    let error = Error::new(ErrorKind::Retry, "load batch", why);
                    return Err(raise(error.hint(
                        "look at the device of the files named, then go on: the next batch is still being read",
                    )));
                }
                log::warn(format!("still waiting after {waited:.0} s for {what}"));
                warn_at *= 2.0;
            }
        }
    }
}

/// What the next batch waits for, for people.
fn waits_for(running: &mut Running) -> Result<String> {
    let before = running.loader.state_dict();
    match running.loader.next_within(Duration::ZERO) {
        Err(error) if error.to_string().contains(TIMEOUT) => {
            let text = error.to_string();
            Ok(text.split_once("waiting for ").map_or(text.clone(), |(_, what)| what.to_owned()))
        }
        Err(error) => Err(error),
        // It came this moment.
        Ok(batch) => {
            running.early = batch.map(|batch| (batch, before));
            Ok("nothing any more".to_owned())
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            end(running);
        }
    }
}

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}
