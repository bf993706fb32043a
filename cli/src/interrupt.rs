//! Ctrl-C and SIGTERM: the first asks the work to end cleanly, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
}
