//! Offsets that are met more often than others: zipf, pareto and normal, as fio means them.

use super::super::job::Distribution;
use crate::number::{float, whole};
use crate::random::Random;

/// Zeta sums are exact up to so many terms and integrated beyond, where terms hardly differ.
const ZETA_TERMS: u64 = 1_000_000;

/// Draws numbers below a bound.
#[derive(Debug)]
pub(super) struct Sampler {
    bound: u64,
    kind: Kind,
    random: Random,
    /// Scatters ranks over the file, or where the hot spot is.
    placed: Placed,
}

#[derive(Debug)]
enum Kind {
    Zipf { alpha: f64, zeta: f64, eta: f64, half: f64 },
    Pareto { power: f64 },
    Normal { deviation: f64 },
    Uniform,
}

#[derive(Debug)]
enum Placed {
    Scattered(u64),
    /// Added to ranks, modulo the bound.
    From(u64),
}

impl Sampler {
    /// Numbers below `bound`.
    pub(super) fn new(distribution: Distribution, bound: u64, seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xd157);
        let scatter = Placed::Scattered(random.next_u64());
        let place = |centre: Option<f64>, scatter| match centre {
            Some(centre) => Placed::From(whole(float(bound) * centre.clamp(0.0, 1.0)) % bound),
            None => scatter,
        };
        let (kind, placed) = match distribution {
            Distribution::Uniform => (Kind::Uniform, Placed::From(0)),
            Distribution::Zipf { theta, centre } => {
                // Gray et al., SIGMOD '94, for theta below 1 and above alike.
                let zeta = zeta(bound, theta);
                let zeta2 = 1.0 + 0.5_f64.powf(theta);
                let eta = (1.0 - (2.0 / float(bound)).powf(1.0 - theta)) / (1.0 - zeta2 / zeta);
                let kind = Kind::Zipf { alpha: 1.0 / (1.0 - theta), zeta, eta, half: zeta2 };
                (kind, place(centre, scatter))
            }
            Distribution::Pareto { power, centre } => {
                (Kind::Pareto { power: power.ln() / (1.0 - power).ln() }, place(centre, scatter))
            }
            Distribution::Normal { deviation, centre } => {
                let centre = centre.unwrap_or(0.5).clamp(0.0, 1.0);
                let from = Placed::From(whole(float(bound) * centre) % bound);
                (Kind::Normal { deviation: float(bound) * deviation / 100.0 }, from)
            }
        };
        Self { bound, kind, random, placed }
    }

    pub(super) fn next(&mut self) -> u64 {
        let rank = match self.kind {
            Kind::Uniform => self.random.scaled(self.bound),
            Kind::Zipf { alpha, zeta, eta, half } => {
                let drawn = self.random.unit();
                let scaled = drawn * zeta;
                if scaled < 1.0 {
                    0
                } else if scaled < half {
                    1
                } else {
                    whole(float(self.bound) * (eta * drawn - eta + 1.0).powf(alpha))
                }
            }
            Kind::Pareto { power } => whole(float(self.bound) * self.random.unit().powf(power)),
            Kind::Normal { deviation } => {
                let distance = (self.random.normal() * deviation).abs();
                let forward = whole(distance) % self.bound;
                if self.random.next_u64() & 1 == 0 { forward } else { self.bound - 1 - forward }
            }
        };
        let rank = rank.min(self.bound - 1);
        match self.placed {
            // The ranks that are met most lie anywhere in the file, as fio hashes them.
            Placed::Scattered(salt) => Random::new(rank ^ salt).scaled(self.bound),
            Placed::From(first) => (rank + first) % self.bound,
        }
    }
}

/// The sum of 1/n^theta for n up to `bound`.
fn zeta(bound: u64, theta: f64) -> f64 {
    let exact = bound.min(ZETA_TERMS);
    let sum: f64 = (1..=exact).map(|n| float(n).powf(-theta)).sum();
    if bound == exact {
        return sum;
    }
    let integral = |x: f64| x.powf(1.0 - theta) / (1.0 - theta);
    sum + integral(float(bound)) - integral(float(exact))
}
