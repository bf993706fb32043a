#![expect(
    unsafe_code,
    reason = "submission entries carry raw pointers into buffers that the slot table owns"
)]
//! io_uring(7): one ring, one thread, operations owned by a slot table until their completion.
//!
//! The kernel reads and writes through raw pointers, so ownership is the whole design: an [`Op`] moves into the table
//! when it is submitted and leaves it only with its completion entry. Dropping the engine waits for what is in flight.

mod buffers;
mod files;
mod setup;

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use self::buffers::Buffers;
use self::files::FileTable;
use super::{Completion, EngineReport, IoEngine, Op, OpKind, Waker};
use crate::buf::Arena;
use crate::error::{Error, ErrorKind, Result};
use crate::units::{to_u64, to_usize};

/// `user_data` of the poll on the wake-up descriptor; slots count from zero.
const WAKE: u64 = u64::MAX;
/// One submission entry moves at most this much; a longer transfer continues as after a short one.
const CHUNK_BYTES_MAX: usize = 1 << 30;

/// With this many operations in flight, short ones, completions are waited for in batches ...
const BATCH_FROM: usize = 16;
/// ... since for longer ones than this a wake-up costs nothing beside the transfer, and who posts another operation
/// meanwhile would wait for the batch as well ...
const BATCH_BYTES: usize = 32 << 10;
/// ... of half of them, at most this many ...
const BATCH_MAX: usize = 16;
/// ... and not longer than this once there is one (Linux 6.12). Measured at 32 reads of 4 KiB in flight on a virtual disk
/// of 40,000 to 80,000 reads a second (docs/design/0006-io-engine.md): without batches 5.7 us of CPU for a read, with 50
/// us of patience 5.4, 200 us 4.1, 400 us 3.4, 1000 us 3.4. A device that is faster completes its batch long before.
const BATCH_WAIT_US: u32 = 400;

/// Bytes of operations that are submitted before completions are looked at again: a device that answers at once, in the
/// submission itself, takes some 100 us for this much, in which what it read first could be opened.
const BURST_BYTES: usize = 512 << 10;

/// An io_uring of its own. Made and used on one thread.
pub struct UringEngine {
    // Before the buffers: closing the ring ends their registration.
    ring: IoUring,
    buffers: Buffers,
    files: Option<FileTable>,
    slots: Vec<Option<Submitted>>,
    free: Vec<usize>,
    // Operations whose entry is not in the submission queue yet, oldest first.
    unqueued: Vec<usize>,
    bytes_in_flight: usize,
    wake: Arc<EventFd>,
    wake_armed: bool,
    // Set once the ring failed: from then on completions cannot be waited for.
    broken: bool,
    waits_for_batches: bool,
    flags: &'static str,
}

/// An operation in the hands of the kernel.
#[derive(Debug)]
struct Submitted {
    op: Op,
    // Flags as of preadv2(2) that its entry has.
    rw_flags: u32,
}

impl fmt::Debug for UringEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UringEngine({} of {} in flight)", self.in_flight(), self.slots.len())
    }
}

#[derive(Debug)]
struct EventFd(OwnedFd);

impl Waker for EventFd {
    #[expect(clippy::host_endian_bytes, reason = "eventfd(2) counts in the host's byte order")]
    fn wake(&self) {
        // Fails only when the counter is near 2^64: then it is readable already.
        let _already_awake = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl UringEngine {
    /// A ring for `depth` operations in flight. Registers `arena` with the kernel where it may, so that its pages are
    /// not pinned anew for every operation.
    ///
    /// # Errors
    /// `Unsupported` when the kernel has no io_uring or forbids it; `Full` when it has no room for another.
    pub fn new(depth: usize, arena: Option<&Arc<Arena>>) -> Result<Self> {
        let depth = depth.clamp(1, 4096);
        // Room for the poll on the wake-up descriptor beside `depth` operations.
        let entries = u32::try_from((depth + 1).next_power_of_two()).expect("at most 8192 entries");
        Self::with_entries(depth, entries, arena)
    }

    /// As [`UringEngine::new`], in a ring of `entries` entries, which may be fewer than `depth`.
    fn with_entries(depth: usize, entries: u32, arena: Option<&Arc<Arena>>) -> Result<Self> {
        let (ring, flags) = setup::set_up(entries)?;
        let event = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let event = rustix::event::eventfd(0, event)
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("eventfd: {error}")))?;
        let buffers = Buffers::register(&ring, arena);
        let files = FileTable::new(&ring.submitter());
        let waits_for_batches = ring.params().is_feature_min_timeout();
        Ok(Self {
            ring,
            buffers,
            files,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            unqueued: Vec::with_capacity(depth),
            bytes_in_flight: 0,
            wake: Arc::new(EventFd(event)),
            wake_armed: false,
            broken: false,
            waits_for_batches,
            flags,
        })
    }

