//! One device of L2: a directory with a file per segment, or a raw block device cut into segments; and how it is doing.
//!
//! A device that fails again and again is retired: nothing more is read from it or written to it in this run. One that
//! has no room, or whose directory is gone, takes no more blocks, and what is on it is still read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::place::{SEGMENT_BYTES_MAX, UNIT};
use crate::device::{Access, CLAIMED_DATA_OFFSET, DeviceFile, Directory, claim, fs};
use crate::error::{Error, ErrorKind, Result};
use crate::units::human_bytes;

const SEGMENTS_DIR: &str = "segments";
/// Smallest capacity that makes sense: two segments of the smallest size.
const CAPACITY_MIN: u64 = 8 << 20;
const SEGMENT_BYTES_MIN: u64 = 4 << 20;
/// Failures in a row after which a device is retired. One bad sector fails a read or two; a device that is gone fails
/// all of them.
const FAILURES_MAX: u32 = 8;

/// One device of L2 and how much of it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L2Config {
    /// An existing directory, or a block device that is given to L2 whole.
    pub path: PathBuf,
    /// Bytes it may use for blocks.
    pub bytes: u64,
}

/// How a device of L2 is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2DeviceReport {
    /// Its directory or block device.
    pub path: String,
    /// Bytes it may use.
    pub capacity_bytes: u64,
    /// Bytes that its segments take.
    pub allocated_bytes: u64,
    /// Reads and writes that it failed.
    pub errors: u64,
    /// It failed too often and is not used any more.
    pub retired: bool,
    /// It takes no more blocks in this run.
    pub read_only: bool,
}

#[derive(Debug)]
enum Backing {
    Directory(Arc<Directory>),
    Block { file: Arc<DeviceFile>, id: [u8; 16] },
}

/// Room on a device.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) file: Arc<DeviceFile>,
    pub(super) base: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct L2Device {
    path: PathBuf,
    backing: Backing,
    capacity: u64,
    segment_bytes: u64,
    // In a row; a success sets it back.
    failures: AtomicU32,
    errors: AtomicU64,
    retired: AtomicBool,
    read_only: AtomicBool,
}

impl L2Device {
    pub(super) fn open(config: &L2Config) -> Result<Self> {
        if config.bytes < CAPACITY_MIN {
            let why = format!("L2 of {} bytes, expected at least {CAPACITY_MIN}", config.bytes);
            return Err(Error::new(ErrorKind::Misuse, "open", why).at(&config.path).hint("raise --l2-size"));
        }
        let missing = || Error::io("open", &config.path, std::io::ErrorKind::NotFound.into());
        let backing = match fs::is_directory(&config.path)?.ok_or_else(missing)? {
            true => open_directory(&config.path)?,
            false => open_block(&config.path, config.bytes)?,
        };
        let segment_bytes = (config.bytes / 16).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX) / UNIT * UNIT;
        Ok(Self {
            path: config.path.clone(),
            backing,
            capacity: config.bytes,
            segment_bytes,
            failures: AtomicU32::new(0),
            errors: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            read_only: AtomicBool::new(false),
        })
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// The name of a block device in records; zeros for a directory, whose files are found by their own names.
    pub(super) fn id(&self) -> [u8; 16] {
        match &self.backing {
            Backing::Directory(_) => [0; 16],
            Backing::Block { id, .. } => *id,
        }
    }

    /// Where segment files are, for a directory.
    pub(super) fn directory(&self) -> Option<&Directory> {
        match &self.backing {
            Backing::Directory(directory) => Some(directory),
            Backing::Block { .. } => None,
        }
    }

    /// Room that an earlier run took at `base` of a block device.
    pub(super) fn old_room(&self, base: u64, bytes: u64) -> Option<Room> {
        let Backing::Block { file, .. } = &self.backing else { return None };
        let within = base >= CLAIMED_DATA_OFFSET && base + bytes <= CLAIMED_DATA_OFFSET + self.capacity;
        within.then(|| Room { file: Arc::clone(file), base, bytes })
    }

    /// Fails when the capacity does not fit the device, of which segments take `allocated` already.
    pub(super) fn check_room(&self, allocated: u64) -> Result<()> {
        let Backing::Directory(segments) = &self.backing else { return Ok(()) };
        let available = segments.free_bytes()?.saturating_add(allocated);
        if available >= self.capacity {
            return Ok(());
        }
        let (wanted, free) = (human_bytes(self.capacity), human_bytes(available));
        let why = format!("L2 of {wanted} does not fit: {free} are free there");
        Err(Error::new(ErrorKind::Full, "open", why)
            .at(segments.path())
            .hint(format!("use --l2-size {}M or less, or another --l2 directory", available >> 20)))
    }

