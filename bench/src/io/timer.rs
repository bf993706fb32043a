//! Nanoseconds for the latencies of I/Os, cheap enough to be read twice for each.
//!
//! The time stamp counter where the kernel itself keeps time with it (then it is invariant and the same on all cores),
//! scaled against the clock that was passed in; else that clock.

use std::sync::Arc;
use std::time::Duration;

use tierstream_storage::clock::Clock;

use crate::os::time_stamp_counter;

/// How long the counter is compared with the clock.
const CALIBRATION: Duration = Duration::from_millis(20);
/// The scale is in units of 2^-32 nanoseconds per tick.
const SHIFT: u32 = 32;

/// A clock that counts nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Timer {
    clock: Arc<dyn Clock>,
    /// First tick, its time, and the scale.
    counter: Option<(u64, u64, u64)>,
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Timer {
    /// Reads `clock` for each time.
    pub(crate) fn of(clock: &Arc<dyn Clock>) -> Self {
        Self { clock: Arc::clone(clock), counter: None }
    }

    /// Reads the time stamp counter where that is as good; takes 20 ms. `clock` is the machine's own.
    pub(crate) fn calibrated(clock: &Arc<dyn Clock>) -> Self {
        let kernel =
            std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
        if kernel.is_ok_and(|source| source.trim() == "tsc")
            && let Some(first) = time_stamp_counter()
        {
            let began = clock.now();
            std::thread::park_timeout(CALIBRATION);
            let (ended, last) = (clock.now(), time_stamp_counter().unwrap_or(first));
            let (elapsed, ticks) = (nanos(ended - began), last.wrapping_sub(first));
            if elapsed > 1_000_000 && ticks > 0 {
                let scale = (u128::from(elapsed) << SHIFT) / u128::from(ticks);
                if let Ok(scale) = u64::try_from(scale) {
                    return Self { clock: Arc::clone(clock), counter: Some((first, nanos(began), scale)) };
                }
            }
        }
        Self::of(clock)
    }

    /// Now.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        match self.counter {
            Some((first, began, scale)) => {
                let ticks = time_stamp_counter().unwrap_or(first).wrapping_sub(first);
                let scaled = (u128::from(ticks) * u128::from(scale)) >> SHIFT;
                began.wrapping_add(low_half(scaled))
            }
            None => nanos(self.clock.now()),
        }
    }

    /// What it reads.
    pub(crate) fn source(&self) -> &'static str {
        if self.counter.is_some() { "time stamp counter" } else { "clock_gettime" }
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "584 years of nanoseconds fit")]
fn low_half(number: u128) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use tierstream_storage::clock::SystemClock;

    #[test]
    fn both_sources_agree() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (counter, system) = (Timer::calibrated(&clock), Timer::of(&clock));
        for _ in 0..5 {
            let (before, between, after) = (system.now(), counter.now(), system.now());
            std::thread::park_timeout(Duration::from_millis(5));
            // A part in a thousand of the time since the start, for the calibration itself.
            let slack = after / 1000 + 50_000;
            assert!(between + slack >= before && between <= after + slack, "{before} {between} {after}");
        }
    }
}
