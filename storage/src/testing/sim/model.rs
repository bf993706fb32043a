//! What must be readable: for every name, the data sets that may stand there.

use crate::testing::Random;
use crate::units::{to_u64, to_usize};

/// Payloads of one attempt to publish a data set.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) number: u64,
    pub(super) payloads: Vec<Vec<u8>>,
    /// Known once it was published.
    pub(super) generation: Option<u64>,
}

/// One name on L3.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: std::path::PathBuf,
    pub(super) attempts: Vec<Attempt>,
    /// What may stand there: nothing, or an attempt by its index. One entry when it is certain.
    pub(super) possible: Vec<Option<usize>>,
}

impl Target {
    pub(super) fn new(number: usize) -> Self {
        Self { path: format!("/l3/set-{number}").into(), attempts: Vec::new(), possible: vec![None] }
    }

    /// A new attempt with payloads of up to `blocks` blocks of `capacity` bytes.
    pub(super) fn attempt(&mut self, number: u64, random: &mut Random, blocks: u64, capacity: u64) -> usize {
        let shards = 1 + random.below(3);
        let payload = |random: &mut Random| {
            let len = match random.below(6) {
                0 => 0,
                1 => random.below(blocks + 1) * capacity,
                _ => random.below(blocks * capacity + 1),
            };
            let mut bytes = vec![0; to_usize(len)];
            random.fill(&mut bytes);
            // Half of it compresses.
            let half = bytes.len() / 2;
            bytes[..half].iter_mut().for_each(|byte| *byte %= 3);
            bytes
        };
        let payloads = (0..shards).map(|_| payload(random)).collect();
        self.attempts.push(Attempt { number, payloads, generation: None });
        self.attempts.len() - 1
    }

    pub(super) fn may_be(&mut self, attempt: usize) {
        self.possible.push(Some(attempt));
    }

    pub(super) fn is(&mut self, attempt: usize) {
        self.possible = vec![Some(attempt)];
    }

    pub(super) fn may_be_absent(&self) -> bool {
        self.possible.contains(&None)
    }

    pub(super) fn is_certain(&self) -> bool {
        self.possible.len() == 1
    }

    /// The attempt of that number, if it may stand here.
    pub(super) fn find(&self, number: u64) -> Option<usize> {
        let of_number = |index: &usize| self.attempts[*index].number == number;
        self.possible.iter().flatten().copied().find(of_number)
    }
}

/// One object.
#[derive(Debug)]
pub(super) struct Thing {
    pub(super) name: String,
    pub(super) attempts: Vec<Vec<u8>>,
    /// What it may be: absent, or an attempt by its index. One entry when it is certain.
    pub(super) possible: Vec<Option<usize>>,
}

impl Thing {
    pub(super) fn new(number: usize) -> Self {
        Self { name: format!("object-{number}"), attempts: Vec::new(), possible: vec![None] }
    }
}

/// A random range of a payload, often a short one, sometimes across many blocks.
pub(super) fn range(random: &mut Random, payload: &[u8]) -> std::ops::Range<u64> {
    let len = to_u64(payload.len());
    if random.one_in(6) {
        return 0..len;
    }
    let start = random.below(len + 1);
    let most = if random.one_in(3) { len } else { 5_000 };
    start..start + random.below((len - start).min(most) + 1)
}
