//! The server: one thread that accepts, one thread per client, all bounded.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tierstream_storage::{Error, ErrorKind, Result, Store};

use tierstream_prefetch::Prefetcher;

use crate::auth::AuthConfig;
use crate::auth::gate::Gate;
use crate::http::Http;
use crate::local::lease::LeaseBudget;
use crate::protocol::{broken, misuse};
use crate::roots::Roots;
use crate::session::{FRAME_PATIENCE, Session, answer_error};

/// How long a server that stops waits for the requests under way.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// How often the policy file is looked at.
const POLICY_LOOK: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
/// Stack of a client's thread: a thousand clients are 256 MiB of addresses, not of memory.
const STACK_BYTES: usize = 256 << 10;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen.
    pub socket: PathBuf,
    /// Data sets below these directories, and no others, can be opened.
    pub roots: Vec<PathBuf>,
    /// Clients at a time; more are turned away.
    pub clients_max: usize,
    /// Who may do what.
    pub auth: AuthConfig,
    /// A loopback address for HTTP, if there is to be any.
    pub http: Option<SocketAddr>,
}

/// Serves one source until it is told to stop.
pub struct Server {
    listener: UnixListener,
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    socket: PathBuf,
    http: Option<Http>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.socket.display())
    }
}

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) roots: Roots,
    pub(crate) gate: Gate,
    pub(crate) prefetcher: Prefetcher,
    pub(crate) leases: LeaseBudget,
    pub(crate) stopping: AtomicBool,
    clients_max: usize,
    // So that those who wait for a request can be woken when the server stops.
    streams: Mutex<HashMap<usize, UnixStream>>,
    left: Condvar,
}

