#![expect(
    unsafe_code,
    reason = "memory that another process maps as well: words are atomics, blocks are read under leases"
)]
//! The two kinds of memory that a daemon and its client share, and the crate's only unsafe code.
//!
//! [`SharedWords`] is writable on both sides: nothing but atomics, so that whatever the other side writes, and whenever,
//! is a value and never undefined behaviour. [`BlockMemory`] is L1 as a client sees it: mapped read only, from a file
//! that is sealed against any other mapping. What it gives is a slice, which is sound because the daemon writes
//! no frame while a client holds a lease on it; the daemon is trusted with that as it is with the bytes themselves. A
//! daemon that dies writes nothing any more, and the memory lives as long as somebody maps it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::protocol::misuse;

const WORD_BYTES: usize = size_of::<u64>();

/// Words that both sides read and write.
#[derive(Debug)]
pub(crate) struct SharedWords {
    map: MmapRaw,
    words: usize,
}

fn failed(what: &'static str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Full, "share memory", format!("{what}: {error}")).caused_by(error)
}

impl SharedWords {
    /// `words` zeroed words, and the file to give to the other side. Its length is sealed: nobody can take the pages
    /// away from under the other's feet.
    pub(crate) fn create(words: usize) -> Result<(Self, OwnedFd)> {
        let file =
            rustix::fs::memfd_create("tierstream-ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
                .map_err(|error| failed("memfd_create", error.into()))?;
        rustix::fs::ftruncate(&file, to_u64(words * WORD_BYTES))
            .map_err(|error| failed("ftruncate", error.into()))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(|error| failed("seal", error.into()))?;
        let words = Self::map(&file, words)?;
        Ok((words, file))
    }

    /// Maps a file of `words` words that the other side made.
    pub(crate) fn map(file: &OwnedFd, words: usize) -> Result<Self> {
        check_len(file, words * WORD_BYTES)?;
        let map = MmapOptions::new().len(words * WORD_BYTES).map_raw(file);
        Ok(Self { map: map.map_err(|error| failed("mmap", error))?, words })
    }

    /// The word at `index`, which is below the number of words.
    pub(crate) fn at(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "word {index} of {}", self.words);
        let word = self.map.as_mut_ptr().cast::<u64>().wrapping_add(index);
        // SAFETY: the map is page aligned, has `words` words and lives as long as the borrow of `self`; it was made by
        // `map_raw`, so that no reference to its bytes exists but atomics, on this side and on the other.
        unsafe { AtomicU64::from_ptr(word) }
    }
}

/// Both sides map what they were told; a file that is shorter would kill the reader with SIGBUS.
fn check_len(file: &OwnedFd, len: usize) -> Result<()> {
    let found = rustix::fs::fstat(file).map_err(|error| failed("fstat", error.into()))?.st_size;
    let seals = rustix::fs::fcntl_get_seals(file).map_err(|error| failed("seals", error.into()))?;
    if u64::try_from(found).is_ok_and(|found| found >= to_u64(len)) && seals.contains(SealFlags::SHRINK) {
        return Ok(());
    }
    Err(misuse(format!(
        "shared memory of {found} bytes with seals {seals:?}, expected {len} that cannot shrink"
    )))
}

/// L1 of a daemon, to read.
#[derive(Debug)]
pub(crate) struct BlockMemory {
    map: MmapRaw,
}

impl BlockMemory {
    /// Maps `bytes` bytes of the daemon's file.
    pub(crate) fn map(file: &OwnedFd, bytes: u64) -> Result<Arc<Self>> {
        check_len(file, to_usize(bytes))?;
        let map = MmapOptions::new().len(to_usize(bytes)).map_raw_read_only(file);
        Ok(Arc::new(Self { map: map.map_err(|error| failed("mmap", error))? }))
    }

    /// The `len` bytes at `offset`, on which the caller holds a lease; `None` when they are outside.
    pub(crate) fn bytes(&self, offset: u64, len: u32) -> Option<&[u8]> {
        let (offset, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
        if offset.checked_add(len).is_none_or(|end| end > self.map.len()) {
            return None;
        }
        let start = self.map.as_ptr().wrapping_add(offset);
        // SAFETY: the range is inside the map (checked above), whose file cannot shrink (checked when it was mapped), and
        // the borrow of `self` keeps it. The bytes are initialised, and not written while the caller's lease lasts: the
        // daemon counts it as a reader of the frame.
        Some(unsafe { std::slice::from_raw_parts(start, len) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tierstream_storage::buf::{HostAllocator, SharedAllocator};

    use super::*;

    #[test]
    fn words_are_seen_by_both_sides_and_cannot_be_taken_away() {
        let (ours, file) = SharedWords::create(600).unwrap();
        let theirs = SharedWords::map(&file, 600).unwrap();
        ours.at(599).store(7, Ordering::Release);
        assert_eq!(theirs.at(599).load(Ordering::Acquire), 7);
        assert!(rustix::fs::ftruncate(&file, 0).is_err(), "the file shrank");
        assert!(SharedWords::map(&file, 100_000).is_err(), "a map longer than its file");
        let unsealed = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&unsealed, 8192).unwrap();
        assert!(SharedWords::map(&unsealed, 600).is_err(), "a file that could shrink");
    }

    #[test]
    fn slices_are_the_daemons_bytes_and_stay_inside() {
        let mut memory = SharedAllocator::default().allocate(8192).unwrap();
        memory.as_mut_slice()[5000] = 9;
        let file = memory.shared_file().unwrap().try_clone_to_owned().unwrap();
        let blocks = BlockMemory::map(&file, 8192).unwrap();
        let bytes = blocks.bytes(4096, 4096).unwrap();
        assert_eq!((bytes.len(), bytes[904]), (4096, 9));
        for (offset, len) in [(4096, 4097), (8193, 0), (u64::MAX, 1)] {
            assert!(blocks.bytes(offset, len).is_none(), "{offset} {len}");
        }
    }
}
