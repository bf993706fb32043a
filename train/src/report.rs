//! The summary of a run, computed from its step records alone.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::record::StepRecord;

/// Steps that [`Summary::loss_first`] averages: enough to smooth one batch, few enough to precede learning.
const FIRST_STEPS: usize = 5;
/// Steps that [`Summary::loss_last`] averages.
const LAST_STEPS: usize = 10;

/// A run in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Steps, skipped ones included.
    pub steps: u64,
    /// Steps whose update was left out.
    pub skipped_steps: u64,
    /// Mean loss of the first 5 steps, or of all if there are fewer. A loss that is not finite is left out of every mean;
    /// with no finite loss it is NaN, which is `null` in JSON.
    pub loss_first: f64,
    /// Mean loss of the last 10 steps, or of all if there are fewer.
    pub loss_last: f64,
    /// Sequences per second of wait and compute time.
    pub samples_per_second: f64,
    /// Share of the time that training waited for data, in percent: `wait / (wait + compute)`.
    pub data_stall_percent: f64,
    /// Share of the time that the processor or GPU had work, in percent: the rest, MLPerf Storage's AU.
    pub accelerator_utilisation_percent: f64,
    /// Median wait for a batch in microseconds. All three are exact: nearest rank of the sorted waits.
    pub batch_wait_us_p50: u64,
    /// 99th percentile of the wait in microseconds.
    pub batch_wait_us_p99: u64,
    /// 99.9th percentile of the wait in microseconds.
    pub batch_wait_us_p999: u64,
    /// Longest wait in microseconds.
    pub batch_wait_us_max: u64,
}

impl Summary {
    /// The summary of a run with `batch` sequences per step.
    ///
    /// [`ErrorKind::Misuse`] if there are no records.
    pub fn new(records: &[StepRecord], batch: usize) -> Result<Self> {
        if records.is_empty() {
            return Err(Error::new(ErrorKind::Misuse, "a summary of no steps"));
        }
        let mut waits: Vec<u64> = records.iter().map(|record| record.data_wait_us).collect();
        waits.sort_unstable();
        let wait: f64 = waits.iter().map(|&us| float(us)).sum();
        let compute: f64 = records.iter().map(|record| float(record.compute_us)).sum();
        // A run on a clock that did not move has no rates; without the guard they would be NaN.
        let total_us = (wait + compute).max(1.0);
        let data_stall_percent = 100.0 * wait / total_us;
        let samples = float(count(records.len())) * float(count(batch));
        Ok(Self {
            steps: count(records.len()),
            skipped_steps: count(records.iter().filter(|record| record.skipped).count()),
            loss_first: mean_loss(&records[..records.len().min(FIRST_STEPS)]),
            loss_last: mean_loss(&records[records.len().saturating_sub(LAST_STEPS)..]),
            samples_per_second: samples * 1e6 / total_us,
            data_stall_percent,
            accelerator_utilisation_percent: 100.0 - data_stall_percent,
            batch_wait_us_p50: nearest_rank(&waits, 500),
            batch_wait_us_p99: nearest_rank(&waits, 990),
            batch_wait_us_p999: nearest_rank(&waits, 999),
            batch_wait_us_max: nearest_rank(&waits, 1000),
        })
    }
}

fn mean_loss(records: &[StepRecord]) -> f64 {
    let finite: Vec<f64> =
        records.iter().map(|r| f64::from(r.loss)).filter(|loss| loss.is_finite()).collect();
    finite.iter().sum::<f64>() / float(count(finite.len()))
}

/// The smallest value with at least `permille` thousandths of all values at or below it. `sorted` is not empty.
fn nearest_rank(sorted: &[u64], permille: usize) -> u64 {
    let rank = (sorted.len() * permille).div_ceil(1000);
    sorted[rank.saturating_sub(1)]
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "microseconds and counts stay far below 2^52")]
fn float(x: u64) -> f64 {
    x as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64, data_wait_us: u64, compute_us: u64, loss: f32) -> StepRecord {
        let skipped = !loss.is_finite();
        StepRecord { step, data_wait_us, compute_us, loss, grad_norm: 1.0, lr: 0.1, scale: 1.0, skipped }
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let thousand: Vec<u64> = (1..=1000).collect();
        assert_eq!(nearest_rank(&thousand, 500), 500);
        assert_eq!(nearest_rank(&thousand, 990), 990);
        assert_eq!(nearest_rank(&thousand, 999), 999);
        assert_eq!(nearest_rank(&thousand, 1000), 1000);
        let ten: Vec<u64> = (1..=10).collect();
        assert_eq!((nearest_rank(&ten, 500), nearest_rank(&ten, 990), nearest_rank(&ten, 999)), (5, 10, 10));
        assert_eq!((nearest_rank(&[7], 500), nearest_rank(&[7], 999)), (7, 7));
    }

    #[test]
    fn times_and_losses_add_up() {
        // Waits 10, 20 .. 200 us in falling order, so that sorting matters; compute fills each step up to 1000 us.
        let losses = (0u8..20).map(|i| 10.0 - f32::from(i) * 0.5);
        let waits = (1..=20).rev().map(|i| i * 10);
        let records: Vec<_> = waits
            .zip(losses)
            .zip(1..)
            .map(|((wait, loss), step)| record(step, wait, 1000 - wait, loss))
            .collect();
        let summary = Summary::new(&records, 8).unwrap();
        assert_eq!((summary.steps, summary.skipped_steps), (20, 0));
        assert!((summary.loss_first - 9.0).abs() < 1e-9, "{summary:?}");
        assert!((summary.loss_last - 2.75).abs() < 1e-9, "{summary:?}");
        assert!((summary.samples_per_second - 8000.0).abs() < 1e-6, "{summary:?}");
        assert!((summary.data_stall_percent - 10.5).abs() < 1e-9, "{summary:?}");
        assert!((summary.accelerator_utilisation_percent - 89.5).abs() < 1e-9, "{summary:?}");
        assert_eq!((summary.batch_wait_us_p50, summary.batch_wait_us_p99), (100, 200));
        assert_eq!((summary.batch_wait_us_p999, summary.batch_wait_us_max), (200, 200));
    }

    #[test]
    fn a_skipped_step_counts_but_its_loss_does_not() {
        let records = [record(1, 0, 1, f32::NAN), record(2, 0, 1, 4.0)];
        let summary = Summary::new(&records, 1).unwrap();
        assert_eq!((summary.steps, summary.skipped_steps, summary.loss_first), (2, 1, 4.0));
        let json = serde_json::to_value(Summary::new(&records[..1], 1).unwrap()).unwrap();
        assert!(json["loss_last"].is_null(), "{json}");
    }

    #[test]
    fn nothing_and_a_still_clock_do_not_divide_by_zero() {
        assert_eq!(Summary::new(&[], 1).unwrap_err().kind(), ErrorKind::Misuse);
        let summary = Summary::new(&[record(1, 0, 0, 1.0)], 1).unwrap();
        assert!(summary.samples_per_second.is_finite() && summary.data_stall_percent == 0.0, "{summary:?}");
    }
}
