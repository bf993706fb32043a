//! A block in memory, a load under way, and the ticket of those who wait for it: many waiters, one read.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::BlockKey;
use crate::buf::Slot;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Monitor;

/// An opened, authenticated block. Its memory goes back to L1's arena when the last reference is gone.
pub struct Block {
    key: BlockKey,
    slot: Slot,
    len: usize,
}

/// A shared view of a block; while one lives outside L1 the block is not evicted.
pub type BlockRef = Arc<Block>;

impl Block {
    /// The first `len` bytes of `slot` as block `key`.
    #[must_use]
    pub fn new(key: BlockKey, slot: Slot, len: usize) -> Self {
        assert!(len <= slot.len(), "{len} bytes in a slot of {}", slot.len());
        Self { key, slot, len }
    }

    /// Which block it is.
    #[must_use]
    pub fn key(&self) -> BlockKey {
        self.key
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.slot[..self.len]
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes: they are somebody's plaintext.
        write!(f, "Block({:?}, {} bytes)", self.key, self.len)
    }
}

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
pub struct Ticket {
    key: BlockKey,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Ready(BlockRef),
    Pending(Arc<Flight>),
}

impl Ticket {
    pub(crate) fn ready(key: BlockKey, block: BlockRef) -> Self {
        Self { key, state: State::Ready(block) }
    }

    pub(crate) fn pending(key: BlockKey, flight: Arc<Flight>) -> Self {
        Self { key, state: State::Pending(flight) }
    }

    /// Which block it is for.
    #[must_use]
    pub fn key(&self) -> BlockKey {
        self.key
    }

    /// The block, if it is here.
    ///
    /// # Errors
    /// Why it could not be loaded.
    pub fn try_get(&self) -> Option<Result<BlockRef>> {
        match &self.state {
            State::Ready(block) => Some(Ok(Arc::clone(block))),
            State::Pending(flight) => flight.peek(),
        }
    }

    /// The block, waiting up to `patience` for it.
    ///
    /// # Errors
    /// Why it could not be loaded; `Retry` when time ran out.
    pub fn wait(&self, patience: Duration) -> Result<BlockRef> {
        match &self.state {
            State::Ready(block) => Ok(Arc::clone(block)),
            State::Pending(flight) => flight.wait(self.key, patience),
        }
    }
}
