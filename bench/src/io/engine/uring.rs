//! The engine of the data path: `storage::io::UringEngine`, driven as the store drives it.
//!
//! It submits and waits in one system call, so that the submission latency ends where that call begins: it counts the
//! making of a batch, and the call itself is in the completion latency.

use std::sync::Arc;
use std::time::Duration;

use tierstream_storage::buf::{Arena, HeapAllocator, Slot};
use tierstream_storage::io::{IoEngine, Op, UringEngine};
use tierstream_storage::units::{ALIGN_BYTES, to_u64, to_usize};

use crate::Result;
use crate::io::plan::Direction;
use crate::io::session::{Io, Session};

pub(super) fn run(session: &mut Session) -> Result<()> {
    let slots = slots(session)?;
    let arena = slots.first().map(|slot| Arc::clone(slot.arena())).filter(|_| session.fixedbufs);
    let mut engine = UringEngine::new(session.depth, arena.as_ref())?;
    drive(&mut engine, slots, session)
}

/// One buffer for each I/O in flight.
pub(super) fn slots(session: &Session) -> Result<Vec<Slot>> {
    let slot_bytes = session.block_bytes.next_multiple_of(ALIGN_BYTES);
    let arena = Arena::new("io_uring", slot_bytes, session.depth, &HeapAllocator)?;
    let mut slots = Vec::with_capacity(session.depth);
    for _ in 0..session.depth {
        slots.push(arena.take(Duration::ZERO)?);
    }
    session.prepare(slots.iter_mut().map(|slot| &mut slot[..]));
    Ok(slots)
}

/// An I/O in flight, found again by the tag of its operation.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    io: Io,
    issue: Option<Duration>,
}

/// Keeps one operation in flight for each of `slots`.
pub(super) fn drive(engine: &mut dyn IoEngine, slots: Vec<Slot>, session: &mut Session) -> Result<()> {
    session.engine = engine.report().to_string();
    let mut in_flight: Vec<Option<InFlight>> = vec![None; slots.len()];
    let mut idle: Vec<(usize, Slot)> = slots.into_iter().enumerate().collect();
    let mut made = Vec::with_capacity(idle.len());
    let mut completed = Vec::with_capacity(idle.len());
    session.begin();
    loop {
        while let Some((tag, mut slot)) = idle.pop() {
            let Some(io) = session.next() else {
                idle.push((tag, slot));
                break;
            };
            session.stamp(&io, &mut slot[..session.block_bytes]);
            let file = Arc::clone(&session.file);
            let mut op = match io.direction {
                Direction::Read => Op::read(file, io.offset, session.block_bytes, slot),
                Direction::Write => Op::write(file, io.offset, session.block_bytes, slot),
            };
            op.tag = to_u64(tag);
            in_flight[tag] = Some(InFlight { io, issue: None });
            made.push(tag);
            engine.submit(op);
        }
        if engine.in_flight() == 0 {
            break;
        }
        if !made.is_empty() {
            let issue = Some(session.now());
            for tag in made.drain(..) {
                in_flight[tag].as_mut().expect("an operation was just made of it").issue = issue;
            }
        }
        engine.wait(&mut completed)?;
        let end = session.now();
        for completion in completed.drain(..) {
            let mut op = completion.op;
            let tag = to_usize(op.tag);
            let InFlight { io, issue } = in_flight[tag].expect("a completion of what is in flight");
            let moved = completion.result.map_err(|error| session.failed(&io, error))?;
            op.done += moved;
            if op.left() > 0 {
                session.short(&io, moved)?;
                engine.submit(op);
                continue;
            }
            let slot = op.buf.expect("a transfer has its buffer");
            session.done(&io, issue, end, &slot[..session.block_bytes]);
            idle.push((tag, slot));
        }
    }
    session.end();
    Ok(())
}