    fn entry(&mut self, slot: usize) -> squeue::Entry {
        let Submitted { op, rw_flags } =
            self.slots[slot].as_mut().expect("a submitted slot holds its operation");
        *rw_flags = op.file.rw_flags();
        let number =
            self.files.as_mut().and_then(|files| files.number(&self.ring.submitter(), &op.file, &self.wake));
        let entry = match number.and_then(|number| i32::try_from(number).ok()) {
            Some(number) => build(op, *rw_flags, &self.buffers, number).flags(squeue::Flags::FIXED_FILE),
            None => build(op, *rw_flags, &self.buffers, op.file.raw_fd()),
        };
        entry.user_data(to_u64(slot))
    }

    /// Has the kernel cancel all that it waits for.
    #[cfg(test)]
    fn cancel_all(&self) {
        let all = types::CancelBuilder::any();
        let cancelled = self.ring.submitter().register_sync_cancel(None, all);
        assert!(cancelled.is_ok(), "{cancelled:?}");
    }

    fn fill_queue(&mut self) {
        if !self.wake_armed {
            let fd = types::Fd(self.wake.0.as_raw_fd());
            let readable = u32::try_from(libc::POLLIN).expect("a small positive constant");
            let entry = opcode::PollAdd::new(fd, readable).multi(true).build().user_data(WAKE);
            // SAFETY: a poll has no buffer; the descriptor is owned by `self.wake` and outlives the ring's use of it,
            // because the kernel holds its own reference to the file while the poll is armed.
            self.wake_armed = unsafe { self.ring.submission().push(&entry) }.is_ok();
        }
        let (mut queued, mut bytes) = (0, 0);
        while let Some(slot) = self.unqueued.get(queued).copied().filter(|_| bytes < BURST_BYTES) {
            let entry = self.entry(slot);
            // SAFETY: buffer, length and descriptor belong to the operation in `slots[slot]`, which stays there, with
            // its buffer and its open file, until the completion entry of this `user_data` was seen (`reap`), or is
            // leaked when the ring breaks (`drop`). A registered file's number is taken from it only when no operation
            // has it any more.
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                break;
            }
            queued += 1;
            bytes += self.slots[slot].as_ref().map_or(0, |submitted| submitted.op.left());
        }
        self.unqueued.drain(..queued);
    }

    /// Submits what is queued and waits for a completion, or for a batch of them while many are in flight.
    fn enter(&self) -> std::io::Result<usize> {
        if !self.unqueued.is_empty() {
            // More is to be submitted first.
            return self.ring.submit_and_wait(0);
        }
        let in_flight = self.in_flight();
        let long = self.bytes_in_flight > in_flight * BATCH_BYTES;
        if !self.waits_for_batches || in_flight < BATCH_FROM || long {
            return self.ring.submit_and_wait(1);
        }
        let args = types::SubmitArgs::new().min_wait_usec(BATCH_WAIT_US);
        self.ring.submitter().submit_with_args((in_flight / 2).min(BATCH_MAX), &args)
    }

    /// Moves what completed to `completed`; true when the waker was the cause.
    fn reap(&mut self, completed: &mut Vec<Completion>) -> bool {
        let mut woken = false;
        for entry in self.ring.completion() {
            let (user_data, result) = (entry.user_data(), entry.result());
            if user_data == WAKE {
                self.wake_armed = cqueue::more(entry.flags());
                woken = true;
                continue;
            }
            let slot = to_usize(user_data);
            let Submitted { op, rw_flags } =
                self.slots[slot].take().expect("one completion for each operation");
            if result == -libc::EOPNOTSUPP && rw_flags != 0 {
                // Not the operation was refused, but to leave the page cache: once more without.
                op.file.file_system().refuse_uncached();
                self.slots[slot] = Some(Submitted { op, rw_flags: 0 });
                self.unqueued.push(slot);
                continue;
            }
            self.free.push(slot);
            self.bytes_in_flight -= op.left();
            let result = usize::try_from(result).map_err(|_| std::io::Error::from_raw_os_error(-result));
            completed.push(Completion { op, result });
        }
        if woken {
            // Resets the counter; that it was zero already is no harm.
            let _already_reset = rustix::io::read(&self.wake.0, &mut [0; 8]);
        }
        woken
    }
}

