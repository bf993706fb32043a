#![expect(
    unsafe_code,
    reason = "submission entries carry raw pointers into the buffers that the engine owns"
)]
//! io_uring(7) as fio's engine of that name drives it: one ring on the job's thread, one entry for each I/O.
//!
//! Guarantees that memory which the kernel may write stays mapped and untouched until the completion: buffers belong to
//! the engine, are lent out only while their tag is not in flight, and outlive the ring. The store's own engine is
//! another one (`storage::io::UringEngine`), measured by `bench store`; this one has fio's switches.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

use super::{Buffers, Direction, Engine, Event, Queued, Setup, Step, failed};
use crate::{Error, ErrorKind, Result, to_u64, to_usize};

/// IORING_ENTER_GETEVENTS: completions are posted in the same call, without waiting for any.
const GET_EVENTS: u32 = 1;
/// RWF_NOWAIT and RWF_DONTCACHE of preadv2(2).
const NOWAIT: i32 = 8;
const DONTCACHE: i32 = 0x80;
/// An idle submission thread of the kernel sleeps after this; fio's default.
const SQ_IDLE_MILLIS: u32 = 1000;

pub(super) struct Uring {
    // Dropped before the buffers: closing the ring ends their registration and every use.
    ring: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<Buffers>,
    vectors: Vec<libc::iovec>,
    in_flight: Vec<bool>,
    pending: u32,
    flying: usize,
    files: Vec<RawFd>,
    fixed_files: bool,
    fixed_buffers: bool,
    vectored: bool,
    rw_flags: i32,
    entry_flags: squeue::Flags,
    polled: bool,
    sqpoll: bool,
    words: String,
}

impl Uring {
    pub(super) fn new(setup: &Setup<'_>, mut buffers: Buffers, notes: &mut Vec<String>) -> Result<Self> {
        let options = &setup.job.engine;
        let (ring, flags) = ring_for(setup)?;
        let files: Vec<RawFd> = setup.files.iter().map(|file| file.as_fd().as_raw_fd()).collect();
        let mut words = vec![flags.to_owned(), format!("depth {}", setup.depth), buffers.pages()];
        let fixed_files = options.registerfiles || options.sqthread_poll;
        if fixed_files {
            let registered = ring.submitter().register_files(&files);
            registered.map_err(|error| refused("registerfiles", error))?;
            words.push("registered files".to_owned());
        }
        let vectors: Vec<libc::iovec> = (0..setup.depth)
            .map(|tag| libc::iovec {
                iov_base: buffers.slot(tag).as_mut_ptr().cast(),
                iov_len: buffers.slot_bytes(),
            })
            .collect();
        let mut fixed_buffers = options.fixedbufs;
        if fixed_buffers {
            // SAFETY: the vectors describe `buffers`, which this engine owns and unmaps only after the ring is closed
            // (`drop`).
            if let Err(error) = unsafe { ring.submitter().register_buffers(&vectors) } {
                notes.push(format!("fixedbufs=1 is not given: {error}; raise RLIMIT_MEMLOCK (ulimit -l)"));
                fixed_buffers = false;
            } else {
                words.push("registered buffers".to_owned());
            }
        }
        let flag = |on: bool, flag: i32| if on { flag } else { 0 };
        let mut entry_flags = squeue::Flags::empty();
        entry_flags.set(squeue::Flags::ASYNC, options.force_async);
        entry_flags.set(squeue::Flags::FIXED_FILE, fixed_files);
        Ok(Self {
            ring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(buffers),
            vectors,
            in_flight: vec![false; setup.depth],
            pending: 0,
            flying: 0,
            files,
            fixed_files,
            fixed_buffers,
            vectored: !options.nonvectored,
            rw_flags: flag(options.uncached, DONTCACHE) | flag(options.nowait, NOWAIT),
            entry_flags,
            polled: options.hipri,
            sqpoll: options.sqthread_poll,
            words: words.join(", "),
        })
    }

    fn entry(&self, tag: usize, step: &Step, done: usize) -> squeue::Entry {
        let vector = &self.vectors[tag];
        let at = step.offset + to_u64(done);
        let len = step.len - u32::try_from(done).expect("less than the length");
        // The address is computed as a number's would be; it is within the buffer because `done` is below its length.
        let start = vector.iov_base.cast::<u8>().wrapping_add(done);
        // A registered file is known by its number, as the flag FIXED_FILE says (`queue`).
        let file = if self.fixed_files {
            types::Fd(i32::try_from(step.file).expect("at most 65536 files"))
        } else {
            types::Fd(self.files[to_usize(u64::from(step.file))])
        };
        let index = u16::try_from(tag).expect("at most 4096 tags");
        let (flags, whole): (i32, *const libc::iovec) = (self.rw_flags, vector);
        match (step.direction, self.fixed_buffers, self.vectored && done == 0) {
            (Direction::Read, true, _) => {
                opcode::ReadFixed::new(file, start, len, index).offset(at).rw_flags(flags).build()
            }
            (Direction::Write, true, _) => {
                opcode::WriteFixed::new(file, start, len, index).offset(at).rw_flags(flags).build()
            }
            (Direction::Read, false, true) => {
                opcode::Readv::new(file, whole, 1).offset(at).rw_flags(flags).build()
            }
            (Direction::Write, false, true) => {
                opcode::Writev::new(file, whole, 1).offset(at).rw_flags(flags).build()
            }
            (Direction::Read, false, false) => {
                opcode::Read::new(file, start, len).offset(at).rw_flags(flags).build()
            }
            (Direction::Write, false, false) => {
                opcode::Write::new(file, start, len).offset(at).rw_flags(flags).build()
            }
        }
    }

