#![expect(unsafe_code, reason = "the kernel is given the addresses of an arena")]
//! Buffers that a ring has pinned once, so that no operation pins its pages anew.

use std::sync::Arc;

use io_uring::IoUring;

use crate::buf::{Arena, Slot};
use crate::units::{human_bytes, to_u64};

/// The kernel takes at most this much as one buffer (io_uring_register(2)).
const BUFFER_BYTES_MAX: usize = 1 << 30;

/// What of an arena a ring has registered.
#[derive(Debug)]
pub(super) struct Buffers {
    // Kept mapped while the ring has it registered.
    arena: Option<Arc<Arena>>,
    slots_per_buffer: usize,
    slots: usize,
    pub(super) report: String,
}

impl Buffers {
    /// Registers `arena` with `ring`: all of it, or as many slots as the limit on locked memory lets, or none.
    ///
    /// The caller drops the ring before this.
    pub(super) fn register(ring: &IoUring, arena: Option<&Arc<Arena>>) -> Self {
        let Some(arena) = arena else { return Self::none("unregistered buffers".to_owned()) };
        let mut slots = arena.slots();
        let all = human_bytes(to_u64(slots * arena.slot_bytes()));
        loop {
            match register(ring, arena, slots) {
                Ok(slots_per_buffer) => {
                    let some = human_bytes(to_u64(slots * arena.slot_bytes()));
                    let report = if slots == arena.slots() {
                        format!("registered buffers ({all}, {})", arena.pages())
                    } else {
                        tracing::warn!(
                            "only {some} of {all} of buffers are registered: RLIMIT_MEMLOCK (ulimit -l)"
                        );
                        format!(
                            "registered buffers ({some} of {all}: RLIMIT_MEMLOCK, ulimit -l; {})",
                            arena.pages()
                        )
                    };
                    return Self { arena: Some(Arc::clone(arena)), slots_per_buffer, slots, report };
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && slots > 1 => slots /= 2,
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                    return Self::none(format!(
                        "unregistered buffers: {all} are beyond RLIMIT_MEMLOCK (ulimit -l)"
                    ));
                }
                Err(error) => return Self::none(format!("unregistered buffers: {error}")),
            }
        }
    }

    fn none(report: String) -> Self {
        Self { arena: None, slots_per_buffer: 1, slots: 0, report }
    }

    /// Which registered buffer `slot` is part of, if any.
    pub(super) fn index(&self, slot: &Slot) -> Option<u16> {
        let ours = self.arena.as_ref().is_some_and(|arena| Arc::ptr_eq(arena, slot.arena()));
        let slots = slot.slots();
        let buffer = slots.start / self.slots_per_buffer;
        // One of several slots may cross the border of two buffers, or of what is registered.
        let within = slots.end <= self.slots.min((buffer + 1) * self.slots_per_buffer);
        if ours && within { u16::try_from(buffer).ok() } else { None }
    }
}

/// Registers the first `slots` slots and returns how many each buffer holds: one that crosses a border would not be
/// within any.
fn register(ring: &IoUring, arena: &Arena, slots: usize) -> std::io::Result<usize> {
    let (base, _) = arena.region();
    let slot_bytes = arena.slot_bytes();
    let per_buffer = (BUFFER_BYTES_MAX / slot_bytes).max(1);
    let buffers: Vec<libc::iovec> = (0..slots)
        .step_by(per_buffer)
        .map(|first| libc::iovec {
            iov_base: base.as_ptr().wrapping_add(first * slot_bytes).cast(),
            iov_len: per_buffer.min(slots - first) * slot_bytes,
        })
        .collect();
    // SAFETY: the buffers are parts of one mapping that stays mapped as long as the arena lives; `Buffers` keeps the
    // arena until the ring is closed, which ends the registration.
    unsafe { ring.submitter().register_buffers(&buffers) }.map(|()| per_buffer)
}
