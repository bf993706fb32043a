//! The client: a source of byte ranges that asks a daemon.
//!
//! On the daemon's host blocks are leased where they lie, else, or when the daemon grants no lease, bytes are copied over
//! the socket: the same bytes either way. A daemon that ends or is killed is waited for and asked again; the data sets
//! that were open are opened again, and must be the same.

mod connection;
mod leased;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tierstream_storage::buf::HostMemory;
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::format::SectionType;
use tierstream_storage::metrics::Snapshot;
use tierstream_storage::store::Section;
use tierstream_storage::units::to_usize;
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeRead, RangeSource, Result};

use crate::local::ring::Granted;
use crate::local::shm::BlockMemory;
use crate::protocol::{Control, Login, Open, ReadRequest, SectionRequest, Token, Verb, Whoami, misuse};
use connection::Connection;

/// How long a client waits for a daemon that is being started again.
const RECONNECT: Duration = Duration::from_secs(10);
/// How often it looks for it.
const RETRY: Duration = Duration::from_millis(20);

/// How a client is set up.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where the daemon listens: a path, or `unix:PATH`, or `tierstream://PATH`.
    pub address: String,
    /// How long to wait for a daemon that went away; zero gives up at once.
    pub reconnect: Duration,
    /// Ask for blocks where they lie, not for copies.
    pub lease: bool,
}

impl ClientConfig {
    /// The usual settings for the daemon at `address`.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), reconnect: RECONNECT, lease: true }
    }

    fn socket(&self) -> PathBuf {
        let text = self.address.as_str();
        PathBuf::from(
            ["unix://", "unix:", "tierstream://"]
                .iter()
                .find_map(|scheme| text.strip_prefix(scheme))
                .unwrap_or(text),
        )
    }
}

/// Reads through the daemon at a socket. Threads that share a client take turns; threads that read much want one each.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    socket: PathBuf,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

/// A data set that was opened through this client.
#[derive(Debug)]
struct OpenSet {
    location: String,
    id: String,
    generation: u64,
    // The daemon's number for it, on the present connection.
    remote: u32,
}

struct State {
    connection: Connection,
    // Raised when the daemon is another one.
    epoch: u64,
    sets: Vec<OpenSet>,
    // Shown again on a new connection.
    token: Option<String>,
    process: rustix::process::Pid,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the token.
        write!(f, "State(connection {}, {} data sets)", self.epoch, self.sets.len())
    }
}

impl State {
    fn remote(&self, set: &DataSetInfo) -> Result<u32> {
        let open = self.sets.get(to_usize(u64::from(set.handle))).filter(|open| open.id == set.id);
        open.map(|open| open.remote)
            .ok_or_else(|| misuse("the data set is not open in this client".to_owned()))
    }
}

/// A block of L1 of the daemon, to read where it lies. The block stays until the lease is dropped, or this process ends.
#[derive(Debug)]
pub struct Lease {
    memory: Arc<BlockMemory>,
    granted: Granted,
    epoch: u64,
    state: Arc<Mutex<State>>,
}

