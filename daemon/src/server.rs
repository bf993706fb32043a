//! The server: one thread that accepts, one thread per client, all bounded.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tierstream_storage::format::SectionType;
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeRead, RangeSource, Result};

use crate::protocol::{
    ErrorBody, Hello, Open, RESPONSE_BYTES_MAX, ReadRequest, Request, SectionRequest, Status, VERSION, Verb,
    broken, misuse, read_request, write_response,
};

/// A client that began a frame, or takes an answer, must go on within this time.
const FRAME_PATIENCE: Duration = Duration::from_secs(30);
/// Data sets that one client may have open.
const DATA_SETS_MAX: usize = 1024;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen.
    pub socket: PathBuf,
    /// Data sets below these directories, and no others, can be opened.
    pub roots: Vec<PathBuf>,
    /// Clients at a time; more are turned away.
    pub clients_max: usize,
}

/// Serves one source until it is told to stop.
pub struct Server {
    listener: UnixListener,
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    socket: PathBuf,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.socket.display())
    }
}

struct Shared {
    source: Arc<dyn RangeSource>,
    roots: Vec<PathBuf>,
    clients: AtomicUsize,
    clients_max: usize,
    stopping: AtomicBool,
    // So that those who wait for a request can be woken when the server stops.
    streams: Mutex<HashMap<usize, UnixStream>>,
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
    pub fn bind(source: Arc<dyn RangeSource>, config: &ServerConfig) -> Result<Self> {
        if config.roots.is_empty() {
            return Err(misuse("no directory is served".to_owned()).hint("name one with --root"));
        }
        let canonical = |root: &PathBuf| root.canonicalize().map_err(|error| Error::io("open", root, error));
        let roots = config.roots.iter().map(canonical).collect::<Result<Vec<_>>>()?;
        let listener = listen(&config.socket)?;
        let stop = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
            .map_err(|error| Error::new(ErrorKind::Full, "start", format!("eventfd: {error}")))?;
        let shared = Shared {
            source,
            roots,
            clients: AtomicUsize::new(0),
            clients_max: config.clients_max,
            stopping: AtomicBool::new(false),
            streams: Mutex::default(),
        };
        Ok(Self { listener, shared: Arc::new(shared), stop: Arc::new(stop), socket: config.socket.clone() })
    }

    /// What stops this server.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { stop: Arc::clone(&self.stop) }
    }

    /// Serves until [`ServerHandle::stop`]. Requests under way are finished; clients that wait are hung up on.
    ///
    /// # Errors
    /// `Device` when the socket fails.
    pub fn run(&self) -> Result<()> {
        std::thread::scope(|scope| {
            let mut number = 0;
            let outcome = loop {
                match self.next_client() {
                    Ok(Some(stream)) => {
                        number += 1;
                        if let Err(error) = self.admit(scope, number, stream) {
                            tracing::warn!(%error, "a client was turned away");
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            self.shared.stopping.store(true, Ordering::SeqCst);
            for stream in self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner).values() {
                // Those who read see the end; an answer under way is still written.
                let _gone_already = stream.shutdown(std::net::Shutdown::Read);
            }
            outcome
        })
    }

    /// The next connection, or none when the server is to stop.
    fn next_client(&self) -> Result<Option<UnixStream>> {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            let mut fds =
                [PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&*self.stop, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
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

    fn admit<'scope>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        number: usize,
        mut stream: UnixStream,
    ) -> Result<()> {
        stream.set_nonblocking(false).map_err(broken)?;
        stream.set_write_timeout(Some(FRAME_PATIENCE)).map_err(broken)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|error| broken(error.into()))?;
        let us = rustix::process::geteuid();
        let refusal = if peer.uid != us && !peer.uid.is_root() {
            Some(Error::new(
                ErrorKind::Denied,
                "connect",
                format!("user {} may not read here", peer.uid.as_raw()),
            ))
        } else if self.shared.clients.load(Ordering::SeqCst) >= self.shared.clients_max {
            let why = format!("{} clients are connected", self.shared.clients_max);
            Some(Error::new(ErrorKind::Full, "connect", why).hint("raise --max-clients"))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return answer_error(&mut stream, &refusal).and(Err(refusal));
        }
        let registered = stream.try_clone().map_err(broken)?;
        let shared = &self.shared;
        shared.clients.fetch_add(1, Ordering::SeqCst);
        shared.streams.lock().unwrap_or_else(PoisonError::into_inner).insert(number, registered);
        let serve = move || {
            let mut session = Session { shared, data_sets: HashMap::new(), greeted: false };
            if let Err(error) = session.serve(&mut stream) {
                tracing::debug!(%error, "a client's connection ended");
            }
            shared.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            shared.clients.fetch_sub(1, Ordering::SeqCst);
        };
        let spawned = std::thread::Builder::new().name("tier-client".to_owned()).spawn_scoped(scope, serve);
        if let Err(error) = spawned {
            shared.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            shared.clients.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::Full, "connect", format!("no thread for a client: {error}")));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::debug!(%error, "the socket was gone already");
        }
    }
}

/// A socket that only this user can connect to. It appears under its name with its permissions set.
fn listen(socket: &Path) -> Result<UnixListener> {
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
    let placed = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&fresh, socket))
        .and_then(|()| listener.set_nonblocking(true));
    placed.map_err(|error| {
        drop(std::fs::remove_file(&fresh));
        failed(error)
    })?;
    Ok(listener)
}

