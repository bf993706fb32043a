//! What is measured and logged.

use std::path::PathBuf;

use super::super::options::OptionSet;
use super::super::options::value;
use crate::Result;

/// fio's default `percentile_list`.
const PERCENTILES: [f64; 17] =
    [1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99];

/// Whether directions are reported as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unified {
    None,
    Mixed,
    Both,
}

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct StatOptions {
    pub(crate) lat: bool,
    pub(crate) clat: bool,
    pub(crate) slat: bool,
    pub(crate) bw: bool,
    pub(crate) clat_percentiles: bool,
    pub(crate) lat_percentiles: bool,
    pub(crate) slat_percentiles: bool,
    pub(crate) percentiles: Vec<f64>,
    pub(crate) unified: Unified,
    pub(crate) window_nanos: u64,
}

impl StatOptions {
    pub(super) fn new(set: &OptionSet, reduce: bool) -> Result<Self> {
        let on = |name: &'static str, default| Ok::<_, crate::Error>(set.switch(name)?.unwrap_or(default));
        let list = |text: &str| {
            let mut list = text
                .split(':')
                .map(|part| value::float("percentile_list", part))
                .collect::<Result<Vec<_>>>()?;
            list.sort_by(f64::total_cmp);
            match list.last() {
                Some(last) if *last <= 100.0 && list.len() <= 20 => Ok(list),
                _ => Err(value::bad("percentile_list", text, "at most 20 numbers up to 100")),
            }
        };
        Ok(Self {
            lat: !on("disable_lat", reduce)?,
            clat: !on("disable_clat", reduce)?,
            slat: !on("disable_slat", reduce)?,
            bw: !on("disable_bw_measurement", reduce)?,
            clat_percentiles: on("clat_percentiles", true)?,
            lat_percentiles: on("lat_percentiles", false)?,
            slat_percentiles: on("slat_percentiles", false)?,
            percentiles: set.parsed("percentile_list", list)?.unwrap_or_else(|| PERCENTILES.to_vec()),
            unified: match set.word("unified_rw_reporting")? {
                Some("mixed" | "1") => Unified::Mixed,
                Some("both") => Unified::Both,
                _ => Unified::None,
            },
            window_nanos: set.nanos("report_window")?.unwrap_or(500_000_000).max(1_000_000),
        })
    }

    /// Whether the clock is read for each I/O.
    pub(crate) fn times(&self) -> bool {
        self.lat || self.clat || self.slat
    }
}

/// Logs in CSV.
#[derive(Clone, Debug)]
pub(crate) struct LogOptions {
    pub(crate) bw: Option<PathBuf>,
    pub(crate) lat: Option<PathBuf>,
    pub(crate) iops: Option<PathBuf>,
    pub(crate) hist: Option<PathBuf>,
    pub(crate) avg_nanos: u64,
    pub(crate) hist_nanos: u64,
    pub(crate) coarseness: u32,
    pub(crate) max_value: bool,
    pub(crate) offset: bool,
    pub(crate) unix_epoch: bool,
    pub(crate) per_job: bool,
}

impl LogOptions {
    pub(super) fn new(set: &OptionSet) -> Result<Self> {
        let name = set.text("name").unwrap_or(&set.name);
        // Given without a prefix, fio takes the job's name.
        let prefix = |key: &'static str| {
            set.text(key).map(|text| PathBuf::from(if text.is_empty() { name } else { text }))
        };
        Ok(Self {
            bw: prefix("write_bw_log"),
            lat: prefix("write_lat_log"),
            iops: prefix("write_iops_log"),
            hist: prefix("write_hist_log"),
            avg_nanos: set.nanos("log_avg_msec")?.unwrap_or(0),
            hist_nanos: set.nanos("log_hist_msec")?.unwrap_or(1_000_000_000).max(1_000_000),
            coarseness: u32::try_from(set.number("log_hist_coarseness")?.unwrap_or(0)).unwrap_or(0),
            max_value: set.switch("log_max_value")?.unwrap_or(false),
            offset: set.switch("log_offset")?.unwrap_or(false),
            unix_epoch: set.switch("log_unix_epoch")?.unwrap_or(false),
            per_job: set.switch("per_job_logs")?.unwrap_or(true),
        })
    }

    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        self.bw.is_some() || self.lat.is_some() || self.iops.is_some() || self.hist.is_some()
    }
}
