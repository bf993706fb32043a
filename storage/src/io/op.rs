//! One read, write or sync, with everything it needs.

use std::fmt;
use std::sync::Arc;

use super::config::{Lane, Priority};
use crate::buf::Slot;
use crate::device::DeviceFile;
use crate::error::Result;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// Device to buffer.
    Read,
    /// Buffer to device.
    Write,
    /// Makes earlier completed writes of the file durable (fdatasync).
    Sync,
}

impl OpKind {
    /// The word in error messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
        }
    }
}

/// An operation: owns its buffer and keeps its file open, so that nothing can be freed under the kernel's hands.
#[derive(Debug)]
pub struct Op {
    /// What to do.
    pub kind: OpKind,
    /// Where.
    pub file: Arc<DeviceFile>,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The buffer; none for a sync.
    pub buf: Option<Slot>,
    /// How many bytes of the buffer.
    pub len: usize,
    /// How many of them are already done: an operation is resumed from here after a short transfer.
    pub done: usize,
    /// Given back with the completion; the engine does not look at it.
    pub tag: u64,
    /// How many further numbers behind `tag` name the request as well, to [`IoService::raise`](super::IoService::raise).
    pub more_tags: u64,
}

impl Op {
    /// Reads `len` bytes at `offset` into the start of `buf`.
    #[must_use]
    pub fn read(file: Arc<DeviceFile>, offset: u64, len: usize, buf: Slot) -> Self {
        Self::transfer(OpKind::Read, file, offset, len, buf)
    }

    /// Writes the first `len` bytes of `buf` at `offset`.
    #[must_use]
    pub fn write(file: Arc<DeviceFile>, offset: u64, len: usize, buf: Slot) -> Self {
        Self::transfer(OpKind::Write, file, offset, len, buf)
    }

    /// Makes completed writes of `file` durable.
    #[must_use]
    pub fn sync(file: Arc<DeviceFile>) -> Self {
        Self { kind: OpKind::Sync, file, offset: 0, buf: None, len: 0, done: 0, tag: 0, more_tags: 0 }
    }

    fn transfer(kind: OpKind, file: Arc<DeviceFile>, offset: u64, len: usize, buf: Slot) -> Self {
        assert!(len <= buf.len(), "{len} bytes do not fit a slot of {}", buf.len());
        Self { kind, file, offset, buf: Some(buf), len, done: 0, tag: 0, more_tags: 0 }
    }

    /// Whether `tag` is one of its names.
    pub(super) fn is_named(&self, tag: u64) -> bool {
        tag.checked_sub(self.tag).is_some_and(|behind| behind <= self.more_tags)
    }

    /// Bytes still to transfer.
    #[must_use]
    pub fn left(&self) -> usize {
        self.len - self.done
    }

    /// File offset of the next byte to transfer.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.offset + crate::units::to_u64(self.done)
    }
}

/// What came of an operation: bytes transferred in this attempt, or the system's error.
#[derive(Debug)]
pub struct Completion {
    /// The operation, with its buffer.
    pub op: Op,
    /// Bytes transferred by this attempt; zero for a read means end of file.
    pub result: std::io::Result<usize>,
}

/// What happens afterwards. The operation is missing only when the engine itself broke down and kept its buffer.
pub type Done = Box<dyn FnOnce(Option<Op>, Result<()>) + Send>;

/// An operation with its place in the queue and what happens afterwards.
pub struct Request {
    /// What to do. Its `tag` names the request to [`IoService::raise`](super::IoService::raise).
    pub op: Op,
    /// Whose queue.
    pub lane: Lane,
    /// How urgent.
    pub priority: Priority,
    /// Within one priority the lowest goes first.
    pub deadline: u64,
    /// Called once, on the I/O thread, with the operation: it must be quick and must not wait.
    pub done: Done,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({:?} {:?} {:?})", self.lane, self.priority, self.op)
    }
}
