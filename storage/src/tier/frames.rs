#![expect(
    unsafe_code,
    reason = "blocks are shared views of disjoint frames of one mapping, counted per frame"
)]
//! The memory of L1: frames of equal size, each with its own count of readers.
//!
//! A frame is blank (one owner may write it), or holds a block (anyone may view it, nobody may write it). Taking and
//! dropping a view touches the frame's own count and nothing else: readers of different blocks never meet. A block is
//! taken out only when nobody views it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::BlockKey;
use crate::buf::{HostAllocator, HostMemory};
use crate::error::{Error, ErrorKind, Result};
use crate::units::{ALIGN_BYTES, to_u64, to_usize};

/// What is known of a frame, in 16 bytes.
#[derive(Debug, Default)]
struct Head {
    // Written only while nobody views the frame.
    key: AtomicU64,
    // 0: blank. 1: a block that nobody views. More: a block and one for each view.
    holders: AtomicU32,
    len: AtomicU32,
}

/// All frames of L1.
pub(super) struct Frames {
    base: NonNull<u8>,
    frame_bytes: usize,
    heads: Box<[Head]>,
    blank: Mutex<Vec<u32>>,
    // Owns what `base` points to.
    memory: HostMemory,
}

// SAFETY: `base` points into `memory`, which the frames own; a frame's bytes are reached through its one `Blank`, or
// through `BlockRef`s that only read, never through both.
unsafe impl Send for Frames {}
// SAFETY: as above; heads are atomics and the list of blank frames has a lock.
unsafe impl Sync for Frames {}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frames({} x {} bytes)", self.heads.len(), self.frame_bytes)
    }
}

impl Frames {
    /// `count` frames of `frame_bytes` bytes, all blank.
    pub(super) fn new(frame_bytes: usize, count: usize, allocator: &dyn HostAllocator) -> Result<Arc<Self>> {
        assert!(
            frame_bytes.is_multiple_of(ALIGN_BYTES) && frame_bytes > 0 && count > 0,
            "{count} x {frame_bytes}"
        );
        let bytes = frame_bytes
            .checked_mul(count)
            .filter(|_| u32::try_from(count).is_ok_and(|count| count < u32::MAX));
        let bytes = bytes.ok_or_else(|| {
            let why = format!("{count} frames of {frame_bytes} bytes are beyond memory");
            Error::new(ErrorKind::Misuse, "allocate", why)
        })?;
        let mut memory = allocator.allocate(bytes)?;
        let base = NonNull::from(memory.as_mut_slice()).cast::<u8>();
        let heads = (0..count).map(|_| Head::default()).collect();
        // Taken from the end: the first frames first, so that memory that is not needed is never touched.
        let blank = (0..u32::try_from(count).expect("checked above")).rev().collect();
        Ok(Arc::new(Self { base, frame_bytes, heads, blank: Mutex::new(blank), memory }))
    }

    pub(super) fn count(&self) -> usize {
        self.heads.len()
    }

