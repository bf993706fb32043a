//! A payload that comes from a pipe: read as it comes, and only once.
//!
//! What is short is held in memory, and then is a payload like any other, whose length is known and that can be written
//! again. The rest of a long one is never held: the put takes it as fast as L3 does.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::payload::{Payload, Sink};
use crate::error::{Error, ErrorKind, Result};
use crate::units::to_u64;

/// Bytes taken from the stream at a time.
const PIECE_BYTES: usize = 1 << 20;

/// The bytes of a stream.
pub struct StreamPayload<'a> {
    name: PathBuf,
    head: Vec<u8>,
    rest: Rest<'a>,
}

enum Rest<'a> {
    /// All of it is in the head.
    None,
    /// Taken by the first who writes.
    Some(Mutex<Option<Box<dyn Read + Send + 'a>>>),
}

impl fmt::Debug for StreamPayload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamPayload({}, {} bytes held)", self.name.display(), self.head.len())
    }
}

impl<'a> StreamPayload<'a> {
    /// Begins to read `stream`, which errors call `name`, and holds up to `held_bytes` of it.
    ///
    /// # Errors
    /// As the stream.
    pub fn begin(name: &Path, stream: impl Read + Send + 'a, held_bytes: u64) -> Result<Self> {
        let mut stream: Box<dyn Read + Send + 'a> = Box::new(stream);
        let mut head = Vec::new();
        let read = stream.by_ref().take(held_bytes).read_to_end(&mut head);
        read.map_err(|error| Error::io("read", name, error))?;
        // Exactly as much as is held: whether there is more shows when it is read.
        let rest = match to_u64(head.len()) < held_bytes {
            true => Rest::None,
            false => Rest::Some(Mutex::new(Some(stream))),
        };
        Ok(Self { name: name.to_owned(), head, rest })
    }
}

impl Payload for StreamPayload<'_> {
    fn payload_bytes(&self, _: u64) -> Option<u64> {
        matches!(self.rest, Rest::None).then(|| to_u64(self.head.len()))
    }

    fn write(&self, _: u64, sink: &mut Sink<'_>) -> Result<()> {
        let mut rest = match &self.rest {
            Rest::None => return sink(&self.head),
            Rest::Some(rest) => {
                rest.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(|| {
                    Error::new(ErrorKind::Misuse, "read", "a stream can be read only once").at(&self.name)
                })?
            }
        };
        sink(&self.head)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match rest.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => sink(&piece[..read])?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.name, error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// Gives a few bytes at a time, as pipes do.
    struct Drops(Vec<u8>, usize);

    impl Read for Drops {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let now = to.len().min(7919).min(self.0.len() - self.1);
            to[..now].copy_from_slice(&self.0[self.1..self.1 + now]);
            self.1 += now;
            Ok(now)
        }
    }

    fn collect(payload: &StreamPayload<'_>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        payload.write(1, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    #[test]
    fn what_is_short_is_held_and_what_is_long_is_read_once() {
        let mut random = Random::new(3);
        for len in [0, 1, 49_999, 50_000, 50_001, 3_000_000] {
            let mut bytes = vec![0; len];
            random.fill(&mut bytes);
            let payload = StreamPayload::begin(Path::new("stdin"), Drops(bytes.clone(), 0), 50_000).unwrap();
            let short = len < 50_000;
            assert_eq!(payload.payload_bytes(1), short.then_some(to_u64(len)));
            assert!(collect(&payload).unwrap() == bytes, "{len}");
            match collect(&payload) {
                Ok(again) => assert!(short && again == bytes, "{len}"),
                Err(error) => assert!(!short && error.to_string().contains("only once"), "{error}"),
            }
        }
    }
}
