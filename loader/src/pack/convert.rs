//! From other formats to a sealed data set: parts are gathered into groups of about a shard, groups are written side by
//! side, each by one thread. The order of samples is that of the parts, whatever the number of threads; one sample a
//! thread is in memory, beside the write buffers.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tierstream_storage::keys::KeyProvider;
use tierstream_storage::store::SealedShard;
use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result, WriteContext};

use super::formats::{Format, FormatName, OpenOptions, Sample};
use super::sink::Sink;
use super::{Input, PackConfig, PackProgress, PackReport};

/// Packs `format`, which was opened from `input`.
///
/// # Errors
/// `Corrupt` for malformed input, with file and offset; else as [`super::pack`].
pub fn convert(
    format: &dyn Format,
    source: &serde_json::Value,
    config: &PackConfig,
    keys: &Arc<dyn KeyProvider>,
    progress: &PackProgress,
) -> Result<PackReport> {
    let misuse = |why: &str, hint: &str| Err(Error::new(ErrorKind::Misuse, "pack", why).hint(hint));
    if config.shard_bytes == 0 || config.shard_bytes > tierstream_storage::format::PAYLOAD_BYTES_MAX / 2 {
        return misuse(
            &format!("shards of {} bytes", config.shard_bytes),
            "use --shard-mib between 1 and 32768",
        );
    }
    if config.dictionary.is_some() {
        return misuse("a dictionary for another format than files", "use --codec zstd without --dictionary");
    }
    let groups = groups(format.parts(), config.shard_bytes);
    if groups.is_empty() {
        return misuse("the input holds no samples", "give an input that holds some");
    }
    let threads = config.threads.clamp(1, groups.len());
    let context = WriteContext::new(&config.io, config.block_bytes, threads)?;
    let token = serde_json::json!({"source": source, "shard_bytes": config.shard_bytes});
    let (writer, done) = super::begin(&context, keys, config, &token)?;
    let numbers = Numbers::new(&groups, config.shard_bytes, done.values().flatten());
    let sealed = super::side_by_side(groups.len(), threads, |number| {
        let group = &groups[number];
        if done.contains_key(&number) {
            progress.bytes.fetch_add(group.bytes, Ordering::Relaxed);
        }
        super::group(&writer, &done, config, &token, number, || {
            let sink = Sink::new(&writer, format.schema(), config.shard_bytes, numbers.of(number));
            write(format, group, sink, progress)
        })
    })?;
    if sealed.iter().flatten().next().is_none() {
        return misuse("the input holds no samples", "give an input that holds some");
    }
    let sealed: Vec<SealedShard> = sealed.into_iter().flatten().collect();
    let samples = sealed.iter().map(SealedShard::records).sum();
    let stored_bytes = sealed.iter().map(SealedShard::file_bytes).sum();
    let shards = to_u64(sealed.len());
    let generation = writer.publish(format.schema().to_json(), source.clone(), sealed)?;
    Ok(PackReport {
        output: config.output.clone(),
        generation,
        files: to_u64(format.parts().len()),
        input_bytes: format.parts().iter().sum(),
        samples,
        padded_bytes: 0,
        shards,
        resumed_shards: to_u64(done.values().map(Vec::len).sum()),
        cipher: config.cipher.name().to_owned(),
        dictionary_bytes: 0,
        stored_bytes,
        left_out: 0,
        left_over_bytes: format.left_over_bytes(),
        io_engine: context.io_report().name.to_owned(),
    })
}

/// Writes the samples of a group.
fn write(
    format: &dyn Format,
    group: &Group,
    mut sink: Sink<'_, '_>,
    progress: &PackProgress,
) -> Result<Vec<SealedShard>> {
    let mut record = Vec::new();
    for part in group.parts.clone() {
        format.read(part, &mut |Sample { name, values, input_bytes }| {
            if progress.stop.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Interrupted, "pack", "stopped before the end"));
            }
            record.clear();
            format.schema().encode(values, &mut record)?;
            sink.push(&record, name)?;
            progress.bytes.fetch_add(input_bytes, Ordering::Relaxed);
            Ok(())
        })?;
    }
    sink.finish()
}

/// What the manifest says a converted data set was made from.
///
/// # Errors
/// As the file system says.
pub fn source(
    input: &Path,
    name: FormatName,
    options: &OpenOptions,
    format: &dyn Format,
) -> Result<serde_json::Value> {
    let listed = if input.is_file() { Input::of_file(input)? } else { Input::scan(input)? };
    Ok(serde_json::json!({
        "fingerprint": listed.fingerprint(),
        "format": name.name(),
        "files": listed.files().len(),
        "bytes": listed.bytes(),
        "fields": options.fields,
        "sample_tokens": options.sample_tokens,
        "notes": format.notes(),
    }))
}

/// Parts that one thread writes.
struct Group {
    parts: Range<usize>,
    bytes: u64,
}

fn groups(parts: &[u64], shard_bytes: u64) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (number, bytes) in parts.iter().enumerate() {
        match groups.last_mut().filter(|group| group.bytes + bytes <= shard_bytes) {
            Some(group) => {
                group.parts.end = number + 1;
                group.bytes += bytes;
            }
            None => groups.push(Group { parts: number..number + 1, bytes: *bytes }),
        }
    }
    groups
}

/// Numbers of shards: each group has some of its own, in the order of groups, so that names follow the order of samples.
/// A group that needs more takes from those behind.
struct Numbers {
    first: Vec<usize>,
    beyond: AtomicUsize,
}

impl Numbers {
    fn new<'s>(groups: &[Group], shard_bytes: u64, done: impl Iterator<Item = &'s SealedShard>) -> Self {
        let mut next = 0;
        let mut first: Vec<usize> = groups
            .iter()
            .map(|group| {
                let own = usize::try_from(group.bytes.div_ceil(shard_bytes).max(1)).unwrap_or(1);
                next += own;
                next - own
            })
            .collect();
        first.push(next);
        // Behind those that an interrupted pack took there.
        let taken = done.filter_map(|shard| {
            let number = shard.file().strip_prefix("shard-")?.strip_suffix(".tss")?;
            Some(number.parse::<usize>().ok()? + 1)
        });
        Self { first, beyond: AtomicUsize::new(taken.max().unwrap_or(0).max(next)) }
    }

    fn of(&self, group: usize) -> impl Iterator<Item = usize> + Send + '_ {
        let own = self.first[group]..self.first[group + 1];
        own.chain(std::iter::repeat_with(|| self.beyond.fetch_add(1, Ordering::Relaxed)))
    }
}
