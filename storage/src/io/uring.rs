#![expect(
    unsafe_code,
    reason = "submission entries carry raw pointers into buffers that the slot table owns"
)]
//! io_uring(7): one ring, one thread, operations owned by a slot table until their completion.
//!
//! The kernel reads and writes through raw pointers, so ownership is the whole design: an [`Op`] moves into the table
//! when it is submitted and leaves it only with its completion entry. Dropping the engine waits for what is in flight.

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};

use super::{Completion, EngineReport, IoEngine, Op, OpKind, Waker};
use crate::buf::Arena;
use crate::error::{Error, ErrorKind, Result};
use crate::units::{to_u64, to_usize};

/// `user_data` of the poll on the wake-up descriptor; slots count from zero.
const WAKE: u64 = u64::MAX;
/// One submission entry moves at most this much; a longer transfer continues as after a short one.
const CHUNK_BYTES_MAX: usize = 1 << 30;

/// An io_uring of its own. Made and used on one thread.
pub struct UringEngine {
    ring: IoUring,
    slots: Vec<Option<Op>>,
    free: Vec<usize>,
    // Operations whose entry is not in the submission queue yet.
    unqueued: Vec<usize>,
    // Kept mapped while the ring has it registered.
    registered: Option<Arc<Arena>>,
    wake: Arc<EventFd>,
    wake_armed: bool,
    // Set once the ring failed: from then on completions cannot be waited for.
    broken: bool,
    flags: &'static str,
    buffers: String,
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
        let (ring, flags) = set_up(entries)?;
        let event = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let event = rustix::event::eventfd(0, event)
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("eventfd: {error}")))?;
        let (registered, buffers) = match arena.map(|arena| (arena, register(&ring, arena))) {
            None => (None, "unregistered buffers".to_owned()),
            Some((arena, Ok(()))) => (Some(Arc::clone(arena)), "registered buffers".to_owned()),
            Some((arena, Err(error))) if error.raw_os_error() == Some(libc::ENOMEM) => {
                let bytes = arena.slots() * arena.slot_bytes();
                (None, format!("unregistered buffers: {bytes} bytes are beyond RLIMIT_MEMLOCK (ulimit -l)"))
            }
            Some((_, Err(error))) => (None, format!("unregistered buffers: {error}")),
        };
        Ok(Self {
            ring,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            unqueued: Vec::with_capacity(depth),
            registered,
            wake: Arc::new(EventFd(event)),
            wake_armed: false,
            broken: false,
            flags,
            buffers,
        })
    }

    fn entry(&self, slot: usize) -> squeue::Entry {
        let op = self.slots[slot].as_ref().expect("a submitted slot holds its operation");
        let fd = types::Fd(op.file.raw_fd());
        let sync = || opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
        let entry = match &op.buf {
            None => sync(),
            Some(buf) => {
                let start = buf.as_ptr().as_ptr().wrapping_add(op.done);
                let len = u32::try_from(op.left().min(CHUNK_BYTES_MAX)).expect("a chunk of at most 1 GiB");
                let offset = op.next_offset();
                let fixed = self.registered.as_ref().is_some_and(|arena| Arc::ptr_eq(arena, buf.arena()));
                match (op.kind, fixed) {
                    (OpKind::Read, true) => opcode::ReadFixed::new(fd, start, len, 0).offset(offset).build(),
                    (OpKind::Read, false) => opcode::Read::new(fd, start, len).offset(offset).build(),
                    (OpKind::Write, true) => {
                        opcode::WriteFixed::new(fd, start, len, 0).offset(offset).build()
                    }
                    (OpKind::Write, false) => opcode::Write::new(fd, start, len).offset(offset).build(),
                    (OpKind::Sync, _) => sync(),
                }
            }
        };
        entry.user_data(to_u64(slot))
    }

    fn fill_queue(&mut self) {
        if !self.wake_armed {
            let fd = types::Fd(self.wake.0.as_raw_fd());
            let readable = u32::try_from(libc::POLLIN).expect("a small positive constant");
            let entry = opcode::PollAdd::new(fd, readable).build().user_data(WAKE);
            // SAFETY: a poll has no buffer; the descriptor is owned by `self.wake` and outlives the ring's use of it,
            // because the kernel holds its own reference to the file while the poll is armed.
            self.wake_armed = unsafe { self.ring.submission().push(&entry) }.is_ok();
        }
        while let Some(slot) = self.unqueued.last().copied() {
            let entry = self.entry(slot);
            // SAFETY: buffer, length and descriptor belong to the operation in `slots[slot]`, which stays there, with
            // its buffer and its open file, until the completion entry of this `user_data` was seen (`reap`), or is
            // leaked when the ring breaks (`drop`).
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                return;
            }
            self.unqueued.pop();
        }
    }

    /// Moves what completed to `completed`; true when the waker was the cause.
    fn reap(&mut self, completed: &mut Vec<Completion>) -> bool {
        let mut woken = false;
        for entry in self.ring.completion() {
            let (user_data, result) = (entry.user_data(), entry.result());
            if user_data == WAKE {
                self.wake_armed = false;
                woken = true;
                continue;
            }
            let slot = to_usize(user_data);
            let op = self.slots[slot].take().expect("one completion for each operation");
            self.free.push(slot);
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
        self.slots[slot] = Some(op);
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
            self.fill_queue();
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                // EBUSY: completions must be taken before more is accepted. EAGAIN: out of memory for now.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
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
        EngineReport {
            name: "io_uring",
            detail: format!("{}, depth {}, {}", self.flags, self.slots.len(), self.buffers),
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
        self.slots.iter_mut().filter_map(Option::take).for_each(give_up);
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

/// A ring with the best flags the kernel takes: the fewest interruptions of the thread that uses it.
fn set_up(entries: u32) -> Result<(IoUring, &'static str)> {
    let mut last = None;
    for flags in ["SINGLE_ISSUER+DEFER_TASKRUN", "COOP_TASKRUN", "no flags"] {
        let mut builder = IoUring::builder();
        match flags {
            "SINGLE_ISSUER+DEFER_TASKRUN" => builder.setup_single_issuer().setup_defer_taskrun(),
            "COOP_TASKRUN" => builder.setup_coop_taskrun(),
            _ => &mut builder,
        };
        match builder.build(entries) {
            Ok(ring) => return probe(ring, flags),
            // EINVAL: a flag this kernel does not know; anything else will not change with fewer flags.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => {
                last = Some(error);
                break;
            }
        }
    }
    let error = last.expect("a failed attempt leaves its error");
    let kind =
        if error.raw_os_error() == Some(libc::ENOMEM) { ErrorKind::Full } else { ErrorKind::Unsupported };
    Err(Error::new(kind, "start io_uring", error.to_string()).caused_by(error))
}

/// Runs one no-op through the ring: a seccomp filter may let set-up pass and forbid the rest.
fn probe(mut ring: IoUring, flags: &'static str) -> Result<(IoUring, &'static str)> {
    let refused = |why: String| Error::new(ErrorKind::Unsupported, "start io_uring", why);
    // SAFETY: a no-op has neither buffer nor descriptor.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build().user_data(WAKE)) };
    pushed.map_err(|_| refused("the submission queue is full at start".to_owned()))?;
    ring.submit_and_wait(1).map_err(|error| refused(error.to_string()))?;
    let done = ring.completion().next().is_some();
    if done { Ok((ring, flags)) } else { Err(refused("a no-op did not complete".to_owned())) }
}

fn register(ring: &IoUring, arena: &Arc<Arena>) -> std::io::Result<()> {
    let (base, len) = arena.region();
    let region = libc::iovec { iov_base: base.as_ptr().cast(), iov_len: len };
    // SAFETY: the region is one mapping that stays mapped as long as the arena lives; the engine keeps the arena until
    // the ring is closed, which ends the registration.
    unsafe { ring.submitter().register_buffers(&[region]) }
}
