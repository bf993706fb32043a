//! A tar archive as WebDataset reads it: `NAME.FIELD` for each sample and field.
//!
//! A data set of one field of bytes with names gives back the files it was packed from, under their names. Typed fields
//! are npy files.

use std::io::Write;
use std::path::Path;

use tierstream_storage::Result;
use tierstream_storage::store::Section;

use super::{Batches, failed, new_file};
use crate::dataset::Dataset;
use crate::dtype::Dtype;
use crate::index::{RECORD_NAMES, name_of};
use crate::pack::formats::npy_header;
use crate::schema::Field;

const BLOCK: usize = 512;

pub(super) fn write(dataset: &Dataset, path: &Path, each: impl Batches) -> Result<u64> {
    let mut archive = new_file(path)?;
    let mut names = Names { dataset, shard: None };
    let fields = dataset.schema().fields();
    let lone = matches!(fields, [field] if is_bytes(field));
    let bytes = each(&mut |batch| {
        for (index, sample) in batch.sample_ids().iter().enumerate() {
            let name = names.of(*sample)?;
            for field in batch.fields() {
                let of = field.field();
                let value = field.sample(index);
                let entry = match &name {
                    Some(name) if lone && of.name == "data" => name.clone(),
                    Some(name) => format!("{name}.{}", of.name),
                    None => format!("{sample:09}.{}", of.name),
                };
                let written = if is_bytes(of) {
                    entry_of(&mut archive, &entry, &[value])
                } else {
                    let shape = npy_shape(of, value.len());
                    entry_of(&mut archive, &format!("{entry}.npy"), &[&npy_header(of.dtype, &shape), value])
                };
                written.map_err(failed(path))?;
            }
        }
        Ok(())
    })?;
    archive.write_all(&[0; 2 * BLOCK]).map_err(failed(path))?;
    let file = archive.into_inner().map_err(|error| failed(path)(error.into_error()))?;
    file.sync_all().map_err(failed(path))?;
    Ok(bytes)
}

fn is_bytes(field: &Field) -> bool {
    field.dtype == Dtype::U8 && field.shape == [-1]
}

/// The shape of a sample's value of `bytes` bytes.
fn npy_shape(field: &Field, bytes: usize) -> Vec<u64> {
    let known: u64 = field.shape.iter().filter_map(|length| u64::try_from(*length).ok()).product();
    let elements = tierstream_storage::units::to_u64(bytes / field.dtype.bytes());
    field.shape.iter().map(|length| u64::try_from(*length).unwrap_or(elements / known.max(1))).collect()
}

/// Names of samples, a shard at a time.
struct Names<'a> {
    dataset: &'a Dataset,
    shard: Option<(usize, Option<Section>)>,
}

impl Names<'_> {
    fn of(&mut self, sample: u64) -> Result<Option<String>> {
        let (shard, number) = self.dataset.shard_of(sample);
        let info = self.dataset.info();
        if self.shard.as_ref().is_none_or(|(known, _)| *known != shard) {
            self.shard = Some((shard, self.dataset.source().section(info, shard, RECORD_NAMES)?));
        }
        let section = self.shard.as_ref().and_then(|(_, section)| section.as_deref());
        let name = section.and_then(|section| name_of(section, info.shards[shard].records, number));
        // The archive is unpacked somewhere: no name leads out of there.
        Ok(name
            .filter(|name| !name.starts_with('/') && !name.split('/').any(|part| part == ".."))
            .map(str::to_owned))
    }
}

fn entry_of(archive: &mut impl Write, name: &str, contents: &[&[u8]]) -> std::io::Result<()> {
    let size: usize = contents.iter().map(|part| part.len()).sum();
    if name.len() > 100 || size > 0o777_7777_7777 {
        let records = [record("path", name), record("size", &size.to_string())].concat();
        archive.write_all(&header("pax", records.len(), b'x'))?;
        archive.write_all(records.as_bytes())?;
        pad(archive, records.len())?;
    }
    archive.write_all(&header(&name[..name.floor_char_boundary(100)], size.min(0o777_7777_7777), b'0'))?;
    contents.iter().try_for_each(|part| archive.write_all(part))?;
    pad(archive, size)
}

/// `LENGTH key=value\n`, where the length counts itself.
fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    format!("{len} {key}={value}\n")
}

fn pad(archive: &mut impl Write, len: usize) -> std::io::Result<()> {
    archive.write_all(&[0; BLOCK][..len.next_multiple_of(BLOCK) - len])
}

/// A ustar header. Times and owners are nobody's: two exports are the same bytes.
fn header(name: &str, size: usize, kind: u8) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(257, "ustar\x0000");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
