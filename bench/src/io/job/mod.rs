//! A job: options as values that make sense together. Made from an [`OptionSet`] alone.

mod buffer;
mod engine;
mod files;
mod output;
mod pattern;
mod rate;
mod tiers;

pub(crate) use buffer::{BufferOptions, Fill, pattern as pattern_bytes};
pub(crate) use engine::{EngineName, EngineOptions, MemoryKind};
pub(crate) use files::{FileOptions, ServiceKind, SyncOptions};
pub(crate) use output::{LogOptions, StatOptions, Unified};
pub(crate) use pattern::{BlockSize, Distribution, Pattern, Sequencer};
pub(crate) use rate::{LatencyTarget, RateOptions, SteadyBy, SteadyState, ThinkTime};
pub(crate) use tiers::{TierOptions, Workload};

use super::options::{OptionSet, table, value};
use crate::{Error, ErrorKind, Result};

/// One section of a job file.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) note: Option<String>,
    pub(crate) numjobs: usize,
    pub(crate) loops: u64,
    pub(crate) runtime_nanos: Option<u64>,
    pub(crate) time_based: bool,
    pub(crate) ramp_nanos: u64,
    /// Least and greatest delay before the start.
    pub(crate) start_delay_nanos: (u64, u64),
    pub(crate) stonewall: bool,
    pub(crate) new_group: bool,
    pub(crate) group_reporting: bool,
    pub(crate) exitall: bool,
    pub(crate) cpus: Vec<usize>,
    pub(crate) cpus_split: bool,
    pub(crate) nice: Option<i32>,
    pub(crate) files: FileOptions,
    pub(crate) sync: SyncOptions,
    pub(crate) pattern: Pattern,
    pub(crate) engine: EngineOptions,
    pub(crate) buffer: BufferOptions,
    pub(crate) rate: RateOptions,
    pub(crate) think: ThinkTime,
    pub(crate) max_latency_nanos: Option<u64>,
    pub(crate) latency_target: Option<LatencyTarget>,
    pub(crate) steady: Option<SteadyState>,
    pub(crate) verify: Option<super::verify::VerifyOptions>,
    pub(crate) continue_on_error: bool,
    pub(crate) stats: StatOptions,
    pub(crate) logs: LogOptions,
    pub(crate) replay: Option<super::iolog::ReplayOptions>,
    pub(crate) write_iolog: Option<std::path::PathBuf>,
    pub(crate) tiers: TierOptions,
    /// What holds for all jobs and what is of this one alone, as given.
    pub(crate) given: Vec<(String, String)>,
}

/// Options that hold for workloads too; others than these and those of the tiers would be ignored, and so are errors.
const ON_TIERS: &[&str] = &[
    "name",
    "description",
    "note",
    "ioengine",
    "rw",
    "directory",
    "numjobs",
    "runtime",
    "time_based",
    "startdelay",
    "stonewall",
    "new_group",
    "group_reporting",
    "exitall",
    "thread",
    "cpus_allowed",
    "cpus_allowed_policy",
    "nice",
    "kb_base",
    "randseed",
    "randrepeat",
    "buffer_compress_percentage",
    "buffer_compress_chunk",
    "percentile_list",
    "clat_percentiles",
    "lat_percentiles",
    "slat_percentiles",
    "report_window",
    "direct",
];

/// An error of values that contradict each other.
pub(crate) fn contradiction(job: &str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Misuse, "parse", format!("job `{job}`: {why}"))
}