fn answer_error(stream: &mut UnixStream, error: &Error) -> Result<()> {
    let body = serde_json::to_vec(&ErrorBody::of(error)).map_err(|error| misuse(error.to_string()))?;
    write_response(stream, Status::Error, &body)
}

/// One client's connection.
struct Session<'a> {
    shared: &'a Shared,
    data_sets: HashMap<u32, Arc<DataSetInfo>>,
    greeted: bool,
}

impl Session<'_> {
    fn serve(&mut self, stream: &mut UnixStream) -> Result<()> {
        while !self.shared.stopping.load(Ordering::SeqCst) {
            wait_for_request(stream)?;
            // What is no request leaves the stream in an unknown place: answer and hang up.
            let request = match read_request(stream) {
                Ok(request) => request,
                Err(error) if error.kind() == ErrorKind::Closed => return Ok(()),
                Err(error) => return answer_error(stream, &error),
            };
            match self.answer(&request) {
                Ok((status, body)) => write_response(stream, status, &body)?,
                Err(error) => answer_error(stream, &error)?,
            }
        }
        Ok(())
    }

    fn answer(&mut self, request: &Request) -> Result<(Status, Vec<u8>)> {
        if request.verb == Verb::Hello {
            let hello: Hello = request.json()?;
            if hello.version != VERSION {
                let why = format!("protocol version {}, this daemon speaks {VERSION}", hello.version);
                return Err(Error::new(ErrorKind::Unsupported, "connect", why)
                    .hint("use client and daemon of the same release"));
            }
            self.greeted = true;
            return Ok((Status::Ok, Vec::new()));
        }
        if !self.greeted {
            return Err(misuse("the first request must be Hello".to_owned()));
        }
        match request.verb {
            Verb::Hello => Ok((Status::Ok, Vec::new())),
            Verb::Open => self.open(&request.json()?),
            Verb::Section => self.section(&request.json()?),
            Verb::Read => self.read(&request.json()?),
            Verb::Metrics => json(&self.shared.source.metrics()),
        }
    }

    fn open(&mut self, request: &Open) -> Result<(Status, Vec<u8>)> {
        let location = Path::new(&request.location);
        let path = location.canonicalize().map_err(|error| Error::io("open", location, error))?;
        if !self.shared.roots.iter().any(|root| path.starts_with(root)) {
            return Err(Error::new(ErrorKind::Denied, "open", "this directory is not served")
                .at(location)
                .hint("start the daemon with --root for it"));
        }
        if self.data_sets.len() >= DATA_SETS_MAX {
            return Err(Error::new(ErrorKind::Full, "open", format!("{DATA_SETS_MAX} data sets are open")));
        }
        let path = path.to_str().ok_or_else(|| misuse("the path is not UTF-8".to_owned()))?;
        let set = self.shared.source.open_data_set(path)?;
        let answer = json(&*set)?;
        self.data_sets.insert(set.handle, set);
        Ok(answer)
    }

    fn set(&self, handle: u32) -> Result<&Arc<DataSetInfo>> {
        self.data_sets
            .get(&handle)
            .ok_or_else(|| misuse(format!("data set {handle} is not open on this connection")))
    }

    fn section(&self, request: &SectionRequest) -> Result<(Status, Vec<u8>)> {
        let set = self.set(request.handle)?;
        if request.shard >= set.shards.len() {
            return Err(misuse(format!("shard {} of {}", request.shard, set.shards.len())));
        }
        let section = self.shared.source.section(set, request.shard, SectionType(request.section))?;
        Ok(section.map_or((Status::None, Vec::new()), |section| (Status::Ok, section.to_vec())))
    }

    fn read(&self, request: &ReadRequest) -> Result<(Status, Vec<u8>)> {
        let set = self.set(request.handle)?;
        let mut total = 0_u64;
        for (_, start, end) in &request.ranges {
            let len = end.checked_sub(*start).ok_or_else(|| misuse(format!("range {start}..{end}")))?;
            total = total.saturating_add(len);
        }
        // One byte of the frame is the status.
        if total >= to_u64(RESPONSE_BYTES_MAX) {
            return Err(misuse(format!(
                "{total} bytes in one request, at most {RESPONSE_BYTES_MAX} are allowed"
            )));
        }
        let mut bytes = vec![0; to_usize(total)];
        let mut rest = &mut bytes[..];
        let mut reads = Vec::with_capacity(request.ranges.len());
        for (shard, start, end) in &request.ranges {
            let (to, later) = rest.split_at_mut(to_usize(end - start));
            reads.push(RangeRead { shard: *shard, range: *start..*end, to });
            rest = later;
        }
        self.shared.source.read(set, &mut reads)?;
        Ok((Status::Ok, bytes))
    }
}

/// Waits for the first byte of a request without limit, and leaves it there; the rest must follow in time.
fn wait_for_request(stream: &UnixStream) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    stream.set_read_timeout(Some(FRAME_PATIENCE)).map_err(broken)?;
    loop {
        match poll(&mut [PollFd::new(stream, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(broken(error.into())),
        }
    }
}

fn json(value: &impl serde::Serialize) -> Result<(Status, Vec<u8>)> {
    let body = serde_json::to_vec(value).map_err(|error| misuse(format!("answer: {error}")))?;
    Ok((Status::Ok, body))
}
