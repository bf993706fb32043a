//! Requests and completions in shared memory: two single-producer, single-consumer rings and the words that say who
//! sleeps.
//!
//! ```text
//! word 0   submission tail   (client)      word 32  the daemon sleeps
//! word 8   submission head   (daemon)      word 40  the client sleeps
//! word 16  completion tail   (daemon)      word 48  leases the client may hold (daemon)
//! word 24  completion head   (client)
//! word 64  submissions: ENTRIES of 4 words      behind them completions: ENTRIES of 4 words
//!
//! submission:  tag | op << 32      set | shard << 32      block               lease | generation << 32
//! completion:  tag | status << 32  offset in L1           length              lease | generation << 32
//! ```
//!
//! Each word that one side writes has a cache line of its own. A side reads an entry once, into its own memory, and
//! checks what it read: the other may change it at any time. A client that has more than [`ENTRIES`] requests open, or
//! moves its tail further than that, breaks the protocol; so neither ring ever overflows and nobody waits for room in the
//! completions.
//!
//! Who is about to sleep says so, looks once more, and sleeps; who has written an entry looks whether the other sleeps.
//! Both do it in one total order (SeqCst), so that one of the two sees the other.

use std::sync::atomic::{Ordering, fence};

use tierstream_storage::Error;

use super::shm::SharedWords;
use crate::protocol::misuse;

/// Requests that may be open, and entries of each ring.
pub(crate) const ENTRIES: usize = 256;
const ENTRY_WORDS: usize = 4;
const SUBMISSIONS: usize = 64;
const COMPLETIONS: usize = SUBMISSIONS + ENTRIES * ENTRY_WORDS;
/// Words of the shared memory.
pub(crate) const WORDS: usize = COMPLETIONS + ENTRIES * ENTRY_WORDS;

const SUBMIT_TAIL: usize = 0;
const SUBMIT_HEAD: usize = 8;
const COMPLETE_TAIL: usize = 16;
const COMPLETE_HEAD: usize = 24;
const DAEMON_SLEEPS: usize = 32;
const CLIENT_SLEEPS: usize = 40;
const QUOTA: usize = 48;

/// A lease as both sides know it: a slot of the client's table, and how often the slot was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Submission {
    /// A lease on a block; its completion carries the tag.
    Lease { tag: u32, set: u32, shard: u32, block: u32 },
    /// The end of a lease; without a completion.
    Release(LeaseId),
}

/// What the daemon answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) tag: u32,
    /// None: no lease, ask over the socket for the bytes or the reason.
    pub(crate) granted: Option<Granted>,
}

/// A block that stays where it is until its lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) lease: LeaseId,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

const OP_LEASE: u32 = 1;
const OP_RELEASE: u32 = 2;
const STATUS_GRANTED: u32 = 1;
const STATUS_REFUSED: u32 = 2;

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of a word")]
fn split(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

fn entry(base: usize, position: u64) -> usize {
    let mask = u64::try_from(ENTRIES - 1).unwrap_or(0);
    base + usize::try_from(position & mask).unwrap_or(0) * ENTRY_WORDS
}

fn read_entry(words: &SharedWords, at: usize) -> [u64; ENTRY_WORDS] {
    std::array::from_fn(|word| words.at(at + word).load(Ordering::Relaxed))
}

fn write_entry(words: &SharedWords, at: usize, entry: [u64; ENTRY_WORDS]) {
    for (word, value) in entry.into_iter().enumerate() {
        words.at(at + word).store(value, Ordering::Relaxed);
    }
}

/// The other side did what the protocol forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) &'static str);

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        misuse(format!("shared ring: {}", violation.0))
    }
}

/// The daemon's end. Believes nothing it reads.
#[derive(Debug)]
pub(crate) struct DaemonEnd {
    words: SharedWords,
    head: u64,
    completed: u64,
}

impl DaemonEnd {
    pub(crate) fn new(words: SharedWords) -> Self {
        Self { words, head: 0, completed: 0 }
    }

    /// Whether something was submitted that was not taken.
    pub(crate) fn has_submissions(&self) -> bool {
        self.words.at(SUBMIT_TAIL).load(Ordering::Acquire) != self.head
    }

