#![expect(unsafe_code, reason = "io_submit(2) and its relatives have no safe wrapper and take raw pointers")]
//! Linux native AIO by its system calls: what fio's `libaio` engine does through that library.
//!
//! Guarantees that memory which the kernel may write stays mapped and untouched until the completion, as the engine of
//! io_uring does: buffers belong to the engine and outlive its context.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use super::{Buffers, Direction, Engine, Event, OpenFile, Queued, Setup, Step, failed};
use crate::{Error, ErrorKind, Result, to_u64, to_usize};

/// IOCB_CMD_PREAD and IOCB_CMD_PWRITE of linux/aio_abi.h.
const PREAD: u16 = 0;
const PWRITE: u16 = 1;

/// `struct iocb` of linux/aio_abi.h, little endian.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoEvent {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

pub(super) struct Libaio {
    context: u64,
    buffers: ManuallyDrop<Buffers>,
    files: Vec<Arc<OpenFile>>,
    blocks: Vec<Iocb>,
    pending: Vec<*mut Iocb>,
    completed: Vec<IoEvent>,
    in_flight: Vec<bool>,
    flying: usize,
    depth: usize,
}

impl Libaio {
    pub(super) fn new(setup: &Setup<'_>, buffers: Buffers) -> Result<Self> {
        let mut context = 0_u64;
        // SAFETY: io_setup(2) writes one context number to the pointer, which must be zero before.
        let failed = unsafe { libc::syscall(libc::SYS_io_setup, setup.depth, &raw mut context) } < 0;
        if failed {
            let error = io::Error::last_os_error();
            return Err(Error::new(ErrorKind::Unsupported, "start libaio", error.to_string())
                .hint("raise fs.aio-max-nr, or use ioengine=io_uring")
                .caused_by(error));
        }
        Ok(Self {
            context,
            buffers: ManuallyDrop::new(buffers),
            files: setup.files.to_vec(),
            blocks: vec![Iocb::default(); setup.depth],
            pending: Vec::with_capacity(setup.depth),
            completed: vec![IoEvent::default(); setup.depth],
            in_flight: vec![false; setup.depth],
            flying: 0,
            depth: setup.depth,
        })
    }

    fn wait(&mut self, min: usize, max: usize, patience: Option<Duration>) -> io::Result<usize> {
        let max = max.min(self.completed.len());
        let time = patience.map(|time| libc::timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let events = self.completed.as_mut_ptr();
        // SAFETY: `events` has room for `max` events, `time` is null or points to a timespec that lives on this stack
        // frame, and the context is this engine's own.
        let got =
            unsafe { libc::syscall(libc::SYS_io_getevents, self.context, min.min(max), max, events, time) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }
}

impl Engine for Libaio {
    fn report(&self) -> String {
        format!("Linux AIO, depth {}, {}", self.depth, self.buffers.pages())
    }

    fn buffer(&mut self, tag: usize) -> &mut [u8] {
        assert!(!self.in_flight[tag], "buffer {tag} belongs to the kernel");
        self.buffers.slot(tag)
    }

    fn queue(&mut self, tag: usize, step: &Step, done: usize) -> Queued {
        assert!(!self.in_flight[tag], "buffer {tag} belongs to the kernel");
        let len = to_usize(u64::from(step.len));
        let buffer = &mut self.buffers.slot(tag)[done..len];
        let file = &self.files[to_usize(u64::from(step.file))];
        self.blocks[tag] = Iocb {
            data: to_u64(tag),
            opcode: if step.direction == Direction::Read { PREAD } else { PWRITE },
            file: u32::try_from(file.as_fd().as_raw_fd()).expect("an open file has a positive number"),
            buffer: to_u64(buffer.as_mut_ptr().expose_provenance()),
            bytes: to_u64(buffer.len()),
            offset: i64::try_from(step.offset + to_u64(done)).expect("an offset below 2^63"),
            ..Iocb::default()
        };
        self.in_flight[tag] = true;
        self.flying += 1;
        self.pending.push(&raw mut self.blocks[tag]);
        Queued::Pending
    }

    fn commit(&mut self) -> io::Result<()> {
        let mut from = 0;
        while from < self.pending.len() {
            let list = &mut self.pending[from..];
            // SAFETY: each of the pointers is to a block in `blocks`, which is never resized; a block describes the
            // buffer of a tag that is in flight, which stays in place and is not lent out until its event was seen;
            // `drop` waits for all. Files are kept open by `files`.
            let submitted =
                unsafe { libc::syscall(libc::SYS_io_submit, self.context, list.len(), list.as_mut_ptr()) };
            match usize::try_from(submitted) {
                Ok(submitted) => from += submitted,
                Err(_) => match io::Error::last_os_error() {
                    error if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {}
                    error => {
                        self.flying -= self.pending.len() - from;
                        self.pending.clear();
                        return Err(error);
                    }
                },
            }
        }
        self.pending.clear();
        Ok(())
    }

    fn reap(
        &mut self,
        min: usize,
        max: usize,
        patience: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        let mut taken = 0;
        loop {
            let got = match self.wait(min - taken, max - taken, patience) {
                Ok(got) => got,
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                Err(error) => return Err(error),
            };
            for event in &self.completed[..got] {
                let tag = to_usize(event.data);
                self.in_flight[tag] = false;
                let errno = i32::try_from(-event.result.min(0)).unwrap_or(libc::EIO);
                let result = usize::try_from(event.result).map_err(|_| failed(errno));
                events.push(Event { tag, result });
            }
            self.flying -= got;
            taken += got;
            if taken >= min || patience.is_some() {
                return Ok(());
            }
        }
    }
}

impl Drop for Libaio {
    fn drop(&mut self) {
        let mut events = Vec::new();
        while self.flying > 0 && self.reap(1, self.depth, None, &mut events).is_ok() {}
        // SAFETY: io_destroy(2) of this engine's own context, which is not used after this; it waits for what is in
        // flight.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
        if self.flying == 0 {
            // SAFETY: not used after this, and nothing is in flight.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        }
    }
}
