//! The files of a job: found or laid out, and opened as the job asks.
//!
//! What is read was written: a file that is missing or too short is filled with pseudo-random bytes first, never only
//! reserved, because unwritten extents read as zeros without touching the device. Bytes that a file already has are
//! kept. A block device is used as it is; to write one that is in use is refused.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Advice, Mode, OFlags};
use tierstream_storage::buf::{Arena, HeapAllocator};
use tierstream_storage::device::{Access, DeviceFile, Directory};
use tierstream_storage::units::{ALIGN_BYTES, align_up, human_bytes};

use super::job::{EngineName, Job};
use super::pattern::Span;
use crate::random::Random;
use crate::{Error, ErrorKind, Result, to_u64, to_usize};

/// Large writes lay a file out at the speed of the device.
const CHUNK_BYTES: usize = 1 << 20;
const ALIGN: u64 = ALIGN_BYTES as u64;

/// A file of a job.
#[derive(Debug)]
pub(crate) struct OpenFile {
    fd: OwnedFd,
    pub(crate) path: PathBuf,
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The files of one of a job's threads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    pub(crate) files: Vec<Arc<OpenFile>>,
    pub(crate) spans: Vec<Span>,
    /// Bytes that one pass moves.
    pub(crate) pass_bytes: u64,
    /// Bytes written because the files did not have them.
    pub(crate) laid_out_bytes: u64,
    /// Whether I/O goes past the page cache.
    pub(crate) direct: bool,
    /// What a reader of the numbers has to know about the files.
    pub(crate) notes: Vec<String>,
}

/// What is there at a path.
enum Found {
    Nothing,
    File(u64),
    Device(u64),
}

impl Target {
    /// Opens the files of the job's thread `number`, laying them out as needed.
    ///
    /// # Errors
    /// `Misuse` when the options give no size, or a device is in use; `Missing` when a directory does not exist; `Full`
    /// when the device has no room; else as the file system says.
    pub(crate) fn open(job: &Job, number: usize) -> Result<Self> {
        let paths = paths_of(job, number)?;
        let mut target = Self { direct: job.files.direct, ..Self::default() };
        if job.engine.name == EngineName::Null {
            return target.of_nothing(job, paths.len().max(1));
        }
        let mut random = Random::new(job.pattern.seed ^ 0xf11e);
        for path in &paths {
            let found = look_at(path)?;
            let (span, needed) = span_of(job, number, paths.len(), path, &found, &mut random)?;
            if let Found::Device(_) = found {
                target.notes.push(format!("`{}` is a block device", path.display()));
            } else {
                target.lay_out(job, path, &found, needed)?;
            }
            let file = target.open_one(job, path, matches!(found, Found::Device(_)))?;
            target.files.push(Arc::new(file));
            target.spans.push(span);
        }
        let all: u64 = target.spans.iter().map(|span| span.bytes).sum();
        target.pass_bytes = job.files.io_size.map_or(all, |amount| amount.of(all));
        let longest = job.pattern.block_bytes_max();
        if target.spans.iter().all(|span| span.bytes < longest) && job.replay.is_none() {
            let why = format!("job `{}`: its files are shorter than one block of {longest} bytes", job.name);
            return Err(Error::new(ErrorKind::Misuse, "open", why).hint("give a size, or smaller blocks"));
        }
        Ok(target)
    }

