//! The daemon seen from a browser, a scraper and a script on this host: GET and HEAD over plain HTTP/1.1.
//!
//! ```text
//! /                                  the dashboard, one page without anything from elsewhere
//! /healthz  /readyz                  200 while it lives; while it takes requests
//! /metrics                           Prometheus text: the numbers of docs/reference/metrics.md
//! /v1/status                         the same numbers as JSON, with clients and leases
//! /v1/datasets                       names, for a token whose owner may list
//! /v1/datasets/NAME                  what the data set is, for a token whose owner may read
//! /v1/datasets/NAME/shards/N         its payload, with Range
//! ```
//!
//! It listens on loopback addresses alone: a token must not cross a network in the clear. Data wants a token; numbers do
//! not. A connection has ten seconds for a request and thirty for each part of an answer, and holds one buffer.

mod pages;
mod request;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::units::to_usize;
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeRead, RangeSource, Result};

use crate::auth::policy::Right;
use crate::protocol::broken;
use crate::server::Shared;
use request::{HEAD_TIME, Refusal, Request};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// Payload read and written at once.
const PART_BYTES: u64 = 1 << 20;
const WRITE_TIME: Duration = Duration::from_secs(30);
/// How often a listener looks whether the server stops.
const LOOK: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A listener.
#[derive(Debug)]
pub(crate) struct Http {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Http {
    /// Listens.
    ///
    /// # Errors
    /// `Denied` for an address that others can reach; as the system says.
    pub(crate) fn bind(address: SocketAddr) -> Result<Self> {
        if !address.ip().is_loopback() {
            let why = format!("{address} can be reached from elsewhere, and tokens would cross in the clear");
            return Err(Error::new(ErrorKind::Denied, "listen", why)
                .hint("listen on 127.0.0.1 and put a proxy with TLS before it"));
        }
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Device, "listen", format!("{address}: {error}")).caused_by(error)
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Answers until the server stops.
    pub(crate) fn run(&self, shared: &Arc<Shared>) {
        use rustix::event::{PollFd, PollFlags, poll};
        let open = Arc::new(AtomicUsize::new(0));
        while !shared.stopping.load(Ordering::SeqCst) {
            let _tried_again = poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&LOOK));
            let Ok((stream, _)) = self.listener.accept() else { continue };
            let taken = open.fetch_add(1, Ordering::SeqCst);
            let (shared, open_too) = (Arc::clone(shared), Arc::clone(&open));
            let serve = move || {
                let _one_less = Counted(&open_too);
                let outcome = if taken < CONNECTIONS_MAX {
                    Connection::new(stream, &shared).and_then(|mut connection| connection.serve())
                } else {
                    Connection::new(stream, &shared).and_then(|mut connection| connection.refuse(503))
                };
                if let Err(error) = outcome {
                    tracing::debug!(%error, "an HTTP connection ended");
                }
            };
            let thread = std::thread::Builder::new().name("tier-http".to_owned()).stack_size(256 << 10);
            if let Err(error) = thread.spawn(serve) {
                // The closure was dropped, and with it nothing was counted down.
                open.fetch_sub(1, Ordering::SeqCst);
                tracing::warn!(%error, "no thread for an HTTP connection");
            }
        }
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        416 => "Range Not Satisfiable",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Bad Request",
    }
}

struct Connection<'a> {
    stream: TcpStream,
    shared: &'a Shared,
    clock: SystemClock,
}

impl<'a> Connection<'a> {
    fn new(stream: TcpStream, shared: &'a Shared) -> Result<Self> {
        stream.set_nonblocking(false).map_err(broken)?;
        stream.set_read_timeout(Some(HEAD_TIME)).map_err(broken)?;
        stream.set_write_timeout(Some(WRITE_TIME)).map_err(broken)?;
        stream.set_nodelay(true).map_err(broken)?;
        Ok(Self { stream, shared, clock: SystemClock::new() })
    }

    fn serve(&mut self) -> Result<()> {
        let mut held = Vec::new();
        while !self.shared.stopping.load(Ordering::SeqCst) {
            let request = match request::read(&mut self.stream, &mut held, &self.clock as &dyn Clock) {
                Ok(request) => request,
                Err(Refusal::Gone) => return Ok(()),
                Err(Refusal::Status(status)) => return self.refuse(status),
            };
            self.answer(&request)?;
            if request.close {
                return Ok(());
            }
        }
        Ok(())
    }

    fn refuse(&mut self, status: u16) -> Result<()> {
        let text = format!("{status} {}\n", reason(status));
        let close = [("Connection", "close".to_owned())];
        self.send(status, "text/plain", &close, text.as_bytes(), false)
    }

    fn send(
        &mut self,
        status: u16,
        kind: &str,
        more: &[(&str, String)],
        body: &[u8],
        head_only: bool,
    ) -> Result<()> {
        self.head(status, kind, more, u64::try_from(body.len()).unwrap_or(0))?;
        if head_only { Ok(()) } else { self.stream.write_all(body).map_err(broken) }
    }

    fn head(&mut self, status: u16, kind: &str, more: &[(&str, String)], len: u64) -> Result<()> {
        let mut head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; \
             script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'\r\n",
            reason(status)
        );
        for (name, value) in more {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        self.stream.write_all(head.as_bytes()).map_err(broken)
    }