    /// Takes room for segment `number`; `taken` are the segments that lie here, by base and length, in order.
    pub(super) fn new_room(&self, number: u32, taken: &[(u64, u64)]) -> Result<Option<Room>> {
        let bytes = self.segment_bytes;
        match &self.backing {
            Backing::Directory(directory) => {
                if taken.iter().map(|(_, bytes)| bytes).sum::<u64>() + bytes > self.capacity {
                    return Ok(None);
                }
                let file = DeviceFile::open(directory, &segment_name(number), Access::CreateNew)?;
                if let Err(error) = file.reserve(bytes) {
                    remove(&file);
                    return Err(error);
                }
                Ok(Some(Room { file, base: 0, bytes }))
            }
            Backing::Block { file, .. } => {
                let end = CLAIMED_DATA_OFFSET + self.capacity;
                let mut base = CLAIMED_DATA_OFFSET;
                for (start, bytes_there) in taken {
                    if start.saturating_sub(base) >= bytes {
                        break;
                    }
                    base = start + bytes_there;
                }
                Ok((base + bytes <= end).then(|| Room { file: Arc::clone(file), base, bytes }))
            }
        }
    }

    /// Gives room back. Reads in flight keep a file open; its room is freed after them.
    pub(super) fn free_room(&self, file: &DeviceFile) {
        if self.directory().is_some() {
            remove(file);
        }
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    pub(super) fn takes_blocks(&self) -> bool {
        !self.is_retired() && !self.read_only.load(Ordering::Relaxed)
    }

    /// It did what it was asked.
    pub(super) fn succeeded(&self) {
        // Mostly zero already: a load does not take the cache line from other threads.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// It failed. True when that was once too often and it is to be retired now.
    pub(super) fn failed(&self) -> bool {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let in_a_row = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        in_a_row >= FAILURES_MAX && !self.retired.swap(true, Ordering::Relaxed)
    }

    /// It has no room left or lost its directory: it takes no more blocks, and is read as before.
    pub(super) fn stop_writing(&self, error: &Error) {
        if !self.read_only.swap(true, Ordering::Relaxed) {
            let device = self.path.display();
            tracing::warn!(%error, %device, "L2 takes no more blocks there in this run; what it has is still read");
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn report(&self, allocated_bytes: u64) -> L2DeviceReport {
        L2DeviceReport {
            path: self.path.display().to_string(),
            capacity_bytes: self.capacity,
            allocated_bytes,
            errors: self.errors.load(Ordering::Relaxed),
            retired: self.is_retired(),
            read_only: self.read_only.load(Ordering::Relaxed),
        }
    }
}

fn open_directory(path: &Path) -> Result<Backing> {
    let path = path.join(SEGMENTS_DIR);
    if !fs::exists(&path)? {
        fs::create_directory(&path)?;
    }
    Ok(Backing::Directory(Directory::open(&path)?))
}

fn open_block(path: &Path, capacity: u64) -> Result<Backing> {
    let mut id = [0; 16];
    crate::host::random_bytes(&mut id)?;
    let claim = claim(path, id)?;
    let available = claim.bytes - CLAIMED_DATA_OFFSET;
    if capacity > available {
        let why = format!("L2 of {}, but the device has {}", human_bytes(capacity), human_bytes(available));
        return Err(Error::new(ErrorKind::Full, "open", why)
            .at(path)
            .hint(format!("use --l2-size {}M or less", available >> 20)));
    }
    let misuse = || Error::new(ErrorKind::Misuse, "open", "no path of a device").at(path);
    let directory =
        Directory::open(path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")))?;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(misuse)?;
    let file = DeviceFile::open(&directory, name, Access::ReadWrite)?;
    Ok(Backing::Block { file, id: claim.id })
}

/// The file name of a segment: numbers are never used twice.
pub(super) fn segment_name(number: u32) -> String {
    format!("{number:010}.seg")
}

fn remove(file: &DeviceFile) {
    match fs::remove_file(file.path()) {
        Err(error) if error.kind() != ErrorKind::Missing => {
            tracing::warn!(path = %file.path().display(), %error, "a segment of L2 could not be removed");
        }
        _ => {}
    }
}
