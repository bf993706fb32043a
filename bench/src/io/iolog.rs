//! Sequences that were recorded: fio's iologs of versions 2 and 3, and traces in CSV.
//!
//! A trace has the columns `t,id,size,op,stream` (times in microseconds, 0 reads, 1 writes), plain or compressed with
//! zstd. Its ids say which object, not where it lies: objects get places in the order in which they first appear.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use super::options::OptionSet;
use super::pattern::Direction;
use crate::{Error, ErrorKind, Result, to_usize};

/// A log is held in memory: 32 bytes an entry.
const ENTRIES_MAX: usize = 50_000_000;
/// One line of a log.
const LINE_BYTES_MAX: u64 = 1 << 16;

/// What to replay, and how.
#[derive(Clone, Debug)]
pub(crate) struct ReplayOptions {
    pub(crate) path: PathBuf,
    pub(crate) no_stall: bool,
    pub(crate) time_scale: u64,
    pub(crate) redirect: Option<String>,
    pub(crate) skip_reads: bool,
    pub(crate) skip_writes: bool,
    pub(crate) skip_syncs: bool,
}

impl ReplayOptions {
    pub(crate) fn new(set: &OptionSet) -> Result<Option<Self>> {
        let no_stall = set.switch("replay_no_stall")?.unwrap_or(false);
        let time_scale = set.number("replay_time_scale")?.unwrap_or(100);
        let redirect = set.text("replay_redirect").map(str::to_owned);
        let skip: Vec<&str> = set.text("replay_skip").map_or_else(Vec::new, |text| text.split(',').collect());
        for word in &skip {
            super::options::value::word("replay_skip", word, &["read", "write", "sync", "trim"])?;
        }
        let skips = |word: &str| skip.contains(&word);
        Ok(set.text("read_iolog").map(|path| Self {
            path: path.into(),
            no_stall,
            time_scale,
            redirect,
            skip_reads: skips("read"),
            skip_writes: skips("write"),
            skip_syncs: skips("sync"),
        }))
    }
}

/// One entry to replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Nanoseconds since the start; none where the log has no times.
    pub(crate) at: Option<u64>,
    pub(crate) action: Action,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Move { direction: Direction, file: u32, offset: u64, len: u32 },
    Sync { file: u32, data_only: bool },
}

/// A log, read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replay {
    pub(crate) entries: Vec<Entry>,
    pub(crate) files: Vec<String>,
    /// Bytes of each file that the log touches.
    pub(crate) file_bytes: Vec<u64>,
    pub(crate) longest: u64,
    pub(crate) writes: bool,
    /// What was left out.
    pub(crate) notes: Vec<String>,
}

impl Replay {
    /// Reads the log of `options`.
    ///
    /// # Errors
    /// `Misuse` with the line for what is no log; `Full` when it has more entries than memory is for.
    pub(crate) fn read(options: &ReplayOptions, filename: Option<&str>) -> Result<Self> {
        let path = &options.path;
        let text = open(path)?;
        let mut reader = BufReader::new(text);
        let mut first = String::new();
        read_line(&mut reader, &mut first, path, 1)?;
        let mut replay = Self::default();
        let single = options.redirect.as_deref().or(filename);
        match first.trim() {
            "fio version 2 iolog" => replay.read_fio(reader, path, options, false)?,
            "fio version 3 iolog" => replay.read_fio(reader, path, options, true)?,
            header if header.starts_with("t,id,size,op") => {
                replay.read_trace(reader, path, options, single.unwrap_or("trace.data"))?;
            }
            other => {
                let found: String = other.chars().take(40).collect();
                let why = format!(
                    "line 1: found `{found}`, expected `fio version 2 iolog`, `fio version 3 iolog` or the header \
                     t,id,size,op,stream"
                );
                return Err(Error::new(ErrorKind::Misuse, "read iolog", why).at(path));
            }
        }
        if let Some(single) = &options.redirect {
            let longest = replay.file_bytes.iter().copied().max().unwrap_or(0);
            for entry in &mut replay.entries {
                match &mut entry.action {
                    Action::Move { file, .. } | Action::Sync { file, .. } => *file = 0,
                }
            }
            replay.files = vec![single.clone()];
            replay.file_bytes = vec![longest];
        }
        if replay.entries.is_empty() {
            return Err(Error::new(ErrorKind::Misuse, "read iolog", "it has no I/O").at(path));
        }
        for entry in &mut replay.entries {
            entry.at = if options.no_stall { None } else { entry.at.map(|at| at / options.time_scale * 100) };
        }
        Ok(replay)
    }

