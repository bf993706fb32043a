#![expect(
    unsafe_code,
    reason = "blocks are shared views of disjoint frames of one mapping, counted per frame"
)]
//! The memory of L1: frames of equal size, each with its own count of readers.
//!
//! A frame is blank (one owner may write it), or holds a block (anyone may view it, nobody may write it). Taking and
//! dropping a view touches the frame's own count and nothing else: readers of different frames never meet. A block is
//! taken out only when nobody views it.
//!
//! Or a frame is shared by small blocks, each in bytes of its own: then it counts the readers of all, and those who
//! still fill a part of it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::BlockKey;
use super::packed::Part;
use crate::buf::{HostAllocator, HostMemory};
use crate::error::{Error, ErrorKind, Result};
use crate::units::{ALIGN_BYTES, to_u64, to_usize};

/// What is known of a frame, in 16 bytes.
#[derive(Debug, Default)]
struct Head {
    // Written only while nobody views the frame.
    key: AtomicU64,
    // 0: blank. 1: a block, or several, that nobody views. More: that and one for each view and each part being filled.
    holders: AtomicU32,
    // Bytes of the block, or of all blocks.
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
        Some(self.blank(frame))
    }

    fn blank(self: &Arc<Self>, frame: u32) -> Blank {
        Blank { frames: Arc::clone(self), frame, start: 0, len: self.frame_bytes, state: Filling::Frame }
    }

    fn blank_list(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.blank.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block that a frame holds, or held last.
    pub(super) fn tag(&self, frame: u32) -> u64 {
        self.head(frame).key.load(Ordering::Relaxed)
    }

    /// Counts one more holder in, unless the frame is blank.
    fn hold(&self, frame: u32) -> bool {
        let holders = &self.head(frame).holders;
        let mut seen = holders.load(Ordering::Relaxed);
        while seen > 0 {
            // Acquire: what was written before the block was published is seen by who views it.
            match holders.compare_exchange_weak(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// A view of block `key`, if that is what the frame holds, alone.
    pub(super) fn view(&self, frame: u32, key: BlockKey) -> Option<BlockRef> {
        if !self.hold(frame) {
            return None;
        }
        let head = self.head(frame);
        let len = head.len.load(Ordering::Relaxed);
        let view = BlockRef { frames: NonNull::from(self), frame, start: 0, len, key };
        // Held now, the frame keeps its block; it may have got another one since somebody told us its number.
        (self.tag(frame) == key.tag()).then_some(view)
    }

    /// A view of block `key`, which lies at `part` of its frame unless that was evicted.
    ///
    /// The caller knows that the part was published, and keeps it from being forgotten meanwhile: then the frame, if it
    /// is not blank, is still the one that the block is in.
    pub(super) fn view_part(&self, part: Part, key: BlockKey) -> Option<BlockRef> {
        let Part { frame, start, len } = part;
        let within = to_usize(u64::from(start)) + to_usize(u64::from(len)) <= self.frame_bytes;
        if !within || !self.hold(frame) {
            return None;
        }
        Some(BlockRef { frames: NonNull::from(self), frame, start, len, key })
    }

    /// Fills a blank frame's head: its first `len` bytes are block `key` from now on. Returns the first view.
    pub(super) fn publish(self: &Arc<Self>, blank: Blank, key: BlockKey, len: usize) -> BlockRef {
        assert!(Arc::ptr_eq(self, &blank.frames) && len <= blank.len, "{len} bytes in {blank:?}");
        let (frame, start, len) = (blank.frame, u32_of(blank.start), u32_of(len));
        let shared = blank.keep();
        let head = self.head(frame);
        if shared {
            // The part's hold of the frame is the view's from here.
            head.len.fetch_add(len, Ordering::Relaxed);
        } else {
            head.key.store(key.tag(), Ordering::Relaxed);
            head.len.store(len, Ordering::Relaxed);
            self.commit(head, 2);
        }
        BlockRef { frames: NonNull::from(&**self), frame, start, len, key }
    }

    /// From now on the frame is not blank.
    fn commit(self: &Arc<Self>, head: &Head, holders: u32) {
        // SAFETY: `self` is an `Arc`, alive here. The count that this adds belongs to the frame, and is taken back by
        // whoever brings its holders to zero: a view may outlive the tier.
        unsafe { Arc::increment_strong_count(Arc::as_ptr(self)) };
        head.holders.store(holders, Ordering::Release);
    }

    /// Makes a blank frame one that blocks share, of which `key` is the first. Returns its number.
    pub(super) fn share(self: &Arc<Self>, blank: Blank, key: BlockKey) -> u32 {
        let frame = blank.frame;
        assert!(Arc::ptr_eq(self, &blank.frames) && !blank.keep(), "a whole frame of {self:?}");
        let head = self.head(frame);
        head.key.store(key.tag(), Ordering::Relaxed);
        head.len.store(0, Ordering::Relaxed);
        self.commit(head, 1);
        frame
    }

    /// Bytes of a shared frame that were not given away before, to be filled; none if it was evicted.
    pub(super) fn part(self: &Arc<Self>, part: Part) -> Option<Blank> {
        let (start, len) = (to_usize(u64::from(part.start)), to_usize(u64::from(part.len)));
        if start + len > self.frame_bytes || !self.hold(part.frame) {
            return None;
        }
        Some(Blank { frames: Arc::clone(self), frame: part.frame, start, len, state: Filling::Part })
    }

    /// Takes the block out of a frame, if nobody views it.
    pub(super) fn take_out(self: &Arc<Self>, frame: u32) -> Option<Blank> {
        let head = self.head(frame);
        // Acquire: the reads of those who viewed it are over before it is written again.
        head.holders.compare_exchange(1, 0, Ordering::Acquire, Ordering::Relaxed).ok()?;
        // SAFETY: holders went from one to zero here, so that the frame's count, which `publish` added, is ours to take
        // back; `self` is another.
        unsafe { Arc::decrement_strong_count(Arc::as_ptr(self)) };
        Some(self.blank(frame))
    }

    /// How many frames hold blocks, and how many bytes the blocks have.
    pub(super) fn used(&self) -> (usize, u64) {
        let holding = self.heads.iter().filter(|head| head.holders.load(Ordering::Relaxed) > 0);
        holding.fold((0, 0), |(frames, bytes), head| {
            (frames + 1, bytes + u64::from(head.len.load(Ordering::Relaxed)))
        })
    }

    /// One holder of a frame less; true when it was the last, who then takes back the frame's count of the `Arc`.
    #[must_use]
    fn leave(&self, frame: u32) -> bool {
        // Release: our reads and writes are over before the frame can be written again.
        self.head(frame).holders.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Lets go of all blocks: each frame is free once its last view is dropped.
    pub(super) fn let_go(self: &Arc<Self>) {
        for (frame, head) in (0..).zip(&self.heads) {
            if head.holders.load(Ordering::Relaxed) > 0 && self.leave(frame) {
                // SAFETY: holders went from one to zero here, so that the frame's count, which `commit` added, is ours to
                // take back; `self` is another.
                unsafe { Arc::decrement_strong_count(Arc::as_ptr(self)) };
            }
        }
    }
}

/// A frame, or a part of one, that its one owner fills. Dropped unfilled, a frame is blank again; a part is lost until
/// its frame is evicted.
pub struct Blank {
    frames: Arc<Frames>,
    frame: u32,
    start: usize,
    len: usize,
    state: Filling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filling {
    Frame,
    // Counted among the frame's holders.
    Part,
    // It holds a block now: not to be given back.
    Kept,
}

impl Blank {
    pub(super) fn frame(&self) -> u32 {
        self.frame
    }

    pub(super) fn start(&self) -> u32 {
        u32_of(self.start)
    }

    /// Whether other blocks share its frame.
    pub(super) fn is_part(&self) -> bool {
        self.state == Filling::Part
    }

    /// Somebody takes it over from here; whether it is a part.
    fn keep(mut self) -> bool {
        std::mem::replace(&mut self.state, Filling::Kept) == Filling::Part
    }
}

impl fmt::Debug for Blank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blank({}, {} bytes at {})", self.frame, self.len, self.start)
    }
}

impl Deref for Blank {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.frames.start(self.frame).as_ptr().wrapping_add(self.start);
        // SAFETY: `len` bytes from `start` on are inside the frame (checked when it was made) and initialised (the
        // mapping is zeroed) as long as the frames live, which this owner ensures; nobody views a blank frame, or a part
        // that was not published, and it has no other owner: a frame's parts are given away once and do not overlap.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

impl DerefMut for Blank {
    fn deref_mut(&mut self) -> &mut [u8] {
        let start = self.frames.start(self.frame).as_ptr().wrapping_add(self.start);
        // SAFETY: as in `deref`, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }
}

impl Drop for Blank {
    fn drop(&mut self) {
        match self.state {
            Filling::Frame => self.frames.blank_list().push(self.frame),
            Filling::Part if self.frames.leave(self.frame) => {
                // SAFETY: as in `Frames::let_go`; `self.frames` is another count.
                unsafe { Arc::decrement_strong_count(Arc::as_ptr(&self.frames)) };
            }
            Filling::Part | Filling::Kept => {}
        }
    }
}

fn u32_of(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a frame of at most 16 MiB")
}

/// A shared view of a block in L1; while one lives the block stays. Costs one atomic increment, and one decrement when
/// it is dropped.
pub struct BlockRef {
    frames: NonNull<Frames>,
    frame: u32,
    start: u32,
    len: u32,
    key: BlockKey,
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
        self.key
    }

    pub(super) fn frame(&self) -> u32 {
        self.frame
    }

    /// Where its bytes begin in the memory of L1, and in the file behind that.
    #[must_use]
    pub fn offset(&self) -> u64 {
        u64::from(self.frame) * to_u64(self.frames().frame_bytes) + u64::from(self.start)
    }
}

impl Clone for BlockRef {
    fn clone(&self) -> Self {
        // It has a holder already, so that it cannot be taken out in between.
        self.frames().head(self.frame).holders.fetch_add(1, Ordering::Relaxed);
        Self { ..*self }
    }
}

impl Deref for BlockRef {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.frames().start(self.frame).as_ptr().wrapping_add(to_usize(u64::from(self.start)));
        // SAFETY: `len` bytes from `start` on are inside the frame (checked when the block was published) and
        // initialised; they are not written while the frame has holders, of which this is one.
        unsafe { std::slice::from_raw_parts(start, to_usize(u64::from(self.len))) }
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
        if self.frames().leave(self.frame) {
            // SAFETY: holders went from one to zero here, so that the frame's count, which `commit` added to the `Arc`,
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
    fn blocks_share_a_frame_which_stays_while_one_of_them_is_viewed_or_filled() {
        let frames = frames(1);
        let frame = frames.share(frames.take_blank().unwrap(), key(1));
        let (first, second) = (Part { frame, start: 0, len: 10 }, Part { frame, start: 16, len: 4080 });
        let (mut one, mut two) = (frames.part(first).unwrap(), frames.part(second).unwrap());
        assert!(frames.part(Part { frame, start: 4000, len: 97 }).is_none(), "beyond the frame");
        one.fill(1);
        two.fill(2);
        let view = frames.publish(one, key(1), 10);
        assert!(frames.take_out(frame).is_none());
        assert_eq!((&view[..], view.key(), view.offset(), frames.used()), (&[1; 10][..], key(1), 0, (1, 10)));
        drop(view);
        assert!(frames.take_out(frame).is_none(), "the other is being filled");
        drop(frames.publish(two, key(2), 4080));
        let view = frames.view_part(second, key(2)).unwrap();
        assert!(view.iter().all(|byte| *byte == 2) && view.offset() == 16 && frames.used() == (1, 4090));
        assert!(frames.take_out(frame).is_none());
        drop(view);
        let blank = frames.take_out(frame).unwrap();
        assert!(frames.view_part(first, key(1)).is_none() && frames.part(first).is_none());
        drop(blank);
        let frame = frames.share(frames.take_blank().unwrap(), key(3));
        drop(frames.part(Part { frame, start: 0, len: 7 }));
        assert!(frames.take_out(frame).is_some(), "a part that was not filled holds nothing");
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