impl std::ops::Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // Checked when the lease was granted.
        self.memory.bytes(self.granted.offset, self.granted.len).unwrap_or_default()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        // The leases of a daemon that is gone, and of a parent process, are not ours to end.
        if state.epoch == self.epoch && state.process == rustix::process::getpid() {
            state.connection.release(self.granted.lease);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Connects to the daemon at `socket`.
    ///
    /// # Errors
    /// `Missing` or `Closed` when none listens there, `Denied` when it refuses this user, `Unsupported` when it speaks
    /// another version.
    pub fn connect(socket: &Path) -> Result<Self> {
        Self::connect_with(ClientConfig::new(socket.to_string_lossy()))
    }

    /// As [`Client::connect`], with settings.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_with(config: ClientConfig) -> Result<Self> {
        let socket = config.socket();
        let connection = Connection::open(&socket, config.lease)?;
        let state =
            State { connection, epoch: 0, sets: Vec::new(), token: None, process: rustix::process::getpid() };
        let (state, clock) = (Arc::new(Mutex::new(state)), Arc::new(SystemClock::new()));
        Ok(Self { config, socket, clock, state })
    }

    /// Whether blocks are leased where they lie, or copied over the socket.
    #[must_use]
    pub fn leases_blocks(&self) -> bool {
        lock(&self.state).connection.leases_blocks()
    }

    /// Does `work` on the connection, and again on a new one when the daemon went away meanwhile.
    fn with<T>(&self, mut work: impl FnMut(&mut State) -> Result<T>) -> Result<T> {
        let mut state = lock(&self.state);
        if state.process != rustix::process::getpid() {
            return Err(misuse("this client was connected before the process was forked".to_owned())
                .hint("connect in each process: a loader's workers too"));
        }
        match work(&mut state) {
            Err(error) if error.kind() == ErrorKind::Closed && !self.config.reconnect.is_zero() => {
                self.reconnect(&mut state)?;
                work(&mut state)
            }
            outcome => outcome,
        }
        .map_err(|error| self.explain(error))
    }

    fn explain(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Closed {
            return error.at(&self.socket).hint("the daemon has ended: start it again, then the job");
        }
        error
    }

    /// Waits for a daemon at the same place, and opens there what was open.
    fn reconnect(&self, state: &mut State) -> Result<()> {
        let deadline = self.clock.now() + self.config.reconnect;
        let connection = loop {
            match Connection::open(&self.socket, self.config.lease) {
                Ok(connection) => break connection,
                Err(error) if error.kind() == ErrorKind::Denied => return Err(error),
                Err(error) if self.clock.now() >= deadline => return Err(error),
                Err(_) => std::thread::park_timeout(RETRY),
            }
        };
        tracing::info!(socket = %self.socket.display(), "connected to the daemon again");
        state.connection = connection;
        state.epoch += 1;
        // Half of what was open is as good as nothing: the next request tries again.
        let opened = Self::open_again(state);
        if opened.is_err() {
            state.connection.give_up();
        }
        opened
    }

    /// Opens what was open, on a new connection.
    fn open_again(state: &mut State) -> Result<()> {
        if let Some(token) = &state.token {
            let control = Control::Present { token: token.clone() };
            state.connection.json::<Whoami>(Verb::Control, &control)?;
        }
        for open in &mut state.sets {
            let found: DataSetInfo =
                state.connection.json(Verb::Open, &Open { location: open.location.clone() })?;
            if found.id != open.id || found.generation != open.generation {
                let why = format!(
                    "the data set is now {} generation {}, it was {} generation {}",
                    found.id, found.generation, open.id, open.generation
                );
                return Err(Error::new(ErrorKind::Misuse, "connect again", why)
                    .at(Path::new(&open.location))
                    .hint("it was packed anew while the job ran: start the job again"));
            }
            open.remote = found.handle;
        }
        Ok(())
    }

    fn control<T: for<'de> serde::Deserialize<'de>>(&self, control: &Control) -> Result<T> {
        self.with(|state| state.connection.json(Verb::Control, control))
    }

    /// A token for a user of the daemon who typed a one-time code. It is a secret.
    ///
    /// # Errors
    /// `Denied` for a wrong name or code, `Full` after too many, `Unsupported` by a daemon that keeps no users.
    pub fn login(&self, user: &str, code: &str) -> Result<Token> {
        self.control(&Control::Login { user: user.to_owned(), code: code.to_owned() })
    }

    /// Asks in the name of a token's owner from now on, and on every new connection. Data sets are to be opened anew.
    ///
    /// # Errors
    /// `Denied` for a token that is not good.
    pub fn present(&self, token: &str) -> Result<Whoami> {
        let whoami = self.control(&Control::Present { token: token.to_owned() })?;
        lock(&self.state).token = Some(token.to_owned());
        Ok(whoami)
    }

    /// The next token of the same login.
    ///
    /// # Errors
    /// `Denied` for a token that is not good, or of a login that is too long ago.
    pub fn renew(&self, token: &str) -> Result<Token> {
        self.control(&Control::Renew { token: token.to_owned() })
    }

    /// Who the daemon takes this client for, and what that one may do.
    ///
    /// # Errors
    /// `Denied` when its token has ended.
    pub fn whoami(&self) -> Result<Whoami> {
        self.control(&Control::Whoami)
    }

    /// Names of the data sets that this client may see.
    ///
    /// # Errors
    /// As the connection's.
    pub fn list(&self) -> Result<Vec<String>> {
        self.control(&Control::List)
    }

    /// Logins: one's own; all, for who has `admin`.
    ///
    /// # Errors
    /// `Unsupported` by a daemon that keeps no users.
    pub fn logins(&self) -> Result<Vec<Login>> {
        self.control(&Control::Tokens)
    }

    /// Ends a login by its id, or all of a user by `user:NAME`; how many ended.
    ///
    /// # Errors
    /// `Denied` for those of others without `admin`.
    pub fn revoke(&self, what: &str) -> Result<usize> {
        self.control(&Control::Revoke { what: what.to_owned() })
    }

    /// Signs tokens with a new key from now on; its id.
    ///
    /// # Errors
    /// `Denied` without `keys`.
    pub fn rotate_keys(&self) -> Result<String> {
        self.control(&Control::RotateKeys)
    }

    /// Users of the daemon.
    ///
    /// # Errors
    /// `Denied` without `admin`.
    pub fn users(&self) -> Result<Vec<String>> {
        self.control(&Control::Users)
    }

    /// Makes a user, or gives one a new secret: the text that an authenticator scans. It is a secret.
    ///
    /// # Errors
    /// `Denied` without `admin`, `Misuse` for a name that is none.
    pub fn add_user(&self, name: &str) -> Result<String> {
        self.control(&Control::AddUser { name: name.to_owned() })
    }

    /// Removes a user and ends all logins.
    ///
    /// # Errors
    /// `Denied` without `admin`, `Missing`.
    pub fn remove_user(&self, name: &str) -> Result<()> {
        self.control(&Control::RemoveUser { name: name.to_owned() })
    }

    /// Tells the daemon what will be read, in order: it is brought to L1 ahead of need. Advice: nothing breaks when other
    /// bytes are read. The next announcement takes the place of this one.
    ///
    /// # Errors
    /// `Denied` without `announce`, `Misuse` for ranges outside their shards.
    pub fn announce(&self, set: &DataSetInfo, reads: &[(usize, std::ops::Range<u64>)]) -> Result<()> {
        let ranges: Vec<_> = reads.iter().map(|(shard, range)| (*shard, range.start, range.end)).collect();
        self.with(|state| {
            let request = ReadRequest { handle: state.remote(set)?, ranges: ranges.clone() };
            state.connection.ask(Verb::Announce, &request).map(drop)
        })
    }

    /// A lease on block `block` of a shard's payload, which starts at `block` times the payload capacity of a block.
    ///
    /// # Errors
    /// `Full` when the daemon grants no more leases to this client, `Unsupported` when it grants none at all; else as
    /// [`RangeSource::read`].
    pub fn lease(&self, set: &DataSetInfo, shard: usize, block: u32) -> Result<Lease> {
        let mut leases = self.lease_all(set, &[(shard, block)])?;
        leases.pop().ok_or_else(|| misuse("no lease".to_owned()))
    }

    /// Leases on several blocks, asked for together.
    ///
    /// # Errors
    /// As [`Client::lease`]; then none is held.
    pub fn lease_all(&self, set: &DataSetInfo, blocks: &[(usize, u32)]) -> Result<Vec<Lease>> {
        self.with(|state| {
            let remote = state.remote(set)?;
            let (memory, granted) = state.connection.lease_all(remote, blocks)?;
            let lease = |granted| Lease {
                memory: Arc::clone(&memory),
                granted,
                epoch: state.epoch,
                state: Arc::clone(&self.state),
            };
            Ok(granted.into_iter().map(lease).collect())
        })
    }
}

