//! The client: a source of byte ranges that asks a daemon.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tierstream_storage::buf::HostMemory;
use tierstream_storage::format::SectionType;
use tierstream_storage::metrics::Snapshot;
use tierstream_storage::store::Section;
use tierstream_storage::units::to_u64;
use tierstream_storage::{DataSetInfo, Error, ErrorKind, RangeRead, RangeSource, Result};

use crate::protocol::{
    Hello, Open, RESPONSE_BYTES_MAX, ReadRequest, SectionRequest, Status, VERSION, Verb, broken, error_of,
    misuse, read_response, read_response_head, write_request,
};

/// Longer than the daemon itself waits for a device, so that its own error arrives first.
const PATIENCE: Duration = Duration::from_secs(90);
/// Ranges in one request: their JSON stays far below the longest frame.
const RANGES_MAX: usize = 16 * 1024;
/// Bytes in one request, well below what a daemon answers.
const BYTES_MAX: u64 = (RESPONSE_BYTES_MAX / 4) as u64;

/// Reads through the daemon at a socket. Handles of data sets belong to a connection: each thread's request uses the
/// client's one connection in turn.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: Mutex<UnixStream>,
}

impl Client {
    /// Connects to the daemon at `socket`.
    ///
    /// # Errors
    /// `Missing` or `Closed` when none listens there, `Denied` when it refuses this user, `Unsupported` when it speaks
    /// another version.
    pub fn connect(socket: &Path) -> Result<Self> {
        let connected = UnixStream::connect(socket).map_err(|error| {
            Error::io("connect", socket, error).hint("is the daemon running? start it: tierstream serve")
        });
        let mut stream = connected?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
        // A daemon that turns us away answers before it is asked.
        let sent = write_request(&mut stream, Verb::Hello, &Hello { version: VERSION });
        match (read_response(&mut stream), sent) {
            (Ok(_), Ok(())) => Ok(Self { socket: socket.to_owned(), stream: Mutex::new(stream) }),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error.at(socket)),
        }
    }

    /// Asks and returns the body of the answer.
    fn ask(&self, verb: Verb, body: &impl serde::Serialize) -> Result<Option<Vec<u8>>> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        write_request(&mut *stream, verb, body)
            .and_then(|()| read_response(&mut *stream))
            .map_err(|error| self.explain(error))
    }

    fn explain(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Closed {
            return error.at(&self.socket).hint("the daemon has ended: start it again, then the job");
        }
        error
    }

    fn json<T: for<'de> serde::Deserialize<'de>>(
        &self,
        verb: Verb,
        body: &impl serde::Serialize,
    ) -> Result<T> {
        let answer = self.ask(verb, body)?.ok_or_else(|| misuse("an answer without a body".to_owned()))?;
        serde_json::from_slice(&answer).map_err(|error| misuse(format!("answer: {error}")))
    }

    fn read_some(&self, set: &DataSetInfo, reads: &mut [RangeRead<'_>]) -> Result<()> {
        let ranges = reads.iter().map(|read| (read.shard, read.range.start, read.range.end)).collect();
        let expected: usize = reads.iter().map(|read| read.to.len()).sum();
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = &mut *stream;
        write_request(stream, Verb::Read, &ReadRequest { handle: set.handle, ranges })?;
        let (status, len) = read_response_head(stream)?;
        if status != Status::Ok {
            let mut body = Vec::new();
            stream.take(to_u64(len)).read_to_end(&mut body).map_err(broken)?;
            return Err(error_of(&body));
        }
        if len != expected {
            return Err(misuse(format!("{len} bytes in the answer, expected {expected}")));
        }
        // Straight into the batch: no copy on this side beside the socket's own.
        reads.iter_mut().try_for_each(|read| stream.read_exact(read.to)).map_err(broken)
    }
}

impl RangeSource for Client {
    fn open_data_set(&self, location: &str) -> Result<Arc<DataSetInfo>> {
        self.json(Verb::Open, &Open { location: location.to_owned() }).map(Arc::new)
    }

    fn section(&self, set: &DataSetInfo, shard: usize, section: SectionType) -> Result<Option<Section>> {
        let request = SectionRequest { handle: set.handle, shard, section: section.0 };
        let Some(bytes) = self.ask(Verb::Section, &request)? else { return Ok(None) };
        let mut memory = HostMemory::anonymous(bytes.len())?;
        memory.as_mut_slice()[..bytes.len()].copy_from_slice(&bytes);
        Ok(Some(Section::of_memory(memory, bytes.len())))
    }

    fn read(&self, set: &DataSetInfo, reads: &mut [RangeRead<'_>]) -> Result<()> {
        for read in &*reads {
            if read.range.start > read.range.end || to_u64(read.to.len()) != read.range.end - read.range.start
            {
                return Err(misuse(format!("bytes {:?} into {}", read.range, read.to.len())));
            }
            if to_u64(read.to.len()) > BYTES_MAX {
                return Err(misuse(format!("a range of {} bytes, at most {BYTES_MAX}", read.to.len())));
            }
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
            self.read_some(set, now).map_err(|error| self.explain(error))?;
            rest = later;
        }
        Ok(())
    }

    fn metrics(&self) -> Snapshot {
        // A daemon that is gone is met by the next read; its counters are zero until then.
        self.json(Verb::Metrics, &()).unwrap_or_default()
    }
}
