//! What a running store tells those who ask: one report in JSON for each connection to a Unix socket in its first L2
//! directory.
//!
//! Nothing is written while nobody asks, a report is as fresh as the question, and a store that was killed leaves a
//! socket that nobody answers at, which the next one replaces. For the store's own user alone (mode 0600); one report at
//! a time; who does not read it within a second is hung up on.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::core::Core;
use super::object::{ObjectStatus, Objects};
use crate::device::fs;
use crate::error::{Error, ErrorKind, Result};
use crate::host::{JoinHandle, spawn};
use crate::metrics::Snapshot;
use crate::tier::{L2DeviceReport, NvmeTier};
use crate::units::to_u64;

/// The socket's name in its directory.
const SOCKET: &str = "status.sock";
/// A reader that is slower is hung up on.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest report: some hundred bytes for each device and data set.
const REPORT_BYTES_MAX: u64 = 1 << 20;

/// A running store at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The process.
    pub pid: u32,
    /// How long the store has been open, in seconds.
    pub uptime_s: f64,
    /// Which I/O engine runs and why.
    pub io_engine: String,
    /// Blocks that fit L1.
    pub l1_capacity_blocks: u64,
    /// Memory of L1, in bytes.
    pub l1_capacity_bytes: u64,
    /// The devices of L2.
    pub l2: Vec<L2DeviceReport>,
    /// Directories of the data sets that are open.
    pub data_sets: Vec<String>,
    /// Its objects, if it keeps any.
    #[serde(default)]
    pub objects: Option<ObjectStatus>,
    /// All numbers.
    pub metrics: Snapshot,
}

/// The thread that answers.
#[derive(Debug)]
pub(super) struct StatusServer {
    stop: Arc<AtomicBool>,
    listener: Arc<UnixListener>,
    directory: PathBuf,
    thread: Option<JoinHandle>,
}

impl StatusServer {
    /// Answers at the socket in `directory`, which no other store has open.
    pub(super) fn start(directory: &Path, core: Arc<Core>) -> Result<Self> {
        let (handle, address) = address(directory)?;
        let failed = |error| Error::io("listen", &directory.join(SOCKET), error);
        let listener = match UnixListener::bind(&address) {
            // Left by a store that was killed: we hold the catalog, so that no other can be alive.
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                fs::remove_file(&directory.join(SOCKET))?;
                UnixListener::bind(&address).map_err(failed)?
            }
            bound => bound.map_err(failed)?,
        };
        rustix::fs::chmodat(
            &handle,
            SOCKET,
            rustix::fs::Mode::from_raw_mode(0o600),
            rustix::fs::AtFlags::empty(),
        )
        .map_err(|error| failed(error.into()))?;
        let (stop, listener) = (Arc::new(AtomicBool::new(false)), Arc::new(listener));
        let (stopped, listening) = (Arc::clone(&stop), Arc::clone(&listener));
        let run = move || {
            for client in listening.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // A client that went away is no matter of ours.
                let _gone = client.and_then(|client| answer(&core, client));
            }
        };
        let thread = spawn("tier-status", run)
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no status thread: {error}")))?;
        Ok(Self { stop, listener, directory: directory.to_owned(), thread: Some(thread) })
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Ends the wait of accept(2) with EINVAL, whether or not the socket still has a name.
        let shut = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if shut.is_ok() && self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the status thread panicked");
        }
        if let Err(error) = fs::remove_file(&self.directory.join(SOCKET)) {
            tracing::debug!(%error, "the status socket is gone already");
        }
    }
}

/// An address for the socket in `directory` that is short whatever the directory's own path: the kernel takes 107 bytes.
/// Good while the handle lives.
fn address(directory: &Path) -> Result<(OwnedFd, PathBuf)> {
    use rustix::fs::{Mode, OFlags};
    let handle =
        rustix::fs::open(directory, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Error::io("open", directory, error.into()))?;
    let address = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd()));
    Ok((handle, address))
}

fn answer(core: &Core, mut client: UnixStream) -> std::io::Result<()> {
    client.set_write_timeout(Some(PATIENCE))?;
    let report = serde_json::to_vec(&core.status())?;
    client.write_all(&report)
}

