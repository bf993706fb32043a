//! Where a thread's I/Os come from: the job's pattern, a recorded log, or what it wrote and now checks.

use std::collections::BTreeMap;

use super::super::iolog::{Entry, Replay};
use super::super::pattern::{Direction, Generator, Step};

/// What to do next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    /// An I/O, and when its latency begins.
    Move(Step, u64),
    Sync {
        file: u32,
        data_only: bool,
    },
    /// Nothing before this time.
    Wait(u64),
    End,
}

/// Blocks that were written last, by file and offset; none overlaps another.
#[derive(Debug, Default)]
pub(super) struct Written(BTreeMap<(u32, u64), u32>);

impl Written {
    fn add(&mut self, step: &Step) {
        let end = step.offset + u64::from(step.len);
        // What is overwritten in part can no longer be checked.
        while let Some((place, _)) = self
            .0
            .range((step.file, 0)..(step.file, end))
            .next_back()
            .filter(|((_, offset), len)| offset + u64::from(**len) > step.offset)
        {
            let place = *place;
            self.0.remove(&place);
        }
        self.0.insert((step.file, step.offset), step.len);
    }
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each thread")]
pub(super) enum Source<'a> {
    Generated {
        generator: Generator,
        next: Option<Direction>,
        written: Option<Written>,
    },
    Replayed {
        entries: &'a [Entry],
        at: usize,
    },
    /// Last first.
    Listed {
        steps: Vec<Step>,
    },
}

impl<'a> Source<'a> {
    /// The job's pattern; `keeps` what it writes.
    pub(super) fn generator(generator: Generator, keeps: bool) -> Self {
        Self::Generated { generator, next: None, written: keeps.then(Written::default) }
    }

    pub(super) fn replay(replay: &'a Replay) -> Self {
        Self::Replayed { entries: &replay.entries, at: 0 }
    }

    /// Goes through the whole pattern as if it had been written.
    pub(super) fn skip_writing(&mut self) {
        if let Self::Generated { generator, written, .. } = self {
            let written = written.get_or_insert_default();
            loop {
                let direction = generator.direction();
                let Some(step) = generator.next(direction) else { break };
                if direction == Direction::Write {
                    written.add(&step);
                }
            }
        }
    }

    pub(super) fn wrote(&mut self, step: &Step) {
        if let Self::Generated { written: Some(written), .. } = self {
            written.add(step);
        }
    }

    /// Blocks that wait to be checked.
    pub(super) fn kept(&self) -> u64 {
        match self {
            Self::Generated { written: Some(written), .. } => crate::to_u64(written.0.len()),
            _ => 0,
        }
    }

    /// Takes at most `most` of them, the last one first.
    pub(super) fn take_written(&mut self, most: u64) -> Vec<Step> {
        let Self::Generated { written: Some(written), .. } = self else { return Vec::new() };
        let mut steps = Vec::new();
        while crate::to_u64(steps.len()) < most {
            let Some(((file, offset), len)) = written.0.pop_first() else { break };
            steps.push(Step { direction: Direction::Read, file, offset, len });
        }
        steps.reverse();
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_overwritten_is_not_checked() {
        let mut written = Written::default();
        let write = |offset, len| Step { direction: Direction::Write, file: 0, offset, len };
        [write(0, 8), write(8, 8), write(16, 8), write(4, 8)].iter().for_each(|step| written.add(step));
        let left: Vec<_> = written.0.iter().map(|((_, offset), len)| (*offset, *len)).collect();
        assert_eq!(left, [(4, 8), (16, 8)]);
        written.add(&write(0, 32));
        assert_eq!(written.0.len(), 1);
    }
}
