//! Writing one sealed file: payload in, blocks out, header last.
//!
//! Blocks are sealed on the caller's thread and written behind its back; memory is bounded by the arena. The file is
//! not complete, and does not open, before [`SealedWriter::finish`] wrote the header.

use std::sync::Arc;
use std::time::Duration;

use tierstream_crypto::{KeyProvider, MAC_BYTES};

use crate::buf::{Arena, HeapAllocator, Slot};
use crate::codec::{BlockCodec, Dictionary, FinalSizes, Scratch, Sealer, seal_header};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BlockKind, FileId, HEADER_BYTES, Index, PAYLOAD_BYTES_MAX, SealParams, SectionType, capacity,
};
use crate::home::{Transferred, Upload};
use crate::host::channel::{Receiver, Sender, unbounded};
use crate::io::{EngineReport, IoService, ServiceConfig};
use crate::units::{ALIGN_BYTES, to_u64, to_usize};

/// Buffers of a writing context for each writer: one being filled, the others on their way.
const BUFFERS_PER_WRITER: usize = 8;
/// How long a writer waits for a buffer that is being written.
const PATIENCE: Duration = Duration::from_secs(120);

/// An I/O thread and buffers for writers of sealed files, without a store.
#[derive(Debug)]
pub struct WriteContext {
    pub(super) io: IoService,
    pub(super) arena: Arc<Arena>,
    pub(super) patience: Duration,
}

impl WriteContext {
    /// A context for up to `writers` writers at a time, of blocks of up to `block_bytes` stored bytes.
    ///
    /// # Errors
    /// As [`IoService::start`]; `Full` without memory.
    pub fn new(io: &ServiceConfig, block_bytes: u32, writers: usize) -> Result<Self> {
        let slots = writers.max(1) * BUFFERS_PER_WRITER;
        let arena = Arena::new("write", to_usize(u64::from(block_bytes)), slots, &HeapAllocator)?;
        let io = IoService::start(io, Some(&arena))?;
        Ok(Self { io, arena, patience: PATIENCE })
    }

    /// As [`WriteContext::new`], on an engine of the caller's making.
    ///
    /// # Errors
    /// As [`WriteContext::new`].
    #[cfg(any(test, feature = "testing"))]
    pub fn new_on<F>(io: &ServiceConfig, block_bytes: u32, writers: usize, engine: F) -> Result<Self>
    where
        F: FnOnce(&Arc<Arena>) -> Result<(Box<dyn crate::io::IoEngine>, EngineReport)> + Send + 'static,
    {
        let slots = writers.max(1) * BUFFERS_PER_WRITER;
        let arena = Arena::new("write", to_usize(u64::from(block_bytes)), slots, &HeapAllocator)?;
        let registered = Arc::clone(&arena);
        let io = IoService::start_with(io, move || engine(&registered))?;
        Ok(Self { io, arena, patience: PATIENCE })
    }

    /// Which I/O engine runs and why.
    #[must_use]
    pub fn io_report(&self) -> &EngineReport {
        self.io.report()
    }

    pub(super) fn output(&self) -> Output<'_> {
        Output { io: &self.io, arena: &self.arena, patience: self.patience }
    }
}

/// What it takes to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output<'a> {
    pub(super) io: &'a IoService,
    pub(super) arena: &'a Arc<Arena>,
    pub(super) patience: Duration,
}

/// Writes of one file behind the caller's back; memory is bounded by the arena.
#[derive(Debug)]
pub(super) struct WriteBehind<'a> {
    output: Output<'a>,
    upload: Arc<dyn Upload>,
    written: (Sender<Result<()>>, Receiver<Result<()>>),
    in_flight: usize,
}

impl<'a> WriteBehind<'a> {
    pub(super) fn new(output: Output<'a>, upload: Arc<dyn Upload>) -> Self {
        Self { output, upload, written: unbounded(), in_flight: 0 }
    }

    /// A buffer to fill.
    pub(super) fn buffer(&self) -> Result<Slot> {
        self.output.arena.take(self.output.patience)
    }

    /// Begins to write the first `len` bytes of `block` at `offset`.
    ///
    /// # Errors
    /// Of an earlier write.
    pub(super) fn submit(&mut self, block: Slot, offset: u64, len: usize) -> Result<()> {
        while let Ok(written) = self.written.1.try_recv() {
            self.in_flight -= 1;
            written?;
        }
        let send = self.written.0.clone();
        // The buffer goes back to the arena here; the writer may be gone after an error.
        let done: Transferred = Box::new(move |_, result| drop(send.send(result)));
        self.upload.write(self.output.io, block, offset, len, done);
        self.in_flight += 1;
        Ok(())
    }

    /// Waits until all that was submitted is written.
    ///
    /// # Errors
    /// Of the first write that failed.
    pub(super) fn wait(&mut self) -> Result<()> {
        while self.in_flight > 0 {
            let written = self.written.1.recv().expect("this writer holds a sender itself");
            self.in_flight -= 1;
            written?;
        }
        Ok(())
    }

    /// Waits for all writes and publishes the file, durably.
    ///
    /// # Errors
    /// As [`WriteBehind::wait`] and [`Upload::publish`]; the file is then not to be trusted, whatever a later try says.
    pub(super) fn publish(mut self) -> Result<()> {
        self.wait()?;
        self.upload.publish(self.output.io)
    }
}

/// What a finished file is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) mac: [u8; MAC_BYTES],
    pub(super) file_id: FileId,
    pub(super) file_bytes: u64,
    pub(super) payload_bytes: u64,
    pub(super) records: u64,
}

