//! What to measure: one job in fio's words, parsed once into values that make sense together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tierstream_storage::units::to_usize;

use super::options::{bad, bytes, number, switch, time, unknown, word};
use crate::{Error, ErrorKind, Result};

/// One submission entry of io_uring moves at most this much.
const BLOCK_BYTES_MAX: u64 = 1 << 30;
/// As deep as `storage::io::UringEngine` goes.
const DEPTH_MAX: u64 = 4096;
/// Each job is a thread with its own buffers; far beyond the cores of any machine.
const JOBS_MAX: u64 = 1024;
/// O_DIRECT moves whole sectors on every device.
const SECTOR_BYTES: u64 = 512;

/// The order and direction of I/O: fio's `rw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Read,
    Write,
    RandRead,
    RandWrite,
    RandRw,
}

impl Pattern {
    const WORDS: [(&'static str, Self); 5] = [
        ("read", Self::Read),
        ("write", Self::Write),
        ("randread", Self::RandRead),
        ("randwrite", Self::RandWrite),
        ("randrw", Self::RandRw),
    ];

    pub(super) fn is_random(self) -> bool {
        matches!(self, Self::RandRead | Self::RandWrite | Self::RandRw)
    }

    pub(super) fn writes(self) -> bool {
        matches!(self, Self::Write | Self::RandWrite | Self::RandRw)
    }
}

/// What carries out the I/O: fio's `ioengine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EngineName {
    Psync,
    Mmap,
    IoUring,
    TokioUring,
}