    /// The files that a log names, as long as it needs them.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn of_replay(job: &Job, replay: &super::iolog::Replay) -> Result<Self> {
        let mut job = job.clone();
        job.pattern.writes = replay.writes;
        let mut target = Self { direct: job.files.direct, ..Self::default() };
        for (name, bytes) in replay.files.iter().zip(&replay.file_bytes) {
            let directory = job.files.directory.first().map_or_else(PathBuf::new, PathBuf::from);
            let path = directory.join(name);
            let found = look_at(&path)?;
            if !matches!(found, Found::Device(_)) {
                target.lay_out(&job, &path, &found, *bytes)?;
            }
            let file = target.open_one(&job, &path, matches!(found, Found::Device(_)))?;
            target.files.push(Arc::new(file));
            target.spans.push(Span { offset: 0, bytes: *bytes });
        }
        target.pass_bytes = replay.file_bytes.iter().sum();
        Ok(target)
    }

    fn of_nothing(mut self, job: &Job, files: usize) -> Result<Self> {
        let size = job.files.size.map(|amount| amount.of(0)).filter(|size| *size > 0).unwrap_or(1 << 30);
        self.spans = vec![Span { offset: 0, bytes: size / to_u64(files) }; files];
        self.pass_bytes = job.files.io_size.map_or(size, |amount| amount.of(size));
        Ok(self)
    }

    fn lay_out(&mut self, job: &Job, path: &Path, found: &Found, needed: u64) -> Result<()> {
        let length = match found {
            Found::File(length) => Some(*length),
            _ => None,
        };
        // Whole units, so that O_DIRECT can write and read the last block.
        let needed =
            if length.is_some_and(|length| length >= needed) { needed } else { align_up(needed, ALIGN) };
        let missing = needed.saturating_sub(length.unwrap_or(0));
        if length.is_none() && !job.files.create {
            return Err(
                Error::new(ErrorKind::Missing, "open", "no such file, and allow_file_create=0").at(path)
            );
        }
        let only_writes = job.writes() && !job.pattern.reads && !job.files.overwrite;
        if missing > 0 && !only_writes {
            let (directory, name) = place_of(path)?;
            lay_out(&directory, &name, length, needed, job.pattern.seed)?;
            self.laid_out_bytes += missing;
            let why = length
                .map_or_else(|| "it did not exist".to_owned(), |had| format!("it had {}", human_bytes(had)));
            self.notes.push(format!("laid out {} of `{}`: {why}", human_bytes(missing), path.display()));
        } else if length.is_some() && is_sparse(path)? {
            self.notes.push(format!(
                "`{}` takes less room than its length: reading its holes does not reach the device",
                path.display()
            ));
        }
        Ok(())
    }

    fn open_one(&mut self, job: &Job, path: &Path, device: bool) -> Result<OpenFile> {
        let mut flags = OFlags::CLOEXEC | if job.writes() { OFlags::RDWR } else { OFlags::RDONLY };
        flags |= if job.writes() { OFlags::CREATE } else { OFlags::empty() };
        flags |= if job.sync.o_sync { OFlags::SYNC } else { OFlags::empty() };
        flags |= if job.sync.o_dsync { OFlags::DSYNC } else { OFlags::empty() };
        if device {
            flags -= OFlags::CREATE;
            if job.writes() && !job.files.mounted_write {
                // On a block device O_EXCL without O_CREAT fails while it is in use: open(2).
                flags |= OFlags::EXCL;
            }
        }
        let open = |flags| rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH);
        let wanted = self.direct && job.engine.name != EngineName::Mmap;
        let mut opened = open(if wanted { flags | OFlags::DIRECT } else { flags });
        if wanted && matches!(opened, Err(rustix::io::Errno::INVAL)) {
            self.direct = false;
            self.notes
                .push("direct=1 was refused by the file system: I/O goes through the page cache".to_owned());
            opened = open(flags);
        }
        let fd = opened.map_err(|error| {
            let busy = error == rustix::io::Errno::BUSY;
            let error = Error::io("open", path, error.into());
            if busy {
                error.hint("the device is in use; allow_mounted_write=1 writes it all the same")
            } else {
                error
            }
        })?;
        if job.files.invalidate && !job.files.pre_read {
            // What is cached now would be measured as the device. Dirty pages cannot be dropped: they go first.
            let _not_a_file = rustix::fs::fdatasync(&fd);
            let _advice_not_taken = rustix::fs::fadvise(&fd, 0, None, Advice::DontNeed);
        }
        if job.files.advise && !self.direct {
            let advice = if job.pattern.random { Advice::Random } else { Advice::Sequential };
            let _advice_not_taken = rustix::fs::fadvise(&fd, 0, None, advice);
        }
        if job.files.pre_read {
            read_ahead(&fd, path)?;
        }
        if !self.direct && self.notes.iter().all(|note| !note.contains("page cache")) {
            self.notes.push("direct=0: I/O goes through the page cache".to_owned());
        }
        Ok(OpenFile { fd, path: path.to_owned() })
    }
}

/// Reads a file once, so that the page cache has it.
fn read_ahead(fd: &OwnedFd, path: &Path) -> Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        match rustix::io::pread(fd, &mut chunk, offset) {
            Ok(0) => return Ok(()),
            Ok(read) => offset += to_u64(read),
            Err(error) => return Err(Error::io("pre_read", path, error.into())),
        }
    }
}

/// What of a file is used, and how long it must be.
fn span_of(
    job: &Job,
    number: usize,
    files: usize,
    path: &Path,
    found: &Found,
    random: &mut Random,
) -> Result<(Span, u64)> {
    let length = match found {
        Found::Nothing => 0,
        Found::File(length) | Found::Device(length) => *length,
    };
    let offset = job.files.offset.of(length) + job.files.offset_increment * to_u64(number);
    let longest = job.pattern.block_bytes_max().max(1);
    // As fio: whole blocks, so that the last one is a block too.
    let bytes = match (job.files.filesize, job.files.size) {
        (Some((low, high)), _) => (low + random.scaled(high - low + 1)).max(longest) / longest * longest,
        (None, Some(size)) => size.of(length) / to_u64(files),
        (None, None) => length.saturating_sub(offset),
    };
    if bytes == 0 && job.replay.is_none() {
        let why = "there is nothing to read yet, and no size is given";
        return Err(Error::new(ErrorKind::Misuse, "open", why).at(path).hint("add size=1g"));
    }
    if let Found::Device(length) = found {
        if offset >= *length {
            let why = format!("offset {offset} is behind its end at {length}");
            return Err(Error::new(ErrorKind::Misuse, "open", why).at(path));
        }
        return Ok((Span { offset, bytes: bytes.min(length - offset) }, 0));
    }
    Ok((Span { offset, bytes }, offset + bytes))
}

