//! What a candidate's chance of being used is: an on-line model that costs some tens of nanoseconds.
//!
//! Each candidate is described by a few contexts ("run of three requests, two blocks ahead", "this stream and source",
//! "after this block, that distance"). A context has an adaptive count of how often candidates like it were used; the
//! counts are mixed in the logistic domain by weights that are learned per source, as context mixing does in lossless
//! compression. A new context weighs nothing until something was seen in it, so that a cold start says "I don't know"
//! rather than a guess, and a handful of examples suffices to be useful.
//!
//! Guarantees: fixed tables, no allocation, the same answers for the same inputs. Deliberately knows no caches.

use super::hash::whole;

/// Contexts of a candidate.
pub(super) const CONTEXTS: usize = 8;
/// Log2 of the counters of each context.
const COUNTER_BITS: u32 = 16;
/// Observations after which a counter only follows the recent past.
const LIMIT: u32 = 250;
/// Weight that a counter starts with.
const FIRST_WEIGHT: f32 = 0.35;
const RATE: f32 = 0.01;
/// Levels of the table of logarithms.
const LEVELS: usize = 4096;

/// Where the counters of a candidate's contexts are.
pub(super) type Contexts = [u16; CONTEXTS];

/// Folds a hash of a context into the number of its counter.
pub(super) fn slot(hash: u64) -> u16 {
    u16::try_from((hash >> 20) & ((1 << COUNTER_BITS) - 1)).unwrap_or(0)
}

/// How often something was so: 22 bits of probability over 10 bits of count.
#[derive(Clone, Copy)]
struct Counter(u32);

impl Counter {
    fn level(self) -> usize {
        usize::try_from(self.0 >> 20).unwrap_or(0)
    }

    fn count(self) -> u32 {
        self.0 & 0x3ff
    }

    fn learn(&mut self, used: bool, inverse: &[u32]) {
        let count = self.count();
        let probability = i64::from(self.0 >> 10);
        let target = if used { (1 << 22) - 1 } else { 0 };
        let step = i64::from(inverse[usize::try_from(count).unwrap_or(0)]);
        let moved = probability + (((target - probability) * step) >> 16);
        let count = (count + 1).min(LIMIT);
        self.0 = (u32::try_from(moved.clamp(0, (1 << 22) - 1)).unwrap_or(0) << 10) | count;
    }
}

/// Levels of evidence at which the outcome is measured.
const REFINED: usize = 25;
const MIDDLE: f32 = 12.0;

fn squash(sum: f32) -> f32 {
    1.0 / (1.0 + (-sum).exp())
}

/// The level below a sum of evidence, and how far it is on the way to the next.
fn level(sum: f32) -> (usize, f32) {
    let place = (sum * 2.0 + MIDDLE).clamp(0.0, 23.99);
    (usize::from(whole(place)), place.fract())
}

pub(super) struct Model {
    counters: Box<[Counter]>,
    weights: Box<[[f32; CONTEXTS + 1]]>,
    stretched: Box<[f32]>,
    trust: Box<[f32]>,
    inverse: Box<[u32]>,
    // What chances turned out to be, by source: 24 levels of the logarithm.
    actual: Box<[[f32; REFINED]]>,
    /// Mean loss of late, in nats.
    loss: f32,
}

impl Model {
    /// A model for candidates of `sources` sources.
    pub(super) fn new(sources: usize) -> Self {
        let counters = CONTEXTS << COUNTER_BITS;
        let level = |n: usize| (n as f32 + 0.5) / LEVELS as f32;
        let mut first = [FIRST_WEIGHT; CONTEXTS + 1];
        first[CONTEXTS] = -0.3;
        Self {
            // One in four, which counts for nothing until something is seen.
            counters: vec![Counter(1 << 30); counters].into(),
            weights: vec![first; sources].into(),
            stretched: (0..LEVELS).map(|n| (level(n) / (1.0 - level(n))).ln()).collect(),
            trust: (0..=LIMIT).map(|n| n as f32 / (n as f32 + 1.2)).collect(),
            inverse: (0..=LIMIT).map(|n| u32::from(whole(65535.0 / (n as f32 + 1.6)))).collect(),
            actual: vec![std::array::from_fn(|n| squash((n as f32 - MIDDLE) / 2.0)); sources].into(),
            loss: 0.5,
        }
    }

    fn inputs(&self, contexts: &Contexts) -> [f32; CONTEXTS + 1] {
        let mut inputs = [1.0; CONTEXTS + 1];
        for (number, (context, input)) in contexts.iter().zip(&mut inputs).enumerate() {
            let counter = self.counters[(number << COUNTER_BITS) + usize::from(*context)];
            let trust = self.trust[usize::try_from(counter.count()).unwrap_or(0)];
            *input = self.stretched[counter.level()] * trust;
        }
        inputs
    }

    fn mix(&self, source: usize, inputs: &[f32; CONTEXTS + 1]) -> f32 {
        let weights = &self.weights[source];
        weights.iter().zip(inputs).map(|(weight, input)| weight * input).sum::<f32>().clamp(-5.9, 5.9)
    }

    /// The chance that a sum of evidence stands for: half from the sum, half from how such sums turned out.
    fn refine(&self, source: usize, sum: f32) -> f32 {
        let (low, part) = level(sum);
        let actual = &self.actual[source];
        (squash(sum) + actual[low] * (1.0 - part) + actual[low + 1] * part) / 2.0
    }

    /// The chance that the candidate is used.
    pub(super) fn score(&self, source: usize, contexts: &Contexts) -> f32 {
        self.refine(source, self.mix(source, &self.inputs(contexts)))
    }

    /// Learns what became of a candidate.
    pub(super) fn learn(&mut self, source: usize, contexts: &Contexts, used: bool) {
        let inputs = self.inputs(contexts);
        let sum = self.mix(source, &inputs);
        let chance = squash(sum);
        let target = f32::from(u8::from(used));
        let error = target - chance;
        let (low, part) = level(sum);
        for (at, share) in [(low, 1.0 - part), (low + 1, part)] {
            let actual = &mut self.actual[source][at];
            *actual += (target - *actual) * share / 48.0;
        }
        for (weight, input) in self.weights[source].iter_mut().zip(&inputs) {
            *weight += RATE * error * input;
        }
        for (number, context) in contexts.iter().enumerate() {
            self.counters[(number << COUNTER_BITS) + usize::from(*context)].learn(used, &self.inverse);
        }
        let probability = if used { chance } else { 1.0 - chance };
        self.loss += (-probability.max(1e-6).ln() - self.loss) / 1024.0;
    }

    /// Mean loss of late, in nats per candidate.
    pub(super) fn loss(&self) -> f32 {
        self.loss
    }
}