impl Shared {
    /// Clients at the socket now.
    pub(crate) fn clients(&self) -> usize {
        self.streams().len()
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<usize, UnixStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops a [`Server`] from another thread.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    stop: Arc<OwnedFd>,
}

impl ServerHandle {
    /// Makes [`Server::run`] finish the requests under way and return.
    #[expect(clippy::host_endian_bytes, reason = "eventfd(2) counts in the host's byte order")]
    pub fn stop(&self) {
        // Fails only when the counter is near 2^64: then it is readable already.
        let _already_stopping = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
    }
}

impl Server {
    /// Listens at the socket of `config`, for this user alone.
    ///
    /// # Errors
    /// `Misuse` without roots, or when another server listens there; else as the file system says.
    pub fn bind(store: Store, config: &ServerConfig) -> Result<Self> {
        if config.roots.is_empty() {
            return Err(misuse("no directory is served".to_owned()).hint("name one with --root"));
        }
        let roots = Roots::open(&config.roots)?;
        let gate = Gate::open(&config.auth)?;
        let http = config.http.map(Http::bind).transpose()?;
        let listener = listen(&config.socket, gate.is_open_to_others())?;
        let stop = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("eventfd: {error}")))?;
        let shared = Shared {
            leases: LeaseBudget::new(store.l1_blocks()),
            prefetcher: Prefetcher::new(&store),
            store,
            roots,
            gate,
            clients_max: config.clients_max,
            stopping: AtomicBool::new(false),
            streams: Mutex::default(),
            left: Condvar::new(),
        };
        Ok(Self {
            listener,
            shared: Arc::new(shared),
            stop: Arc::new(stop),
            socket: config.socket.clone(),
            http,
        })
    }

    /// What stops this server.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { stop: Arc::clone(&self.stop) }
    }

    /// Serves until [`ServerHandle::stop`]. Requests under way are finished, for at most 10 seconds; clients that wait
    /// are hung up on.
    ///
    /// # Errors
    /// `Device` when the socket fails.
    pub fn run(&self) -> Result<()> {
        std::thread::scope(|scope| {
            if let Some(http) = &self.http {
                scope.spawn(|| http.run(&self.shared));
            }
            self.run_socket()
        })
    }

    fn run_socket(&self) -> Result<()> {
        let mut number = 0;
        let outcome = loop {
            match self.next_client() {
                Ok(Some(stream)) => {
                    number += 1;
                    if let Err(error) = self.admit(number, stream) {
                        tracing::warn!(%error, "a client was turned away");
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.shared.stopping.store(true, Ordering::SeqCst);
        let streams = self.shared.streams();
        for stream in streams.values() {
            // Those who read see the end; an answer under way is still written.
            let _gone_already = stream.shutdown(std::net::Shutdown::Read);
        }
        let waited = self.shared.left.wait_timeout_while(streams, DRAIN_TIME, |streams| !streams.is_empty());
        let (streams, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !streams.is_empty() {
            tracing::warn!(clients = streams.len(), "stopping while requests are under way");
        }
        outcome
    }

    /// Where HTTP is answered, if it is.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.address)
    }

    /// The store it serves.
    #[must_use]
    pub fn store(&self) -> Store {
        self.shared.store.clone()
    }

    /// Leases on blocks of L1 that clients hold now.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.shared.leases.held()
    }

    /// Clients that are connected now.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.clients()
    }

    /// The next connection, or none when the server is to stop.
    fn next_client(&self) -> Result<Option<UnixStream>> {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            let mut fds =
                [PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&*self.stop, PollFlags::IN)];
            match poll(&mut fds, Some(&POLICY_LOOK)) {
                Ok(0) => {
                    self.shared.gate.refresh();
                    continue;
                }
                Ok(_) => self.shared.gate.refresh(),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Error::io("poll", &self.socket, error.into())),
            }
            if !fds[1].revents().is_empty() {
                return Ok(None);
            }
            match self.listener.accept() {
                Ok((stream, _)) => return Ok(Some(stream)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // The client went away between the two calls, or we are out of descriptors for a moment.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    std::thread::park_timeout(Duration::from_millis(10));
                }
            }
        }
    }

    fn admit(&self, number: usize, mut stream: UnixStream) -> Result<()> {
        stream.set_nonblocking(false).map_err(broken)?;
        stream.set_write_timeout(Some(FRAME_PATIENCE)).map_err(broken)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|error| broken(error.into()))?;
        let who = format!("uid:{}", peer.uid.as_raw());
        if let Some(refusal) = self.refusal(&who) {
            return answer_error(&mut stream, &refusal).and(Err(refusal));
        }
        let registered = stream.try_clone().map_err(broken)?;
        self.shared.streams().insert(number, registered);
        let shared = Arc::clone(&self.shared);
        let serve = move || {
            let _leaving = Leaving { shared: &shared, number };
            if let Err(error) = Session::new(&shared, who).serve(&mut stream) {
                tracing::debug!(%error, "a client's connection ended");
            }
        };
        let thread = std::thread::Builder::new().name("tier-client".to_owned()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(serve) {
            self.shared.streams().remove(&number);
            return Err(Error::new(ErrorKind::Full, "connect", format!("no thread for a client: {error}")));
        }
        Ok(())
    }

    /// Why the client is turned away at the door. Who is unknown may still log in where there is a policy.
    fn refusal(&self, who: &str) -> Option<Error> {
        if !self.shared.gate.is_open_to_others() && !self.shared.gate.policy().knows(who) {
            let why = format!("`{who}` may not read here");
            return Some(
                Error::new(ErrorKind::Denied, "connect", why)
                    .hint("the daemon's operator lets others in with --policy"),
            );
        }
        if self.shared.streams().len() >= self.shared.clients_max {
            let why = format!("{} clients are connected", self.shared.clients_max);
            return Some(Error::new(ErrorKind::Full, "connect", why).hint("raise --max-clients"));
        }
        None
    }
}

/// Takes a client off the list, however its thread ends.
struct Leaving<'a> {
    shared: &'a Shared,
    number: usize,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.shared.streams().remove(&self.number);
        self.shared.left.notify_all();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::debug!(%error, "the socket was gone already");
        }
    }
}

/// A socket that only this user can connect to, or everybody, whom the policy then sorts out. It appears under its name with its permissions set.
fn listen(socket: &Path, for_all: bool) -> Result<UnixListener> {
    let failed = |error| Error::io("listen", socket, error);
    match UnixStream::connect(socket) {
        Ok(_) => {
            return Err(misuse("another daemon serves there".to_owned())
                .at(socket)
                .hint("use it, or choose another --socket"));
        }
        // What a killed server left behind.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(socket).map_err(failed)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut fresh = socket.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    let placed = std::fs::set_permissions(
        &fresh,
        std::fs::Permissions::from_mode(if for_all { 0o666 } else { 0o600 }),
    )
    .and_then(|()| std::fs::rename(&fresh, socket))
    .and_then(|()| listener.set_nonblocking(true));
    placed.map_err(|error| {
        drop(std::fs::remove_file(&fresh));
        failed(error)
    })?;
    Ok(listener)
}
