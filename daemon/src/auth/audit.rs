//! The log of decisions: JSON lines, each with the hash of the one before, so that a line that is changed, moved or taken
//! out is found. What is cut off at the end is not found by the file alone: keep the last hash elsewhere.
//!
//! ```text
//! {"seq":7,"time":1764080000,"who":"uid:1000","right":"read","what":"text/en","allowed":true,"why":"role trainer","prev":"..","hash":".."}
//! ```
//!
//! `hash` is SHA-256 of the line without it. Who cannot write the log allows nothing.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use tierstream_storage::{Error, ErrorKind, Result};

use super::text::hex;

/// Longer lines are none of ours.
const LINE_BYTES_MAX: u64 = 64 << 10;
const START: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One decision.
#[derive(Debug)]
pub(crate) struct Decision<'a> {
    pub(crate) who: &'a str,
    pub(crate) right: &'a str,
    pub(crate) what: &'a str,
    pub(crate) allowed: bool,
    pub(crate) why: &'a str,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    seq: u64,
    time: u64,
    who: String,
    right: String,
    what: String,
    allowed: bool,
    why: String,
    prev: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    hash: String,
}

impl Line {
    fn hash(&self) -> Result<String> {
        let bare = Self { hash: String::new(), ..self.copy() };
        let text = serde_json::to_vec(&bare).map_err(|error| bad(error.to_string()))?;
        Ok(hex(digest::digest(&digest::SHA256, &text).as_ref()))
    }

    fn copy(&self) -> Self {
        let Self { seq, time, who, right, what, allowed, why, prev, hash } = self;
        Self {
            seq: *seq,
            time: *time,
            who: who.clone(),
            right: right.clone(),
            what: what.clone(),
            allowed: *allowed,
            why: why.clone(),
            prev: prev.clone(),
            hash: hash.clone(),
        }
    }
}

fn bad(why: String) -> Error {
    Error::new(ErrorKind::Corrupt, "read audit log", why)
}

/// The log, open for appending.
#[derive(Debug)]
pub(crate) struct Audit {
    path: PathBuf,
    end: Mutex<End>,
}

#[derive(Debug)]
struct End {
    file: File,
    seq: u64,
    hash: String,
    // A line was written in part: nothing may follow it.
    broken: bool,
}

impl Audit {
    /// Opens the log at `path`, checks it, and goes on behind its last line.
    ///
    /// # Errors
    /// `Corrupt` with the number of the first line that does not fit; as the file system says.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).read(true).mode(0o600);
        let file = options.open(path).map_err(|error| Error::io("open audit log", path, error))?;
        let report = verify_audit(path)?;
        let end = End { file, seq: report.lines, hash: report.last_hash, broken: false };
        Ok(Self { path: path.to_owned(), end: Mutex::new(end) })
    }

    /// Writes a decision down.
    ///
    /// # Errors
    /// `Denied` when it cannot be: then nothing is allowed.
    pub(crate) fn record(&self, time: u64, decision: &Decision<'_>) -> Result<()> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |text: &str| text.chars().take(1024).collect::<String>();
        let mut line = Line {
            seq: end.seq,
            time,
            who: text(decision.who),
            right: text(decision.right),
            what: text(decision.what),
            allowed: decision.allowed,
            why: text(decision.why),
            prev: end.hash.clone(),
            hash: String::new(),
        };
        line.hash = line.hash()?;
        let mut bytes = serde_json::to_vec(&line).map_err(|error| bad(error.to_string()))?;
        bytes.push(b'\n');
        if end.broken {
            return Err(self.cannot("an earlier line was written in part"));
        }
        if let Err(error) = end.file.write_all(&bytes) {
            end.broken = true;
            return Err(self.cannot(&error.to_string()));
        }
        (end.seq, end.hash) = (end.seq + 1, line.hash);
        Ok(())
    }

    fn cannot(&self, why: &str) -> Error {
        Error::new(ErrorKind::Denied, "write audit log", why.to_owned())
            .at(&self.path)
            .hint("nothing is allowed while decisions cannot be written down: make room, restart the daemon")
    }
}

/// What a log was found to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Decisions in it.
    pub lines: u64,
    /// The hash of the last one, to be kept elsewhere.
    pub last_hash: String,
}

/// Checks every line of the audit log at `path` against the one before.
///
/// # Errors
/// `Corrupt` with the first line that does not fit.
#[expect(clippy::disallowed_methods, reason = "the log is no data file of the store")]
pub fn verify_audit(path: &Path) -> Result<AuditReport> {
    let file = File::open(path).map_err(|error| Error::io("open audit log", path, error))?;
    let mut lines = BufReader::new(file);
    let mut report = AuditReport { lines: 0, last_hash: START.to_owned() };
    loop {
        let mut text = Vec::new();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
        if read.map_err(|error| Error::io("read audit log", path, error))? == 0 {
            return Ok(report);
        }
        let number = report.lines + 1;
        let wrong = |why: &str| {
            bad(format!("line {number}: {why}"))
                .at(path)
                .hint("somebody or a crash changed the log: keep it as evidence and start another one")
        };
        let line: Line = serde_json::from_slice(&text).map_err(|error| wrong(&error.to_string()))?;
        if text.last() != Some(&b'\n') {
            return Err(wrong("it is cut short"));
        }
        if line.seq != report.lines || line.prev != report.last_hash || line.hash != line.hash()? {
            return Err(wrong("it does not follow from the one before"));
        }
        (report.lines, report.last_hash) = (number, line.hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_moved_and_missing_lines_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        for run in 0..2 {
            let audit = Audit::open(&path).unwrap();
            for time in 0..5 {
                let (who, what) = ("uid:1", "text/\"en\"\n");
                let decision = Decision { who, right: "read", what, allowed: time % 2 == 0, why: "role" };
                audit.record(run * 5 + time, &decision).unwrap();
            }
        }
        assert_eq!(verify_audit(&path).unwrap().lines, 10);
        let good = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = good.lines().collect();
        let join = |lines: &[&str]| lines.join("\n") + "\n";
        let without = [&lines[..4], &lines[5..]].concat();
        let mut swapped = lines.clone();
        swapped.swap(6, 7);
        for (text, line) in [
            (good.replacen("true", "false", 1), 1),
            (good.replace("\"time\":7", "\"time\":8"), 8),
            (join(&without), 5),
            (join(&swapped), 7),
            (good[..good.len() - 3].to_owned(), 10),
            ("garbage\n".to_owned(), 1),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = verify_audit(&path).unwrap_err();
            assert!(error.to_string().contains(&format!("line {line}:")), "{error}");
            assert!(Audit::open(&path).is_err());
        }
    }
}
