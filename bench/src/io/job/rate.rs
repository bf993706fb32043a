//! When I/Os are issued.

use super::super::options::value;
use super::super::options::{OptionSet, misuse};
use crate::Result;

/// Limits by direction.
#[derive(Clone, Debug)]
pub(crate) struct RateOptions {
    pub(crate) bytes: [Option<u64>; 2],
    pub(crate) iops: [Option<u64>; 2],
    pub(crate) bytes_min: [Option<u64>; 2],
    pub(crate) iops_min: [Option<u64>; 2],
    pub(crate) cycle_nanos: u64,
    pub(crate) poisson: bool,
    pub(crate) ignore_think: bool,
}

fn positive(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

impl RateOptions {
    pub(super) fn new(set: &OptionSet) -> Result<Self> {
        let base = set.kb_base()?;
        let none = [None, None];
        let sizes = |name: &'static str| {
            set.parsed(name, |text| {
                value::by_direction(text, &none, |part| value::bytes_of(name, part, base).map(positive))
            })
        };
        let counts = |name: &'static str| {
            set.parsed(name, |text| {
                value::by_direction(text, &none, |part| value::bytes_of(name, part, 1000).map(positive))
            })
        };
        Ok(Self {
            bytes: sizes("rate")?.unwrap_or(none),
            iops: counts("rate_iops")?.unwrap_or(none),
            bytes_min: sizes("rate_min")?.unwrap_or(none),
            iops_min: counts("rate_iops_min")?.unwrap_or(none),
            cycle_nanos: set.nanos("rate_cycle")?.unwrap_or(1_000_000_000).max(1),
            poisson: set.word("rate_process")? == Some("poisson"),
            ignore_think: set.switch("rate_ignore_thinktime")?.unwrap_or(false),
        })
    }

    /// Whether any limit is set.
    pub(crate) fn is_limited(&self) -> bool {
        self.bytes.iter().chain(&self.iops).any(Option::is_some)
    }
}

/// Pauses between I/Os.
#[derive(Clone, Debug)]
pub(crate) struct ThinkTime {
    pub(crate) nanos: u64,
    pub(crate) spin_nanos: u64,
    pub(crate) blocks: u64,
    pub(crate) on_issue: bool,
    pub(crate) iotime_nanos: u64,
}

impl ThinkTime {
    pub(super) fn new(set: &OptionSet) -> Result<Self> {
        let nanos = set.nanos("thinktime")?.unwrap_or(0);
        Ok(Self {
            nanos,
            spin_nanos: set.nanos("thinktime_spin")?.unwrap_or(0).min(nanos),
            blocks: set.number("thinktime_blocks")?.unwrap_or(1),
            on_issue: set.word("thinktime_blocks_type")? == Some("issue"),
            iotime_nanos: set.nanos("thinktime_iotime")?.unwrap_or(0),
        })
    }
}

/// A latency to stay below.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LatencyTarget {
    pub(crate) nanos: u64,
    pub(crate) window_nanos: u64,
    pub(crate) percentile: f64,
    pub(crate) runs_on: bool,
}

impl LatencyTarget {
    pub(super) fn new(set: &OptionSet) -> Result<Option<Self>> {
        let window = set.nanos("latency_window")?;
        let percentile = set.float("latency_percentile")?.unwrap_or(100.0);
        let runs_on = set.switch("latency_run")?.unwrap_or(false);
        if percentile > 100.0 {
            return Err(misuse(format!("latency_percentile={percentile}: expected at most 100")));
        }
        let target = set.nanos("latency_target")?.filter(|nanos| *nanos > 0);
        let window_nanos = window.filter(|nanos| *nanos > 0).unwrap_or(1_000_000_000);
        Ok(target.map(|nanos| Self { nanos, window_nanos, percentile, runs_on }))
    }
}

/// What must be steady.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SteadyBy {
    Iops,
    Bw,
    Lat,
}

/// When throughput counts as steady.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SteadyState {
    pub(crate) by: SteadyBy,
    /// By the slope of a line through the window, not by the distance from its mean.
    pub(crate) slope: bool,
    pub(crate) limit: f64,
    /// The limit is percent of the mean.
    pub(crate) percent: bool,
    pub(crate) window_nanos: u64,
    pub(crate) ramp_nanos: u64,
    pub(crate) interval_nanos: u64,
}

impl SteadyState {
    pub(super) fn new(set: &OptionSet) -> Result<Option<Self>> {
        let window = set.nanos("steadystate_duration")?.unwrap_or(0);
        let ramp_nanos = set.nanos("steadystate_ramp_time")?.unwrap_or(0);
        let interval_nanos =
            set.nanos("steadystate_check_interval")?.unwrap_or(1_000_000_000).max(10_000_000);
        let parse = |text: &str| {
            let form = "iops:LIMIT, bw:LIMIT, lat:LIMIT or one of these with _slope, such as iops_slope:0.3%";
            let (word, limit) = text.split_once(':').ok_or_else(|| value::bad("steadystate", text, form))?;
            let words = ["iops", "iops_slope", "bw", "bw_slope", "lat", "lat_slope"];
            let word = value::word("steadystate", word, &words)?;
            let number = limit.strip_suffix('%');
            let by = match word.split('_').next() {
                Some("iops") => SteadyBy::Iops,
                Some("bw") => SteadyBy::Bw,
                _ => SteadyBy::Lat,
            };
            let limit_of = value::float("steadystate", number.unwrap_or(limit))?;
            Ok((by, word.ends_with("slope"), limit_of, number.is_some()))
        };
        let Some((by, slope, limit, percent)) = set.parsed("steadystate", parse)? else { return Ok(None) };
        if window < interval_nanos * 2 {
            return Err(misuse("steadystate needs a window of at least two intervals")
                .hint("add steadystate_duration=10s (ss_dur)"));
        }
        Ok(Some(Self { by, slope, limit, percent, window_nanos: window, ramp_nanos, interval_nanos }))
    }
}
