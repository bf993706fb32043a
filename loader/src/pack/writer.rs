//! Writing a data set sample by sample: for programs that make their samples themselves.
//!
//! Samples are gathered into chunks and sealed on a thread of its own, a bounded number of chunks behind the program.
//! The data set appears under its name when it is finished; dropped before, it leaves nothing.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, bounded};
use tierstream_storage::keys::KeyProvider;
use tierstream_storage::store::SealedShard;
use tierstream_storage::units::to_u64;
use tierstream_storage::{DataSetWriter, Error, ErrorKind, Result, WriteContext};

use super::sink::Sink;
use super::{PackConfig, PackReport};
use crate::schema::Schema;

/// Bytes of samples that are handed over at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that may wait to be sealed.
const CHUNKS_AHEAD: usize = 4;

#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    lens: Vec<usize>,
    // As many as samples, or none.
    names: Vec<String>,
}

/// What the thread did: samples, shards, stored bytes, generation, I/O engine.
type Written = (u64, u64, u64, u64, String);

/// A data set being written.
pub struct Writer {
    schema: Schema,
    config: PackConfig,
    chunk: Chunk,
    input_bytes: u64,
    // None once it ended.
    chunks: Option<Sender<Chunk>>,
    thread: Option<JoinHandle<Result<Written>>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({}, {} bytes)", self.config.output.display(), self.input_bytes)
    }
}

impl Writer {
    /// Begins a data set of samples of `schema`. Layout, threads and dictionary of `config` are not used.
    ///
    /// # Errors
    /// As [`DataSetWriter::create`].
    pub fn create(config: PackConfig, schema: Schema, keys: Arc<dyn KeyProvider>) -> Result<Self> {
        let (send, chunks) = bounded::<Chunk>(CHUNKS_AHEAD);
        let (tell, begun) = bounded::<Result<()>>(1);
        let (of, settings) = (schema.clone(), config.clone());
        let work = move || -> Result<Written> {
            let context = WriteContext::new(&settings.io, settings.block_bytes, 1)?;
            let created = DataSetWriter::create(
                &context,
                keys,
                &settings.output,
                settings.overwrite,
                settings.cipher,
                settings.compressed,
                settings.block_bytes,
                1,
            );
            let writer = match created {
                Ok(writer) => writer,
                Err(error) => {
                    let _nobody_waits = tell.send(Err(error.clone()));
                    return Err(error);
                }
            };
            let _nobody_waits = tell.send(Ok(()));
            let mut sink = Sink::new(&writer, &of, settings.shard_bytes, 0..);
            for Chunk { bytes, lens, names } in &chunks {
                // The last chunk is empty and says that all is there; without it the writer was dropped.
                if lens.is_empty() {
                    let samples = sink.records();
                    if samples == 0 {
                        let why = "there are no samples";
                        return Err(
                            Error::new(ErrorKind::Misuse, "write data set", why).hint("write some first")
                        );
                    }
                    let sealed = sink.finish()?;
                    let stored = sealed.iter().map(SealedShard::file_bytes).sum();
                    let shards = to_u64(sealed.len());
                    let generation = writer.publish(of.to_json(), serde_json::Value::Null, sealed)?;
                    return Ok((samples, shards, stored, generation, context.io_report().name.to_owned()));
                }
                let mut rest = &bytes[..];
                for (number, len) in lens.iter().enumerate() {
                    let (record, later) = rest.split_at(*len);
                    sink.push(record, names.get(number).map(String::as_str))?;
                    rest = later;
                }
            }
            Err(Error::new(ErrorKind::Interrupted, "write data set", "dropped before it was finished"))
        };
        let thread = std::thread::Builder::new()
            .name("tier-writer".to_owned())
            .spawn(work)
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no writer thread: {error}")))?;
        let mut writer = Self {
            schema,
            config,
            chunk: Chunk::default(),
            input_bytes: 0,
            chunks: Some(send),
            thread: Some(thread),
        };
        match begun.recv() {
            Ok(Ok(())) => Ok(writer),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(writer.failure()),
        }
    }

    /// What a sample looks like.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Appends a sample: the bytes of each field, little endian and row major, in the schema's order.
    ///
    /// # Errors
    /// `Misuse` when a value has a length its field cannot have; what kept earlier samples from being written.
    pub fn write(&mut self, values: &[&[u8]]) -> Result<()> {
        self.append(values, None)
    }

    /// Appends a sample with a name. All samples have names, or none.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn write_named(&mut self, name: &str, values: &[&[u8]]) -> Result<()> {
        self.append(values, Some(name))
    }

    fn append(&mut self, values: &[&[u8]], name: Option<&str>) -> Result<()> {
        let before = self.chunk.bytes.len();
        self.schema.encode(values, &mut self.chunk.bytes)?;
        let len = self.chunk.bytes.len() - before;
        self.chunk.lens.push(len);
        self.chunk.names.extend(name.map(str::to_owned));
        self.input_bytes += to_u64(len);
        if self.chunk.bytes.len() >= CHUNK_BYTES || self.chunk.lens.len() >= CHUNK_BYTES {
            self.hand_over()?;
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        if !chunk.names.is_empty() && chunk.names.len() != chunk.lens.len() {
            let why = format!("{} names for {} samples", chunk.names.len(), chunk.lens.len());
            return Err(Error::new(ErrorKind::Misuse, "write data set", why).hint("name all samples or none"));
        }
        match self.chunks.as_ref().map(|chunks| chunks.send(chunk)) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.failure()),
        }
    }

    /// Why the thread ended.
    fn failure(&mut self) -> Error {
        self.chunks = None;
        let closed =
            || Error::new(ErrorKind::Closed, "write data set", "it failed before, or its thread panicked");
        self.thread.take().and_then(|thread| thread.join().ok()?.err()).unwrap_or_else(closed)
    }

    /// Ends the data set and gives it its name.
    ///
    /// # Errors
    /// What kept it from being written; nothing is left behind then.
    pub fn finish(mut self) -> Result<PackReport> {
        if !self.chunk.lens.is_empty() {
            self.hand_over()?;
        }
        let sent = self.chunks.take().is_some_and(|chunks| chunks.send(Chunk::default()).is_ok());
        let ended = self.thread.take().and_then(|thread| thread.join().ok());
        let (samples, shards, stored_bytes, generation, io_engine) = match ended {
            Some(written) => written?,
            None => {
                return Err(Error::new(
                    ErrorKind::Closed,
                    "write data set",
                    format!("no thread (told: {sent})"),
                ));
            }
        };
        Ok(PackReport {
            output: self.config.output.clone(),
            generation,
            files: 0,
            input_bytes: self.input_bytes,
            samples,
            padded_bytes: 0,
            shards,
            resumed_shards: 0,
            cipher: self.config.cipher.name().to_owned(),
            dictionary_bytes: 0,
            stored_bytes,
            left_out: 0,
            left_over_bytes: 0,
            io_engine,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.chunks = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("a writer thread panicked");
        }
    }
}
