//! Which samples go into which shard, and writing one.

use std::ops::Range;
use std::sync::atomic::Ordering;

use tierstream_storage::format::PAYLOAD_BYTES_MAX;
use tierstream_storage::store::{SealedShard, SealedWriter};
use tierstream_storage::{DataSetWriter, Error, ErrorKind, Result};

use super::{Input, Layout, PackProgress};
use crate::index::{RECORD_ENDS, RECORD_LENGTH, RECORD_NAMES, SCHEMA, encode_names, push_end};
use crate::schema::Schema;

/// Bytes read from an input file at a time.
const READ_BYTES: usize = 256 << 10;

/// The contents of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShardPlan {
    /// Samples in it.
    pub(super) records: u64,
    part: Part,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// These files, each a sample.
    Files(Range<usize>),
    /// This range of the files laid end to end, cut into samples of so many bytes.
    Text { range: Range<u64>, sample_bytes: u64 },
}

/// Cuts the input into shards of about `shard_bytes`.
pub(super) fn plan(input: &Input, layout: Layout, shard_bytes: u64) -> Result<Vec<ShardPlan>> {
    let misuse =
        |why: &str, hint: &str| Err(Error::new(ErrorKind::Misuse, "pack", why).at(input.root()).hint(hint));
    if shard_bytes == 0 || shard_bytes > PAYLOAD_BYTES_MAX / 2 {
        return misuse(&format!("shards of {shard_bytes} bytes"), "use --shard-mib between 1 and 32768");
    }
    if input.files().is_empty() {
        return misuse("there are no files to pack", "give a directory that holds some");
    }
    match layout {
        Layout::PerFile => Ok(plan_files(input, shard_bytes)),
        Layout::Cut { .. } if input.bytes() == 0 => misuse("all files are empty", "give files with contents"),
        Layout::Cut { sample_bytes, .. } => {
            let samples = input.bytes().div_ceil(sample_bytes);
            let per_shard = (shard_bytes / sample_bytes).max(1);
            let cuts = (0..samples.div_ceil(per_shard)).map(|number| {
                let first = number * per_shard;
                let records = per_shard.min(samples - first);
                let start = first * sample_bytes;
                let end = (start + records * sample_bytes).min(input.bytes());
                ShardPlan { records, part: Part::Text { range: start..end, sample_bytes } }
            });
            Ok(cuts.collect())
        }
    }
}

fn plan_files(input: &Input, shard_bytes: u64) -> Vec<ShardPlan> {
    let mut plans = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    let mut cut = |range: Range<usize>| {
        let records = u64::try_from(range.len()).expect("a small number");
        plans.push(ShardPlan { records, part: Part::Files(range) });
    };
    for (number, file) in input.files().iter().enumerate() {
        if number > first && bytes + file.bytes > shard_bytes {
            cut(first..number);
            (first, bytes) = (number, 0);
        }
        bytes += file.bytes;
    }
    cut(first..input.files().len());
    plans
}

/// Writes shard `number`.
pub(super) fn write(
    input: &Input,
    schema: &Schema,
    plan: &ShardPlan,
    number: usize,
    writer: &DataSetWriter<'_>,
    progress: &PackProgress,
) -> Result<SealedShard> {
    let mut shard = writer.shard(number)?;
    let schema = serde_json::to_vec(&schema.to_json())
        .map_err(|error| Error::new(ErrorKind::Misuse, "pack", format!("schema: {error}")))?;
    let sections = match &plan.part {
        Part::Files(files) => {
            let mut ends = Vec::new();
            for number in files.clone() {
                shard.align()?;
                copy(input, number, 0, input.files()[number].bytes, &mut shard, progress)?;
                push_end(&mut ends, shard.payload_bytes());
            }
            let names: Vec<String> =
                input.files()[files.clone()].iter().map(|file| file.name.clone()).collect();
            vec![(RECORD_ENDS, ends), (SCHEMA, schema), (RECORD_NAMES, encode_names(&names))]
        }
        Part::Text { range, sample_bytes } => {
            copy_text(input, range, &mut shard, progress)?;
            pad(&mut shard, plan.records * sample_bytes - (range.end - range.start))?;
            vec![(SCHEMA, schema), (RECORD_LENGTH, sample_bytes.to_le_bytes().to_vec())]
        }
    };
    writer.finish_shard(number, shard, plan.records, sections)
}

/// Appends `len` bytes of file `number` from `offset` on.
fn copy(
    input: &Input,
    number: usize,
    offset: u64,
    len: u64,
    shard: &mut SealedWriter<'_>,
    progress: &PackProgress,
) -> Result<()> {
    let mut reader = input.open(number, offset)?;
    let mut buf = vec![0; READ_BYTES];
    let mut left = len;
    while left > 0 {
        if progress.stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "pack", "stopped before the end"));
        }
        let want = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let read = reader.read(&mut buf[..want])?;
        shard.write(&buf[..read])?;
        let read = u64::try_from(read).expect("at most the buffer");
        left -= read;
        progress.bytes.fetch_add(read, Ordering::Relaxed);
    }
    Ok(())
}

/// Appends a range of the files laid end to end.
fn copy_text(
    input: &Input,
    text: &Range<u64>,
    shard: &mut SealedWriter<'_>,
    progress: &PackProgress,
) -> Result<()> {
    let mut start_of_file = 0;
    for (number, file) in input.files().iter().enumerate() {
        let end_of_file = start_of_file + file.bytes;
        let (from, to) = (text.start.max(start_of_file), text.end.min(end_of_file));
        if from < to {
            copy(input, number, from - start_of_file, to - from, shard, progress)?;
        }
        start_of_file = end_of_file;
    }
    Ok(())
}

fn pad(shard: &mut SealedWriter<'_>, bytes: u64) -> Result<()> {
    let zeros = [0; 4096];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
        shard.write(&zeros[..now])?;
        left -= u64::try_from(now).expect("at most 4096");
    }
    Ok(())
}