    fn answer(&mut self, request: &Request) -> Result<()> {
        let text = "text/plain; charset=utf-8";
        let (status, kind, body) = match request.path.as_str() {
            // A page elsewhere that makes a browser ask here says so in its Host.
            _ if !is_local(&request.host) => (421, text, "ask for localhost\n".to_owned()),
            "/" => (200, "text/html; charset=utf-8", pages::DASHBOARD.to_owned()),
            "/healthz" => (200, text, "ok\n".to_owned()),
            "/readyz" if self.shared.stopping.load(Ordering::SeqCst) => (503, text, "stopping\n".to_owned()),
            "/readyz" => (200, text, "ready\n".to_owned()),
            "/metrics" => (200, "text/plain; version=0.0.4", pages::prometheus(self.shared)),
            "/v1/status" => (200, "application/json", pages::status(self.shared)),
            path => match path.strip_prefix("/v1/datasets") {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                    return match self.data_sets(request, rest.trim_start_matches('/')) {
                        Err(error) if error.kind() == ErrorKind::Closed => Err(error),
                        Err(error) => self.error(request, &error),
                        Ok(()) => Ok(()),
                    };
                }
                _ => (404, text, "not found\n".to_owned()),
            },
        };
        self.send(status, kind, &[], body.as_bytes(), request.head_only)
    }

    fn error(&mut self, request: &Request, error: &Error) -> Result<()> {
        let status = match error.kind() {
            ErrorKind::Denied if request.bearer.is_none() => 401,
            ErrorKind::Denied => 403,
            ErrorKind::Missing => 404,
            ErrorKind::Misuse => 400,
            ErrorKind::Full | ErrorKind::Retry => 503,
            _ => 500,
        };
        let body = serde_json::json!({ "error": error.to_string(), "hint": error.hint_text() });
        let ask = [("WWW-Authenticate", "Bearer".to_owned())];
        let more = if status == 401 { &ask[..] } else { &[] };
        self.send(status, "application/json", more, format!("{body}\n").as_bytes(), request.head_only)
    }

    fn data_sets(&mut self, request: &Request, rest: &str) -> Result<()> {
        let gate = &self.shared.gate;
        let token = request.bearer.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Denied, "authorise", "data wants a token")
                .hint("Authorization: Bearer TOKEN; `tierstream login` gives one")
        })?;
        let who = gate.identify(token)?.sub;
        if rest.is_empty() {
            let names = self.shared.roots.list().into_iter().filter(|name| gate.sees(&who, name));
            let body = serde_json::json!({ "datasets": names.collect::<Vec<_>>() }).to_string();
            return self.send(200, "application/json", &[], body.as_bytes(), request.head_only);
        }
        let (name, shard) = match rest.rsplit_once("/shards/") {
            Some((name, number)) => (name, Some(number)),
            None => (rest, None),
        };
        let asked = self.shared.roots.name(name)?;
        gate.check(&who, Right::Read, &asked.name)?;
        let found = self.shared.roots.resolve(&asked)?;
        if found.name != asked.name {
            gate.check(&who, Right::Read, &found.name)?;
        }
        let path = found
            .path
            .to_str()
            .ok_or_else(|| Error::new(ErrorKind::Misuse, "open", "the path is not UTF-8"))?;
        let set = self.shared.store.open_data_set(path)?;
        match shard {
            None => {
                let body = serde_json::to_vec(&*set)
                    .map_err(|error| Error::new(ErrorKind::Misuse, "open", error.to_string()))?;
                self.send(200, "application/json", &[], &body, request.head_only)
            }
            Some(number) => {
                let shard = number.parse().ok().filter(|number: &usize| *number < set.shards.len());
                let shard = shard.ok_or_else(|| {
                    Error::new(ErrorKind::Missing, "open", format!("shard {number} of {}", set.shards.len()))
                })?;
                self.payload(request, &set, shard)
            }
        }
    }

    /// The bytes of a shard, part by part: a client that is slow holds one part.
    fn payload(&mut self, request: &Request, set: &DataSetInfo, shard: usize) -> Result<()> {
        let len = set.shards.get(shard).map_or(0, |shard| shard.payload_bytes);
        let mut more = vec![
            ("Accept-Ranges", "bytes".to_owned()),
            ("ETag", format!("\"{}-{}-{shard}\"", set.id, set.generation)),
        ];
        let (status, range) = match request::range_of(request.range.as_deref(), len) {
            Ok(None) => (200, 0..len),
            Ok(Some(range)) => (206, range),
            Err(()) => {
                more.push(("Content-Range", format!("bytes */{len}")));
                return self.send(416, "text/plain", &more, b"", request.head_only);
            }
        };
        if status == 206 {
            more.push(("Content-Range", format!("bytes {}-{}/{len}", range.start, range.end - 1)));
        }
        let mut part = vec![0; to_usize(PART_BYTES.min(range.end - range.start))];
        let mut at = range.start;
        let mut begun = false;
        while at < range.end && !request.head_only {
            let end = range.end.min(at + PART_BYTES);
            let to = part.get_mut(..to_usize(end - at)).unwrap_or_default();
            let read = self.shared.store.read(set, &mut [RangeRead { shard, range: at..end, to }]);
            if begun && read.is_err() {
                // The length was promised: only hanging up says that it is not kept.
                let gone =
                    Error::new(ErrorKind::Closed, "read", "a block failed behind the head of an answer");
                return read.and(Err(gone.clone())).map_err(|error| gone.caused_by(error));
            }
            read?;
            if !begun {
                self.head(status, "application/octet-stream", &more, range.end - range.start)?;
                begun = true;
            }
            let bytes = part.get(..to_usize(end - at)).unwrap_or_default();
            self.stream.write_all(bytes).map_err(|error| {
                Error::new(ErrorKind::Closed, "answer", error.to_string()).caused_by(error)
            })?;
            at = end;
        }
        if begun {
            Ok(())
        } else {
            self.head(status, "application/octet-stream", &more, range.end - range.start)
        }
    }
}

fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    matches!(name.map_or(host, |(name, _)| name), "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests;
