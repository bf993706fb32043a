//! Reading a file's blocks in order, several in flight: for indexes, manifests and verification, which do not go
//! through L1.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::sealed_file::{SealedFile, ShardPlace};
use crate::buf::{Arena, Slot};
use crate::codec::Scratch;
use crate::error::{Error, ErrorKind, Result};
use crate::format::BlockKind;
use crate::home::{RangedRead, ShardFile, Transferred, read_at};
use crate::host::channel::{Receiver, bounded};
use crate::io::{IoService, Priority};
use crate::units::to_usize;

/// Blocks in flight for one stream: enough to keep a disk's head moving forward.
const WINDOW: usize = 4;

/// What it takes to read sealed files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub(super) io: &'a IoService,
    pub(super) arena: &'a Arc<Arena>,
    pub(super) patience: Duration,
    pub(super) priority: Priority,
}

type Answer = Result<Slot>;

impl Reader<'_> {
    /// Reads `len` bytes at `offset` and waits for them.
    pub(super) fn read(&self, file: &dyn ShardFile, offset: u64, len: usize) -> Result<Slot> {
        read_at(file, self.io, (offset, len), self.arena.take(self.patience)?, self.priority)
    }

    fn start(&self, place: &ShardPlace) -> Result<Receiver<Answer>> {
        let buf = self.arena.take(self.patience)?;
        if place.len > buf.len() {
            let why = format!("block of {} bytes, but buffers have {}", place.len, buf.len());
            return Err(Error::new(ErrorKind::Misuse, "read", why).at(place.file.path()));
        }
        let (send, receive) = bounded(1);
        let done: Transferred = Box::new(move |buf, result| {
            let broken = || Error::new(ErrorKind::Closed, "read", "the engine broke down");
            let answer = result.and_then(|()| buf.ok_or_else(broken));
            // The stream may have been given up; the buffer then goes back here.
            drop(send.send(answer));
        });
        let (offset, len, priority) = (place.offset, place.len, self.priority);
        place.file.read(
            self.io,
            RangedRead { offset, len, buf, tag: 0, more_tags: 0, priority, deadline: 0, done },
        );
        Ok(receive)
    }

    /// Reads the stored blocks of one kind in order and hands each to `use_block` with its number.
    ///
    /// # Errors
    /// The first of a read, or of `use_block`; each names its block.
    pub(super) fn for_each(
        &self,
        file: &SealedFile,
        kind: BlockKind,
        use_block: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let count = match kind {
            BlockKind::Data => file.header().block_count(),
            BlockKind::Index => file.header().index_block_count(),
        };
        self.for_blocks(file, kind, 0..count, use_block)
    }

    /// As [`Reader::for_each`], for the blocks numbered `blocks` alone.
    fn for_blocks(
        &self,
        file: &SealedFile,
        kind: BlockKind,
        blocks: Range<u64>,
        mut use_block: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut flights: VecDeque<(u64, ShardPlace, Receiver<Answer>)> = VecDeque::with_capacity(WINDOW);
        let mut next = blocks.start;
        while next < blocks.end || !flights.is_empty() {
            while next < blocks.end && flights.len() < WINDOW {
                let place = file.place(kind, next)?;
                let answer = self.start(&place)?;
                flights.push_back((next, place, answer));
                next += 1;
            }
            let Some((number, place, answer)) = flights.pop_front() else { break };
            let closed = |_| Error::new(ErrorKind::Closed, "read", "the I/O thread ended");
            let buf = answer
                .recv()
                .map_err(closed)
                .flatten()
                .map_err(|error| error.at_block(kind.name(), number))?;
            use_block(number, &buf[..place.len]).map_err(|error| match error.place() {
                // It may be of elsewhere: of where the block was copied to.
                Some(place) if !place.path.as_os_str().is_empty() => error,
                _ => error.at_offset(place.offset, crate::units::to_u64(place.len)).at(place.file.path()),
            })?;
        }
        Ok(())
    }

    /// Reads, authenticates and opens all blocks of one kind in order.
    ///
    /// # Errors
    /// As [`Reader::for_each`].
    pub(super) fn open_all(
        &self,
        file: &SealedFile,
        kind: BlockKind,
        use_plain: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let header = file.header();
        let count = match kind {
            BlockKind::Data => header.block_count(),
            BlockKind::Index => header.index_block_count(),
        };
        self.open_blocks(file, kind, 0..count, use_plain)
    }

    /// As [`Reader::open_all`], for the blocks numbered `blocks` alone.
    ///
    /// # Errors
    /// As [`Reader::for_each`].
    pub(super) fn open_blocks(
        &self,
        file: &SealedFile,
        kind: BlockKind,
        blocks: Range<u64>,
        mut use_plain: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let header = file.header();
        let total = match kind {
            BlockKind::Data => header.payload_bytes,
            BlockKind::Index => header.index_bytes,
        };
        let mut scratch = Scratch::new()?;
        let mut plain = vec![0; header.block_slot_bytes()];
        self.for_blocks(file, kind, blocks, |number, stored| {
            let len = to_usize(crate::format::plain_bytes(total, header.params.block_bytes, number));
            file.codec().open(kind, number, len, stored, &mut plain, &mut scratch)?;
            use_plain(number, &plain[..len])
        })
    }
}
