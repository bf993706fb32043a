//! The file of a job: found or laid out, and opened as the job asks.
//!
//! What is read was written: a file that is missing or too short is filled with pseudo-random bytes first, never only
//! reserved, because unwritten extents read as zeros without touching the device. Bytes that a file already has are kept.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Advice, OFlags};
use tierstream_storage::buf::{Arena, HeapAllocator};
use tierstream_storage::device::{Access, DeviceFile, Directory};
use tierstream_storage::units::{ALIGN_BYTES, align_up, human_bytes, to_u64, to_usize};

use super::job::IoJob;
use crate::random::Random;
use crate::{Error, ErrorKind, Result};

/// Large writes lay a file out at the speed of the device.
const CHUNK_BYTES: usize = 1 << 20;
const ALIGN: u64 = ALIGN_BYTES as u64;

/// An open file with the bytes a job needs.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) file: Arc<DeviceFile>,
    /// Bytes written because the file did not have them.
    pub(super) laid_out_bytes: u64,
    /// Whether I/O goes past the page cache.
    pub(super) direct: bool,
    /// What a reader of the numbers has to know about the file.
    pub(super) notes: Vec<String>,
}

impl Target {
    /// Opens the file of job `number`, laying it out as needed.
    ///
    /// # Errors
    /// `Misuse` when it is no regular file, `Missing` when its directory does not exist, `Full` when the device has no
    /// room, else as the file system says.
    pub(super) fn open(job: &IoJob, number: usize) -> Result<Self> {
        let path = path_of(job, number);
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "open", "expected the path of a file, in UTF-8").at(&path)
        })?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = Directory::open(parent.unwrap_or(Path::new(".")))?;
        let mut notes = Vec::new();

        // Whole units, so that O_DIRECT can write and read the last block.
        let needed = align_up(job.size, ALIGN);
        let found = length(&path)?;
        let laid_out_bytes = needed.saturating_sub(found.unwrap_or(0));
        if laid_out_bytes > 0 {
            lay_out(&directory, name, found, needed, job.randseed)?;
            let why = found.map_or_else(
                || "it did not exist".to_owned(),
                |found| format!("it had {}", human_bytes(found)),
            );
            notes.push(format!("laid out {} of `{}`: {why}", human_bytes(laid_out_bytes), path.display()));
        } else if is_sparse(&path)? {
            notes.push(format!(
                "`{}` takes less room than its length: reading its holes does not reach the device",
                path.display()
            ));
        }

        let access = if job.rw.writes() { Access::ReadWrite } else { Access::Read };
        let file = DeviceFile::open(&directory, name, access)?;
        if job.direct && !file.is_direct() {
            notes.push("direct=1 was refused by the file system: I/O goes through the page cache".to_owned());
        } else if !job.direct {
            leave_direct(&file)?;
        }
        // As fio's `invalidate`, which is its default: what is cached now would be measured as the device.
        let _advice_not_taken = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        Ok(Self { direct: job.direct && file.is_direct(), file, laid_out_bytes, notes })
    }
}

/// Where the file of job `number` is; fio's default `filename_format` where only a directory is given.
fn path_of(job: &IoJob, number: usize) -> PathBuf {
    let name = job.filename.clone().unwrap_or_else(|| PathBuf::from(format!("{}.{number}.0", job.name)));
    job.directory.as_ref().map_or_else(|| name.clone(), |directory| directory.join(&name))
}

/// Length of the file; none when there is none. Refuses devices and directories: laying one out would destroy it.
fn length(path: &Path) -> Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
        Ok(_) => Err(Error::new(ErrorKind::Misuse, "open", "not a regular file").at(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("stat", path, error)),
    }
}

fn is_sparse(path: &Path) -> Result<bool> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io("stat", path, error))?;
    Ok(metadata.blocks() * 512 < metadata.len())
}

/// Extends the file from `found` bytes (none: makes it) to `needed`.
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

/// Takes O_DIRECT off an open file, which the device layer sets wherever the file system takes it.
fn leave_direct(file: &DeviceFile) -> Result<()> {
    let flags = rustix::fs::fcntl_getfl(file);
    let plain = flags.and_then(|flags| rustix::fs::fcntl_setfl(file, flags - OFlags::DIRECT));
    plain.map_err(|error| Error::io("fcntl", file.path(), error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(path: &Path, more: &[(&str, &str)]) -> IoJob {
        let path = path.to_str().unwrap();
        IoJob::parse(&[&[("filename", path), ("bs", "1000"), ("size", "2500000")], more].concat()).unwrap()
    }

    #[test]
    fn a_missing_file_is_made_and_a_short_one_keeps_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let target = Target::open(&job(&path, &[]), 0).unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(to_u64(whole.len()), align_up(2_500_000, ALIGN));
        assert_eq!(target.laid_out_bytes, to_u64(whole.len()));
        assert!(target.notes[0].starts_with("laid out 2.4 MiB of"), "{:?}", target.notes);
        assert!(whole.chunks_exact(4096).all(|unit| unit.iter().any(|byte| *byte != 0)));
        let flags = rustix::fs::fcntl_getfl(&target.file).unwrap();
        assert!(!target.direct && !flags.contains(OFlags::DIRECT), "direct=0 goes through the page cache");

        let again = Target::open(&job(&path, &[("direct", "1"), ("bs", "512")]), 0).unwrap();
        assert_eq!((again.laid_out_bytes, again.notes.len()), (0, usize::from(!again.direct)));

        // As a user's own file may be: its length no multiple of anything.
        std::fs::write(&path, &whole[..1_234_567]).unwrap();
        let extended = Target::open(&job(&path, &[("randseed", "9")]), 0).unwrap();
        assert_eq!(extended.laid_out_bytes, to_u64(whole.len()) - 1_234_567);
        let now = std::fs::read(&path).unwrap();
        assert_eq!(now.len(), whole.len());
        assert!(now[..1_234_567] == whole[..1_234_567], "bytes that were there have changed");
        assert!(now[2_000_000..] != whole[2_000_000..], "another seed gives other bytes");
    }

    #[test]
    fn holes_are_told_and_other_than_files_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("holes");
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap()
            .set_len(4 << 20)
            .unwrap();
        assert!(Target::open(&job(&path, &[]), 0).unwrap().notes[0].contains("its holes"));
        assert_eq!(Target::open(&job(dir.path(), &[]), 0).unwrap_err().kind(), ErrorKind::Misuse);
        assert_eq!(Target::open(&job(Path::new("/dev/null"), &[]), 0).unwrap_err().kind(), ErrorKind::Misuse);
        let nowhere = dir.path().join("nowhere/f");
        assert_eq!(Target::open(&job(&nowhere, &[]), 0).unwrap_err().kind(), ErrorKind::Missing);
        let large = job(&dir.path().join("large"), &[("size", "1000000t")]);
        assert_eq!(Target::open(&large, 0).unwrap_err().kind(), ErrorKind::Full);
        assert!(!dir.path().join("large").exists());
    }

    #[test]
    fn a_directory_gives_each_job_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_str().unwrap();
        let options = [("directory", place), ("size", "64k"), ("name", "n"), ("numjobs", "2")];
        let job = IoJob::parse(&options).unwrap();
        let paths = [0, 1].map(|number| Target::open(&job, number).unwrap().file.path().to_owned());
        assert_eq!(paths, [dir.path().join("n.0.0"), dir.path().join("n.1.0")]);
    }
}
