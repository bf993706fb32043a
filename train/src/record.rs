//! What one step took and gave, as it is written to the run's log.

use std::time::Duration;

use serde::Serialize;

use crate::step::StepOutcome;

/// One step: where its time went, and its outcome.
///
/// In JSON a loss or a norm that is not finite (a skipped fp16 step) is `null`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepRecord {
    /// Number of the step, counted from 1. Skipped steps count.
    pub step: u64,
    /// Time from asking the loader for the batch until it was there, in microseconds.
    pub data_wait_us: u64,
    /// Time of the rest of the step, in microseconds.
    pub compute_us: u64,
    /// Mean loss over the batch before the update, in nats per token.
    pub loss: f32,
    /// Norm of the gradients before clipping.
    pub grad_norm: f32,
    /// Learning rate.
    pub lr: f64,
    /// Loss scale.
    pub scale: f32,
    /// Whether the update was left out.
    pub skipped: bool,
}

impl StepRecord {
    /// The record of a step from its outcome and the two times the caller took.
    #[must_use]
    pub fn new(step: u64, data_wait: Duration, compute: Duration, outcome: StepOutcome) -> Self {
        let StepOutcome { loss, grad_norm, lr, scale, skipped } = outcome;
        let (data_wait_us, compute_us) = (micros(data_wait), micros(compute));
        Self { step, data_wait_us, compute_us, loss, grad_norm, lr, scale, skipped }
    }
}

/// Whole microseconds; a wait of half a million years is as good as any longer one.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_json_object_and_infinity_is_null() {
        let outcome =
            StepOutcome { loss: f32::INFINITY, grad_norm: 0.5, lr: 0.25, scale: 65_536.0, skipped: true };
        let record = StepRecord::new(3, Duration::from_micros(7), Duration::from_millis(2), outcome);
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"step":3,"data_wait_us":7,"compute_us":2000,"loss":null,"grad_norm":0.5,"lr":0.25,"scale":65536.0,"skipped":true}"#
        );
    }
}