    fn take(&mut self, max: usize, events: &mut Vec<Event>) -> usize {
        let mut taken = 0;
        let mut completion = self.ring.completion();
        while taken < max {
            let Some(entry) = completion.next() else { break };
            let tag = to_usize(entry.user_data());
            self.in_flight[tag] = false;
            let moved = entry.result();
            let result = usize::try_from(moved).map_err(|_| failed(-moved));
            events.push(Event { tag, result });
            taken += 1;
        }
        self.flying -= taken;
        taken
    }

    fn wait(&self, wanted: usize, patience: Option<Duration>) -> io::Result<()> {
        let waited = match patience {
            None => self.ring.submitter().submit_and_wait(wanted),
            Some(patience) => {
                let time = types::Timespec::from(patience);
                let args = types::SubmitArgs::new().timespec(&time);
                self.ring.submitter().submit_with_args(wanted, &args)
            }
        };
        waited.map(|_| ())
    }
}

/// Whether a failed call is to be repeated.
fn passes(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

fn refused(what: &str, error: io::Error) -> Error {
    let why = format!("{what}: {error}");
    Error::new(ErrorKind::Unsupported, "start io_uring", why)
        .hint("allow io_uring (sysctl kernel.io_uring_disabled=0, the container's seccomp profile)")
        .caused_by(error)
}

/// A ring with the flags that fio asks for, or fewer where the kernel is older.
fn ring_for(setup: &Setup<'_>) -> Result<(IoUring, &'static str)> {
    let options = &setup.job.engine;
    let entries = u32::try_from(setup.depth.next_power_of_two()).expect("a depth of at most 4096");
    let mut last = None;
    for (defer, words) in [(true, "SINGLE_ISSUER+DEFER_TASKRUN+COOP_TASKRUN"), (false, "no flags")] {
        let mut builder = IoUring::builder();
        if options.sqthread_poll {
            builder.setup_sqpoll(SQ_IDLE_MILLIS);
            if let Some(cpu) = options.sqthread_cpu {
                builder.setup_sqpoll_cpu(u32::try_from(cpu).unwrap_or(0));
            }
        } else if defer {
            builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
        }
        if options.hipri {
            builder.setup_iopoll();
        }
        match builder.build(entries) {
            Ok(ring) => return Ok((ring, if options.sqthread_poll { "SQPOLL" } else { words })),
            Err(error) => last = Some(error),
        }
    }
    Err(refused("set up", last.expect("a failed attempt leaves its error")))
}

impl Engine for Uring {
    fn report(&self) -> String {
        format!("io_uring, {}", self.words)
    }

    fn buffer(&mut self, tag: usize) -> &mut [u8] {
        assert!(!self.in_flight[tag], "buffer {tag} belongs to the kernel");
        self.buffers.slot(tag)
    }

    fn queue(&mut self, tag: usize, step: &Step, done: usize) -> Queued {
        assert!(!self.in_flight[tag], "buffer {tag} belongs to the kernel");
        if self.vectored {
            self.vectors[tag].iov_len = to_usize(u64::from(step.len));
        }
        let entry = self.entry(tag, step, done).user_data(to_u64(tag)).flags(self.entry_flags);
        loop {
            // SAFETY: the entry's buffer (and its vector) is that of `tag`, which stays in place and is not lent out
            // while `in_flight[tag]` holds, that is until its completion was seen (`take`); `drop` waits for all.
            // Files are kept open by the target, which outlives the engine.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                break;
            }
            // There are as many entries as tags; only SQPOLL takes them late.
            if let Err(error) = self.ring.submitter().squeue_wait() {
                return Queued::Done(Err(error));
            }
        }
        self.in_flight[tag] = true;
        self.flying += 1;
        self.pending += 1;
        Queued::Pending
    }

    fn commit(&mut self) -> io::Result<()> {
        while self.pending > 0 {
            let submitted = if self.sqpoll {
                self.ring.submitter().submit()
            } else {
                // SAFETY: no pointer is passed; entries were made by `queue`.
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(self.pending, 0, GET_EVENTS, None) }
            };
            match submitted {
                Ok(_) if self.sqpoll => self.pending = 0,
                Ok(submitted) => {
                    self.pending -= u32::try_from(submitted).unwrap_or(self.pending).min(self.pending)
                }
                Err(error) if passes(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn reap(
        &mut self,
        min: usize,
        max: usize,
        patience: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        let mut taken = self.take(max, events);
        while taken < min {
            match self.wait(if self.polled { 1 } else { min - taken }, patience) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
                    self.take(max - taken, events);
                    return Ok(());
                }
                Err(error) if passes(&error) => {}
                Err(error) => return Err(error),
            }
            taken += self.take(max - taken, events);
        }
        Ok(())
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let mut events = Vec::new();
        while self.flying > 0 && self.wait(1, None).is_ok() {
            self.take(usize::MAX, &mut events);
        }
        if self.flying > 0 {
            // The ring is broken and the kernel may still write: both stay for the rest of the process.
            return;
        }
        // SAFETY: neither is used after this.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
        // SAFETY: as above; the ring is closed, and nothing is in flight.
        unsafe { ManuallyDrop::drop(&mut self.buffers) };
    }
}
