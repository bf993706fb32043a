//! Throughput and latency over time, in a bounded number of points.

use super::{DirectionRecord, Histogram};

/// Beyond so many points, two become one and periods twice as long.
const POINTS_MAX: usize = 600;

/// One period, both directions apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) ios: [u64; 2],
    pub(crate) bytes: [u64; 2],
    /// clat in nanoseconds: 50 and 99 percent of the I/Os of the period did not take longer.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

/// The periods of a run.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) period_nanos: u64,
    pub(crate) points: Vec<Point>,
    end: u64,
    counted: [(u64, u64); 2],
    latencies: [Histogram; 2],
}

impl Series {
    pub(super) fn new(now: u64, period_nanos: u64) -> Self {
        Self {
            period_nanos,
            points: Vec::with_capacity(POINTS_MAX),
            end: now + period_nanos,
            counted: [(0, 0); 2],
            latencies: Default::default(),
        }
    }

    /// When the period under way ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Closes the periods that end at or before `now`.
    pub(super) fn close(&mut self, now: u64, directions: &[DirectionRecord; 2]) {
        while self.end <= now {
            let mut point = Point::default();
            let mut latency = Histogram::default();
            for (way, of) in directions.iter().enumerate() {
                point.ios[way] = of.ios - self.counted[way].0;
                point.bytes[way] = of.bytes - self.counted[way].1;
                self.counted[way] = (of.ios, of.bytes);
                if point.ios[way] > 0 {
                    latency.merge(&of.clat.histogram.since(&mut self.latencies[way]));
                }
            }
            if let [p50, p99] = latency.percentiles(&[50.0, 99.0])[..] {
                (point.p50, point.p99) = (p50, p99);
            }
            self.points.push(point);
            self.end += self.period_nanos;
            if self.points.len() == POINTS_MAX {
                self.halve();
            }
        }
    }

    fn halve(&mut self) {
        let halved = self.points.chunks(2).map(|pair| pair.iter().fold(Point::default(), together)).collect();
        self.points = halved;
        self.period_nanos *= 2;
        self.end += self.period_nanos / 2;
    }

    /// Adds the points of a thread that ran beside.
    pub(super) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        while other.period_nanos < self.period_nanos {
            other.halve();
        }
        while self.period_nanos < other.period_nanos {
            self.halve();
        }
        if self.points.len() < other.points.len() {
            self.points.resize(other.points.len(), Point::default());
        }
        self.points.iter_mut().zip(&other.points).for_each(|(point, more)| *point = together(*point, more));
    }
}

/// Two periods, or two threads, as one: percentiles cannot be added, the greater stands for both.
fn together(one: Point, other: &Point) -> Point {
    Point {
        ios: [one.ios[0] + other.ios[0], one.ios[1] + other.ios[1]],
        bytes: [one.bytes[0] + other.bytes[0], one.bytes[1] + other.bytes[1]],
        p50: one.p50.max(other.p50),
        p99: one.p99.max(other.p99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_few_points_and_all_counts() {
        let mut series = Series::new(0, 10);
        let mut directions: [DirectionRecord; 2] = Default::default();
        for period in 1..=5_000 {
            directions[0].ios += 3;
            directions[0].bytes += 300;
            directions[0].clat.add(period);
            series.close(period * 10, &directions);
        }
        assert!(series.points.len() < POINTS_MAX && series.period_nanos == 160, "{}", series.period_nanos);
        // What is in the last, unfinished period is not in a point yet.
        let ios: u64 = series.points.iter().map(|point| point.ios[0]).sum();
        assert!((15_000 - 3 * 16..=15_000).contains(&ios), "{ios}");
        let mut two = series.clone();
        two.merge(&series);
        assert_eq!(two.points.iter().map(|point| point.ios[0]).sum::<u64>(), 2 * ios);
    }
}