    /// The next submission.
    pub(crate) fn take(&mut self) -> Result<Option<Submission>, Violation> {
        let tail = self.words.at(SUBMIT_TAIL).load(Ordering::Acquire);
        let waiting = tail.wrapping_sub(self.head);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > ENTRIES as u64 {
            return Err(Violation("the submission tail is out of range"));
        }
        let [first, second, third, fourth] = read_entry(&self.words, entry(SUBMISSIONS, self.head));
        self.head = self.head.wrapping_add(1);
        self.words.at(SUBMIT_HEAD).store(self.head, Ordering::Release);
        let ((tag, op), (set, shard), (block, _), (slot, generation)) =
            (split(first), split(second), split(third), split(fourth));
        match op {
            OP_LEASE => Ok(Some(Submission::Lease { tag, set, shard, block })),
            OP_RELEASE => Ok(Some(Submission::Release(LeaseId { slot, generation }))),
            _ => Err(Violation("a submission that is no request")),
        }
    }

    /// Answers. The caller has checked that at most [`ENTRIES`] requests were open.
    pub(crate) fn complete(&mut self, completion: Completion) -> Result<(), Violation> {
        let taken = self.words.at(COMPLETE_HEAD).load(Ordering::Acquire);
        if self.completed.wrapping_sub(taken) >= ENTRIES as u64 {
            return Err(Violation("more requests are open than the ring has entries"));
        }
        let words = match completion.granted {
            Some(granted) => [
                pair(completion.tag, STATUS_GRANTED),
                granted.offset,
                u64::from(granted.len),
                pair(granted.lease.slot, granted.lease.generation),
            ],
            None => [pair(completion.tag, STATUS_REFUSED), 0, 0, 0],
        };
        write_entry(&self.words, entry(COMPLETIONS, self.completed), words);
        self.completed = self.completed.wrapping_add(1);
        self.words.at(COMPLETE_TAIL).store(self.completed, Ordering::Release);
        Ok(())
    }

    /// Whether the client is to be woken for what was completed.
    pub(crate) fn must_wake_client(&self) -> bool {
        fence(Ordering::SeqCst);
        let sleeps = self.words.at(CLIENT_SLEEPS);
        sleeps.load(Ordering::Relaxed) != 0 && sleeps.swap(0, Ordering::SeqCst) != 0
    }

    /// Says that the daemon is about to sleep; false when it must not.
    pub(crate) fn may_sleep(&self) -> bool {
        self.words.at(DAEMON_SLEEPS).store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.has_submissions() {
            self.awake();
            return false;
        }
        true
    }

    /// The daemon is awake again.
    pub(crate) fn awake(&self) {
        self.words.at(DAEMON_SLEEPS).store(0, Ordering::Relaxed);
    }

    /// Tells the client how many leases it may hold.
    pub(crate) fn set_quota(&self, leases: u64) {
        let word = self.words.at(QUOTA);
        if word.load(Ordering::Relaxed) != leases {
            word.store(leases, Ordering::Relaxed);
        }
    }
}

/// The client's end.
#[derive(Debug)]
pub(crate) struct ClientEnd {
    words: SharedWords,
    tail: u64,
    completed: u64,
}

impl ClientEnd {
    pub(crate) fn new(words: SharedWords) -> Self {
        Self { words, tail: 0, completed: 0 }
    }

    /// Puts a submission into the ring; false when it is full. The daemon sees it at once.
    pub(crate) fn submit(&mut self, submission: Submission) -> bool {
        let taken = self.words.at(SUBMIT_HEAD).load(Ordering::Acquire);
        if self.tail.wrapping_sub(taken) >= ENTRIES as u64 {
            return false;
        }
        let words = match submission {
            Submission::Lease { tag, set, shard, block } => {
                [pair(tag, OP_LEASE), pair(set, shard), u64::from(block), 0]
            }
            Submission::Release(lease) => [pair(0, OP_RELEASE), 0, 0, pair(lease.slot, lease.generation)],
        };
        write_entry(&self.words, entry(SUBMISSIONS, self.tail), words);
        self.tail = self.tail.wrapping_add(1);
        self.words.at(SUBMIT_TAIL).store(self.tail, Ordering::Release);
        true
    }

    /// Whether the daemon is to be woken for what was submitted.
    pub(crate) fn must_wake_daemon(&self) -> bool {
        fence(Ordering::SeqCst);
        let sleeps = self.words.at(DAEMON_SLEEPS);
        sleeps.load(Ordering::Relaxed) != 0 && sleeps.swap(0, Ordering::SeqCst) != 0
    }

    /// Whether something was completed that was not taken.
    pub(crate) fn has_completions(&self) -> bool {
        self.words.at(COMPLETE_TAIL).load(Ordering::Acquire) != self.completed
    }

