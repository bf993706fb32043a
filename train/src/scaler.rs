//! The loss scale of fp16: PyTorch's `GradScaler` rules as a state machine, and a stop.
//!
//! fp16 gradients below 6e-8 vanish. So the loss is multiplied before the backward pass and the gradients divided after
//! it, by the largest power of two that does not overflow, which is found by trying. It knows no tensor: the step tells
//! it what happened and asks for the scale.

use crate::error::{Error, ErrorKind, Result};

/// First scale.
pub(crate) const INITIAL_SCALE: f32 = 65_536.0;
/// Factor after [`GROWTH_INTERVAL`] good steps in a row.
pub(crate) const GROWTH_FACTOR: f32 = 2.0;
/// Factor after an overflow.
pub(crate) const BACKOFF_FACTOR: f32 = 0.5;
/// Good steps in a row before the scale grows.
pub(crate) const GROWTH_INTERVAL: u32 = 2_000;
/// Skipped steps in a row after which training stops. From 65536 the scale would have come down to 64, and gradients
/// that overflow there are not a matter of scale.
pub(crate) const SKIPS_MAX: u32 = 10;

/// The loss scale and how it got there. All of it belongs into a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradScaler {
    enabled: bool,
    scale: f32,
    good_steps: u32,
    skips: u32,
}

impl GradScaler {
    /// A scaler for fp16, at [`INITIAL_SCALE`].
    #[must_use]
    pub fn enabled() -> Self {
        Self { enabled: true, ..Self::disabled().with_scale(INITIAL_SCALE) }
    }

    /// A scaler whose scale is always 1, for bf16 and fp32.
    #[must_use]
    pub fn disabled() -> Self {
        Self { enabled: false, scale: 1.0, good_steps: 0, skips: 0 }
    }

    /// The same scaler at another scale: to resume, or to start where another run ended.
    #[must_use]
    pub fn with_scale(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// Whether an overflow is expected now and then. If not, it means that training diverged.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// What the loss is multiplied by.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The gradients were finite and the update was made.
    pub fn record_good_step(&mut self) {
        self.skips = 0;
        if !self.enabled {
            return;
        }
        self.good_steps += 1;
        if self.good_steps == GROWTH_INTERVAL {
            self.scale *= GROWTH_FACTOR;
            self.good_steps = 0;
        }
    }

    /// The gradients were not finite and the update was left out.
    ///
    /// [`ErrorKind::Diverged`] after [`SKIPS_MAX`] of these in a row.
    pub fn record_overflow(&mut self) -> Result<()> {
        self.good_steps = 0;
        self.skips += 1;
        if self.enabled {
            self.scale *= BACKOFF_FACTOR;
        }
        if self.skips < SKIPS_MAX {
            return Ok(());
        }
        let message = format!(
            "{SKIPS_MAX} steps in a row had gradients that are not finite, loss scale {}",
            self.scale
        );
        Err(Error::new(ErrorKind::Diverged, message).with_hint("lower the learning rate, or train in bf16"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_after_the_interval_and_starts_counting_again() {
        let mut scaler = GradScaler::enabled();
        for _ in 0..GROWTH_INTERVAL - 1 {
            scaler.record_good_step();
        }
        assert_eq!(scaler.scale(), 65_536.0);
        scaler.record_good_step();
        assert_eq!(scaler.scale(), 131_072.0);
        for _ in 0..GROWTH_INTERVAL - 1 {
            scaler.record_good_step();
        }
        assert_eq!(scaler.scale(), 131_072.0);
        scaler.record_good_step();
        assert_eq!(scaler.scale(), 262_144.0);
    }

    #[test]
    fn an_overflow_halves_it_and_restarts_the_interval() {
        let mut scaler = GradScaler::enabled();
        for _ in 0..GROWTH_INTERVAL - 1 {
            scaler.record_good_step();
        }
        scaler.record_overflow().unwrap();
        assert_eq!(scaler.scale(), 32_768.0);
        scaler.record_good_step();
        assert_eq!(
            scaler.scale(),
            32_768.0,
            "one good step must not complete the interval begun before the overflow"
        );
    }

    #[test]
    fn it_stops_after_too_many_skips_in_a_row() {
        let mut scaler = GradScaler::enabled();
        for _ in 0..SKIPS_MAX - 1 {
            scaler.record_overflow().unwrap();
        }
        scaler.record_good_step();
        for _ in 0..SKIPS_MAX - 1 {
            scaler.record_overflow().unwrap();
        }
        let error = scaler.record_overflow().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Diverged);
        assert!(error.to_string().starts_with("10 steps in a row"), "{error}");
    }

    #[test]
    fn disabled_it_stays_at_one() {
        let mut scaler = GradScaler::disabled();
        for _ in 0..3 * GROWTH_INTERVAL {
            scaler.record_good_step();
        }
        assert_eq!((scaler.scale(), scaler.is_enabled()), (1.0, false));
    }
}
