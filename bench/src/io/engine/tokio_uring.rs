//! The crate tokio-uring as it comes, for comparison: one task for each I/O in flight. Never on the data path: its last
//! release (0.5.0) is of May 2024, on io-uring 0.6, and it has no maintainer (tokio-rs/tokio-uring#336).

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio_uring::buf::BoundedBuf;
use tokio_uring::fs::File;

use tierstream_storage::units::ALIGN_BYTES;

use super::{Direction, Engine, Event, Queued, Setup, Step};
use crate::{Error, ErrorKind, Result, to_u64, to_usize};

/// What tasks leave for [`Engine::reap`].
#[derive(Default)]
struct Finished {
    done: Vec<(usize, io::Result<usize>, Vec<u8>)>,
    waker: Option<Waker>,
}

pub(super) struct TokioUring {
    // Dropped first: its tasks have the files and buffers.
    runtime: tokio_uring::Runtime,
    files: Vec<Rc<File>>,
    buffers: Vec<Buffer>,
    queued: Vec<(usize, Step, usize)>,
    finished: Rc<RefCell<Finished>>,
}

/// Bytes of a vector from an aligned address on, as O_DIRECT wants them; empty while a task has them.
struct Buffer {
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl Buffer {
    fn new(len: usize) -> Self {
        let bytes = vec![1; len + ALIGN_BYTES];
        let from = bytes.as_ptr().addr().next_multiple_of(ALIGN_BYTES) - bytes.as_ptr().addr();
        Self { bytes, from, len }
    }
}

impl TokioUring {
    pub(super) fn new(setup: &Setup<'_>) -> Result<Self> {
        let entries = u32::try_from(setup.depth.next_power_of_two()).expect("a depth of at most 4096");
        let runtime =
            tokio_uring::Runtime::new(tokio_uring::builder().entries(entries)).map_err(|error| {
                Error::new(ErrorKind::Unsupported, "start tokio-uring", error.to_string())
                    .caused_by(error)
                    .hint(
                        "allow io_uring (sysctl kernel.io_uring_disabled=0, the container's seccomp profile)",
                    )
            })?;
        let mut files = Vec::with_capacity(setup.files.len());
        for file in setup.files {
            let duplicate = file.as_fd().try_clone_to_owned();
            let duplicate = duplicate.map_err(|error| Error::io("duplicate", &file.path, error))?;
            files.push(Rc::new(runtime.block_on(async { File::from_std(duplicate.into()) })));
        }
        let buffers = (0..setup.depth).map(|_| Buffer::new(setup.slot_bytes)).collect();
        Ok(Self { runtime, files, buffers, queued: Vec::new(), finished: Rc::default() })
    }

    /// Starts the tasks of what is queued and runs all until `min` have finished or the time is up.
    fn run(&mut self, min: usize) {
        let finished = Rc::clone(&self.finished);
        let queued: Vec<_> = self
            .queued
            .drain(..)
            .map(|(tag, step, done)| {
                let buffer = &mut self.buffers[tag];
                let bytes = std::mem::take(&mut buffer.bytes);
                let (from, to) = (buffer.from + done, buffer.from + to_usize(u64::from(step.len)));
                let file = Rc::clone(&self.files[to_usize(u64::from(step.file))]);
                let at = step.offset + to_u64(done);
                (tag, step.direction, file, bytes, from, to, at)
            })
            .collect();
        self.runtime.block_on(async {
            for (tag, direction, file, bytes, from, to, at) in queued {
                let finished = Rc::clone(&finished);
                tokio_uring::spawn(async move {
                    let slice = bytes.slice(from..to);
                    let (moved, slice) = match direction {
                        Direction::Read => file.read_at(slice, at).await,
                        Direction::Write => file.write_at(slice, at).submit().await,
                    };
                    let mut finished = finished.borrow_mut();
                    finished.done.push((tag, moved, slice.into_inner()));
                    if let Some(waker) = finished.waker.take() {
                        waker.wake();
                    }
                });
            }
            std::future::poll_fn(|context| {
                let mut finished = finished.borrow_mut();
                if finished.done.len() >= min {
                    return Poll::Ready(());
                }
                finished.waker = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
        });
    }
}

impl Engine for TokioUring {
    fn report(&self) -> String {
        format!("tokio-uring 0.5, {} tasks on one thread", self.buffers.len())
    }

    fn buffer(&mut self, tag: usize) -> &mut [u8] {
        let buffer = &mut self.buffers[tag];
        assert!(!buffer.bytes.is_empty(), "buffer {tag} belongs to a task");
        &mut buffer.bytes[buffer.from..buffer.from + buffer.len]
    }

    fn queue(&mut self, tag: usize, step: &Step, done: usize) -> Queued {
        self.queued.push((tag, *step, done));
        Queued::Pending
    }

    fn commit(&mut self) -> io::Result<()> {
        self.run(0);
        Ok(())
    }

    fn reap(
        &mut self,
        min: usize,
        max: usize,
        patience: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        // The crate has no timeout of its own: one I/O that takes longer than the patience is waited for.
        let _unlimited = patience;
        if self.finished.borrow().done.len() < min {
            self.run(min);
        }
        let mut finished = self.finished.borrow_mut();
        let count = finished.done.len().min(max);
        for (tag, result, bytes) in finished.done.drain(..count) {
            self.buffers[tag].bytes = bytes;
            events.push(Event { tag, result });
        }
        Ok(())
    }
}
