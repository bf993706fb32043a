//! One client's connection: requests in their order, each answered or refused with its reason.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tierstream_storage::format::SectionType;
use tierstream_storage::tier::FileNo;
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeRead, RangeSource, Result};

use crate::local::fds;
use crate::local::service::{LocalRing, Woken};
use crate::protocol::{
    ErrorBody, Hello, Open, RESPONSE_BYTES_MAX, ReadRequest, Request, SectionRequest, Status, VERSION, Verb,
    broken, misuse, read_request, response, write_response,
};
use crate::server::Shared;

/// A client that began a frame, or takes an answer, must go on within this time.
pub(crate) const FRAME_PATIENCE: Duration = Duration::from_secs(30);
/// Data sets that one client may have open.
const DATA_SETS_MAX: usize = 1024;

pub(crate) fn answer_error(stream: &mut UnixStream, error: &Error) -> Result<()> {
    let body = serde_json::to_vec(&ErrorBody::of(error)).map_err(|error| misuse(error.to_string()))?;
    write_response(stream, Status::Error, &body)
}

/// A data set that the client has open.
struct OpenSet {
    info: Arc<DataSetInfo>,
    files: Arc<[FileNo]>,
}

/// One client's connection.
pub(crate) struct Session<'a> {
    shared: &'a Shared,
    data_sets: HashMap<u32, OpenSet>,
    greeted: bool,
    ring: Option<LocalRing<'a>>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        Self { shared, data_sets: HashMap::new(), greeted: false, ring: None }
    }

    /// Serves until the client hangs up, breaks the protocol, or the server stops.
    pub(crate) fn serve(&mut self, stream: &mut UnixStream) -> Result<()> {
        stream.set_read_timeout(Some(FRAME_PATIENCE)).map_err(broken)?;
        while !self.shared.stopping.load(Ordering::SeqCst) {
            match &mut self.ring {
                None => wait_for_request(stream)?,
                Some(ring) => {
                    let sets = &self.data_sets;
                    let turn = ring.turn(&self.shared.store, |set| sets.get(&set).map(|set| &*set.files));
                    if let Err(error) = turn {
                        return answer_error(stream, &error);
                    }
                    if ring.wait(stream)? == Woken::Ring {
                        continue;
                    }
                }
            }
            // What is no request leaves the stream in an unknown place: answer and hang up.
            let request = match read_request(stream) {
                Ok(request) => request,
                Err(error) if error.kind() == ErrorKind::Closed => return Ok(()),
                Err(error) => return answer_error(stream, &error),
            };
            let answered = match request.verb {
                Verb::Share => self.share(stream),
                _ => self.answer(&request).and_then(|(status, body)| write_response(stream, status, &body)),
            };
            if let Err(error) = answered {
                answer_error(stream, &error)?;
            }
        }
        Ok(())
    }

    /// Hands L1 and a ring to the client.
    fn share(&mut self, stream: &UnixStream) -> Result<()> {
        self.must_be_greeted()?;
        if self.ring.is_some() {
            return Err(misuse("this connection has its ring".to_owned()));
        }
        let (ring, shared, sent) = LocalRing::open(&self.shared.store, &self.shared.leases, 1)?;
        let body = serde_json::to_vec(&shared).map_err(|error| misuse(error.to_string()))?;
        fds::send(stream, &response(Status::Ok, &body)?, sent.each_ref().map(AsFd::as_fd))?;
        self.ring = Some(ring);
        Ok(())
    }

    fn must_be_greeted(&self) -> Result<()> {
        if self.greeted { Ok(()) } else { Err(misuse("the first request must be Hello".to_owned())) }
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
        self.must_be_greeted()?;
        match request.verb {
            Verb::Hello | Verb::Share => Ok((Status::Ok, Vec::new())),
            Verb::Open => self.open(&request.json()?),
            Verb::Section => self.section(&request.json()?),
            Verb::Read => self.read(&request.json()?),
            Verb::Metrics => json(&self.shared.store.metrics()),
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
        let set = self.shared.store.open_data_set(path)?;
        let answer = json(&*set)?;
        let files = self.shared.store.files(&set)?;
        self.data_sets.insert(set.handle, OpenSet { info: set, files });
        Ok(answer)
    }

    fn set(&self, handle: u32) -> Result<&Arc<DataSetInfo>> {
        self.data_sets
            .get(&handle)
            .map(|set| &set.info)
            .ok_or_else(|| misuse(format!("data set {handle} is not open on this connection")))
    }

    fn section(&self, request: &SectionRequest) -> Result<(Status, Vec<u8>)> {
        let set = self.set(request.handle)?;
        if request.shard >= set.shards.len() {
            return Err(misuse(format!("shard {} of {}", request.shard, set.shards.len())));
        }
        let section = self.shared.store.section(set, request.shard, SectionType(request.section))?;
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
        self.shared.store.read(set, &mut reads)?;
        Ok((Status::Ok, bytes))
    }
}

/// Waits for the first byte of a request without limit, and leaves it there; the rest must follow in time.
fn wait_for_request(stream: &UnixStream) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
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
