//! Samples in, sealed shards out: cuts shards by size and writes the index of each.

use tierstream_storage::store::{SealedShard, SealedWriter};
use tierstream_storage::units::to_u64;
use tierstream_storage::{DataSetWriter, Error, ErrorKind, Result};

use crate::index::{RECORD_ENDS, RECORD_LENGTH, RECORD_NAMES, SCHEMA, encode_names, push_end};
use crate::schema::Schema;

/// Writes samples into shards of about `shard_bytes`, numbered by `numbers`.
pub(super) struct Sink<'w, 'c> {
    writer: &'w DataSetWriter<'c>,
    schema: &'w Schema,
    shard_bytes: u64,
    numbers: Box<dyn Iterator<Item = usize> + Send + 'w>,
    open: Option<Open<'c>>,
    sealed: Vec<SealedShard>,
    records: u64,
}

struct Open<'c> {
    number: usize,
    shard: SealedWriter<'c>,
    records: u64,
    ends: Vec<u8>,
    names: Vec<String>,
}

impl<'w, 'c> Sink<'w, 'c> {
    pub(super) fn new(
        writer: &'w DataSetWriter<'c>,
        schema: &'w Schema,
        shard_bytes: u64,
        numbers: impl Iterator<Item = usize> + Send + 'w,
    ) -> Self {
        let numbers = Box::new(numbers);
        Self { writer, schema, shard_bytes, numbers, open: None, sealed: Vec::new(), records: 0 }
    }

    /// Appends a sample. Of one shard all samples have names or none has.
    pub(super) fn push(&mut self, record: &[u8], name: Option<&str>) -> Result<()> {
        let full = |open: &Open<'_>| {
            open.records > 0 && open.shard.payload_bytes() + to_u64(record.len()) > self.shard_bytes
        };
        if self.open.as_ref().is_some_and(full) {
            self.seal()?;
        }
        if self.open.is_none() {
            let number = self.numbers.next().ok_or_else(|| {
                Error::new(ErrorKind::Full, "pack", "too many shards").hint("use larger shards: --shard-mib")
            })?;
            let shard = self.writer.shard(number)?;
            self.open = Some(Open { number, shard, records: 0, ends: Vec::new(), names: Vec::new() });
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.shard.align()?;
        open.shard.write(record)?;
        open.records += 1;
        self.records += 1;
        if self.schema.is_ragged() {
            push_end(&mut open.ends, open.shard.payload_bytes());
        }
        open.names.extend(name.map(str::to_owned));
        Ok(())
    }

    /// Samples so far.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    fn seal(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let schema = serde_json::to_vec(&self.schema.to_json())
            .map_err(|error| Error::new(ErrorKind::Misuse, "pack", format!("schema: {error}")))?;
        let places = match self.schema.sample_bytes() {
            Some(length) => (RECORD_LENGTH, to_u64(length).to_le_bytes().to_vec()),
            None => (RECORD_ENDS, open.ends),
        };
        let mut sections = vec![(SCHEMA, schema), places];
        if !open.names.is_empty() {
            if to_u64(open.names.len()) != open.records {
                let why = format!("{} names for {} samples of a shard", open.names.len(), open.records);
                return Err(Error::new(ErrorKind::Misuse, "pack", why).hint("name all samples or none"));
            }
            sections.push((RECORD_NAMES, encode_names(&open.names)));
        }
        sections.sort_by_key(|(kind, _)| kind.0);
        self.sealed.push(self.writer.finish_shard(open.number, open.shard, open.records, sections)?);
        Ok(())
    }

    /// The shards, in order.
    pub(super) fn finish(mut self) -> Result<Vec<SealedShard>> {
        self.seal()?;
        Ok(self.sealed)
    }
}
