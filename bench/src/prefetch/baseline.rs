//! What simple prefetchers do: read-ahead as in Linux, Leap (majority of deltas), and a Markov table of successors.

use std::collections::HashMap;

use tierstream_prefetch::learned::{Access, Outcome};

use super::replay::Policy;

/// Doubles a window from 4 to 32 blocks while a stream reads on where it stopped.
#[derive(Default)]
pub(super) struct ReadAhead {
    streams: HashMap<u64, Ahead>,
}

#[derive(Default)]
struct Ahead {
    end: u64,
    window: u64,
    fetched: u64,
}

impl Policy for ReadAhead {
    fn request(&mut self, stream: u64, accesses: &[Access], _: &dyn Fn(u64) -> bool, out: &mut Vec<u64>) {
        let ahead = self.streams.entry(stream).or_default();
        let (first, end) = (accesses[0].id, accesses[accesses.len() - 1].id + 1);
        if first == ahead.end || accesses.len() > 1 && first + 1 == ahead.end {
            // As the kernel does: the next window is asked for when the last one is reached.
            if end + ahead.window / 2 >= ahead.fetched {
                ahead.window = (ahead.window * 2).clamp(4, 32);
                let from = ahead.fetched.max(end);
                ahead.fetched = end + ahead.window;
                out.extend(from..ahead.fetched.max(from));
            }
        } else {
            (ahead.window, ahead.fetched) = (2, end);
        }
        ahead.end = end;
    }
}

/// The majority of the last 32 deltas between requests; its window doubles with use, up to 8 requests.
#[derive(Default)]
pub(super) struct Leap {
    streams: HashMap<u64, Deltas>,
}

#[derive(Default)]
struct Deltas {
    last: Option<u64>,
    recent: std::collections::VecDeque<i64>,
    window: u64,
    used: u64,
}

impl Deltas {
    /// The delta that more than half of the last `of` have, for 8, 16 and 32.
    fn majority(&self) -> Option<i64> {
        [8, 16, 32].into_iter().find_map(|of| {
            let recent = || self.recent.iter().take(of);
            let (mut candidate, mut votes) = (0, 0);
            for delta in recent() {
                if votes == 0 {
                    candidate = *delta;
                }
                votes += if *delta == candidate { 1 } else { -1 };
            }
            let count = recent().filter(|delta| **delta == candidate).count();
            (2 * count > recent().count() && candidate != 0).then_some(candidate)
        })
    }
}

impl Policy for Leap {
    fn request(&mut self, stream: u64, accesses: &[Access], _: &dyn Fn(u64) -> bool, out: &mut Vec<u64>) {
        let deltas = self.streams.entry(stream).or_default();
        for access in accesses {
            if let Some(last) = deltas.last {
                deltas.recent.push_front(access.id.wrapping_sub(last).cast_signed());
                deltas.recent.truncate(32);
            }
            deltas.last = Some(access.id);
            deltas.used += u64::from(access.outcome == Outcome::FirstUse);
        }
        if accesses.iter().all(|access| access.outcome == Outcome::Hit) {
            return;
        }
        let end = accesses[accesses.len() - 1].id;
        deltas.window = if deltas.used == 0 {
            (deltas.window / 2).max(2)
        } else {
            (deltas.used + 1).next_power_of_two().min(8)
        };
        deltas.used = 0;
        let Some(delta) = deltas.majority() else { return };
        let mut next = end;
        for _ in 0..deltas.window.max(u64::try_from(accesses.len()).unwrap_or(1).min(16)) {
            next = next.wrapping_add_signed(delta);
            out.push(next);
        }
    }
}

/// Three successors per missed block with decaying counts.
#[derive(Default)]
pub(super) struct Markov {
    last: HashMap<u64, u64>,
    next: HashMap<u64, [(u64, u32); 3]>,
}

impl Policy for Markov {
    fn request(&mut self, stream: u64, accesses: &[Access], _: &dyn Fn(u64) -> bool, out: &mut Vec<u64>) {
        for access in accesses.iter().filter(|access| access.outcome != Outcome::Hit) {
            if let Some(last) = self.last.insert(stream, access.id) {
                let successors = self.next.entry(last).or_default();
                match successors.iter_mut().find(|(id, count)| *count > 0 && *id == access.id) {
                    Some((_, count)) => *count += 1,
                    None => {
                        successors.iter_mut().for_each(|(_, count)| *count = count.saturating_sub(1));
                        if let Some(weakest) = successors.iter_mut().min_by_key(|(_, count)| *count) {
                            *weakest = (access.id, 1);
                        }
                    }
                }
                successors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            }
        }
        let Some(missed) = accesses.iter().rev().find(|access| access.outcome != Outcome::Hit) else {
            return;
        };
        let first = self.next.get(&missed.id).copied().unwrap_or_default();
        out.extend(first.iter().filter(|(_, count)| *count > 0).map(|(id, _)| *id));
    }
}

/// Fetches nothing ahead.
pub(super) struct Nothing;

impl Policy for Nothing {
    fn request(&mut self, _: u64, _: &[Access], _: &dyn Fn(u64) -> bool, _: &mut Vec<u64>) {}
}
