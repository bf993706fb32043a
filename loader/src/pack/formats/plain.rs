//! The user's plain files: read at any place, or from a place on through a small window.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{Error, Result};

use super::{SAMPLE_BYTES_MAX, corrupt};

/// Bytes that a stream reads ahead.
const WINDOW_BYTES: usize = 1 << 20;

/// A file and its length when it was opened.
#[derive(Debug)]
pub(super) struct PlainFile {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl PlainFile {
    #[expect(clippy::disallowed_methods, reason = "the user's plain files are no data files of the store")]
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::io("read input", path, error);
        let file =
            File::open(path).map_err(failed).map_err(|error| error.hint("is it there, and readable?"))?;
        let bytes = file.metadata().map_err(failed)?.len();
        Ok(Self { file, path: path.to_owned(), bytes })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Another handle of the same file, for a parser that reads by itself.
    #[cfg(feature = "parquet")]
    pub(super) fn reopen(&self) -> Result<File> {
        self.file.try_clone().map_err(|error| Error::io("read input", &self.path, error))
    }

    /// `len` bytes at `offset`.
    pub(super) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        self.check(offset, len)?;
        let mut bytes = vec![0; to_usize(len)];
        self.fill(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Refuses what the file does not hold, and what is too long for memory.
    fn check(&self, offset: u64, len: u64) -> Result<()> {
        if offset.checked_add(len).is_none_or(|end| end > self.bytes) {
            let why = format!("it ends at {}, expected {len} bytes from here", self.bytes);
            return Err(corrupt(&self.path, (offset, len), why));
        }
        if len > SAMPLE_BYTES_MAX {
            let why = format!("{len} bytes in one piece, at most {SAMPLE_BYTES_MAX}");
            return Err(corrupt(&self.path, (offset, len), why));
        }
        Ok(())
    }

    fn fill(&self, offset: u64, to: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(to, offset).map_err(|error| {
            let failed = Error::io("read input", &self.path, error).at_offset(offset, to_u64(to.len()));
            failed.hint("did the file change while it was packed?")
        })
    }

    /// Its bytes from `start` to `end`.
    pub(super) fn stream(&self, start: u64, end: u64) -> Stream<'_> {
        Stream { file: self, window: Vec::new(), at: 0, next: start, end: end.min(self.bytes) }
    }
}

/// Reads a file from a place on. What it gave is valid until it is asked again.
#[derive(Debug)]
pub(super) struct Stream<'f> {
    file: &'f PlainFile,
    // `window[at..]` comes before `next` of the file.
    window: Vec<u8>,
    at: usize,
    next: u64,
    end: u64,
}

impl Stream<'_> {
    /// Where in the file the next byte lies.
    pub(super) fn offset(&self) -> u64 {
        self.next - to_u64(self.window.len() - self.at)
    }

    pub(super) fn left(&self) -> u64 {
        self.end.saturating_sub(self.offset())
    }

    /// Brings at least `len` bytes into the window, if there are as many.
    fn ahead(&mut self, len: usize) -> Result<&[u8]> {
        let have = self.window.len() - self.at;
        if have < len && self.next < self.end {
            self.window.drain(..self.at);
            self.at = 0;
            let want = to_u64(len.max(WINDOW_BYTES) - have).min(self.end - self.next);
            self.window.resize(have + to_usize(want), 0);
            self.file.fill(self.next, &mut self.window[have..])?;
            self.next += want;
        }
        Ok(&self.window[self.at..])
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64) -> Result<&[u8]> {
        if len > self.left() {
            let why = format!("it ends at {}, expected {len} bytes from here", self.end);
            return Err(corrupt(&self.file.path, (self.offset(), len), why));
        }
        self.file.check(self.offset(), len)?;
        let len = to_usize(len);
        self.ahead(len)?;
        self.at += len;
        Ok(&self.window[self.at - len..self.at])
    }

    /// Passes over `len` bytes.
    pub(super) fn skip(&mut self, len: u64) -> Result<()> {
        if len > self.left() {
            let why = format!("it ends at {}, expected {len} bytes from here", self.end);
            return Err(corrupt(&self.file.path, (self.offset(), len), why));
        }
        let have = to_u64(self.window.len() - self.at);
        if len <= have {
            self.at += to_usize(len);
        } else {
            self.next += len - have;
            self.window.clear();
            self.at = 0;
        }
        Ok(())
    }

    /// The next line without its end; none at the end of the file.
    pub(super) fn line(&mut self) -> Result<Option<&[u8]>> {
        let mut searched = 0;
        loop {
            let ahead = self.ahead(searched + 1)?;
            if let Some(found) = ahead[searched..].iter().position(|byte| *byte == b'\n') {
                let start = self.at;
                self.at += searched + found + 1;
                let line = &self.window[start..self.at - 1];
                return Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)));
            }
            let have = self.window.len() - self.at;
            if have == searched {
                let start = self.at;
                self.at = self.window.len();
                return Ok((have > 0).then_some(&self.window[start..]));
            }
            if to_u64(have) > SAMPLE_BYTES_MAX {
                let why = format!("a line of more than {SAMPLE_BYTES_MAX} bytes");
                return Err(corrupt(&self.file.path, (self.offset(), to_u64(have)), why));
            }
            searched = have;
        }
    }
}
