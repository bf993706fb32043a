//! One connection to a daemon: its socket, and the ring beside it where the daemon shares its memory.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeRead, Result};

use super::leased::Leased;
use crate::local::fds;
use crate::local::ring::{ENTRIES, Granted, LeaseId, WORDS};
use crate::local::shm::BlockMemory;
use crate::protocol::{
    Hello, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, ReadRequest, Shared, Status, VERSION, Verb, broken,
    error_of, misuse, read_response, read_response_head, write_request,
};

/// Longer than the daemon itself waits for a device, so that its own error arrives first.
const PATIENCE: Duration = Duration::from_secs(90);
/// Ranges in one request: their JSON stays far below the longest frame.
const RANGES_MAX: usize = REQUEST_BYTES_MAX / 256;
/// Bytes in one request, well below what a daemon answers.
const BYTES_MAX: u64 = (RESPONSE_BYTES_MAX / 4) as u64;
/// Answer to `Share`: some hundred bytes.
const SHARED_BYTES_MAX: usize = 4096;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    leased: Option<Leased>,
    // An answer was left half read: nothing that follows can be understood.
    lost: bool,
}

impl Connection {
    /// Connects, and asks for the daemon's memory if `lease`.
    pub(crate) fn open(socket: &Path, lease: bool) -> Result<Self> {
        let connected = UnixStream::connect(socket).map_err(|error| {
            Error::io("connect", socket, error).hint("is the daemon running? start it: tierstream serve")
        });
        let mut stream = connected?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
        // A daemon that turns us away answers before it is asked.
        let sent = write_request(&mut stream, Verb::Hello, &Hello { version: VERSION });
        match (read_response(&mut stream), sent) {
            (Ok(_), Ok(())) => {}
            (Err(error), _) | (Ok(_), Err(error)) => return Err(error.at(socket)),
        }
        let leased = if lease { share(&mut stream).map_err(|error| error.at(socket))? } else { None };
        Ok(Self { stream, leased, lost: false })
    }

    /// Makes every later request meet the end of this connection.
    pub(crate) fn give_up(&mut self) {
        self.lost = true;
    }

    pub(crate) fn leases_blocks(&self) -> bool {
        self.leased.is_some()
    }

    /// Does `work` on the socket; what goes wrong there, goes wrong for good.
    fn on_socket<T>(&mut self, work: impl FnOnce(&mut UnixStream) -> Result<Answered<T>>) -> Result<T> {
        if self.lost {
            return Err(broken(std::io::ErrorKind::ConnectionReset.into()));
        }
        match work(&mut self.stream) {
            Ok(Answered::Done(value)) => Ok(value),
            Ok(Answered::Refused(error)) => Err(error),
            Err(error) => {
                self.lost = true;
                Err(error)
            }
        }
    }

    /// Asks and returns the body of the answer.
    pub(crate) fn ask(&mut self, verb: Verb, body: &impl serde::Serialize) -> Result<Option<Vec<u8>>> {
        self.on_socket(|stream| {
            write_request(stream, verb, body)?;
            let (status, len) = read_response_head(stream)?;
            let body = read_rest(stream, len)?;
            Ok(match status {
                Status::Ok => Answered::Done(Some(body)),
                Status::None => Answered::Done(None),
                Status::Error => Answered::Refused(error_of(&body)),
            })
        })
    }

    /// Asks for a body of JSON.
    pub(crate) fn json<T: for<'de> serde::Deserialize<'de>>(
        &mut self,
        verb: Verb,
        body: &impl serde::Serialize,
    ) -> Result<T> {
        let answer = self.ask(verb, body)?.ok_or_else(|| misuse("an answer without a body".to_owned()))?;
        serde_json::from_slice(&answer).map_err(|error| misuse(format!("answer: {error}")))
    }