    pub(super) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// The sealed file behind the frames, for other processes to map read only.
    pub(super) fn shared_file(&self) -> Option<BorrowedFd<'_>> {
        self.memory.shared_file()
    }

    fn head(&self, frame: u32) -> &Head {
        &self.heads[to_usize(u64::from(frame))]
    }

    fn start(&self, frame: u32) -> NonNull<u8> {
        assert!(to_usize(u64::from(frame)) < self.heads.len(), "frame {frame} of {}", self.heads.len());
        // SAFETY: the frame's number is below their count, so that the offset is inside the mapping.
        unsafe { self.base.add(to_usize(u64::from(frame)) * self.frame_bytes) }
    }

    /// A blank frame, if there is one.
    pub(super) fn take_blank(self: &Arc<Self>) -> Option<Blank> {
        let frame = self.blank_list().pop()?;
        Some(Blank { frames: Arc::clone(self), frame, kept: false })
    }

    fn blank_list(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.blank.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block that a frame holds, or held last.
    pub(super) fn tag(&self, frame: u32) -> u64 {
        self.head(frame).key.load(Ordering::Relaxed)
    }

    /// A view of block `key`, if that is what the frame holds.
    pub(super) fn view(&self, frame: u32, key: BlockKey) -> Option<BlockRef> {
        let head = self.head(frame);
        let mut holders = head.holders.load(Ordering::Relaxed);
        loop {
            if holders == 0 {
                return None;
            }
            // Acquire: what was written before the block was published is seen by who views it.
            match head.holders.compare_exchange_weak(
                holders,
                holders + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => holders = now,
            }
        }
        let view = BlockRef { frames: NonNull::from(self), frame };
        // Held now, the frame keeps its block; it may have got another one since somebody told us its number.
        (view.key() == key).then_some(view)
    }

    /// Fills a blank frame's head: its first `len` bytes are block `key` from now on. Returns the first view.
    pub(super) fn publish(self: &Arc<Self>, blank: Blank, key: BlockKey, len: usize) -> BlockRef {
        assert!(Arc::ptr_eq(self, &blank.frames) && len <= self.frame_bytes, "{len} bytes in {self:?}");
        let frame = blank.keep();
        let head = self.head(frame);
        head.key.store(key.tag(), Ordering::Relaxed);
        head.len.store(u32::try_from(len).expect("a block of at most 16 MiB"), Ordering::Relaxed);
        // SAFETY: `self` is an `Arc`, alive here. The count that this adds belongs to the frame, and is taken back by
        // whoever brings its holders to zero: a view may outlive the tier.
        unsafe { Arc::increment_strong_count(Arc::as_ptr(self)) };
        head.holders.store(2, Ordering::Release);
        BlockRef { frames: NonNull::from(&**self), frame }
    }

    /// Takes the block out of a frame, if nobody views it.
    pub(super) fn take_out(self: &Arc<Self>, frame: u32) -> Option<Blank> {
        let head = self.head(frame);
        // Acquire: the reads of those who viewed it are over before it is written again.
        head.holders.compare_exchange(1, 0, Ordering::Acquire, Ordering::Relaxed).ok()?;
        // SAFETY: holders went from one to zero here, so that the frame's count, which `publish` added, is ours to take
        // back; `self` is another.
        unsafe { Arc::decrement_strong_count(Arc::as_ptr(self)) };
        Some(Blank { frames: Arc::clone(self), frame, kept: false })
    }

    /// How many frames hold blocks, and how many bytes these have.
    pub(super) fn used(&self) -> (usize, u64) {
        let holding = self.heads.iter().filter(|head| head.holders.load(Ordering::Relaxed) > 0);
        holding.fold((0, 0), |(frames, bytes), head| {
            (frames + 1, bytes + u64::from(head.len.load(Ordering::Relaxed)))
        })
    }

    /// Lets go of all blocks: each frame is free once its last view is dropped.
    pub(super) fn let_go(&self) {
        for (frame, head) in (0..).zip(&self.heads) {
            if head.holders.load(Ordering::Relaxed) > 0 {
                drop(BlockRef { frames: NonNull::from(self), frame });
            }
        }
    }
}

/// A frame that its one owner fills. Dropped unfilled, it is blank again.
pub struct Blank {
    frames: Arc<Frames>,
    frame: u32,
    // It holds a block now: not to be given back.
    kept: bool,
}

impl Blank {
    pub(super) fn frame(&self) -> u32 {
        self.frame
    }

    /// Its number, for who takes it over from here.
    fn keep(mut self) -> u32 {
        self.kept = true;
        self.frame
    }
}

impl fmt::Debug for Blank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blank({})", self.frame)
    }
}

impl Deref for Blank {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.frames.start(self.frame).as_ptr();
        // SAFETY: `start` is valid for `frame_bytes` initialised bytes (the mapping is zeroed) as long as the frames
        // live, which this owner ensures; nobody views a blank frame and it has no other owner.
        unsafe { std::slice::from_raw_parts(start, self.frames.frame_bytes) }
    }
}

impl DerefMut for Blank {
    fn deref_mut(&mut self) -> &mut [u8] {
        let start = self.frames.start(self.frame).as_ptr();
        // SAFETY: as in `deref`, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(start, self.frames.frame_bytes) }
    }
}

impl Drop for Blank {
    fn drop(&mut self) {
        if !self.kept {
            self.frames.blank_list().push(self.frame);
        }
    }
}

/// A shared view of a block in L1; while one lives the block stays. Costs one atomic increment, and one decrement when
/// it is dropped.
pub struct BlockRef {
    frames: NonNull<Frames>,
    frame: u32,
}

// SAFETY: a view only reads bytes that nobody writes while it lives; the frames behind it are shared and `Sync`.
unsafe impl Send for BlockRef {}
// SAFETY: as above.
unsafe impl Sync for BlockRef {}

impl BlockRef {
    fn frames(&self) -> &Frames {
        // SAFETY: this view is one of the frame's holders, and a frame that has holders keeps the frames alive.
        unsafe { self.frames.as_ref() }
    }