    /// The next completion.
    pub(crate) fn take(&mut self) -> Result<Option<Completion>, Violation> {
        let tail = self.words.at(COMPLETE_TAIL).load(Ordering::Acquire);
        let waiting = tail.wrapping_sub(self.completed);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > ENTRIES as u64 {
            return Err(Violation("the completion tail is out of range"));
        }
        let [first, offset, len, lease] = read_entry(&self.words, entry(COMPLETIONS, self.completed));
        self.completed = self.completed.wrapping_add(1);
        self.words.at(COMPLETE_HEAD).store(self.completed, Ordering::Release);
        let ((tag, status), (len, _), (slot, generation)) = (split(first), split(len), split(lease));
        let granted = Granted { lease: LeaseId { slot, generation }, offset, len };
        match status {
            STATUS_GRANTED => Ok(Some(Completion { tag, granted: Some(granted) })),
            STATUS_REFUSED => Ok(Some(Completion { tag, granted: None })),
            _ => Err(Violation("a completion without a status")),
        }
    }

    /// Says that the client is about to sleep; false when it must not.
    pub(crate) fn may_sleep(&self) -> bool {
        self.words.at(CLIENT_SLEEPS).store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.has_completions() {
            self.awake();
            return false;
        }
        true
    }

    /// The client is awake again.
    pub(crate) fn awake(&self) {
        self.words.at(CLIENT_SLEEPS).store(0, Ordering::Relaxed);
    }

    /// How many leases the daemon lets this client hold.
    pub(crate) fn quota(&self) -> u64 {
        self.words.at(QUOTA).load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (DaemonEnd, ClientEnd) {
        let (words, file) = SharedWords::create(WORDS).unwrap();
        (DaemonEnd::new(words), ClientEnd::new(SharedWords::map(&file, WORDS).unwrap()))
    }

    #[test]
    fn a_thousand_times_around_in_order() {
        let (mut daemon, mut client) = ends();
        for round in 0..4000_u32 {
            let asked = Submission::Lease { tag: round, set: 1, shard: u32::MAX, block: round * 3 };
            let lease = LeaseId { slot: round, generation: !round };
            assert!(client.submit(asked) && client.submit(Submission::Release(lease)));
            assert_eq!(daemon.take(), Ok(Some(asked)));
            assert_eq!(daemon.take(), Ok(Some(Submission::Release(lease))));
            assert_eq!(daemon.take(), Ok(None));
            let granted = Granted { lease, offset: u64::MAX - u64::from(round), len: round };
            let answer = Completion { tag: round, granted: (round % 3 > 0).then_some(granted) };
            daemon.complete(answer).unwrap();
            assert_eq!(client.take(), Ok(Some(answer)));
            assert_eq!(client.take(), Ok(None));
        }
    }

    #[test]
    fn a_full_ring_takes_no_more() {
        let (mut daemon, mut client) = ends();
        let ask = Submission::Lease { tag: 0, set: 0, shard: 0, block: 0 };
        for _ in 0..ENTRIES {
            assert!(client.submit(ask));
        }
        assert!(!client.submit(ask));
        daemon.take().unwrap().unwrap();
        assert!(client.submit(ask));
        for _ in 0..ENTRIES {
            daemon.complete(Completion { tag: 0, granted: None }).unwrap();
        }
        assert!(daemon.complete(Completion { tag: 0, granted: None }).is_err());
    }

    #[test]
    fn lies_of_the_other_side_are_seen() {
        let (mut daemon, mut client) = ends();
        client.words.at(SUBMIT_TAIL).store(ENTRIES as u64 + 1, Ordering::Release);
        assert!(daemon.take().is_err());
        let (mut daemon, client_again) = ends();
        client_again.words.at(SUBMIT_TAIL).store(1, Ordering::Release);
        assert!(daemon.take().is_err(), "op 0");
        daemon.words.at(COMPLETE_TAIL).store(u64::MAX, Ordering::Release);
        assert_eq!(client.take(), Ok(None));
        let mut client = client_again;
        assert!(client.take().is_err());
    }

    #[test]
    fn who_sleeps_is_woken_once() {
        let (mut daemon, mut client) = ends();
        assert!(!client.must_wake_daemon());
        assert!(daemon.may_sleep());
        assert!(client.submit(Submission::Release(LeaseId { slot: 0, generation: 0 })));
        assert!(client.must_wake_daemon() && !client.must_wake_daemon());
        assert!(!daemon.may_sleep(), "there is something to do");
        daemon.take().unwrap();
        assert!(client.may_sleep());
        daemon.complete(Completion { tag: 1, granted: None }).unwrap();
        assert!(daemon.must_wake_client() && !daemon.must_wake_client());
    }
}