    /// Fills `reads` of the data set that the daemon knows as `remote`.
    pub(crate) fn read(&mut self, set: &DataSetInfo, remote: u32, reads: &mut [RangeRead<'_>]) -> Result<()> {
        for read in &*reads {
            let RangeRead { shard, range, to } = read;
            let payload = set.shards.get(*shard).map_or(0, |shard| shard.payload_bytes);
            let fits = range.start <= range.end && range.end <= payload;
            if !fits || to_u64(to.len()) != range.end - range.start {
                let why = format!("bytes {range:?} of shard {shard}, which has {payload}, into {}", to.len());
                return Err(Error::new(ErrorKind::Misuse, "read", why));
            }
        }
        let leased = self.leased.as_mut().filter(|_| !self.lost);
        let Some(leased) = leased else { return self.copy(remote, reads) };
        let mut refused = leased.read(&self.stream, set, remote, reads)?;
        if refused.is_empty() {
            return Ok(());
        }
        // No lease, because there is no room or because the block cannot be read: the copy says which.
        refused.sort_unstable();
        refused.dedup();
        for index in refused {
            let read = reads.get_mut(index..=index).ok_or_else(|| misuse("no such read".to_owned()))?;
            self.copy(remote, read)?;
        }
        Ok(())
    }

    /// Fills `reads` with bytes from the socket.
    fn copy(&mut self, remote: u32, reads: &mut [RangeRead<'_>]) -> Result<()> {
        if let Some(long) = reads.iter().find(|read| to_u64(read.to.len()) > BYTES_MAX) {
            return Err(misuse(format!("a range of {} bytes, at most {BYTES_MAX}", long.to.len())));
        }
        let mut rest = reads;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(RANGES_MAX).take_while(|read| {
                bytes += to_u64(read.to.len());
                bytes <= BYTES_MAX
            });
            let count = fits.count().max(1);
            let (now, later) = rest.split_at_mut(count);
            self.copy_some(remote, now)?;
            rest = later;
        }
        Ok(())
    }

    fn copy_some(&mut self, handle: u32, reads: &mut [RangeRead<'_>]) -> Result<()> {
        let ranges = reads.iter().map(|read| (read.shard, read.range.start, read.range.end)).collect();
        let expected: usize = reads.iter().map(|read| read.to.len()).sum();
        self.on_socket(|stream| {
            write_request(stream, Verb::Read, &ReadRequest { handle, ranges })?;
            let (status, len) = read_response_head(stream)?;
            if status != Status::Ok {
                return Ok(Answered::Refused(error_of(&read_rest(stream, len)?)));
            }
            if len != expected {
                return Err(misuse(format!("{len} bytes in the answer, expected {expected}")));
            }
            // Straight into the batch: no copy on this side beside the socket's own.
            reads.iter_mut().try_for_each(|read| stream.read_exact(read.to)).map_err(broken)?;
            Ok(Answered::Done(()))
        })
    }

    /// Leases on blocks, and the memory they lie in.
    pub(crate) fn lease_all(
        &mut self,
        remote: u32,
        blocks: &[(usize, u32)],
    ) -> Result<(Arc<BlockMemory>, Vec<Granted>)> {
        if self.lost {
            return Err(broken(std::io::ErrorKind::ConnectionReset.into()));
        }
        let leased = self.leased.as_mut().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "lease", "this daemon hands out no blocks, only copies")
        })?;
        Ok((leased.memory(), leased.lease_all(&self.stream, remote, blocks)?))
    }

    /// Ends a lease.
    pub(crate) fn release(&mut self, lease: LeaseId) {
        if let Some(leased) = &mut self.leased {
            leased.release(&self.stream, lease);
        }
    }
}

enum Answered<T> {
    Done(T),
    Refused(Error),
}

fn read_rest(stream: &mut UnixStream, len: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let read = stream.take(to_u64(len)).read_to_end(&mut body).map_err(broken)?;
    if read == len { Ok(body) } else { Err(broken(std::io::ErrorKind::UnexpectedEof.into())) }
}

/// Asks for L1 and a ring; none from a daemon that has no memory to share.
fn share(stream: &mut UnixStream) -> Result<Option<Leased>> {
    write_request(stream, Verb::Share, &())?;
    let mut bytes = vec![0; SHARED_BYTES_MAX];
    let (received, fds) = fds::receive(stream, &mut bytes)?;
    bytes.truncate(received);
    let rest = std::io::Read::chain(&bytes[..], &mut *stream);
    let body = match read_response(&mut { rest }) {
        Ok(body) => body.unwrap_or_default(),
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Denied) => {
            tracing::info!(%error, "blocks are copied over the socket");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let shared: Shared = serde_json::from_slice(&body).map_err(|error| misuse(format!("answer: {error}")))?;
    if (shared.entries, shared.words) != (ENTRIES, WORDS) {
        return Err(misuse(format!("a ring of {} entries, expected {ENTRIES}", shared.entries)));
    }
    let fds = <[_; fds::FDS]>::try_from(fds)
        .map_err(|fds| misuse(format!("{} descriptors in the answer, expected {}", fds.len(), fds::FDS)))?;
    debug_assert!(to_usize(shared.l1_bytes) > 0);
    Ok(Some(Leased::new(shared.l1_bytes, fds)?))
}