impl Job {
    /// The job of `set`.
    ///
    /// # Errors
    /// `Misuse` for a value that is none (found, expected, place) and for values that contradict each other.
    pub(crate) fn new(set: &OptionSet) -> Result<Self> {
        let gtod_reduce = set.switch("gtod_reduce")?.unwrap_or(false);
        let runtime = set.nanos("runtime")?.filter(|nanos| *nanos > 0);
        let delay = |text: &str| {
            let (low, high) = text.split_once('-').unwrap_or((text, text));
            let of = |end: &str| value::nanos("startdelay", end, 1_000_000_000);
            Ok((of(low)?, of(high)?))
        };
        let mut given: Vec<(String, String)> = vec![("name".to_owned(), set.name.clone())];
        let effective = set.effective().into_iter().filter(|(name, _)| *name != "name");
        given.extend(effective.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let pattern = Pattern::new(set)?;
        let job = Self {
            name: set.text("name").map_or_else(|| set.name.clone(), str::to_owned),
            description: set.text("description").map(str::to_owned),
            note: set.text("note").map(str::to_owned),
            numjobs: set.number("numjobs")?.map_or(1, crate::to_usize),
            loops: set.number("loops")?.unwrap_or(1),
            runtime_nanos: runtime,
            time_based: set.switch("time_based")?.unwrap_or(false),
            ramp_nanos: set.nanos("ramp_time")?.unwrap_or(0),
            start_delay_nanos: set.parsed("startdelay", delay)?.unwrap_or((0, 0)),
            stonewall: set.switch("stonewall")?.unwrap_or(false),
            new_group: set.switch("new_group")?.unwrap_or(false),
            group_reporting: set.switch("group_reporting")?.unwrap_or(false),
            exitall: set.switch("exitall")?.unwrap_or(false),
            cpus: set.parsed("cpus_allowed", cpus)?.unwrap_or_default(),
            cpus_split: set.word("cpus_allowed_policy")? == Some("split"),
            nice: set.parsed("nice", nice)?,
            files: FileOptions::new(set)?,
            sync: SyncOptions::new(set)?,
            engine: EngineOptions::new(set)?,
            buffer: BufferOptions::new(set)?,
            rate: RateOptions::new(set)?,
            think: ThinkTime::new(set)?,
            max_latency_nanos: set.nanos("max_latency")?.filter(|nanos| *nanos > 0),
            latency_target: LatencyTarget::new(set)?,
            steady: SteadyState::new(set)?,
            verify: super::verify::VerifyOptions::new(set, &pattern)?,
            continue_on_error: !matches!(set.word("continue_on_error")?, None | Some("none" | "0")),
            stats: StatOptions::new(set, gtod_reduce)?,
            logs: LogOptions::new(set)?,
            replay: super::iolog::ReplayOptions::new(set)?,
            write_iolog: set.text("write_iolog").map(Into::into),
            tiers: TierOptions::new(set)?,
            pattern,
            given,
        };
        job.check()?;
        Ok(job)
    }

    fn check(&self) -> Result<()> {
        let wrong = |why: &str, hint: &str| Err(contradiction(&self.name, why).hint(hint.to_owned()));
        if self.time_based && self.runtime_nanos.is_none() {
            return wrong("time_based without runtime never ends", "add runtime=30s");
        }
        if self.steady.is_some() && !self.time_based {
            return wrong(
                "steadystate needs a job that does not end of itself",
                "add time_based and runtime=",
            );
        }
        let writes = self.pattern.writes();
        let name = self.engine.name;
        if writes && name == EngineName::Mmap {
            return wrong("ioengine=mmap only reads", "use psync or io_uring to write");
        }
        let ours = matches!(name, EngineName::Tier | EngineName::Loader);
        for (key, _) in &self.given {
            let of_tiers = table::is_of_tiers(key);
            if of_tiers && !ours {
                return wrong(
                    &format!("`{key}` says nothing to ioengine={}", self.engine.word),
                    "add ioengine=loader or ioengine=tier",
                );
            }
            if ours && !of_tiers && !ON_TIERS.contains(&key.as_str()) {
                return wrong(
                    &format!("`{key}` says nothing to ioengine={}", self.engine.word),
                    "leave it out: samples, batches and compute_time take its place",
                );
            }
        }
        if ours && writes && self.tiers.workload != Some(Workload::Checkpoint) {
            return wrong("this engine reads sealed data sets", "use workload=checkpoint to write objects");
        }
        if self.files.filename.is_empty() && self.files.directory.is_empty() && self.files.opendir.is_none() {
            // fio takes the working directory then; so do we, but say where files would appear.
            return match self.replay {
                Some(_) => Ok(()),
                None if name == EngineName::Null => Ok(()),
                None if ours && self.tiers.l3.is_some() => Ok(()),
                None => wrong(
                    "neither filename nor directory",
                    "add filename=PATH, or directory=. for files here",
                ),
            };
        }
        Ok(())
    }

    /// Whether any file of the job is written.
    pub(crate) fn writes(&self) -> bool {
        self.pattern.writes()
    }

    /// The option `name` as it was given.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }
}

/// Cores of a list such as 0,2-3.
fn cpus(text: &str) -> Result<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split([',', ':']) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let of = |end: &str| value::number("cpus_allowed", end, 0..=1023).map(crate::to_usize);
        cpus.extend(of(low)?..=of(high)?);
    }
    Ok(cpus)
}

fn nice(text: &str) -> Result<i32> {
    let parsed = text.parse().ok().filter(|nice| (-20..=19).contains(nice));
    parsed.ok_or_else(|| value::bad("nice", text, "a number from -20 to 19"))
}

#[cfg(test)]
mod tests;