/// Where the files of thread `number` are.
fn paths_of(job: &Job, number: usize) -> Result<Vec<PathBuf>> {
    let options = &job.files;
    let directories = if options.directory.is_empty() { &[String::new()][..] } else { &options.directory };
    let directory = Path::new(&directories[number % directories.len()]);
    if let Some(root) = &options.opendir {
        let mut found = Vec::new();
        let mut open = vec![PathBuf::from(root)];
        while let Some(path) = open.pop() {
            for entry in std::fs::read_dir(&path).map_err(|error| Error::io("list", &path, error))? {
                let entry = entry.map_err(|error| Error::io("list", &path, error))?;
                let kind = entry.file_type().map_err(|error| Error::io("stat", &entry.path(), error))?;
                if kind.is_dir() {
                    open.push(entry.path());
                } else if kind.is_file() && found.len() < 65_536 {
                    found.push(entry.path());
                }
            }
        }
        found.sort();
        return Ok(found);
    }
    if !options.filename.is_empty() {
        return Ok(options.filename.iter().map(|name| directory.join(name)).collect());
    }
    let name = |file: usize| {
        let name = options
            .format
            .replace("$jobname", &job.name)
            .replace("$jobnum", &number.to_string())
            .replace("$filenum", &file.to_string());
        directory.join(name)
    };
    Ok((0..options.nrfiles).map(name).collect())
}

fn look_at(path: &Path) -> Result<Found> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Found::File(metadata.len())),
        Ok(metadata) if metadata.file_type().is_block_device() => {
            let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .and_then(|fd| rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0)));
            file.map(Found::Device).map_err(|error| Error::io("open", path, error.into()))
        }
        Ok(_) => Err(Error::new(ErrorKind::Misuse, "open", "neither a file nor a block device").at(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(Error::io("stat", path, error)),
    }
}

fn place_of(path: &Path) -> Result<(Arc<Directory>, String)> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Error::new(ErrorKind::Misuse, "open", "expected the path of a file, in UTF-8").at(path)
    })?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((Directory::open(parent.unwrap_or(Path::new(".")))?, name.to_owned()))
}

fn is_sparse(path: &Path) -> Result<bool> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io("stat", path, error))?;
    Ok(metadata.blocks() * 512 < metadata.len())
}

/// Extends the file `name` from `found` bytes (none: makes it) to `needed`, written through.
///
/// # Errors
/// `Full` when the device has no room, else as the file system says.
pub(crate) fn lay_out(
    directory: &Directory,
    name: &str,
    found: Option<u64>,
    needed: u64,
    seed: u64,
) -> Result<()> {
    let path = directory.path().join(name);
    let (free, missing) = (directory.free_bytes()?, needed - found.unwrap_or(0));
    if free < missing {
        let why = format!("{} to lay out, {} are free", human_bytes(missing), human_bytes(free));
        return Err(Error::new(ErrorKind::Full, "lay out", why).at(&path).hint("use a smaller size"));
    }
    let access = if found.is_some() { Access::ReadWrite } else { Access::CreateNew };
    let file = DeviceFile::open(directory, name, access)?;
    let written = extend(&file, found.unwrap_or(0), needed, seed);
    if written.is_err() && found.is_none() {
        // Half a file of ours is of no use; the error of the write matters more than one of this.
        let _already_gone = std::fs::remove_file(&path);
    }
    written
}

fn extend(file: &DeviceFile, found: u64, needed: u64, seed: u64) -> Result<()> {
    let arena = Arena::new("lay out", CHUNK_BYTES, 1, &HeapAllocator)?;
    let mut chunk = arena.take(Duration::ZERO)?;
    // The last unit of the old file is written again, with the bytes it has.
    let mut offset = found / ALIGN * ALIGN;
    while offset < needed {
        let len = to_usize((needed - offset).min(to_u64(CHUNK_BYTES)));
        Random::new(seed ^ offset.rotate_left(32)).fill(&mut chunk[..len]);
        if offset < found {
            let kept = rustix::io::pread(file, &mut chunk[..ALIGN_BYTES], offset);
            kept.map_err(|error| file.error("read", error.into(), offset, ALIGN_BYTES))?;
        }
        write_all(file, &chunk[..len], offset)?;
        offset += to_u64(len);
    }
    rustix::fs::fdatasync(file).map_err(|error| file.error("sync", error.into(), 0, to_usize(needed)))
}

fn write_all(file: &DeviceFile, bytes: &[u8], offset: u64) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + to_u64(done);
        match rustix::io::pwrite(file, &bytes[done..], at) {
            Ok(0) => {
                let none = std::io::Error::from(std::io::ErrorKind::WriteZero);
                return Err(file.error("write", none, at, bytes.len() - done));
            }
            Ok(written) => done += written,
            Err(error) => return Err(file.error("write", error.into(), at, bytes.len() - done)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
