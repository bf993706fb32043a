//! Raw block devices, and plain files used as such, that are given to L2 whole.
//!
//! Guarantees that nothing of somebody else's is overwritten: a device is taken only when its first and last 128 KiB are
//! zeros (where file systems, LVM, md and partition tables keep their marks) or when it bears our own mark.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::units::{ALIGN_BYTES, to_u64, to_usize};

/// What stands at the start of a device that is ours.
const MAGIC: &[u8; 8] = b"TIERL2D1";
/// How much of both ends is looked at: btrfs has its mark at 64 KiB, md at most 64 KiB before the end.
const LOOKED_AT: u64 = 128 << 10;
/// Where the data of a claimed device begins.
pub const CLAIMED_DATA_OFFSET: u64 = 1 << 20;

/// A device that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Drawn when it was claimed.
    pub id: [u8; 16],
    /// How long it is.
    pub bytes: u64,
}

/// Takes the block device or file `path` for L2: finds our mark, or puts it there when both ends are empty. `id` is what
/// a fresh device is to be called.
///
/// # Errors
/// `Misuse` when something else is on it or it is too small, else as open(2): `Retry` when it is mounted.
pub fn claim(path: &Path, id: [u8; 16]) -> Result<Claim> {
    let failed = |error| Error::io("open", path, error);
    let mut options = OpenOptions::new();
    // On a block device O_EXCL without O_CREAT fails while a file system on it is mounted: open(2).
    let mut device = options.read(true).write(true).custom_flags(libc::O_EXCL).open(path).map_err(failed)?;
    let bytes = device.seek(SeekFrom::End(0)).map_err(failed)?;
    if bytes < CLAIMED_DATA_OFFSET + 2 * LOOKED_AT {
        let why = format!("{bytes} bytes are too few for L2");
        return Err(Error::new(ErrorKind::Misuse, "open", why).at(path));
    }
    let start = read_part(&mut device, 0).map_err(failed)?;
    if start.starts_with(MAGIC) {
        let id = start[8..24].try_into().expect("16 bytes");
        return Ok(Claim { id, bytes });
    }
    let end = read_part(&mut device, bytes - LOOKED_AT).map_err(failed)?;
    if start.iter().chain(&end).any(|byte| *byte != 0) {
        let why = "something else is stored on this device";
        return Err(Error::new(ErrorKind::Misuse, "open", why).at(path).hint(format!(
            "if nobody needs it any more, erase it first: blkdiscard -z {0}, or wipefs -a {0}",
            path.display()
        )));
    }
    let mut mark = vec![0; ALIGN_BYTES];
    mark[..8].copy_from_slice(MAGIC);
    mark[8..24].copy_from_slice(&id);
    device.seek(SeekFrom::Start(0)).and_then(|_| device.write_all(&mark)).map_err(failed)?;
    device.sync_all().map_err(failed)?;
    Ok(Claim { id, bytes })
}

fn read_part(device: &mut File, from: u64) -> std::io::Result<Vec<u8>> {
    let mut part = Vec::with_capacity(to_usize(LOOKED_AT));
    device.seek(SeekFrom::Start(from))?;
    device.take(LOOKED_AT).read_to_end(&mut part)?;
    if to_u64(part.len()) < LOOKED_AT {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_device_is_claimed_once_and_others_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device");
        std::fs::write(&path, vec![0; 8 << 20]).unwrap();
        let first = claim(&path, [3; 16]).unwrap();
        assert_eq!(first, Claim { id: [3; 16], bytes: 8 << 20 });
        assert_eq!(claim(&path, [4; 16]).unwrap(), first, "it keeps its name");

        for mark_at in [510, 1080, 65_600, (8 << 20) - 4096] {
            let mut foreign = vec![0; 8 << 20];
            foreign[mark_at] = 0x53;
            std::fs::write(&path, &foreign).unwrap();
            let error = claim(&path, [5; 16]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
            assert!(error.hint_text().unwrap().contains("wipefs"));
            assert!(std::fs::read(&path).unwrap() == foreign, "nothing was written");
        }
        std::fs::write(&path, [0; 4096]).unwrap();
        assert_eq!(claim(&path, [5; 16]).unwrap_err().kind(), ErrorKind::Misuse);
    }
}