impl Core {
    fn status(&self) -> StatusReport {
        StatusReport {
            pid: std::process::id(),
            uptime_s: self.config.clock.now().saturating_sub(self.opened_at).as_secs_f64(),
            io_engine: self.io.report().to_string(),
            l1_capacity_blocks: to_u64(self.l1.slots()),
            l1_capacity_bytes: to_u64(self.l1.slots() * self.l1.slot_bytes()),
            l2: self.l2.as_ref().map(NvmeTier::report).unwrap_or_default(),
            data_sets: self.open_directories(),
            objects: self.objects.as_ref().map(Objects::status),
            metrics: self.snapshot(),
        }
    }
}

/// Asks the store that has its first L2 directory at `directory`; `None` when none is running there.
///
/// # Errors
/// `Missing` without such a directory, `Denied` when it is another user's, `Corrupt` when the answer is none.
pub fn ask_status(directory: &Path) -> Result<Option<StatusReport>> {
    let (_handle, address) = address(directory)?;
    let failed = |error| Error::io("ask", &directory.join(SOCKET), error);
    let store = match UnixStream::connect(&address) {
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        store => store.map_err(failed)?,
    };
    store.set_read_timeout(Some(PATIENCE * 5)).map_err(failed)?;
    let mut report = Vec::new();
    store.take(REPORT_BYTES_MAX).read_to_end(&mut report).map_err(failed)?;
    if report.is_empty() {
        // It is just closing.
        return Ok(None);
    }
    serde_json::from_slice(&report).map(Some).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "ask", format!("no report: {error}"))
            .at(&directory.join(SOCKET))
            .hint("the store is of another version: use its own `tierstream status`")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tierstream_crypto::Cipher;

    use super::*;
    use crate::store::tests::Fixture;
    use crate::store::{RangeRead, Store, StoreConfig};
    use crate::{RangeSource, tier::L2Config};

    fn open(fixture: &Fixture, l2: &Path) -> Store {
        let l2 = vec![L2Config { path: l2.to_owned(), bytes: 8 << 20 }];
        let config = StoreConfig { l2, tells_status: true, ..fixture.config() };
        Store::open(config, Arc::clone(&fixture.keys)).unwrap()
    }

    #[test]
    fn a_running_store_answers_its_own_user_and_a_killed_one_is_replaced() {
        let fixture = Fixture::new(Cipher::Sm4Gcm, false);
        // Far longer than an address may be.
        let l2 = fixture.dir.path().join("a".repeat(100)).join("b".repeat(100));
        std::fs::create_dir_all(&l2).unwrap();
        assert_eq!(ask_status(&l2).unwrap(), None);
        assert_eq!(ask_status(&l2.join("nowhere")).unwrap_err().kind(), ErrorKind::Missing);
        // As a killed process leaves it: bound once, nobody there.
        let (handle, address) = super::address(&l2).unwrap();
        drop(UnixListener::bind(&address).unwrap());
        drop(handle);
        assert_eq!(ask_status(&l2).unwrap(), None);

        let store = open(&fixture, &l2);
        let set = store.open_data_set(fixture.set().to_str().unwrap()).unwrap();
        let mut to = [0; 100];
        for _ in 0..3 {
            store.read(&set, &mut [RangeRead { shard: 0, range: 0..100, to: &mut to }]).unwrap();
        }
        let mode = std::fs::metadata(l2.join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let report = ask_status(&l2).unwrap().unwrap();
        assert_eq!((report.pid, report.l2.len(), report.metrics.l1.hits), (std::process::id(), 1, 2));
        assert_eq!(report.data_sets, [fixture.set().to_str().unwrap()]);
        assert_eq!(report.metrics.l1_blocks, 1);
        // Who says nothing and reads nothing does not keep others waiting for ever, nor the store from closing.
        let (_handle, address) = super::address(&l2).unwrap();
        let _silent = UnixStream::connect(&address).unwrap();
        assert!(ask_status(&l2).unwrap().is_some());
        drop(store);
        assert_eq!(ask_status(&l2).unwrap(), None);
        assert!(!l2.join(SOCKET).exists());
    }

    #[test]
    fn a_store_whose_l2_directory_is_gone_still_closes() {
        let fixture = Fixture::new(Cipher::Sm4Gcm, false);
        let store = open(&fixture, &fixture.l2());
        std::fs::remove_dir_all(fixture.l2()).unwrap();
        drop(store);
    }
}
