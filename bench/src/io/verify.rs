//! Whether what is read is what was written: a header with a checksum at the start of every interval.
//!
//! ```text
//! 0   magic      4   "TSV1"
//! 4   kind       4
//! 8   offset     8   of the interval in the file
//! 16  len        8   of the interval
//! 24  seed       8   which write wrote it
//! 32  checksum   32  of all that follows, zeros behind a shorter one
//! 64  payload
//! ```
//!
//! The header is our own: blocks that fio wrote do not verify here, nor the other way round.

use sha2::{Digest, Sha256};

use super::job::{Pattern, contradiction};
use super::options::OptionSet;
use crate::{Error, ErrorKind, Result, to_u64, to_usize};

const MAGIC: [u8; 4] = *b"TSV1";
const HEADER_BYTES: usize = 64;

/// fio's `verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VerifyKind {
    Crc32c,
    Xxh3,
    Sha256,
    /// A pattern and no header.
    Pattern,
    /// A header without a checksum.
    Null,
}

/// How what was written is checked.
#[derive(Clone, Debug)]
pub(crate) struct VerifyOptions {
    pub(crate) kind: VerifyKind,
    /// After a writing job.
    pub(crate) after_writing: bool,
    /// Nothing is written.
    pub(crate) only: bool,
    pub(crate) interval: Option<u64>,
    pub(crate) pattern: Vec<u8>,
    /// `%o` in the pattern: the offset.
    pub(crate) offset_pattern: bool,
    pub(crate) fatal: bool,
    pub(crate) dump: bool,
    pub(crate) backlog: Option<u64>,
    pub(crate) backlog_batch: u64,
}

impl VerifyOptions {
    pub(crate) fn new(set: &OptionSet, pattern: &Pattern) -> Result<Option<Self>> {
        let word = set.word("verify")?;
        let interval = set.bytes("verify_interval")?.filter(|bytes| *bytes > 0);
        let backlog = set.number("verify_backlog")?.filter(|writes| *writes > 0);
        let given = set.text("verify_pattern").map(str::to_owned);
        let offset_pattern = given.as_deref() == Some("%o");
        let bytes = match &given {
            Some(text) if !offset_pattern => {
                set.parsed("verify_pattern", |_| super::job::pattern_bytes("verify_pattern", text))?
            }
            _ => None,
        };
        let mut options = Self {
            kind: VerifyKind::Crc32c,
            after_writing: set.switch("do_verify")?.unwrap_or(true),
            only: set.switch("verify_only")?.unwrap_or(false),
            interval,
            pattern: bytes.unwrap_or_default(),
            offset_pattern,
            fatal: set.switch("verify_fatal")?.unwrap_or(false),
            dump: set.switch("verify_dump")?.unwrap_or(false),
            backlog,
            backlog_batch: set.number("verify_backlog_batch")?.or(backlog).unwrap_or(0),
        };
        options.kind = match word {
            None | Some("0" | "none") if given.is_some() => VerifyKind::Pattern,
            None | Some("0" | "none") => return Ok(None),
            Some("crc32c" | "crc32c-intel") => VerifyKind::Crc32c,
            Some("xxhash" | "xxh3") => VerifyKind::Xxh3,
            Some("sha256") => VerifyKind::Sha256,
            Some("pattern") => VerifyKind::Pattern,
            Some("null") => VerifyKind::Null,
            Some(other) => {
                let why = format!("verify={other} is not carried out");
                return Err(contradiction(&set.name, why).hint("use crc32c, xxh3 or sha256"));
            }
        };
        if options.kind == VerifyKind::Pattern && options.pattern.is_empty() && !offset_pattern {
            return Err(contradiction(&set.name, "verify=pattern needs verify_pattern="));
        }
        let least = pattern.block_bytes_min().min(interval.unwrap_or(u64::MAX));
        if options.kind != VerifyKind::Pattern && least < 2 * to_u64(HEADER_BYTES) {
            let why = format!("verify needs blocks of at least {} bytes, found {least}", 2 * HEADER_BYTES);
            return Err(contradiction(&set.name, why));
        }
        Ok(Some(options))
    }

    fn chunks(&self, len: usize) -> usize {
        match self.interval {
            Some(interval) if to_usize(interval) < len && len.is_multiple_of(to_usize(interval)) => {
                to_usize(interval)
            }
            _ => len,
        }
    }

    /// Puts headers and checksums into a block that is about to be written at `offset`.
    pub(crate) fn seal(&self, block: &mut [u8], offset: u64, seed: u64) {
        let chunk = self.chunks(block.len());
        for (number, part) in block.chunks_mut(chunk).enumerate() {
            let at = offset + to_u64(number * chunk);
            match self.kind {
                VerifyKind::Pattern => self.fill(part, at),
                kind => {
                    let (header, payload) = part.split_at_mut(HEADER_BYTES);
                    header[..4].copy_from_slice(&MAGIC);
                    header[4..8].copy_from_slice(&(kind as u32).to_le_bytes());
                    header[8..16].copy_from_slice(&at.to_le_bytes());
                    header[16..24].copy_from_slice(&to_u64(payload.len() + HEADER_BYTES).to_le_bytes());
                    header[24..32].copy_from_slice(&seed.to_le_bytes());
                    let sum = checksum(kind, &header[..32], payload);
                    header[32..64].copy_from_slice(&sum);
                }
            }
        }
    }