    /// Which block it is.
    #[must_use]
    pub fn key(&self) -> BlockKey {
        BlockKey::of_tag(self.frames().tag(self.frame))
    }

    /// Where its bytes begin in the memory of L1, and in the file behind that.
    #[must_use]
    pub fn offset(&self) -> u64 {
        u64::from(self.frame) * to_u64(self.frames().frame_bytes)
    }
}

impl Clone for BlockRef {
    fn clone(&self) -> Self {
        // It has a holder already, so that it cannot be taken out in between.
        self.frames().head(self.frame).holders.fetch_add(1, Ordering::Relaxed);
        Self { frames: self.frames, frame: self.frame }
    }
}

impl Deref for BlockRef {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let frames = self.frames();
        let len = to_usize(u64::from(frames.head(self.frame).len.load(Ordering::Relaxed)));
        let start = frames.start(self.frame).as_ptr();
        // SAFETY: `len` bytes from the frame's start are inside it (checked when it was published) and initialised; the
        // frame holds its block, and is not written, while it has holders, of which this is one.
        unsafe { std::slice::from_raw_parts(start, len) }
    }
}

impl fmt::Debug for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes: they are somebody's plaintext.
        write!(f, "BlockRef({:?}, {} bytes)", self.key(), self.len())
    }
}

impl Drop for BlockRef {
    fn drop(&mut self) {
        let frames = self.frames;
        // Release: our reads are over before the frame can be written again.
        if self.frames().head(self.frame).holders.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: holders went from one to zero here, so that the frame's count, which `publish` added to the `Arc`,
            // is ours to take back; nothing of the frames is used after it.
            unsafe { Arc::decrement_strong_count(frames.as_ptr()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::HeapAllocator;
    use crate::tier::FileNo;

    fn key(block: u32) -> BlockKey {
        BlockKey { file: FileNo(3), block }
    }

    fn frames(count: usize) -> Arc<Frames> {
        Frames::new(4096, count, &HeapAllocator).unwrap()
    }

    #[test]
    fn a_viewed_block_stays_and_its_frame_is_blank_again_afterwards() {
        let frames = frames(2);
        let mut blank = frames.take_blank().unwrap();
        let frame = blank.frame();
        blank[..5].copy_from_slice(b"block");
        assert!(frames.view(frame, key(1)).is_none(), "not published");
        let first = frames.publish(blank, key(1), 5);
        let second = frames.view(frame, key(1)).unwrap();
        assert!(frames.view(frame, key(2)).is_none(), "another block");
        assert_eq!((&first[..], &second.clone()[..], frames.used()), (&b"block"[..], &b"block"[..], (1, 5)));
        assert!(frames.take_out(frame).is_none());
        drop(first);
        assert!(frames.take_out(frame).is_none());
        drop(second);
        let again = frames.take_out(frame).unwrap();
        assert!(frames.view(frame, key(1)).is_none() && frames.take_out(frame).is_none());
        let other = frames.take_blank().unwrap();
        assert!(other.frame() != again.frame() && frames.take_blank().is_none());
        drop(again);
        assert_eq!(frames.take_blank().unwrap().frame(), frame);
    }

    #[test]
    fn a_view_outlives_the_tier() {
        let frames = frames(3);
        let mut blank = frames.take_blank().unwrap();
        blank[0] = 7;
        let view = frames.publish(blank, key(1), 1);
        drop(frames.publish(frames.take_blank().unwrap(), key(2), 1));
        let weak = Arc::downgrade(&frames);
        frames.let_go();
        drop(frames);
        assert_eq!((view[0], weak.strong_count()), (7, 1), "held by the view alone");
        let clone = view.clone();
        drop(view);
        assert_eq!(clone[0], 7);
        drop(clone);
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn readers_never_see_another_block_while_frames_change_hands() {
        let frames = frames(1);
        let publish = |block: u32, mut blank: Blank| {
            blank.fill(u8::try_from(block % 251).unwrap());
            drop(frames.publish(blank, key(block), 4096));
        };
        publish(0, frames.take_blank().unwrap());
        let end = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !end.load(Ordering::Relaxed) {
                        let block = BlockKey::of_tag(frames.tag(0));
                        if let Some(view) = frames.view(0, block) {
                            let expected = u8::try_from(block.block % 251).unwrap();
                            assert!(view.iter().all(|byte| *byte == expected));
                        }
                    }
                });
            }
            let mut changes = 0;
            while changes < 20_000 {
                if let Some(blank) = frames.take_out(0) {
                    changes += 1;
                    publish(changes, blank);
                }
            }
            end.store(true, Ordering::Relaxed);
        });
    }
}
