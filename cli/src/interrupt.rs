//! Ctrl-C and SIGTERM: the first asks the work to end cleanly, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use indicatif::ProgressBar;
use tierstream_storage::{Error, ErrorKind, Result};

/// Set when the user asked to stop. Clones are the same flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches the signals from now on, and calls `also` when one arrives.
    pub(crate) fn catch(also: impl Fn() + Send + 'static) -> Result<Self> {
        let flag = Self::default();
        let caught = flag.clone();
        ctrlc::set_handler(move || {
            if caught.0.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            crate::output::say("\nstopping; once more to stop at once");
            also();
        })
        .map_err(|error| Error::new(ErrorKind::Unsupported, "start", format!("signals: {error}")))?;
        Ok(flag)
    }

    /// Whether the user asked to stop.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Does `work` on a thread of its own, shows on `bar` what is `done`, and sets `stop` when the user asks to.
    pub(crate) fn watch<T: Send>(
        &self,
        bar: &ProgressBar,
        done: &AtomicU64,
        stop: &AtomicBool,
        work: impl FnOnce() -> T + Send,
    ) -> T {
        std::thread::scope(|scope| {
            let work = scope.spawn(work);
            while !work.is_finished() {
                std::thread::park_timeout(Duration::from_millis(50));
                bar.set_position(done.load(Ordering::Relaxed));
                if self.is_set() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
