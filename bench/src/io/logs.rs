//! fio's logs in CSV: `msec, value, direction, bs[, offset], priority`, and histograms of clat.
//!
//! Values are nanoseconds in lat logs, KiB/s in bw logs, I/Os per second in iops logs.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::job::Job;
use super::pattern::{Direction, Step};
use super::record::{Histogram, Record, Stat, Times};
use crate::number::whole;
use crate::{Error, Result};

/// Lines are formatted here before they are written.
const BUFFER_BYTES: usize = 256 << 10;

/// One file.
#[derive(Debug)]
struct Log {
    out: BufWriter<File>,
    path: PathBuf,
    line: String,
    period: [Stat; 2],
}

impl Log {
    fn create(prefix: &Path, kind: &str, job: Option<usize>) -> Result<Self> {
        let number = job.map_or_else(String::new, |job| format!(".{job}"));
        let path = PathBuf::from(format!("{}_{kind}{number}.log", prefix.display()));
        // Jobs that share a log append to it.
        let mut options = std::fs::OpenOptions::new();
        options.create(true).write(true).append(job.is_none()).truncate(job.is_some());
        let file = options.open(&path).map_err(|error| Error::io("write log", &path, error))?;
        let out = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { out, path, line: String::new(), period: Default::default() })
    }

    fn entry(&mut self, millis: u64, value: u64, way: usize, bs: u64, offset: Option<u64>) -> Result<()> {
        self.line.clear();
        let _infallible = match offset {
            Some(offset) => writeln!(self.line, "{millis}, {value}, {way}, {bs}, {offset}, 0"),
            None => writeln!(self.line, "{millis}, {value}, {way}, {bs}, 0"),
        };
        let written = self.out.write_all(self.line.as_bytes());
        written.map_err(|error| Error::io("write log", &self.path, error))
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(|error| Error::io("write log", &self.path, error))
    }
}

/// The logs of one of a job's threads.
#[derive(Debug)]
pub(crate) struct Logs {
    bw: Option<Log>,
    iops: Option<Log>,
    /// slat, clat, lat.
    latencies: Option<[Log; 3]>,
    hist: Option<Log>,
    avg_nanos: u64,
    hist_nanos: u64,
    coarseness: u32,
    max_value: bool,
    offset: bool,
    began: u64,
    epoch_millis: u64,
    period_end: u64,
    rate_end: u64,
    rate_nanos: u64,
    hist_end: u64,
    counted: [(u64, u64); 2],
    histograms: [Histogram; 2],
    block_bytes: [u64; 2],
}

