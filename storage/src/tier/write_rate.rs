//! How fast L2 may be written: flash wears out by what is written to it.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::units::{human_bytes, to_u64};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// At most `bytes` in any `window`, give or take one window's worth at the start of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRate {
    /// The budget.
    pub bytes: u64,
    /// What it is for; it may be spent at once and comes back evenly.
    pub window: Duration,
}

impl WriteRate {
    /// `bytes` per second.
    #[must_use]
    pub fn per_second(bytes: u64) -> Self {
        Self { bytes, window: Duration::from_secs(1) }
    }

    /// `bytes` per day: how data sheets state endurance.
    #[must_use]
    pub fn per_day(bytes: u64) -> Self {
        Self { bytes, window: DAY }
    }
}

impl std::fmt::Display for WriteRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let per = if self.window == DAY { "day" } else { "s" };
        write!(f, "{}/{per}", human_bytes(self.bytes))
    }
}

impl FromStr for WriteRate {
    type Err = Error;

    /// A number of bytes and `/s` or `/day`; without either per second.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            let why = format!("`{text}` is no write rate, expected bytes per second or per day");
            Error::new(ErrorKind::Misuse, "parse", why).hint("write 52428800/s or 2199023255552/day")
        };
        let (number, make): (_, fn(u64) -> Self) = match text.split_once('/') {
            None => (text, Self::per_second),
            Some((number, "s")) => (number, Self::per_second),
            Some((number, "day")) => (number, Self::per_day),
            Some(_) => return Err(bad()),
        };
        number.parse().ok().filter(|bytes| *bytes > 0).map(make).ok_or_else(bad)
    }
}

/// A bucket that fills evenly and is full at the start.
#[derive(Debug)]
pub struct Throttle {
    rate: WriteRate,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes: u64,
    filled_at: Duration,
}

impl Throttle {
    /// A full bucket of one window's budget.
    #[must_use]
    pub fn new(rate: WriteRate, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(State { bytes: rate.bytes, filled_at: clock.now() });
        Self { rate, clock, state }
    }

    /// Takes `bytes` out, or says how long it takes until they are there. What is larger than a whole window's budget
    /// is let through when the bucket is full.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&self, bytes: usize) -> std::result::Result<(), Duration> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (budget, window) = (u128::from(self.rate.bytes.max(1)), self.rate.window.as_nanos().max(1));
        let gained = now.saturating_sub(state.filled_at).as_nanos() * budget / window;
        if gained > 0 {
            let gained = u64::try_from(gained).unwrap_or(u64::MAX);
            state.bytes = state.bytes.saturating_add(gained).min(self.rate.bytes);
            state.filled_at = now;
        }
        let wanted = to_u64(bytes).min(self.rate.bytes);
        match wanted.checked_sub(state.bytes) {
            None | Some(0) => {
                state.bytes -= wanted;
                Ok(())
            }
            Some(missing) => {
                let nanos = (u128::from(missing) * window).div_ceil(budget);
                Err(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_budget_is_kept_over_any_time() {
        let clock = Arc::new(ManualClock::default());
        let throttle = Throttle::new(WriteRate::per_second(1000), Arc::clone(&clock) as Arc<dyn Clock>);
        let mut taken = 0;
        for _ in 0..10_000 {
            if throttle.take(64).is_ok() {
                taken += 64;
            }
            clock.advance(Duration::from_millis(1));
        }
        assert!((10_900..=11_000).contains(&taken), "ten seconds and the first bucket: {taken}");
    }

    #[test]
    fn it_says_how_long_to_wait_and_lets_large_blocks_through() {
        let clock = Arc::new(ManualClock::default());
        let throttle = Throttle::new(WriteRate::per_second(1000), Arc::clone(&clock) as Arc<dyn Clock>);
        throttle.take(900).unwrap();
        assert_eq!(throttle.take(200), Err(Duration::from_millis(100)));
        clock.advance(Duration::from_millis(100));
        throttle.take(200).unwrap();
        clock.advance(Duration::from_secs(9));
        throttle.take(5000).unwrap();
        assert_eq!(throttle.take(5000), Err(Duration::from_secs(1)));
    }

    #[test]
    fn rates_are_parsed_per_second_and_per_day() {
        assert_eq!("5000".parse::<WriteRate>().unwrap(), WriteRate::per_second(5000));
        assert_eq!("5000/s".parse::<WriteRate>().unwrap().to_string(), "4.9 KiB/s");
        assert_eq!("1073741824/day".parse::<WriteRate>().unwrap().to_string(), "1.0 GiB/day");
        for bad in ["", "0", "5/week", "x/s"] {
            assert!(bad.parse::<WriteRate>().is_err(), "{bad}");
        }
    }
}