impl IoEngine for UringEngine {
    fn submit(&mut self, op: Op) {
        let slot = self.free.pop().expect("the caller keeps within `room`");
        self.bytes_in_flight += op.left();
        self.slots[slot] = Some(Submitted { op, rw_flags: 0 });
        self.unqueued.push(slot);
    }

    fn room(&self) -> usize {
        self.free.len()
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn wait(&mut self, completed: &mut Vec<Completion>) -> Result<()> {
        let before = completed.len();
        loop {
            if let Some(files) = &mut self.files {
                files.sweep(&self.ring.submitter());
            }
            self.fill_queue();
            match self.enter() {
                Ok(_) => {}
                // EBUSY: completions must be taken before more is accepted. EAGAIN: out of memory for now.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ETIME)
                    ) => {}
                Err(error) => {
                    self.broken = true;
                    return Err(Error::new(ErrorKind::Device, "wait for I/O", format!("io_uring: {error}"))
                        .caused_by(error));
                }
            }
            let woken = self.reap(completed);
            if woken || completed.len() > before {
                return Ok(());
            }
        }
    }

    fn waker(&self) -> Arc<dyn Waker> {
        Arc::clone(&self.wake) as Arc<dyn Waker>
    }

    fn report(&self) -> EngineReport {
        let files = if self.files.is_some() { "registered files" } else { "unregistered files" };
        EngineReport {
            name: "io_uring",
            detail: format!("{}, depth {}, {}, {files}", self.flags, self.slots.len(), self.buffers.report),
            fallback: Vec::new(),
        }
    }
}

impl Drop for UringEngine {
    fn drop(&mut self) {
        let mut given_back = Vec::new();
        while self.in_flight() > 0 && !self.broken {
            if let Err(error) = self.wait(&mut given_back) {
                tracing::error!(%error, "buffers in flight are given up");
            }
            given_back.clear();
        }
        self.slots.iter_mut().filter_map(Option::take).for_each(|submitted| give_up(submitted.op));
    }
}

/// The submission entry of `op` on the file that `fd` stands for.
fn build(op: &Op, rw_flags: u32, buffers: &Buffers, fd: i32) -> squeue::Entry {
    let fd = types::Fd(fd);
    let Some(buf) = op.buf.as_ref().filter(|_| op.kind != OpKind::Sync) else {
        return opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
    };
    let start = buf.as_ptr().as_ptr().wrapping_add(op.done);
    let len = u32::try_from(op.left().min(CHUNK_BYTES_MAX)).expect("a chunk of at most 1 GiB");
    let offset = op.next_offset();
    let flags = i32::try_from(rw_flags).expect("a flag of the low bits");
    match (op.kind, buffers.index(buf)) {
        (OpKind::Write, Some(index)) => {
            opcode::WriteFixed::new(fd, start, len, index).offset(offset).rw_flags(flags).build()
        }
        (OpKind::Write, None) => opcode::Write::new(fd, start, len).offset(offset).rw_flags(flags).build(),
        (_, Some(index)) => {
            opcode::ReadFixed::new(fd, start, len, index).offset(offset).rw_flags(flags).build()
        }
        (_, None) => opcode::Read::new(fd, start, len).offset(offset).rw_flags(flags).build(),
    }
}

/// Leaks an operation: the kernel may still write to its buffer.
#[expect(
    clippy::mem_forget,
    reason = "freeing memory under the kernel's hands would be worse than losing it"
)]
fn give_up(op: Op) {
    std::mem::forget(op);
}

#[cfg(test)]
mod tests;
