//! Writes what changed on L2 to the catalog, in batches and off the hot path.
//!
//! A crash loses at most the last batch: the blocks it named are read from L3 again. What the catalog says of a block
//! is never trusted: its bytes are authenticated when they are read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::catalog::{Batch, CatalogStore, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::host::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use crate::host::{JoinHandle, spawn};

/// A batch is committed when it has this many changes ...
const BATCH_CHANGES: usize = 1024;
/// ... or when its first change has waited this long.
const BATCH_AGE: Duration = Duration::from_secs(1);
/// Changes that may wait while a commit is on its way to disk.
const QUEUE: usize = 1 << 16;

/// One change of a table.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) table: Table,
    pub(super) key: Vec<u8>,
    /// None removes the key.
    pub(super) value: Option<Vec<u8>>,
}

/// The handle to the journal's thread.
#[derive(Debug)]
pub(super) struct Journal {
    // None once closed.
    changes: Mutex<Option<Sender<Change>>>,
    thread: Mutex<Option<JoinHandle>>,
}

impl Journal {
    pub(super) fn start(catalog: Arc<dyn CatalogStore>) -> Result<Self> {
        let (changes, queue) = bounded(QUEUE);
        let thread = spawn("tier-journal", move || run(&*catalog, &queue))
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no journal thread: {error}")))?;
        Ok(Self { changes: Mutex::new(Some(changes)), thread: Mutex::new(Some(thread)) })
    }

    /// Queues a change; never waits. A change that finds the queue full is forgotten, which costs a read from L3 after
    /// the next restart.
    pub(super) fn note(&self, change: Change) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(TrySendError::Full(_))) = changes.as_ref().map(|changes| changes.try_send(change)) {
            tracing::debug!("the catalog lags behind: a block will be cold after a restart");
        }
    }

    /// Commits what is queued and ends the thread.
    pub(super) fn close(&self) {
        drop(self.changes.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal thread panicked");
        }
    }
}

fn run(catalog: &dyn CatalogStore, queue: &Receiver<Change>) {
    let mut batch = Batch::default();
    loop {
        // With an empty batch there is nothing to be late for: sleep until something happens.
        let next = if batch.is_empty() {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(BATCH_AGE)
        };
        let closed = matches!(next, Err(RecvTimeoutError::Disconnected));
        let late = next.is_err();
        if let Ok(change) = next {
            match &change.value {
                Some(value) => batch.put(change.table, &change.key, value),
                None => batch.delete(change.table, &change.key),
            }
        }
        if !batch.is_empty()
            && (late || batch.len() >= BATCH_CHANGES)
            && let Err(error) = catalog.apply(&std::mem::take(&mut batch))
        {
            tracing::warn!(%error, "the L2 catalog was not written: its blocks will be cold after a restart");
        }
        if closed {
            return;
        }
    }
}
