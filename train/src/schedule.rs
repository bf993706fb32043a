//! Learning rate over the steps: linear warm-up, then half a cosine down to a tenth.

use crate::error::{Error, ErrorKind, Result};

/// What is left of the peak at the last step, as in Chinchilla and nanoGPT.
pub(crate) const FINAL_FRACTION: f64 = 0.1;

/// The schedule. Steps are optimizer updates; a skipped step does not count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    peak: f64,
    warmup_steps: u64,
    steps: u64,
}

impl Schedule {
    /// A schedule that reaches `peak` after `warmup_steps` and its tenth at step `steps`.
    ///
    /// [`ErrorKind::Misuse`] if `peak` is not a positive number or the warm-up is not shorter than the run.
    pub fn new(peak: f64, warmup_steps: u64, steps: u64) -> Result<Self> {
        if !(peak.is_finite() && peak > 0.0) {
            return Err(Error::new(ErrorKind::Misuse, format!("learning rate is {peak}"))
                .with_hint("use a positive number such as 0.001"));
        }
        if warmup_steps >= steps {
            let message = format!("warm-up of {warmup_steps} steps in a run of {steps}");
            return Err(
                Error::new(ErrorKind::Misuse, message).with_hint("warm up for less than the whole run")
            );
        }
        Ok(Self { peak, warmup_steps, steps })
    }

    /// Learning rate of update number `step`, counted from 0.
    ///
    /// Never 0 in the warm-up: update 0 gets `peak / warmup_steps`. From `steps` on it stays at the tenth.
    #[must_use]
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * ratio(step + 1, self.warmup_steps);
        }
        let done = ratio(step.min(self.steps) - self.warmup_steps, self.steps - self.warmup_steps);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.peak * (FINAL_FRACTION + (1.0 - FINAL_FRACTION) * cosine)
    }
}

#[expect(clippy::cast_precision_loss, reason = "step counts stay far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_and_the_middle_are_where_they_should_be() {
        let schedule = Schedule::new(0.01, 10, 110).unwrap();
        let close = |step, expected: f64| {
            let found = schedule.learning_rate(step);
            assert!((found - expected).abs() < 1e-12, "step {step}: {found}, expected {expected}");
        };
        close(0, 0.001);
        close(4, 0.005);
        close(9, 0.01);
        close(10, 0.01);
        close(60, 0.0055);
        close(110, 0.001);
        close(u64::MAX, 0.001);
        for step in 10..110 {
            assert!(schedule.learning_rate(step + 1) < schedule.learning_rate(step), "step {step}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (peak, warmup, steps) in
            [(0.0, 0, 10), (-1.0, 0, 10), (f64::NAN, 0, 10), (0.1, 10, 10), (0.1, 0, 0)]
        {
            assert_eq!(Schedule::new(peak, warmup, steps).unwrap_err().kind(), ErrorKind::Misuse);
        }
        assert!(Schedule::new(0.1, 0, 1).is_ok());
    }
}
