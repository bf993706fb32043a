//! `pread(2)` and `pwrite(2)` on the thread of the job: one I/O at a time, what every other engine is compared with.

use std::time::Duration;

use tierstream_storage::buf::{Arena, HeapAllocator};
use tierstream_storage::units::{ALIGN_BYTES, to_u64};

use crate::Result;
use crate::io::plan::Direction;
use crate::io::session::Session;

pub(super) fn run(session: &mut Session) -> Result<()> {
    let slot_bytes = session.block_bytes.next_multiple_of(ALIGN_BYTES);
    let arena = Arena::new("psync", slot_bytes, 1, &HeapAllocator)?;
    let mut slot = arena.take(Duration::ZERO)?;
    session.prepare(std::iter::once(&mut slot[..]));
    session.engine = "pread/pwrite on the thread of the job".to_owned();
    let file = std::sync::Arc::clone(&session.file);
    let buffer = &mut slot[..session.block_bytes];
    session.begin();
    while let Some(io) = session.next() {
        session.stamp(&io, buffer);
        let mut done = 0;
        loop {
            let at = io.offset + to_u64(done);
            let moved = match io.direction {
                Direction::Read => rustix::io::pread(&file, &mut buffer[done..], at),
                Direction::Write => rustix::io::pwrite(&file, &buffer[done..], at),
            };
            let moved = moved.map_err(|error| session.failed(&io, error.into()))?;
            done += moved;
            if done == buffer.len() {
                break;
            }
            session.short(&io, moved)?;
        }
        session.done(&io, None, session.now(), buffer);
    }
    session.end();
    Ok(())
}
