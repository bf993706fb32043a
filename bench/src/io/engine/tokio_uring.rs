//! The crate tokio-uring as it comes, for comparison: one task for each I/O in flight. Never on the data path: its last
//! release (0.5.0) is of May 2024, on io-uring 0.6, and it has no maintainer (tokio-rs/tokio-uring#336).

use std::cell::RefCell;
use std::rc::Rc;

use tierstream_storage::units::{ALIGN_BYTES, to_u64};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::fs::File;

use crate::io::plan::Direction;
use crate::io::session::Session;
use crate::{Error, ErrorKind, Result};

pub(super) fn run(mut session: Session) -> Result<Session> {
    let entries = u32::try_from(session.depth.next_power_of_two()).expect("a depth of at most 4096");
    let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(entries)).map_err(|error| {
        Error::new(ErrorKind::Unsupported, "start tokio-uring", error.to_string())
            .caused_by(error)
            .hint("allow io_uring (sysctl kernel.io_uring_disabled=0, the container's seccomp profile)")
    })?;
    session.engine = format!("tokio-uring 0.5, {} tasks on one thread", session.depth);
    let duplicate = std::os::fd::AsFd::as_fd(&*session.file).try_clone_to_owned();
    let duplicate = duplicate.map_err(|error| Error::io("duplicate", session.file.path(), error))?;
    let mut buffers: Vec<Buffer> = (0..session.depth).map(|_| Buffer::new(session.block_bytes)).collect();
    session.prepare(buffers.iter_mut().map(Buffer::bytes));

    let depth = session.depth;
    let session = Rc::new(RefCell::new(session));
    let outcome = runtime.block_on(async {
        let file = Rc::new(File::from_std(duplicate.into()));
        session.borrow_mut().begin();
        let mut workers = Vec::with_capacity(depth);
        for buffer in buffers {
            workers.push(tokio_uring::spawn(work(Rc::clone(&session), Rc::clone(&file), buffer)));
        }
        let mut outcome = Ok(());
        for worker in workers {
            let worked = worker.await.expect("a worker that does not panic");
            outcome = outcome.and(worked);
        }
        session.borrow_mut().end();
        outcome
    });
    outcome?;
    Ok(Rc::into_inner(session).expect("all workers have ended").into_inner())
}

/// Bytes of a vector from an aligned address on, as O_DIRECT wants them.
struct Buffer {
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl Buffer {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + ALIGN_BYTES];
        let from = bytes.as_ptr().addr().next_multiple_of(ALIGN_BYTES) - bytes.as_ptr().addr();
        Self { bytes, from, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + self.len]
    }
}

/// Carries out one I/O after another until the session has no more.
async fn work(session: Rc<RefCell<Session>>, file: Rc<File>, mut buffer: Buffer) -> Result<()> {
    loop {
        let Some(io) = session.borrow_mut().next() else { return Ok(()) };
        session.borrow().stamp(&io, buffer.bytes());
        let (from, len) = (buffer.from, buffer.len);
        let mut done = 0;
        while done < len {
            let slice = std::mem::take(&mut buffer.bytes).slice(from + done..from + len);
            let at = io.offset + to_u64(done);
            let (moved, slice) = match io.direction {
                Direction::Read => file.read_at(slice, at).await,
                Direction::Write => file.write_at(slice, at).submit().await,
            };
            buffer.bytes = slice.into_inner();
            let moved = moved.map_err(|error| session.borrow_mut().failed(&io, error))?;
            done += moved;
            if done < len {
                session.borrow_mut().short(&io, moved)?;
            }
        }
        let mut session = session.borrow_mut();
        let end = session.now();
        session.done(&io, None, end, buffer.bytes());
    }
}
