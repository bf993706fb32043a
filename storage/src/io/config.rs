//! How a service is set up: which engine, which lanes, and the bounds of each.

use super::EngineChoice;

/// What a request is for. Lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for it.
    Demand,
    /// A plan says when it will be needed.
    Announced,
    /// A guess says that it may be needed.
    Predicted,
    /// Migration, scrubbing, packing.
    Background,
}

impl Priority {
    pub(super) const COUNT: usize = 4;
}

/// Which device's queue a request joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// L2, or its first device.
    Fast,
    /// L3.
    Slow,
    /// A further device of L2, counted from zero.
    Stripe(u8),
}

impl Lane {
    /// The lane of L2's device of that number.
    #[must_use]
    pub fn fast(device: usize) -> Self {
        device
            .checked_sub(1)
            .map_or(Self::Fast, |stripe| Self::Stripe(u8::try_from(stripe).unwrap_or(u8::MAX)))
    }

    /// Its place among the lanes of a service.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Fast => 0,
            Self::Slow => 1,
            Self::Stripe(number) => 2 + usize::from(number),
        }
    }
}

/// Which reads of one file become one: those that a device would seek between for longer than it takes to read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeLimits {
    /// Bytes between two reads that are read and thrown away, at most.
    pub gap_bytes: usize,
    /// Bytes of the merged read, at most. Zero merges nothing.
    pub span_bytes: usize,
    /// Longest read that is merged: its bytes are copied once more.
    pub piece_bytes: usize,
}

impl MergeLimits {
    /// Every read by itself.
    pub const NONE: Self = Self { gap_bytes: 0, span_bytes: 0, piece_bytes: 0 };
    /// A merged read of small neighbours that arrive in order saves an operation of 2 to 4 us; copying 16 KiB costs 1.
    pub const NVME: Self = Self { gap_bytes: 0, span_bytes: 128 << 10, piece_bytes: 16 << 10 };
    /// A seek takes 7 ms, in which a disk reads 1 MiB; copying costs a hundredth of reading. Half of that at most is
    /// thrown away, so that a guess about the distance costs no more than it can save.
    pub const DISK: Self = Self { gap_bytes: 512 << 10, span_bytes: 2 << 20, piece_bytes: 1 << 20 };
}

/// The bounds of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// Operations in flight.
    pub depth: usize,
    /// Bytes in flight; one operation may always go.
    pub bytes: usize,
    /// Which reads become one.
    pub merge: MergeLimits,
    /// How many of the most urgent reads that nobody waits for are taken in the order of their places, as an elevator
    /// goes, instead of that of their deadlines. Zero where a device does not seek.
    pub sweep: usize,
}

/// How a service is set up.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Which engine.
    pub engine: EngineChoice,
    /// Operations in flight on each fast lane.
    pub fast_depth: usize,
    /// Operations in flight on the slow lane.
    pub slow_depth: usize,
    /// Bytes in flight on each fast lane.
    pub fast_bytes: usize,
    /// Bytes in flight on the slow lane.
    pub slow_bytes: usize,
    /// Which reads of the slow lane become one.
    pub slow_merge: MergeLimits,
    /// How many reads of the slow lane are put in the order of their places: see [`LaneLimits::sweep`].
    pub slow_sweep: usize,
    /// Devices of L2 beyond the first: as many lanes, on I/O threads of their own where there are cores for them.
    pub stripes: u8,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        // 32 reaches the cap of one NVMe queue with one thread; a disk sorts a handful, and more would only add latency
        // to a demand read behind them. 4 MiB are a millisecond of an NVMe, several times what it needs to be busy, and
        // 16 MiB 100 ms of a disk: what is longer queues with us, where a demand overtakes it, and not in the device.
        // A sweep over 64 reads takes a disk 0.4 s: as late as a read can come that was the most urgent. Half as many make
        // the head's ways twice as long.
        Self {
            engine: EngineChoice::Auto,
            fast_depth: 32,
            slow_depth: 8,
            fast_bytes: 4 << 20,
            slow_bytes: 16 << 20,
            slow_merge: MergeLimits::DISK,
            slow_sweep: 64,
            stripes: 0,
        }
    }
}

impl ServiceConfig {
    /// Lanes, in the order of [`Lane::index`].
    pub(super) fn lanes(&self) -> usize {
        2 + usize::from(self.stripes)
    }

    pub(super) fn limits(&self, lane: usize) -> LaneLimits {
        let slow = lane == Lane::Slow.index();
        LaneLimits {
            depth: if slow { self.slow_depth } else { self.fast_depth },
            bytes: if slow { self.slow_bytes } else { self.fast_bytes },
            merge: if slow { self.slow_merge } else { MergeLimits::NVME },
            sweep: if slow { self.slow_sweep } else { 0 },
        }
    }

    /// I/O threads, on `cores` cores: the first has the first fast lane and the slow one, the others share the stripes.
    pub(super) fn threads(&self, cores: usize) -> usize {
        (1 + usize::from(self.stripes)).min(cores.max(1))
    }

    /// The thread, of `threads`, that has the lane of that index.
    pub(super) fn thread_of(lane: usize, threads: usize) -> usize {
        if lane < 2 { 0 } else { (lane - 1) % threads }
    }

    /// Operations in flight on thread `thread` of `threads`.
    pub(super) fn depth_of(&self, thread: usize, threads: usize) -> usize {
        let lanes = (0..self.lanes()).filter(|lane| Self::thread_of(*lane, threads) == thread);
        lanes.map(|lane| self.limits(lane).depth).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_a_thread_and_every_thread_the_depth_of_its_lanes() {
        for stripes in 0..5 {
            for cores in 1..6 {
                let config = ServiceConfig { stripes, ..ServiceConfig::default() };
                let threads = config.threads(cores);
                let depths: usize = (0..threads).map(|thread| config.depth_of(thread, threads)).sum();
                assert_eq!(depths, 32 * (1 + usize::from(stripes)) + 8, "{stripes} stripes, {cores} cores");
                assert!((0..threads).all(|thread| config.depth_of(thread, threads) > 0));
            }
        }
    }
}
