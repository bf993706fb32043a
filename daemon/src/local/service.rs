//! The daemon's side of one client's ring: takes submissions, grants leases, answers.
//!
//! A block that L1 has is answered at once; one that must be read is asked for and answered when it is there, out of
//! order, so that a slow block does not hold up those behind it. What is open is bounded by the ring.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::Timespec;
use tierstream_storage::store::Urgency;
use tierstream_storage::tier::{BlockKey, BlockRef, FileNo, Ticket};
use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result, Store};

use super::fds;
use super::lease::{LeaseBudget, Leases};
use super::ring::{Completion, DaemonEnd, ENTRIES, Granted, Submission, WORDS};
use super::shm::SharedWords;
use crate::protocol::Shared;

/// Submissions taken before the client's socket is looked at.
const TURN: usize = 4 * ENTRIES;
/// How long a block is awaited before new submissions are looked at.
const GLANCE: Duration = Duration::from_millis(1);
/// Looks at the ring before the thread sleeps, some 3 us: waking a thread costs 5. Between them it neither yields, which on
/// a busy machine gives milliseconds to somebody else, while a sleeper that is woken runs at once; nor pauses, which in a
/// loop makes a virtual machine leave its guest.
pub(crate) const SPINS: u32 = 3000;

/// A lease that waits for its block.
#[derive(Debug)]
struct Pending {
    tag: u32,
    ticket: Ticket,
}

/// One client's ring.
#[derive(Debug)]
pub(crate) struct LocalRing<'a> {
    ring: DaemonEnd,
    submitted: OwnedFd,
    completed: OwnedFd,
    leases: Leases<'a>,
    pending: VecDeque<Pending>,
}

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// There is something in the ring.
    Ring,
    /// The socket has something to say.
    Socket,
}

impl<'a> LocalRing<'a> {
    /// Makes a ring and hands it to the client, together with L1.
    pub(crate) fn open(
        store: &Store,
        budget: &'a LeaseBudget,
        weight: usize,
    ) -> Result<(Self, Shared, [OwnedFd; 4])> {
        let memory = store.shared_l1().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "share memory", "L1 of this daemon is not in shared memory")
        })?;
        let (words, ring_file) = SharedWords::create(WORDS)?;
        let (submitted, completed) = (fds::event()?, fds::event()?);
        let copy = |fd: std::os::fd::BorrowedFd<'_>| {
            fd.try_clone_to_owned()
                .map_err(|error| Error::new(ErrorKind::Full, "share memory", error.to_string()))
        };
        let sent = [copy(memory)?, ring_file, copy(submitted.as_fd())?, copy(completed.as_fd())?];
        let leases = Leases::new(budget, weight);
        let ring = DaemonEnd::new(words);
        ring.set_quota(to_u64(leases.quota()));
        let shared = Shared {
            l1_bytes: to_u64(store.l1_blocks()) * store.l1_block_bytes(),
            entries: ENTRIES,
            words: WORDS,
        };
        Ok((Self { ring, submitted, completed, leases, pending: VecDeque::new() }, shared, sent))
    }

    /// Answers what was submitted and what has arrived; `files` finds the shards of an open data set.
    pub(crate) fn turn<'s>(
        &mut self,
        store: &Store,
        mut files: impl FnMut(u32) -> Option<&'s [FileNo]>,
    ) -> Result<()> {
        self.ring.set_quota(to_u64(self.leases.quota()));
        for _ in 0..TURN {
            match self.ring.take()? {
                None => break,
                Some(Submission::Release(lease)) => self.leases.release(lease)?,
                Some(Submission::Lease { tag, set, shard, block }) => {
                    let file = usize::try_from(shard).ok().and_then(|shard| files(set)?.get(shard).copied());
                    let found = file.map(|file| find(store, BlockKey { file, block }));
                    match found {
                        Some(Ok(Found::Here(block))) => self.grant(tag, block)?,
                        Some(Ok(Found::Coming(ticket))) if self.pending.len() < ENTRIES => {
                            self.pending.push_back(Pending { tag, ticket });
                        }
                        // The reason is told to who asks for the bytes over the socket.
                        _ => self.ring.complete(Completion { tag, granted: None })?,
                    }
                }
            }
        }
        self.arrivals()?;
        if self.ring.must_wake_client() {
            fds::ring_bell(&self.completed);
        }
        Ok(())
    }

    fn arrivals(&mut self) -> Result<()> {
        for _ in 0..self.pending.len() {
            let Some(Pending { tag, ticket }) = self.pending.pop_front() else { break };
            match ticket.try_get() {
                None => self.pending.push_back(Pending { tag, ticket }),
                Some(Ok(block)) => self.grant(tag, block)?,
                Some(Err(_)) => self.ring.complete(Completion { tag, granted: None })?,
            }
        }
        Ok(())
    }

    fn grant(&mut self, tag: u32, block: BlockRef) -> Result<()> {
        let (offset, len) = (block.offset(), u32::try_from(block.len()));
        let lease = self.leases.grant(block).zip(len.ok());
        let granted = lease.map(|(lease, len)| Granted { lease, offset, len });
        Ok(self.ring.complete(Completion { tag, granted })?)
    }

    /// Waits for the next thing to do.
    pub(crate) fn wait(&mut self, stream: &UnixStream) -> Result<Woken> {
        if let Some(first) = self.pending.front() {
            // Its outcome is taken in the next turn; that it is late is nothing to say.
            let _outcome = first.ticket.wait(GLANCE);
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let said = fds::wait(stream, &self.submitted, Some(now))?;
            return Ok(if said { Woken::Socket } else { Woken::Ring });
        }
        for _ in 0..SPINS {
            if self.ring.has_submissions() {
                return Ok(Woken::Ring);
            }
        }
        if !self.ring.may_sleep() {
            return Ok(Woken::Ring);
        }
        let said = fds::wait(stream, &self.submitted, None);
        self.ring.awake();
        Ok(if said? { Woken::Socket } else { Woken::Ring })
    }
}

enum Found {
    Here(BlockRef),
    Coming(Ticket),
}

fn find(store: &Store, key: BlockKey) -> Result<Found> {
    if let Some(block) = store.hit(key) {
        return Ok(Found::Here(block));
    }
    let ticket = store.fetch(key, Urgency::DEMAND)?;
    ticket.map(Found::Coming).ok_or_else(|| Error::new(ErrorKind::Full, "read", "L1 is full"))
}
