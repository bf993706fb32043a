//! Zip archives whose members are stored as they are, which is what `numpy.savez` writes.

use tierstream_storage::units::to_usize;
use tierstream_storage::{Error, ErrorKind, Result};

use super::corrupt;
use super::plain::PlainFile;

/// The end record and the longest comment behind it.
const END_BYTES_MAX: u64 = 22 + 0xffff;
/// A central directory of half a million members.
const DIRECTORY_BYTES_MAX: u64 = 64 << 20;

/// A member and where its bytes lie.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The members of the archive `file`.
pub(super) fn members(file: &PlainFile) -> Result<Vec<Member>> {
    let bad = |why: &str| corrupt(file.path(), (0, file.bytes()), format!("no zip archive: {why}"));
    let tail_bytes = END_BYTES_MAX.min(file.bytes());
    let tail_at = file.bytes() - tail_bytes;
    let tail = file.read(tail_at, tail_bytes)?;
    let end =
        tail.windows(4).rposition(|four| four == b"PK\x05\x06").ok_or_else(|| bad("it has no end record"))?;
    let record = &tail[end..];
    let (mut bytes, mut at) =
        u32_at(record, 12).zip(u32_at(record, 16)).ok_or_else(|| bad("it is cut short"))?;
    if let Some(locator) =
        end.checked_sub(20).map(|at| &tail[at..end]).filter(|record| record.starts_with(b"PK\x06\x07"))
    {
        let place = u64_at(locator, 8).unwrap_or(u64::MAX);
        let large = file.read(place, 56)?;
        if !large.starts_with(b"PK\x06\x06") {
            return Err(bad("its locator leads to no end record"));
        }
        (bytes, at) = u64_at(&large, 40).zip(u64_at(&large, 48)).ok_or_else(|| bad("it is cut short"))?;
    }
    if bytes > DIRECTORY_BYTES_MAX {
        return Err(bad("its directory is too long"));
    }
    let directory = file.read(at, bytes)?;
    let mut rest = &directory[..];
    let mut members = Vec::new();
    while !rest.is_empty() {
        let (member, later) = entry(rest).ok_or_else(|| bad("a malformed entry of its directory"))?;
        members.push(member.in_file(file)?);
        rest = later;
    }
    Ok(members)
}

/// An entry of the directory.
struct Listed {
    name: String,
    method: u64,
    packed_bytes: u64,
    bytes: u64,
    header_at: u64,
}

fn entry(rest: &[u8]) -> Option<(Listed, &[u8])> {
    if !rest.starts_with(b"PK\x01\x02") {
        return None;
    }
    let method = u16_at(rest, 10)?;
    let (mut packed_bytes, mut bytes, mut header_at) =
        (u32_at(rest, 20)?, u32_at(rest, 24)?, u32_at(rest, 42)?);
    let [name_len, extra_len, comment_len] =
        [u16_at(rest, 28)?, u16_at(rest, 30)?, u16_at(rest, 32)?].map(to_usize);
    let name = std::str::from_utf8(rest.get(46..46 + name_len)?).ok()?.to_owned();
    let mut extra = rest.get(46 + name_len..46 + name_len + extra_len)?;
    while extra.len() >= 4 {
        let (kind, len) = (u16_at(extra, 0)?, to_usize(u16_at(extra, 2)?));
        let body = extra.get(4..4 + len)?;
        if kind == 1 {
            // Only what did not fit stands there, in this order.
            let mut at = 0;
            for value in [&mut bytes, &mut packed_bytes, &mut header_at] {
                if *value == u64::from(u32::MAX) {
                    *value = u64_at(body, at)?;
                    at += 8;
                }
            }
        }
        extra = &extra[4 + len..];
    }
    let later = rest.get(46 + name_len + extra_len + comment_len..)?;
    Some((Listed { name, method, packed_bytes, bytes, header_at }, later))
}

impl Listed {
    fn in_file(self, file: &PlainFile) -> Result<Member> {
        if self.method != 0 {
            let why = format!("member `{}` is compressed", self.name.escape_debug());
            return Err(Error::new(ErrorKind::Unsupported, "read input", why)
                .at(file.path())
                .hint("save with np.savez instead of np.savez_compressed; `pack --codec zstd` compresses"));
        }
        let bad = |why: String| corrupt(file.path(), (self.header_at, 30), why);
        let header = file.read(self.header_at, 30)?;
        let lens = u16_at(&header, 26).zip(u16_at(&header, 28)).filter(|_| header.starts_with(b"PK\x03\x04"));
        let (name, extra) = lens.ok_or_else(|| bad("no header of a member".to_owned()))?;
        let offset = self.header_at + 30 + name + extra;
        if self.packed_bytes != self.bytes
            || offset.checked_add(self.bytes).is_none_or(|end| end > file.bytes())
        {
            return Err(bad(format!("member `{}` lies beyond the file", self.name.escape_debug())));
        }
        Ok(Member { name: self.name, offset, bytes: self.bytes })
    }
}
