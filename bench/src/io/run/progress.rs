//! What threads tell while they run, and how they are told to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::super::record::Record;
use crate::to_u64;

/// Counters of one thread, written by it alone.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    ios: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
    /// Sum of mean latency times I/Os, in nanoseconds.
    latency: AtomicU64,
    in_flight: AtomicU64,
}

/// A look at them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) ios: [u64; 2],
    pub(crate) bytes: [u64; 2],
    pub(crate) latency: u64,
}

impl Progress {
    pub(crate) fn tell(&self, record: &Record, in_flight: usize) {
        let mut latency = 0.0;
        for way in 0..2 {
            let of = &record.directions[way];
            self.ios[way].store(of.ios, Ordering::Relaxed);
            self.bytes[way].store(of.bytes, Ordering::Relaxed);
            latency += of.lat.stat.mean() * of.lat.stat.count as f64;
        }
        self.latency.store(crate::number::whole(latency), Ordering::Relaxed);
        self.in_flight.store(to_u64(in_flight), Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            ios: [read(&self.ios[0]), read(&self.ios[1])],
            bytes: [read(&self.bytes[0]), read(&self.bytes[1])],
            latency: read(&self.latency),
        }
    }
}

impl Counts {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            ios: [self.ios[0] + other.ios[0], self.ios[1] + other.ios[1]],
            bytes: [self.bytes[0] + other.bytes[0], self.bytes[1] + other.bytes[1]],
            latency: self.latency + other.latency,
        }
    }
}

/// What the threads of a run share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stopped: AtomicBool,
    /// Stores that the threads of a job share.
    pub(crate) registry: crate::workload::Registry,
}

impl Shared {
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
