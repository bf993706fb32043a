//! WebDataset: tar archives whose neighbouring files `key.ext1`, `key.ext2`, ... are one sample.
//!
//! A sample has a field of bytes for each extension, and its key as name. ustar, GNU long names and pax headers are
//! read; directories, links and files without an extension are left out. Each archive is a part.

use std::path::PathBuf;

use tierstream_storage::{Error, ErrorKind, Result};

use super::plain::{PlainFile, Stream};
use super::{Each, Format, Sample, corrupt};
use crate::dtype::Dtype;
use crate::schema::{Field, Schema};

const BLOCK: u64 = 512;
/// Extended headers are a path and some attributes.
const EXTENDED_BYTES_MAX: u64 = 1 << 20;

/// Tar archives.
#[derive(Debug)]
pub(super) struct WebDataset {
    archives: Vec<PathBuf>,
    parts: Vec<u64>,
    schema: Schema,
}

/// A file of an archive: its name, and where its bytes lie.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) bytes: u64,
}

impl WebDataset {
    pub(super) fn open(archives: Vec<PathBuf>, fields: Option<&[String]>) -> Result<Self> {
        let parts =
            archives.iter().map(|path| Ok(PlainFile::open(path)?.bytes())).collect::<Result<Vec<u64>>>()?;
        let first =
            archives.first().ok_or_else(|| Error::new(ErrorKind::Misuse, "read input", "no archives"))?;
        let found = extensions_of_first_sample(&PlainFile::open(first)?)?;
        let chosen = super::choose(&found, fields, first)?;
        let fields = chosen.into_iter().map(|at| Field::ragged(&found[at], Dtype::U8)).collect();
        Ok(Self { schema: Schema::of(fields)?, archives, parts })
    }
}

impl Format for WebDataset {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn parts(&self) -> &[u64] {
        &self.parts
    }

    fn read(&self, part: usize, each: Each<'_>) -> Result<()> {
        let file = PlainFile::open(&self.archives[part])?;
        let mut stream = file.stream(0, file.bytes());
        let count = self.schema.fields().len();
        let mut sample: Gathered =
            Gathered { key: None, values: vec![Vec::new(); count], has: vec![false; count], start: 0 };
        while let Some(entry) = next_entry(&mut stream, &file)? {
            let at = stream.offset();
            let Some((key, extension)) = key_and_extension(&entry.name) else {
                stream.skip(padded(entry.bytes))?;
                continue;
            };
            if sample.key.as_deref() != Some(key) {
                sample.give(&self.schema, &file, at, each)?;
                sample.begin(key, at);
            }
            match self.schema.position(&extension) {
                Some(number) if sample.has[number] => {
                    let why = format!("sample `{key}` has two files `.{extension}`");
                    return Err(corrupt(file.path(), (at, entry.bytes), why));
                }
                Some(number) => {
                    sample.has[number] = true;
                    sample.values[number].extend_from_slice(stream.take(entry.bytes)?);
                    stream.skip(padded(entry.bytes) - entry.bytes)?;
                }
                None => stream.skip(padded(entry.bytes))?,
            }
        }
        sample.give(&self.schema, &file, stream.offset(), each)
    }
}

/// A sample whose files are still coming.
struct Gathered {
    key: Option<String>,
    values: Vec<Vec<u8>>,
    has: Vec<bool>,
    start: u64,
}

impl Gathered {
    fn begin(&mut self, key: &str, at: u64) {
        self.key = Some(key.to_owned());
        self.values.iter_mut().for_each(Vec::clear);
        self.has.fill(false);
        self.start = at;
    }

    fn give(&self, schema: &Schema, file: &PlainFile, at: u64, each: Each<'_>) -> Result<()> {
        let Some(key) = &self.key else { return Ok(()) };
        if let Some(missing) = self.has.iter().position(|has| !has) {
            let name = &schema.fields()[missing].name;
            let why = format!("sample `{key}` has no file `.{name}`, as the first sample has");
            return Err(corrupt(file.path(), (self.start, at - self.start), why)
                .hint("choose the extensions that every sample has: --fields jpg,cls"));
        }
        let values: Vec<&[u8]> = self.values.iter().map(Vec::as_slice).collect();
        each(Sample { name: Some(key), values: &values, input_bytes: at - self.start })
    }
}

fn extensions_of_first_sample(file: &PlainFile) -> Result<Vec<String>> {
    let mut stream = file.stream(0, file.bytes());
    let (mut first, mut found): (Option<String>, Vec<String>) = (None, Vec::new());
    while let Some(entry) = next_entry(&mut stream, file)? {
        stream.skip(padded(entry.bytes))?;
        if let Some((key, extension)) = key_and_extension(&entry.name) {
            if first.get_or_insert_with(|| key.to_owned()) != key {
                break;
            }
            found.push(extension);
        }
    }
    if found.is_empty() {
        let why = "the archive has no files with an extension";
        return Err(Error::new(ErrorKind::Misuse, "read input", why)
            .at(file.path())
            .hint("a WebDataset has files such as 000.jpg and 000.cls"));
    }
    Ok(found)
}