impl Logs {
    /// The logs of thread `number`, counted from 1 over all jobs; times count from `now`. None where there are none.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn create(job: &Job, number: usize, now: u64) -> Result<Option<Self>> {
        let options = &job.logs;
        if !options.any() {
            return Ok(None);
        }
        let number = options.per_job.then_some(number);
        let open = |prefix: &Option<PathBuf>, kind| {
            prefix.as_ref().map(|prefix| Log::create(prefix, kind, number)).transpose()
        };
        let latencies = match &options.lat {
            Some(prefix) => {
                let of = |kind| Log::create(prefix, kind, number);
                Some([of("slat")?, of("clat")?, of("lat")?])
            }
            None => None,
        };
        let rate_nanos = if options.avg_nanos > 0 { options.avg_nanos } else { 500_000_000 };
        let epoch_millis = if options.unix_epoch { super::report::unix_millis() } else { 0 };
        Ok(Some(Self {
            bw: open(&options.bw, "bw")?,
            iops: open(&options.iops, "iops")?,
            latencies,
            hist: open(&options.hist, "clat_hist")?,
            avg_nanos: options.avg_nanos,
            hist_nanos: options.hist_nanos,
            coarseness: options.coarseness,
            max_value: options.max_value,
            offset: options.offset,
            began: now,
            epoch_millis,
            period_end: now + options.avg_nanos,
            rate_end: now + rate_nanos,
            rate_nanos,
            hist_end: now + options.hist_nanos,
            counted: [(0, 0); 2],
            histograms: Default::default(),
            block_bytes: [job.pattern.bs[0].least(), job.pattern.bs[1].least()],
        }))
    }

    fn millis(&self, now: u64) -> u64 {
        self.epoch_millis + (now - self.began) / 1_000_000
    }

    /// Adds a completed I/O.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn add(&mut self, step: &Step, times: Times, record: &Record) -> Result<()> {
        let now = times.end;
        let millis = self.millis(now);
        let way = step.direction as usize;
        if let Some(latencies) = &mut self.latencies {
            let issue = times.issue.unwrap_or(times.start);
            let values = [
                issue.saturating_sub(times.start),
                now.saturating_sub(issue),
                now.saturating_sub(times.start),
            ];
            let offset = self.offset.then_some(step.offset);
            for (log, value) in latencies.iter_mut().zip(values) {
                if self.avg_nanos > 0 {
                    log.period[way].add(value);
                } else {
                    log.entry(millis, value, way, u64::from(step.len), offset)?;
                }
            }
        }
        if now >= self.rate_end || (self.avg_nanos > 0 && now >= self.period_end) || now >= self.hist_end {
            self.close_periods(now, record)?;
        }
        Ok(())
    }

    fn close_periods(&mut self, now: u64, record: &Record) -> Result<()> {
        let zero = self.offset.then_some(0);
        while self.avg_nanos > 0 && now >= self.period_end {
            let millis = self.millis(self.period_end);
            for log in self.latencies.iter_mut().flatten() {
                for way in 0..2 {
                    let period = std::mem::take(&mut log.period[way]);
                    if period.count > 0 {
                        let value = if self.max_value { period.max } else { whole(period.mean()) };
                        log.entry(millis, value, way, 0, zero)?;
                    }
                }
            }
            self.period_end += self.avg_nanos;
        }
        while now >= self.rate_end {
            let millis = self.millis(self.rate_end);
            for direction in [Direction::Read, Direction::Write] {
                let way = direction as usize;
                let of = &record.directions[way];
                let (ios, bytes) = (of.ios - self.counted[way].0, of.bytes - self.counted[way].1);
                self.counted[way] = (of.ios, of.bytes);
                if of.ios == 0 {
                    continue;
                }
                let per_second = 1e9 / self.rate_nanos as f64;
                let bs = self.block_bytes[way];
                if let Some(log) = &mut self.bw {
                    log.entry(millis, whole(bytes as f64 / 1024.0 * per_second), way, bs, zero)?;
                }
                if let Some(log) = &mut self.iops {
                    log.entry(millis, whole(ios as f64 * per_second), way, bs, zero)?;
                }
            }
            self.rate_end += self.rate_nanos;
        }
        while now >= self.hist_end {
            let millis = self.millis(self.hist_end);
            if let Some(log) = &mut self.hist {
                for way in 0..2 {
                    let of = &record.directions[way];
                    if of.ios == 0 {
                        continue;
                    }
                    let bins = of.clat.histogram.since(&mut self.histograms[way]);
                    log.line.clear();
                    let bs = self.block_bytes[way];
                    let _infallible = write!(log.line, "{millis}, {way}, {bs}");
                    for count in bins.columns(self.coarseness) {
                        let _infallible = write!(log.line, ", {count}");
                    }
                    log.line.push('\n');
                    let written = log.out.write_all(log.line.as_bytes());
                    written.map_err(|error| Error::io("write log", &log.path, error))?;
                }
            }
            self.hist_end += self.hist_nanos;
        }
        Ok(())
    }

    /// Ends the logs at `now`.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn finish(mut self, now: u64, record: &Record) -> Result<()> {
        self.close_periods(now, record)?;
        // The last, unfinished period of latencies has entries all the same, as fio's has.
        if self.avg_nanos > 0 {
            self.period_end = now;
            self.close_periods(now, record)?;
        }
        let logs = self.latencies.iter_mut().flatten();
        let mut logs = logs.chain(&mut self.bw).chain(&mut self.iops).chain(&mut self.hist);
        logs.try_for_each(Log::flush)
    }
}