impl EngineName {
    const WORDS: [(&'static str, Self); 4] = [
        ("psync", Self::Psync),
        ("mmap", Self::Mmap),
        ("io_uring", Self::IoUring),
        ("tokio-uring", Self::TokioUring),
    ];

    /// Whether it completes each I/O before it takes the next.
    pub(super) fn is_synchronous(self) -> bool {
        matches!(self, Self::Psync | Self::Mmap)
    }
}

fn name_of<T: Copy + PartialEq>(words: &[(&'static str, T)], meaning: T) -> &'static str {
    words.iter().find(|(_, of)| *of == meaning).map_or("", |(word, _)| *word)
}

/// A job. Made by [`IoJob::parse`] or [`IoJob::from_args`] alone, so that its values always make sense together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoJob {
    pub(super) name: String,
    pub(super) filename: Option<PathBuf>,
    pub(super) directory: Option<PathBuf>,
    pub(super) rw: Pattern,
    pub(super) rwmixread: u64,
    pub(super) bs: u64,
    pub(super) size: u64,
    pub(super) iodepth: usize,
    pub(super) ioengine: EngineName,
    pub(super) direct: bool,
    pub(super) runtime: Option<Duration>,
    pub(super) time_based: bool,
    pub(super) fixedbufs: bool,
    pub(super) randseed: u64,
    pub(super) numjobs: usize,
}

/// fio's defaults; `size` has none.
impl Default for IoJob {
    fn default() -> Self {
        Self {
            name: "job".to_owned(),
            filename: None,
            directory: None,
            rw: Pattern::Read,
            rwmixread: 50,
            bs: 4096,
            size: 0,
            iodepth: 1,
            ioengine: EngineName::Psync,
            direct: false,
            runtime: None,
            time_based: false,
            fixedbufs: false,
            randseed: 0,
            numjobs: 1,
        }
    }
}

impl IoJob {
    /// The options there are, with fio's names and meanings:
    ///
    /// | option | values | default |
    /// |---|---|---|
    /// | `name` | a word for reports and file names | `job` |
    /// | `filename` | the file, below `directory` where that is given too | |
    /// | `directory` | where `name.<job>.0` is, one file for each of `numjobs` | |
    /// | `rw` | `read`, `write`, `randread`, `randwrite`, `randrw` | `read` |
    /// | `rwmixread` | percent of reads in `randrw` | 50 |
    /// | `bs` | bytes of one I/O, with suffix k, m, g, t | 4k |
    /// | `size` | bytes of the file that are used, rounded down to whole `bs` | must be given |
    /// | `iodepth` | I/Os in flight of one job | 1 |
    /// | `ioengine` | `psync`, `mmap` (reads only), `io_uring`, `tokio-uring` | `psync` |
    /// | `direct` | 1 goes past the page cache | 0 |
    /// | `runtime` | time after which to stop, in seconds or with suffix us, ms, s, m, h, d | |
    /// | `time_based` | 1 starts over until `runtime` is up | 0 |
    /// | `fixedbufs` | 1 registers the buffers of `io_uring` | 0 |
    /// | `randseed` | the same seed gives the same order | 0 |
    /// | `numjobs` | threads that do the same | 1 |
    pub const OPTIONS: [&'static str; 15] = [
        "name",
        "filename",
        "directory",
        "rw",
        "rwmixread",
        "bs",
        "size",
        "iodepth",
        "ioengine",
        "direct",
        "runtime",
        "time_based",
        "fixedbufs",
        "randseed",
        "numjobs",
    ];

    /// A job from options and their values, the last of the same name counting; [`IoJob::OPTIONS`] lists them.
    ///
    /// # Errors
    /// `Misuse` for an unknown option (naming the nearest known one), for a value that is none (with what was found and
    /// expected) and for values that contradict each other; `Unsupported` for writing through `mmap`.
    pub fn parse(options: &[(&str, &str)]) -> Result<Self> {
        let mut job = Self::default();
        for (key, value) in options {
            job.set(key, value)?;
        }
        job.check()?;
        Ok(job)
    }

    /// A job from arguments `--option=value`; `--option` alone is `--option=1`, as in fio.
    ///
    /// # Errors
    /// As [`IoJob::parse`], and `Misuse` for an argument that does not begin with `--`.
    pub fn from_args<S: AsRef<str>>(args: &[S]) -> Result<Self> {
        let mut options = Vec::with_capacity(args.len());
        for arg in args {
            let arg = arg.as_ref();
            let option = arg.strip_prefix("--").ok_or_else(|| {
                let why = format!("found `{arg}`, expected an option `--name=value`");
                Error::new(ErrorKind::Misuse, "parse", why)
            })?;
            options.push(option.split_once('=').unwrap_or((option, "1")));
        }
        Self::parse(&options)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "name" => value.clone_into(&mut self.name),
            "filename" => self.filename = Some(PathBuf::from(value)),
            "directory" => self.directory = Some(PathBuf::from(value)),
            "rw" => self.rw = word(key, value, &Pattern::WORDS)?,
            "rwmixread" => self.rwmixread = number(key, value, 0..=100)?,
            "bs" => self.bs = bytes(key, value)?,
            "size" => self.size = bytes(key, value)?,
            "iodepth" => self.iodepth = to_usize(number(key, value, 1..=DEPTH_MAX)?),
            "ioengine" => self.ioengine = word(key, value, &EngineName::WORDS)?,
            "direct" => self.direct = switch(key, value)?,
            "runtime" => self.runtime = Some(time(key, value)?),
            "time_based" => self.time_based = switch(key, value)?,
            "fixedbufs" => self.fixedbufs = switch(key, value)?,
            "randseed" => self.randseed = number(key, value, 0..=u64::MAX)?,
            "numjobs" => self.numjobs = to_usize(number(key, value, 1..=JOBS_MAX)?),
            _ => return Err(unknown(key, &Self::OPTIONS)),
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let misuse = |why: &str| Err(Error::new(ErrorKind::Misuse, "parse", why));
        if self.name.is_empty() || self.name.contains('/') {
            return Err(bad("name", &self.name, "a word without `/`: it becomes part of a file name"));
        }
        if self.filename.is_none() && self.directory.is_none() {
            return misuse("no place to measure: found neither filename nor directory, expected one of them");
        }
        if !(1..=BLOCK_BYTES_MAX).contains(&self.bs) {
            return Err(bad("bs", &self.bs.to_string(), "1 to 1g"));
        }
        if self.direct && !self.bs.is_multiple_of(SECTOR_BYTES) {
            return Err(bad("bs", &self.bs.to_string(), "a multiple of 512 with direct=1"));
        }
        if self.size < self.bs {
            let expected = format!("at least one block of bs={}", suffixed(self.bs));
            return Err(bad("size", &suffixed(self.size), &expected));
        }
        if self.time_based && self.runtime.is_none() {
            return misuse("time_based=1 without an end: found no runtime, expected one");
        }
        if self.ioengine == EngineName::Mmap && self.rw.writes() {
            let why = format!("ioengine=mmap reads only: found rw={}", name_of(&Pattern::WORDS, self.rw));
            return Err(Error::new(ErrorKind::Unsupported, "parse", why)
                .hint("use rw=read or rw=randread, or ioengine=psync or io_uring"));
        }
        Ok(())
    }

    /// All options with the values in effect, in fio's words; [`IoJob::parse`] gives the same job for them.
    #[must_use]
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let switch = |on: bool| u8::from(on).to_string();
        let mut options = vec![("name", self.name.clone())];
        options.extend(self.filename.as_deref().map(|name| ("filename", path(name))));
        options.extend(self.directory.as_deref().map(|name| ("directory", path(name))));
        options.push(("rw", name_of(&Pattern::WORDS, self.rw).to_owned()));
        options.push(("rwmixread", self.rwmixread.to_string()));
        options.push(("bs", suffixed(self.bs)));
        options.push(("size", suffixed(self.size)));
        options.push(("iodepth", self.iodepth.to_string()));
        options.push(("ioengine", name_of(&EngineName::WORDS, self.ioengine).to_owned()));
        options.push(("direct", switch(self.direct)));
        options.extend(self.runtime.map(|time| ("runtime", format!("{}us", time.as_micros()))));
        options.push(("time_based", switch(self.time_based)));
        options.push(("fixedbufs", switch(self.fixedbufs)));
        options.push(("randseed", self.randseed.to_string()));
        options.push(("numjobs", self.numjobs.to_string()));
        options
    }

    /// Blocks of `bs` bytes that are used.
    pub(super) fn blocks(&self) -> u64 {
        self.size / self.bs
    }
}

/// A size with the largest suffix that keeps it whole.
fn suffixed(bytes: u64) -> String {
    let suffixes = [(30, "g"), (20, "m"), (10, "k")];
    let whole = suffixes.iter().find(|(bits, _)| bytes > 0 && bytes.trailing_zeros() >= *bits);
    whole.map_or_else(|| bytes.to_string(), |(bits, suffix)| format!("{}{suffix}", bytes >> bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: [(&str, &str); 2] = [("filename", "/tmp/f"), ("size", "1m")];

    fn parse(more: &[(&str, &str)]) -> Result<IoJob> {
        IoJob::parse(&[&LEAST[..], more].concat())
    }

    #[test]
    fn every_listed_option_is_read_and_comes_back() {
        let given = [
            ("name", "a"),
            ("filename", "f"),
            ("directory", "/d"),
            ("rw", "randrw"),
            ("rwmixread", "70"),
            ("bs", "8k"),
            ("size", "3m"),
            ("iodepth", "32"),
            ("ioengine", "io_uring"),
            ("direct", "1"),
            ("runtime", "250ms"),
            ("time_based", "1"),
            ("fixedbufs", "1"),
            ("randseed", "7"),
            ("numjobs", "2"),
        ];
        assert_eq!(given.map(|(key, _)| key), IoJob::OPTIONS);
        let job = IoJob::parse(&given).unwrap();
        assert_eq!((job.bs, job.size, job.blocks()), (8192, 3 << 20, 384));
        assert_eq!(job.runtime, Some(Duration::from_millis(250)));
        let options = job.options();
        let options: Vec<(&str, &str)> = options.iter().map(|(key, value)| (*key, &value[..])).collect();
        let expected = given.map(|(key, value)| (key, if key == "runtime" { "250000us" } else { value }));
        assert_eq!(options, expected);
        assert_eq!(IoJob::parse(&options).unwrap(), job);
    }

    #[test]
    fn arguments_are_written_as_for_fio() {
        let args = ["--filename=/tmp/a=b", "--size=1m", "--direct", "--runtime=1", "--time_based"];
        let job = IoJob::from_args(&args).unwrap();
        assert!(job.direct && job.time_based);
        assert_eq!(job.filename, Some(PathBuf::from("/tmp/a=b")));
        assert!(IoJob::from_args(&["bs=4k"]).unwrap_err().to_string().contains("found `bs=4k`"));
    }

    #[test]
    fn the_unknown_and_the_senseless_are_named() {
        let why = |more: &[(&str, &str)]| {
            let error = parse(more).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Misuse | ErrorKind::Unsupported), "{error}");
            error.to_string()
        };
        assert!(
            why(&[("io_depth", "4")])
                .contains("unknown option `io_depth`, the nearest known one is `iodepth`")
        );
        assert!(why(&[("rw", "readrand")]).contains("found `readrand`, expected one of read, write"));
        assert!(why(&[("iodepth", "0")]).contains("found `0`, expected a number from 1 to 4096"));
        assert!(why(&[("direct", "yes")]).contains("found `yes`, expected 0 or 1"));
        assert!(why(&[("bs", "2m")]).contains("found `1m`, expected at least one block of bs=2m"));
        assert!(why(&[("bs", "1000"), ("direct", "1")]).contains("multiple of 512"));
        assert!(why(&[("time_based", "1")]).contains("found no runtime"));
        assert!(why(&[("ioengine", "mmap"), ("rw", "randwrite")]).contains("reads only"));
        assert!(why(&[("name", "../x")]).contains("without `/`"));
        assert!(IoJob::parse(&[("size", "1m")]).unwrap_err().to_string().contains("neither filename nor"));
        assert!(IoJob::parse(&LEAST[..1]).unwrap_err().to_string().contains("found `0`, expected at least"));
    }
}