/// `a/b.seg.png` is `seg.png` of sample `a/b`. None for names without an extension and hidden files.
fn key_and_extension(name: &str) -> Option<(&str, String)> {
    let base = name.rfind('/').map_or(0, |at| at + 1);
    let dot = base + name[base..].find('.')?;
    (dot > base && dot + 1 < name.len()).then(|| (&name[..dot], name[dot + 1..].to_lowercase()))
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK)
}

/// The next ordinary file; the stream stands at its bytes, which the archive holds. None at the end mark.
pub(super) fn next_entry(stream: &mut Stream<'_>, file: &PlainFile) -> Result<Option<Entry>> {
    let mut long_name: Option<String> = None;
    let mut long_size: Option<u64> = None;
    loop {
        let at = stream.offset();
        if stream.left() == 0 {
            return Err(corrupt(file.path(), (at, 0), "the archive is cut short: it has no end mark"));
        }
        let header: [u8; 512] =
            stream.take(BLOCK)?.try_into().map_err(|_| corrupt(file.path(), (at, BLOCK), "no tar header"))?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        check_sum(&header).map_err(|why| corrupt(file.path(), (at, BLOCK), why))?;
        let number = number(&header[124..136]);
        let size = number.ok_or_else(|| corrupt(file.path(), (at, BLOCK), "the file's size is no number"))?;
        let kind = header[156];
        let size = if matches!(kind, b'0' | 0 | b'7') { long_size.take().unwrap_or(size) } else { size };
        if size > stream.left() || padded(size) > stream.left() {
            let why = format!("a file of {size} bytes, where the archive has {} left", stream.left());
            return Err(corrupt(file.path(), (at, BLOCK), why));
        }
        match kind {
            b'0' | 0 | b'7' => {
                let name = match long_name.take() {
                    Some(name) => name,
                    None => short_name(&header)
                        .ok_or_else(|| corrupt(file.path(), (at, BLOCK), "a file's name is not UTF-8"))?,
                };
                // An old way to say directory.
                if name.ends_with('/') {
                    stream.skip(padded(size))?;
                    continue;
                }
                return Ok(Some(Entry { name, bytes: size }));
            }
            b'L' | b'x' => {
                if size > EXTENDED_BYTES_MAX {
                    let why = format!("an extended header of {size} bytes");
                    return Err(corrupt(file.path(), (at, BLOCK), why));
                }
                let bytes = stream.take(size)?.to_vec();
                stream.skip(padded(size) - size)?;
                let told =
                    if kind == b'x' { pax(&bytes) } else { gnu_name(&bytes).map(|name| (Some(name), None)) };
                let (name, size) =
                    told.ok_or_else(|| corrupt(file.path(), (at, BLOCK), "a malformed extended header"))?;
                long_name = name.or(long_name);
                long_size = size.or(long_size);
            }
            _ => {
                (long_name, long_size) = (None, None);
                // Links have a size in some archives and no bytes.
                let bytes = if matches!(kind, b'1'..=b'6') { 0 } else { padded(size) };
                stream.skip(bytes)?;
            }
        }
    }
}

fn check_sum(header: &[u8; 512]) -> std::result::Result<(), String> {
    let told = number(&header[148..156]).ok_or("the header's checksum is no number: no tar archive?")?;
    let sum = |from: &dyn Fn(u8) -> i64| -> i64 {
        header
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { from(*byte) })
            .sum()
    };
    // Some old programs summed signed bytes.
    let sums = [sum(&|byte| i64::from(byte)), sum(&|byte| i64::from(byte.cast_signed()))];
    if sums.iter().any(|sum| u64::try_from(*sum) == Ok(told)) {
        return Ok(());
    }
    Err(format!("the header's checksum is {told}, expected {}", sums[0]))
}

/// Octal digits, or binary with the highest bit set, as GNU tar writes large ones.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 8);
        let zero = high.iter().enumerate().all(|(at, byte)| if at == 0 { *byte == 0x80 } else { *byte == 0 });
        return zero.then(|| low.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn short_name(header: &[u8; 512]) -> Option<String> {
    let name = std::str::from_utf8(until_zero(&header[..100])).ok()?;
    let prefix = if header[257..262] == *b"ustar" { until_zero(&header[345..500]) } else { &[] };
    // GNU tar keeps other things there.
    let gnu = header[257..265] == *b"ustar  \0";
    let prefix = std::str::from_utf8(if gnu { &[] } else { prefix }).ok()?;
    Some(if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") })
}

fn gnu_name(bytes: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(until_zero(bytes)).ok()?.to_owned())
}

/// `LENGTH key=value\n` records: path and size are what is used of them.
fn pax(mut bytes: &[u8]) -> Option<(Option<String>, Option<u64>)> {
    let (mut path, mut size) = (None, None);
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let value = &record[equals + 1..];
        match &record[..equals] {
            b"path" => path = Some(std::str::from_utf8(value).ok()?.to_owned()),
            b"size" => size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            _ => {}
        }
        bytes = &bytes[len..];
    }
    Some((path, size))
}
