//! Whether throughput is steady: fio's `steadystate`.

use super::super::job::{SteadyBy, SteadyState};

/// One look at a job.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    pub(crate) iops: f64,
    /// Bytes per second.
    pub(crate) bw: f64,
    /// Nanoseconds.
    pub(crate) lat: f64,
}

/// The looks within the window.
#[derive(Clone, Debug)]
pub(crate) struct SteadyWatch {
    pub(crate) options: SteadyState,
    pub(crate) looks: Vec<Look>,
    pub(crate) attained: bool,
    /// Slope, or greatest distance from the mean, as the criterion has it.
    pub(crate) criterion: f64,
    pub(crate) slope: f64,
    pub(crate) deviation: f64,
    began: u64,
    next: u64,
}

impl SteadyWatch {
    pub(super) fn new(options: SteadyState, now: u64) -> Self {
        Self {
            options,
            looks: Vec::new(),
            attained: false,
            criterion: 0.0,
            slope: 0.0,
            deviation: 0.0,
            began: now,
            next: now + options.ramp_nanos + options.interval_nanos,
        }
    }

    /// Whether it is time for a look.
    pub(super) fn is_due(&self, now: u64) -> bool {
        !self.attained && now >= self.next
    }

    /// Adds a look; true once the criterion is met over the whole window.
    pub(super) fn add(&mut self, look: Look, now: u64) -> bool {
        self.next = now.max(self.next) + self.options.interval_nanos;
        self.looks.push(look);
        let wanted = crate::to_usize(self.options.window_nanos / self.options.interval_nanos).max(2);
        if self.looks.len() < wanted {
            return false;
        }
        let from = self.looks.len() - wanted;
        self.looks.drain(..from);
        let values: Vec<f64> = self.looks.iter().map(|look| self.value(look)).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        self.deviation = values.iter().map(|value| (value - mean).abs()).fold(0.0, f64::max);
        // Least squares over 0, 1, 2, ...
        let middle = (count - 1.0) / 2.0;
        let (mut above, mut below) = (0.0, 0.0);
        for (at, value) in values.iter().enumerate() {
            let x = at as f64 - middle;
            above += x * (value - mean);
            below += x * x;
        }
        self.slope = crate::number::ratio(above, below);
        let found = if self.options.slope { self.slope.abs() } else { self.deviation };
        self.criterion = if self.options.percent { 100.0 * crate::number::ratio(found, mean) } else { found };
        self.attained = self.criterion <= self.options.limit;
        self.attained
    }

    fn value(&self, look: &Look) -> f64 {
        match self.options.by {
            SteadyBy::Iops => look.iops,
            SteadyBy::Bw => look.bw,
            SteadyBy::Lat => look.lat,
        }
    }

    /// Nanoseconds since it began.
    pub(super) fn age(&self, now: u64) -> u64 {
        now - self.began
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(slope: bool, limit: f64) -> SteadyWatch {
        let options = SteadyState {
            by: SteadyBy::Iops,
            slope,
            limit,
            percent: true,
            window_nanos: 10,
            ramp_nanos: 0,
            interval_nanos: 1,
        };
        SteadyWatch::new(options, 0)
    }

    fn feed(watch: &mut SteadyWatch, values: impl Iterator<Item = f64>) -> Option<usize> {
        (1..)
            .zip(values)
            .find(|(now, iops)| watch.add(Look { iops: *iops, ..Look::default() }, *now))
            .map(|(now, _)| crate::to_usize(now))
    }

    #[test]
    fn a_ramp_is_not_steady_and_a_plateau_is() {
        assert_eq!(feed(&mut watch(false, 3.0), (1..50).map(f64::from)), None);
        let ramp_then_flat = (1..=20).map(f64::from).chain(std::iter::repeat_n(20.0, 30));
        assert_eq!(feed(&mut watch(false, 3.0), ramp_then_flat.clone()), Some(29));
        assert_eq!(
            feed(&mut watch(true, 0.3), ramp_then_flat),
            Some(28),
            "the last step alone is a small slope"
        );
        // A saw has no slope and a great distance.
        let saw = || (0..50).map(|at| if at % 2 == 0 { 90.0 } else { 110.0 });
        assert_eq!(feed(&mut watch(false, 3.0), saw()), None);
        assert_eq!(feed(&mut watch(true, 1.0), saw()), Some(10));
    }
}
