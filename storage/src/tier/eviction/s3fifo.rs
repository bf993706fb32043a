//! S3-FIFO: three queues, and no work on a hit.

use super::ghosts::Ghosts;
use super::{EvictionPolicy, Residents};
use crate::tier::BlockKey;
use crate::units::to_usize;

/// S3-FIFO (Yang et al., SOSP 2023): newcomers pass through a small queue, and only those that were read again there,
/// or came back soon after they left, enter the main queue. One pass over a data set does not push out what is re-read.
#[derive(Debug)]
pub struct S3Fifo {
    // The frame behind each frame in its queue.
    behind: Box<[u32]>,
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
    // Reads in the small queue that lead to the main one.
    promoted_at: u8,
}

/// A queue of frames, linked through a table that all queues share.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    // Meaningless when empty.
    first: u32,
    last: u32,
    len: usize,
}

impl Queue {
    fn push(&mut self, frame: u32, behind: &mut [u32]) {
        if self.len == 0 {
            self.first = frame;
        } else {
            behind[to_usize(u64::from(self.last))] = frame;
        }
        self.last = frame;
        self.len += 1;
    }

    fn pop(&mut self, behind: &[u32]) -> Option<u32> {
        self.len = self.len.checked_sub(1)?;
        let frame = self.first;
        self.first = behind[to_usize(u64::from(frame))];
        Some(frame)
    }
}

impl S3Fifo {
    /// A policy for frames `0..frames`.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        Self::promoting_at(frames, 1)
    }

    /// As [`S3Fifo::new`], promoting blocks that were read `reads` times in the small queue.
    #[must_use]
    pub fn promoting_at(frames: usize, reads: u8) -> Self {
        Self {
            behind: vec![0; frames].into(),
            small: Queue::default(),
            main: Queue::default(),
            ghosts: Ghosts::new(frames),
            promoted_at: reads,
        }
    }

    /// The small queue's share of all blocks: one tenth, as in the paper.
    fn small_is_full(&self) -> bool {
        self.small.len * 10 >= self.small.len + self.main.len
    }

    /// Looks at the head of the small queue once.
    fn step_small(&mut self, residents: &mut dyn Residents) -> Step {
        let Some(frame) = self.small.pop(&self.behind) else { return Step::InUse };
        if residents.reads(frame) >= self.promoted_at {
            residents.set_reads(frame, 0);
            self.main.push(frame, &mut self.behind);
            return Step::Moved;
        }
        // Its key before another block comes in.
        let key = residents.key(frame);
        if !residents.take_out(frame) {
            self.small.push(frame, &mut self.behind);
            return Step::InUse;
        }
        self.ghosts.remember(key);
        Step::Victim(frame)
    }

    /// Looks at the head of the main queue once.
    fn step_main(&mut self, residents: &mut dyn Residents) -> Step {
        let Some(frame) = self.main.pop(&self.behind) else { return Step::InUse };
        let reads = residents.reads(frame);
        if reads == 0 && residents.take_out(frame) {
            return Step::Victim(frame);
        }
        residents.set_reads(frame, reads.saturating_sub(1));
        self.main.push(frame, &mut self.behind);
        if reads > 0 { Step::Moved } else { Step::InUse }
    }
}

enum Step {
    Victim(u32),
    Moved,
    InUse,
}

impl EvictionPolicy for S3Fifo {
    fn inserted(&mut self, frame: u32, key: BlockKey) {
        // As many ghosts as the main queue has blocks.
        let queue =
            if self.ghosts.recall(key, self.main.len.max(16)) { &mut self.main } else { &mut self.small };
        queue.push(frame, &mut self.behind);
    }

    fn adopted(&mut self, frame: u32, _: BlockKey) {
        self.main.push(frame, &mut self.behind);
    }

    fn evict(&mut self, residents: &mut dyn Residents) -> Option<u32> {
        // Blocks in use, one after the other, since the last that was not: a whole queue of them means to ask the other.
        let (mut small_in_use, mut main_in_use) = (0, 0);
        // A block that is read faster than its count goes down must not keep us here for ever.
        for _ in 0..8 * (self.small.len + self.main.len) {
            let small_left = small_in_use < self.small.len;
            let main_left = main_in_use < self.main.len;
            let small = match (small_left, main_left) {
                (false, false) => return None,
                (true, true) => self.small_is_full(),
                (small_left, _) => small_left,
            };
            match if small { self.step_small(residents) } else { self.step_main(residents) } {
                Step::Victim(frame) => return Some(frame),
                Step::Moved => (small_in_use, main_in_use) = (0, 0),
                Step::InUse if small => small_in_use += 1,
                Step::InUse => main_in_use += 1,
            }
        }
        None
    }
}
