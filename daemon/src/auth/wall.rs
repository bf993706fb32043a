//! The time of day: tokens and one-time codes are about it, and tests move it.

use std::fmt;
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(crate) trait WallClock: Send + Sync + fmt::Debug {
    fn seconds(&self) -> u64;
}

/// The system's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemWall;

impl WallClock for SystemWall {
    #[expect(clippy::disallowed_methods, reason = "the one place of the daemon that reads the time of day")]
    fn seconds(&self) -> u64 {
        // A clock before 1970 makes every token too old, which is what it should.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
    }
}

/// One that stands until it is moved.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct ManualWall(pub(crate) AtomicU64);

#[cfg(test)]
impl WallClock for ManualWall {
    fn seconds(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