impl RangeSource for Client {
    fn open_data_set(&self, location: &str) -> Result<Arc<DataSetInfo>> {
        self.with(|state| {
            let mut set: DataSetInfo =
                state.connection.json(Verb::Open, &Open { location: location.to_owned() })?;
            let handle =
                u32::try_from(state.sets.len()).map_err(|_| misuse("too many data sets".to_owned()))?;
            let (id, generation, remote) = (set.id.clone(), set.generation, set.handle);
            state.sets.push(OpenSet { location: location.to_owned(), id, generation, remote });
            set.handle = handle;
            Ok(Arc::new(set))
        })
    }

    fn section(&self, set: &DataSetInfo, shard: usize, section: SectionType) -> Result<Option<Section>> {
        let bytes = self.with(|state| {
            let request = SectionRequest { handle: state.remote(set)?, shard, section: section.0 };
            state.connection.ask(Verb::Section, &request)
        })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let mut memory = HostMemory::anonymous(bytes.len())?;
        memory.as_mut_slice()[..bytes.len()].copy_from_slice(&bytes);
        let len = bytes.len();
        Ok(Some(Section::of_memory(memory, len)))
    }

    fn read(&self, set: &DataSetInfo, reads: &mut [RangeRead<'_>]) -> Result<()> {
        self.with(|state| {
            let remote = state.remote(set)?;
            state.connection.read(set, remote, reads)
        })
    }

    fn metrics(&self) -> Snapshot {
        self.with(|state| state.connection.json(Verb::Metrics, &())).unwrap_or_default()
    }
}