    fn fill(&self, part: &mut [u8], at: u64) {
        if self.offset_pattern {
            for (number, word) in part.chunks_mut(8).enumerate() {
                let value = at + to_u64(number) * 8;
                word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
            }
        } else {
            for (byte, pattern) in part.iter_mut().zip(self.pattern.iter().cycle()) {
                *byte = *pattern;
            }
        }
    }

    /// Whether a block that was read from `offset` is as it was written.
    ///
    /// # Errors
    /// What was found and expected.
    pub(crate) fn check(
        &self,
        block: &[u8],
        offset: u64,
        scratch: &mut Vec<u8>,
    ) -> std::result::Result<(), Error> {
        let chunk = self.chunks(block.len());
        for (number, part) in block.chunks(chunk).enumerate() {
            let at = offset + to_u64(number * chunk);
            let wrong =
                |why: String| Error::new(ErrorKind::Corrupt, "verify", why).at_offset(at, to_u64(part.len()));
            if self.kind == VerifyKind::Pattern {
                scratch.resize(part.len(), 0);
                self.fill(scratch, at);
                if let Some(first) =
                    part.iter().zip(scratch.iter()).position(|(found, expected)| found != expected)
                {
                    let why =
                        format!("byte {first} is {:#04x}, expected {:#04x}", part[first], scratch[first]);
                    return Err(wrong(why));
                }
                continue;
            }
            let word = |from: usize| u64::from_le_bytes(part[from..from + 8].try_into().expect("8 bytes"));
            if part[..4] != MAGIC {
                return Err(wrong(format!("no header: found {:02x?}, expected {:02x?}", &part[..4], MAGIC)));
            }
            if word(8) != at || word(16) != to_u64(part.len()) {
                let why = format!("a block of offset {} and {} bytes is here", word(8), word(16));
                return Err(wrong(why));
            }
            let kind = u32::from_le_bytes(part[4..8].try_into().expect("4 bytes"));
            if kind != self.kind as u32 {
                return Err(wrong(format!("it was written with another verify ({kind})")));
            }
            let (header, payload) = part.split_at(HEADER_BYTES);
            let sum = checksum(self.kind, &header[..32], payload);
            if header[32..64] != sum {
                let why = format!("checksum {:02x?}, expected {:02x?}", &header[32..40], &sum[..8]);
                return Err(wrong(why));
            }
        }
        Ok(())
    }
}

fn checksum(kind: VerifyKind, header: &[u8], payload: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    match kind {
        VerifyKind::Crc32c => {
            let value = crc32c::crc32c_append(crc32c::crc32c(header), payload);
            sum[..4].copy_from_slice(&value.to_le_bytes());
        }
        VerifyKind::Xxh3 => {
            let seed = xxhash_rust::xxh3::xxh3_64(header);
            sum[..8].copy_from_slice(&xxhash_rust::xxh3::xxh3_64_with_seed(payload, seed).to_le_bytes());
        }
        VerifyKind::Sha256 => {
            let mut hash = Sha256::new();
            hash.update(header);
            hash.update(payload);
            sum.copy_from_slice(&hash.finalize());
        }
        VerifyKind::Pattern | VerifyKind::Null => {}
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::job::Job;
    use crate::io::options::Arguments;

    fn options(args: &[&str]) -> VerifyOptions {
        let args: Vec<&str> = args.iter().copied().chain(["--filename=f", "--rw=write"]).collect();
        let set = Arguments::read(&args, &|_| None).unwrap();
        Job::new(&set.jobs[0]).unwrap().verify.unwrap()
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for args in [
            &["--verify=crc32c"][..],
            &["--verify=xxh3"],
            &["--verify=sha256"],
            &["--verify=crc32c", "--verify_interval=512"],
            &["--verify=pattern", "--verify_pattern=0xdeadbeef"],
            &["--verify_pattern=%o"],
        ] {
            let options = options(args);
            let mut block: Vec<u8> = (0..=255).cycle().take(4096).collect();
            options.seal(&mut block, 8192, 3);
            let mut scratch = Vec::new();
            options.check(&block, 8192, &mut scratch).unwrap();
            assert!(
                args[0].contains("deadbeef")
                    || options.pattern.len() == 4
                    || options.check(&block, 0, &mut scratch).is_err()
            );
            for bit in (0..4096 * 8).step_by(37) {
                block[bit / 8] ^= 1 << (bit % 8);
                let error = options.check(&block, 8192, &mut scratch).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{args:?} bit {bit}");
                block[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
