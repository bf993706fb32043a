//! redb on a file of a simulated host, so that catalog and data crash together in a simulation.

use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::StorageBackend;

use crate::host::{SimulatedFile, SimulatedHost};

/// A simulated file as redb wants it.
#[derive(Debug)]
pub(super) struct SimulatedBackend {
    file: Arc<dyn SimulatedFile>,
}

impl SimulatedBackend {
    /// Opens or makes the file at `path`.
    pub(super) fn open(host: &dyn SimulatedHost, path: &Path) -> io::Result<Self> {
        let files = host.files();
        let file = match files.open(path, false, true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => files.open(path, true, true)?,
            opened => opened?,
        };
        Ok(Self { file })
    }
}

impl StorageBackend for SimulatedBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            match self.file.read_at(&mut out[done..], offset + crate::units::to_u64(done)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            match self.file.write_at(&data[done..], offset + crate::units::to_u64(done)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
