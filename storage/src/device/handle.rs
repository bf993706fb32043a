//! What stands behind an open file: a descriptor of the system, or a file of a simulated host.

use std::fs::File;
use std::io;
#[cfg(any(test, feature = "testing"))]
use std::sync::Arc;

use rustix::io::ReadWriteFlags;

#[cfg(any(test, feature = "testing"))]
use crate::host::SimulatedFile;

#[derive(Debug)]
pub(super) enum Handle {
    System(File),
    #[cfg(any(test, feature = "testing"))]
    Simulated(Arc<dyn SimulatedFile>),
}

impl Handle {
    /// The system's file.
    ///
    /// # Panics
    /// For a file of a simulated host, which has no descriptor: only a simulated engine reads and writes it.
    pub(super) fn file(&self) -> &File {
        match self {
            Self::System(file) => file,
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(file) => panic!("a simulated file has no descriptor: {file:?}"),
        }
    }

    pub(super) fn size_bytes(&self) -> io::Result<u64> {
        match self {
            Self::System(file) => file.metadata().map(|metadata| metadata.len()),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(file) => file.len(),
        }
    }

    /// See [`DeviceFile::order`](super::DeviceFile::order).
    pub(super) fn order(&self) -> u64 {
        match self {
            // File systems give the files of a directory inodes, and room, side by side.
            Self::System(file) => {
                file.metadata().map_or(0, |metadata| std::os::unix::fs::MetadataExt::ino(&metadata))
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(file) => file.order(),
        }
    }

    pub(super) fn version(&self) -> io::Result<String> {
        match self {
            Self::System(file) => {
                use std::os::unix::fs::MetadataExt;
                let of = file.metadata()?;
                let time = format!("{}.{:09}", of.mtime(), of.mtime_nsec());
                Ok(format!("{:x}-{:x}-{time}-{}", of.dev(), of.ino(), of.len()))
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(file) => file.version(),
        }
    }

    pub(super) fn reserve(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::System(file) => {
                match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
                    Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(file) => file.reserve(bytes),
        }
    }

    /// `flags` as of preadv2(2).
    pub(super) fn read_at(&self, buf: &mut [u8], offset: u64, flags: u32) -> io::Result<usize> {
        match self {
            Self::System(file) => {
                let flags = ReadWriteFlags::from_bits_retain(flags);
                Ok(rustix::io::preadv2(file, &mut [io::IoSliceMut::new(buf)], offset, flags)?)
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(file) => file.read_at(buf, offset),
        }
    }

    /// `flags` as of pwritev2(2).
    pub(super) fn write_at(&self, buf: &[u8], offset: u64, flags: u32) -> io::Result<usize> {
        match self {
            Self::System(file) => {
                let flags = ReadWriteFlags::from_bits_retain(flags);
                Ok(rustix::io::pwritev2(file, &[io::IoSlice::new(buf)], offset, flags)?)
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(file) => file.write_at(buf, offset),
        }
    }

    pub(super) fn sync_data(&self) -> io::Result<()> {
        match self {
            Self::System(file) => file.sync_data(),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(file) => file.sync(),
        }
    }
}
