//! Small blocks share frames: each goes to the open frame in which it leaves the least room.
//!
//! Best fit over a bounded number of open frames. What came in together leaves together, when its frame is chosen by the
//! eviction policy: a frame is packed once and never has holes, so that what L1 wastes does not grow with its age.

/// Frames that still take blocks. Each is less than full; more of them fit blocks better and waste more while L1 fills.
const OPEN_MAX: usize = 48;
/// A block begins at a multiple of this: enough for a vector register of any element type.
const PART_ALIGN: usize = 16;
/// With less room than this a frame takes no more.
const ROOM_MIN: usize = 64;

/// The open frames.
#[derive(Debug, Default)]
pub(super) struct Packs {
    open: Vec<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    frame: u32,
    used: usize,
}

impl Packs {
    /// Whether a block of `len` bytes shares a frame of `frame_bytes`: one that fills it but for a sixteenth does not.
    pub(super) fn shares(len: usize, frame_bytes: usize) -> bool {
        len <= frame_bytes - frame_bytes / 16
    }

    /// Room for `len` bytes in an open frame: its number, and where.
    pub(super) fn take(&mut self, len: usize, frame_bytes: usize) -> Option<(u32, usize)> {
        let fitting = self.open.iter().enumerate().filter(|(_, of)| of.used + len <= frame_bytes);
        let (at, _) = fitting.max_by_key(|(_, of)| of.used)?;
        let Open { frame, used: start } = self.open[at];
        let used = (start + len).next_multiple_of(PART_ALIGN);
        if used + ROOM_MIN > frame_bytes {
            self.open.swap_remove(at);
        } else {
            self.open[at].used = used;
        }
        Some((frame, start))
    }

    /// Opens a frame, which has no blocks yet. With too many open, the fullest takes no more.
    pub(super) fn open(&mut self, frame: u32) {
        if self.open.len() >= OPEN_MAX
            && let Some((fullest, _)) = self.open.iter().enumerate().max_by_key(|(_, of)| of.used)
        {
            self.open.swap_remove(fullest);
        }
        self.open.push(Open { frame, used: 0 });
    }

    /// A frame was evicted.
    pub(super) fn forget(&mut self, frame: u32) {
        self.open.retain(|open| open.frame != frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 64 << 10;

    #[test]
    fn a_block_goes_where_it_leaves_the_least_room_and_full_frames_are_closed() {
        let mut packs = Packs::default();
        assert!(packs.take(1, FRAME).is_none());
        packs.open(7);
        assert_eq!(packs.take(40_000, FRAME), Some((7, 0)));
        packs.open(8);
        assert_eq!(packs.take(30_000, FRAME), Some((8, 0)));
        assert_eq!(packs.take(20_001, FRAME), Some((7, 40_000)));
        assert_eq!(packs.take(20_000, FRAME), Some((8, 30_000)));
        assert_eq!(packs.take(1, FRAME), Some((7, 60_016)), "aligned");
        assert_eq!(packs.take(FRAME - 60_032, FRAME), Some((7, 60_032)));
        packs.forget(8);
        assert!(packs.take(0, FRAME).is_none(), "7 is full, 8 is gone");
        (0..100).for_each(|frame| packs.open(frame));
        assert_eq!(packs.open.len(), OPEN_MAX);
        assert!(Packs::shares(0, FRAME) && Packs::shares(FRAME / 16 * 15, FRAME));
        assert!(!Packs::shares(FRAME / 16 * 15 + 1, FRAME));
    }
}
