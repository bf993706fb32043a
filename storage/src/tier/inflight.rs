//! A load under way, and the ticket of those who wait for it: many waiters, one read.

use std::sync::Arc;
use std::time::Duration;

use super::{BlockKey, BlockRef};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Monitor;

/// A load under way. Ends exactly once, with a block or an error.
#[derive(Debug)]
pub struct Flight {
    outcome: Monitor<Option<Result<BlockRef>>>,
}

impl Default for Flight {
    fn default() -> Self {
        Self { outcome: Monitor::new(None) }
    }
}

impl Flight {
    /// Ends the load; a second end is ignored.
    pub fn end(&self, outcome: Result<BlockRef>) {
        let mut slot = self.outcome.lock();
        if slot.is_none() {
            *slot = Some(outcome);
            self.outcome.notify_all();
        }
    }

    fn wait(&self, key: BlockKey, patience: Duration) -> Result<BlockRef> {
        let outcome = self.outcome.wait_while(Some(patience), |outcome| outcome.is_none());
        outcome.clone().unwrap_or_else(|| {
            Err(Error::new(ErrorKind::Retry, "read", format!("waited {patience:?} for a block to arrive"))
                .at_block("data", u64::from(key.block))
                .hint("look at the device: `tierstream doctor`, dmesg"))
        })
    }

    fn peek(&self) -> Option<Result<BlockRef>> {
        self.outcome.lock().clone()
    }
}

/// A claim on a block that is here or on its way. Dropping it is always safe: the load goes on and lands in L1.
#[derive(Clone, Debug)]
pub struct Ticket(State);

#[derive(Clone, Debug)]
enum State {
    Ready(BlockRef),
    Pending(BlockKey, Arc<Flight>),
}

impl Ticket {
    pub(crate) fn ready(block: BlockRef) -> Self {
        Self(State::Ready(block))
    }

    pub(crate) fn pending(key: BlockKey, flight: Arc<Flight>) -> Self {
        Self(State::Pending(key, flight))
    }

    /// Which block it is for.
    #[must_use]
    pub fn key(&self) -> BlockKey {
        match &self.0 {
            State::Ready(block) => block.key(),
            State::Pending(key, _) => *key,
        }
    }

    /// The block, if it is here.
    ///
    /// # Errors
    /// Why it could not be loaded.
    pub fn try_get(&self) -> Option<Result<BlockRef>> {
        match &self.0 {
            State::Ready(block) => Some(Ok(block.clone())),
            State::Pending(_, flight) => flight.peek(),
        }
    }

    /// The block, waiting up to `patience` for it.
    ///
    /// # Errors
    /// Why it could not be loaded; `Retry` when time ran out.
    pub fn wait(&self, patience: Duration) -> Result<BlockRef> {
        match &self.0 {
            State::Ready(block) => Ok(block.clone()),
            State::Pending(key, flight) => flight.wait(*key, patience),
        }
    }
}