    fn push(&mut self, entry: Entry, options: &ReplayOptions, path: &Path) -> Result<()> {
        match entry.action {
            Action::Move { direction: Direction::Read, .. } if options.skip_reads => return Ok(()),
            Action::Move { direction: Direction::Write, .. } if options.skip_writes => return Ok(()),
            Action::Sync { .. } if options.skip_syncs => return Ok(()),
            Action::Move { direction, file, offset, len } => {
                let bytes = &mut self.file_bytes[to_usize(u64::from(file))];
                *bytes = (*bytes).max(offset + u64::from(len));
                self.longest = self.longest.max(u64::from(len));
                self.writes |= direction == Direction::Write;
            }
            Action::Sync { .. } => {}
        }
        if self.entries.len() == ENTRIES_MAX {
            let why = format!("more than {ENTRIES_MAX} entries");
            return Err(Error::new(ErrorKind::Full, "read iolog", why).at(path));
        }
        self.entries.push(entry);
        Ok(())
    }

    fn file_number(&mut self, name: &str) -> u32 {
        let at = self.files.iter().position(|known| known == name).unwrap_or_else(|| {
            self.files.push(name.to_owned());
            self.file_bytes.push(0);
            self.files.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    fn read_fio(
        &mut self,
        mut reader: impl BufRead,
        path: &Path,
        options: &ReplayOptions,
        timed: bool,
    ) -> Result<()> {
        let mut line = String::new();
        let mut waited = 0;
        let mut trims = 0;
        for number in 2.. {
            if !read_line(&mut reader, &mut line, path, number)? {
                break;
            }
            let mut words = line.split_whitespace();
            let bad = |why: &str| {
                let why = format!("line {number}: {why}, found `{}`", line.trim());
                Error::new(ErrorKind::Misuse, "read iolog", why).at(path)
            };
            let mut at = None;
            if timed {
                let Some(word) = words.next() else { continue };
                // Microseconds, as fio 3.33 writes them; its manual does not say.
                at = Some(word.parse::<u64>().map_err(|_| bad("expected a time"))?.saturating_mul(1_000));
            }
            let Some(name) = words.next() else { continue };
            let action = words.next().ok_or_else(|| bad("expected FILE ACTION"))?;
            if action == "wait" {
                let micros: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                waited = micros * 1_000;
                continue;
            }
            let file = self.file_number(name);
            if !timed {
                at = (waited > 0).then_some(waited);
            }
            let action = match action {
                "add" | "open" | "close" => continue,
                "sync" | "datasync" => Action::Sync { file, data_only: action == "datasync" },
                "trim" => {
                    trims += 1;
                    continue;
                }
                "read" | "write" => {
                    let mut field = |what| words.next().and_then(|word| word.parse::<u64>().ok()).ok_or(what);
                    let offset = field("expected an offset").map_err(bad)?;
                    let len = field("expected a length").map_err(bad)?;
                    let len = u32::try_from(len).ok().filter(|len| (1..=1 << 30).contains(len));
                    let len = len.ok_or_else(|| bad("expected a length from 1 to 1g"))?;
                    let direction = if action == "read" { Direction::Read } else { Direction::Write };
                    Action::Move { direction, file, offset, len }
                }
                _ => return Err(bad("expected add, open, close, read, write, sync, datasync, trim or wait")),
            };
            self.push(Entry { at, action }, options, path)?;
        }
        if trims > 0 {
            self.notes.push(format!("{trims} trims of `{}` were left out", path.display()));
        }
        Ok(())
    }

    fn read_trace(
        &mut self,
        mut reader: impl BufRead,
        path: &Path,
        options: &ReplayOptions,
        name: &str,
    ) -> Result<()> {
        let file = self.file_number(name);
        let mut places: HashMap<u64, u64> = HashMap::new();
        let mut end = 0;
        let mut line = String::new();
        for number in 2.. {
            if !read_line(&mut reader, &mut line, path, number)? {
                break;
            }
            if line.trim().is_empty() {
                continue;
            }
            let mut fields = line.trim().split(',').map(|field| field.trim().parse::<u64>().ok());
            let mut next = || fields.next().flatten();
            let (Some(t), Some(id), Some(size)) = (next(), next(), next()) else {
                let why = format!("line {number}: found `{}`, expected t,id,size,op,stream", line.trim());
                return Err(Error::new(ErrorKind::Misuse, "read iolog", why).at(path));
            };
            let direction = if next() == Some(1) { Direction::Write } else { Direction::Read };
            // Whole sectors, for O_DIRECT.
            let len = size.clamp(1, 1 << 30).next_multiple_of(4096);
            let offset = *places.entry(id).or_insert_with(|| {
                let at = end;
                end += len;
                at
            });
            let len = u32::try_from(len).expect("at most 1 GiB");
            let at = Some(t.saturating_mul(1_000));
            self.push(Entry { at, action: Action::Move { direction, file, offset, len } }, options, path)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    let failed = |error| Error::io("read iolog", path, error);
    let file = std::fs::OpenOptions::new().read(true).open(path).map_err(failed)?;
    if path.extension().is_some_and(|extension| extension == "zst") {
        let decoder = zstd::stream::read::Decoder::new(file).map_err(failed)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(file))
}

/// Reads a line; false at the end.
fn read_line(reader: &mut impl BufRead, line: &mut String, path: &Path, number: usize) -> Result<bool> {
    line.clear();
    let read = reader.take(LINE_BYTES_MAX).read_line(line).map_err(|error| {
        Error::io("read iolog", path, error).hint(format!("line {number} is no text: is it a log?"))
    })?;
    Ok(read > 0)
}

/// Writes a log of fio version 2.
#[derive(Debug)]
pub(crate) struct LogWriter {
    out: std::io::BufWriter<std::fs::File>,
    path: PathBuf,
    names: Vec<String>,
}

impl LogWriter {
    /// A log of the files `names` at `path`.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn create(path: &Path, names: Vec<String>) -> Result<Self> {
        let failed = |error| Error::io("write iolog", path, error);
        let file = std::fs::File::create(path).map_err(failed)?;
        let mut out = std::io::BufWriter::new(file);
        let mut text = String::from("fio version 2 iolog\n");
        for name in &names {
            text.push_str(&format!("{name} add\n{name} open\n"));
        }
        out.write_all(text.as_bytes()).map_err(failed)?;
        Ok(Self { out, path: path.to_owned(), names })
    }

    /// Adds one I/O.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn add(&mut self, step: &super::pattern::Step) -> Result<()> {
        let name = &self.names[to_usize(u64::from(step.file))];
        let line = writeln!(self.out, "{name} {} {} {}", step.direction.word(), step.offset, step.len);
        line.map_err(|error| Error::io("write iolog", &self.path, error))
    }

    /// Ends the log.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn finish(mut self) -> Result<()> {
        let closed: String = self.names.iter().map(|name| format!("{name} close\n")).collect();
        let written = self.out.write_all(closed.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(|error| Error::io("write iolog", &self.path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, more: impl FnOnce(&mut ReplayOptions)) -> Result<Replay> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, text).unwrap();
        let mut options = ReplayOptions {
            path,
            no_stall: false,
            time_scale: 100,
            redirect: None,
            skip_reads: false,
            skip_writes: false,
            skip_syncs: false,
        };
        more(&mut options);
        Replay::read(&options, None)
    }

    #[test]
    fn logs_of_fio_are_read() {
        let text = "fio version 2 iolog\n/a add\n/a open\n/b add\n/a read 4096 512\n/b write 0 8192\n/a datasync\n/a close\n";
        let replay = read(text, |_| ()).unwrap();
        assert_eq!(replay.files, ["/a", "/b"]);
        assert_eq!(replay.file_bytes, [4608, 8192]);
        assert_eq!(replay.entries.len(), 3);
        assert!(replay.writes && replay.longest == 8192);
        let one = read(text, |options| {
            options.redirect = Some("/c".into());
            options.skip_writes = true;
        })
        .unwrap();
        assert_eq!((one.files.len(), one.entries.len(), one.file_bytes[0]), (1, 2, 4608));
        let timed =
            read("fio version 3 iolog\n5 /a add\n7 /a read 0 4096\n", |options| options.time_scale = 200)
                .unwrap();
        assert_eq!(timed.entries[0].at, Some(3_500));
    }

    #[test]
    fn traces_give_each_object_a_place() {
        let replay =
            read("t,id,size,op,stream\n0,77,4096,0,0\n1,5,100,1,0\n2,77,4096,0,1\n", |_| ()).unwrap();
        let offsets: Vec<u64> = replay
            .entries
            .iter()
            .map(|entry| match entry.action {
                Action::Move { offset, .. } => offset,
                Action::Sync { .. } => u64::MAX,
            })
            .collect();
        assert_eq!(offsets, [0, 4096, 0]);
        assert_eq!(replay.entries[1].at, Some(1_000));
        assert_eq!(replay.file_bytes, [8192]);
    }

    #[test]
    fn what_is_no_log_is_told_with_its_line() {
        for (text, expected) in [
            ("hello\n", "line 1: found `hello`"),
            ("fio version 2 iolog\n/a read x 4\n", "line 2: expected an offset"),
            ("fio version 2 iolog\n/a jump 0 4\n", "line 2: expected add, open"),
            ("fio version 2 iolog\n/a read 0 0\n", "a length from 1"),
            ("fio version 2 iolog\n", "it has no I/O"),
            ("t,id,size,op,stream\n1,2\n", "line 2: found `1,2`"),
        ] {
            let error = read(text, |_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