/// Writes the payload and index of one file.
#[derive(Debug)]
pub struct SealedWriter<'a> {
    behind: WriteBehind<'a>,
    upload: Arc<dyn Upload>,
    params: SealParams,
    sealer: Sealer,
    codec: BlockCodec,
    scratch: Scratch,
    // The block being filled, and how far.
    block: Option<Slot>,
    filled: usize,
    kind: BlockKind,
    number: u64,
    offset: u64,
    payload_bytes: u64,
    // Ends of the data blocks in sectors behind the header.
    table: Vec<u32>,
}

impl<'a> SealedWriter<'a> {
    /// Begins the file that `upload` will publish.
    ///
    /// # Errors
    /// `Misuse` for parameters out of range, `Full` without memory.
    pub(super) fn create(
        output: Output<'a>,
        upload: Arc<dyn Upload>,
        params: SealParams,
        keys: &dyn KeyProvider,
    ) -> Result<Self> {
        let sealer = seal_header(&params, keys)?;
        let codec = BlockCodec::new(Arc::clone(sealer.keys()), &params);
        assert!(
            to_usize(u64::from(params.block_bytes)) <= output.arena.slot_bytes(),
            "blocks fit the buffers"
        );
        Ok(Self {
            behind: WriteBehind::new(output, Arc::clone(&upload)),
            upload,
            params,
            sealer,
            codec,
            scratch: Scratch::new()?,
            block: None,
            filled: 0,
            kind: BlockKind::Data,
            number: 0,
            offset: to_u64(HEADER_BYTES),
            payload_bytes: 0,
            table: Vec::new(),
        })
    }

    /// Compresses the blocks with `dictionary`, made for sealing, and keeps it in the index. For compressed files,
    /// before anything is written.
    #[must_use]
    pub(super) fn with_dictionary(mut self, dictionary: Arc<Dictionary>) -> Self {
        assert!(
            self.params.compressed && self.payload_bytes == 0,
            "a dictionary comes before the first block"
        );
        self.codec = self.codec.with_dictionary(dictionary);
        self
    }

    /// Payload bytes written so far.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Pads the payload with zeros to the next multiple of the record alignment.
    ///
    /// # Errors
    /// As [`SealedWriter::write`].
    pub fn align(&mut self) -> Result<()> {
        let aligned = crate::units::align_up(self.payload_bytes, u64::from(self.params.record_align));
        let padding = [0; ALIGN_BYTES];
        self.write(&padding[..to_usize(aligned - self.payload_bytes)])
    }

    /// Appends `bytes` to the payload.
    ///
    /// # Errors
    /// `Full` without room on the device, `Misuse` beyond 64 GiB, `Device` when a write failed.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.payload_bytes += to_u64(bytes.len());
        if self.payload_bytes > PAYLOAD_BYTES_MAX {
            let why = format!("payload beyond {PAYLOAD_BYTES_MAX} bytes");
            return Err(Error::new(ErrorKind::Misuse, "write", why)
                .at(self.upload.path())
                .hint("lower --shard-mib"));
        }
        self.append(bytes)
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        let room = to_usize(capacity(self.params.block_bytes));
        while !bytes.is_empty() {
            let block = match &mut self.block {
                Some(block) => block,
                None => self.block.insert(self.behind.buffer()?),
            };
            let (now, later) = bytes.split_at(bytes.len().min(room - self.filled));
            block[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == room {
                self.seal_block()?;
            }
        }
        Ok(())
    }

    fn seal_block(&mut self) -> Result<()> {
        let Some(mut block) = self.block.take() else { return Ok(()) };
        let len = usize::min(to_usize(u64::from(self.params.block_bytes)), block.len());
        let stored =
            self.codec.seal(self.kind, self.number, self.filled, &mut block[..len], &mut self.scratch);
        self.behind.submit(block, self.offset, stored)?;
        self.offset += to_u64(stored);
        self.number += 1;
        self.filled = 0;
        if self.kind == BlockKind::Data {
            let sectors = (self.offset - to_u64(HEADER_BYTES)) / to_u64(ALIGN_BYTES);
            self.table.push(u32::try_from(sectors).expect("64 GiB are 2^24 sectors"));
        }
        Ok(())
    }

    /// Writes the last block, the index with `sections`, and the header, and publishes the file, durably.
    ///
    /// # Errors
    /// As [`SealedWriter::write`].
    pub(super) fn finish(
        mut self,
        records: u64,
        mut sections: Vec<(SectionType, Vec<u8>)>,
    ) -> Result<Finished> {
        self.seal_block()?;
        let index_offset = self.offset;
        if self.params.compressed {
            if let Some(dictionary) = self.codec.dictionary() {
                sections.insert(0, (SectionType::DICTIONARY, dictionary.bytes().to_vec()));
            }
            let table = self.table.iter().flat_map(|end| end.to_le_bytes()).collect();
            sections.insert(0, (SectionType::BLOCK_TABLE, table));
        }
        let index = if sections.is_empty() { Vec::new() } else { Index::encode(&sections) };
        (self.kind, self.number) = (BlockKind::Index, 0);
        self.append(&index)?;
        self.seal_block()?;
        self.behind.wait()?;

        let sizes = FinalSizes {
            payload_bytes: self.payload_bytes,
            record_count: records,
            index_offset,
            index_bytes: to_u64(index.len()),
        };
        let (header, bytes, mac) = self.sealer.header(sizes);
        debug_assert_eq!(header.file_bytes(), self.offset, "the header describes what was written");
        let mut block = self.behind.buffer()?;
        block[..HEADER_BYTES].copy_from_slice(&bytes[..]);
        self.behind.submit(block, 0, HEADER_BYTES)?;
        self.behind.publish()?;
        Ok(Finished {
            mac,
            file_id: self.params.file_id,
            file_bytes: header.file_bytes(),
            payload_bytes: self.payload_bytes,
            records,
        })
    }
}
