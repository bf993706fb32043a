#![expect(unsafe_code, reason = "mapping a file is unsafe: others may shorten it")]
//! Copies from a mapping: the last rung, for reading what is in the page cache already. Reads alone.
//!
//! A device that fails, or a file that somebody shortens while it is copied, ends the process with SIGBUS: so nothing
//! falls back to this engine, it is asked for by name. Every read looks at the length of the file first.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use memmap2::Mmap;

use super::{Completion, EngineReport, IoEngine, Op, OpKind, Waker};
use crate::device::DeviceFile;
use crate::error::Result;
use crate::host::channel::{Receiver, Sender, bounded};
use crate::units::{to_u64, to_usize};

/// Mappings that are kept; the table is emptied of closed files when it is full.
const MAPPINGS_MAX: usize = 256;

/// Reads by memcpy on the calling thread, when they are waited for.
#[derive(Debug)]
pub struct MmapEngine {
    queued: Vec<Op>,
    depth: usize,
    mappings: HashMap<usize, Mapping>,
    woken: Receiver<()>,
    waker: Arc<ChannelWaker>,
}

#[derive(Debug)]
struct Mapping {
    file: Weak<DeviceFile>,
    map: Mmap,
}

#[derive(Debug)]
struct ChannelWaker {
    channel: Sender<()>,
    pending: AtomicBool,
}

impl Waker for ChannelWaker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::SeqCst) {
            let _engine_is_gone = self.channel.try_send(());
        }
    }
}

impl MmapEngine {
    /// An engine that takes `depth` operations at a time.
    #[must_use]
    pub fn new(depth: usize) -> Self {
        let (channel, woken) = bounded(1);
        let waker = Arc::new(ChannelWaker { channel, pending: AtomicBool::new(false) });
        Self { queued: Vec::with_capacity(depth), depth, mappings: HashMap::new(), woken, waker }
    }

    fn attempt(&mut self, op: &mut Op) -> std::io::Result<usize> {
        let (offset, done, len) = (to_usize(op.next_offset()), op.done, op.len);
        let file = Arc::clone(&op.file);
        let Some(buf) = op.buf.as_deref_mut().filter(|_| op.kind == OpKind::Read) else {
            return Err(std::io::Error::from(std::io::ErrorKind::Unsupported));
        };
        let size = file.size_bytes().map_err(|error| std::io::Error::other(error.to_string()))?;
        let end = to_usize(size.min(to_u64(offset + len - done)));
        if end <= offset {
            return Ok(0);
        }
        let map = self.mapping(&file, end)?;
        buf[done..done + end - offset].copy_from_slice(&map[offset..end]);
        Ok(end - offset)
    }

    /// A mapping of at least the first `end` bytes of `file`.
    fn mapping(&mut self, file: &Arc<DeviceFile>, end: usize) -> std::io::Result<&Mmap> {
        let key = Arc::as_ptr(file).addr();
        if self.mappings.get(&key).is_none_or(|mapping| mapping.map.len() < end) {
            if self.mappings.len() >= MAPPINGS_MAX {
                self.mappings.retain(|_, mapping| mapping.file.strong_count() > 0);
            }
            // SAFETY: the bytes must not change while they are borrowed: the one borrow is that of a copy into a buffer
            // whose bytes nobody trusts before they are authenticated, and sealed files do not change. What the module
            // says of SIGBUS stands.
            let map = unsafe { Mmap::map(file.as_fd().as_raw_fd()) }?;
            if map.len() < end {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
            }
            self.mappings.insert(key, Mapping { file: Arc::downgrade(file), map });
        }
        Ok(&self.mappings[&key].map)
    }
}

impl IoEngine for MmapEngine {
    fn submit(&mut self, op: Op) {
        assert!(self.room() > 0, "more than {} operations", self.depth);
        self.queued.push(op);
    }

    fn room(&self) -> usize {
        self.depth - self.queued.len()
    }

    fn in_flight(&self) -> usize {
        self.queued.len()
    }

    fn wait(&mut self, completed: &mut Vec<Completion>) -> Result<()> {
        if self.queued.is_empty() {
            self.woken.recv().expect("the engine holds a sender itself");
            self.waker.pending.store(false, Ordering::SeqCst);
            return Ok(());
        }
        for mut op in std::mem::take(&mut self.queued) {
            let result = self.attempt(&mut op);
            completed.push(Completion { op, result });
        }
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Waker> {
        Arc::clone(&self.waker) as Arc<dyn Waker>
    }

    fn report(&self) -> EngineReport {
        EngineReport {
            name: "mmap",
            detail: "copies from mappings, read only".to_owned(),
            fallback: Vec::new(),
        }
    }
}
