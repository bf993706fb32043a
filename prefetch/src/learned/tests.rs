use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;
use tierstream_storage::testing::{Random, announce_seed};

use super::*;

/// Memory of so many blocks that lets go in order of arrival, and fetches at once.
struct Memory {
    room: usize,
    order: VecDeque<u64>,
    inside: HashSet<u64>,
    unused: HashSet<u64>,
}

impl Memory {
    fn new(room: usize) -> Self {
        Self { room, order: VecDeque::new(), inside: HashSet::new(), unused: HashSet::new() }
    }

    fn bring(&mut self, id: u64, predictor: &mut Predictor) {
        if self.inside.insert(id) {
            self.order.push_back(id);
        }
        while self.order.len() > self.room {
            let Some(left) = self.order.pop_front() else { break };
            self.inside.remove(&left);
            if self.unused.remove(&left) {
                predictor.wasted(left);
            }
        }
    }

    fn outcome(&mut self, id: u64) -> Outcome {
        if self.unused.remove(&id) {
            Outcome::FirstUse
        } else if self.inside.contains(&id) {
            Outcome::Hit
        } else {
            Outcome::Miss
        }
    }
}

#[derive(Debug, Default)]
struct Score {
    misses: u64,
    issued: u64,
}

fn play(requests: &[(u64, Vec<u64>)], room: usize, fetches: bool) -> Score {
    let mut predictor = Predictor::new(Config { capacity: room as u64 });
    let mut memory = Memory::new(room);
    let mut score = Score::default();
    let mut out = Vec::with_capacity(1024);
    for (stream, ids) in requests {
        let accesses: Vec<Access> =
            ids.iter().map(|id| Access { id: *id, outcome: memory.outcome(*id) }).collect();
        for access in accesses.iter().filter(|access| access.outcome == Outcome::Miss) {
            score.misses += 1;
            memory.bring(access.id, &mut predictor);
        }
        out.clear();
        predictor.request(*stream, &accesses, &|id| memory.inside.contains(&id), &mut out);
        if fetches {
            for id in &out {
                score.issued += 1;
                memory.unused.insert(*id);
                memory.bring(*id, &mut predictor);
            }
        }
    }
    score
}

fn coverage(requests: &[(u64, Vec<u64>)], room: usize) -> f64 {
    let without = play(requests, room, false).misses;
    1.0 - play(requests, room, true).misses as f64 / without as f64
}

/// Runs of 20 to 120 blocks at places that are never visited again.
fn runs(random: &mut Random) -> Vec<(u64, Vec<u64>)> {
    (0..300)
        .flat_map(|run| {
            let first = run * 100_000 + random.below(1000);
            (0..20 + random.below(100)).map(move |block| (0, vec![first + block]))
        })
        .collect()
}

fn scrambled(requests: &[(u64, Vec<u64>)], key: u64) -> Vec<(u64, Vec<u64>)> {
    let scramble = |id: &u64| super::hash::spread(id ^ key);
    requests.iter().map(|(stream, ids)| (*stream, ids.iter().map(scramble).collect())).collect()
}

#[test]
fn runs_are_covered_and_what_numbers_gave_away_is_gone_when_they_are_scrambled() {
    let seed = 7;
    announce_seed("runs", seed);
    let requests = runs(&mut Random::new(seed));
    assert!(coverage(&requests, 1000) > 0.8, "{}", coverage(&requests, 1000));
    let without_order = scrambled(&requests, 0x5eed);
    assert!(coverage(&without_order, 1000).abs() < 0.001, "no block comes twice: nothing can be known");
}

#[test]
fn what_comes_again_in_the_same_order_is_known_by_whatever_number() {
    let seed = 11;
    announce_seed("replay", seed);
    let mut random = Random::new(seed);
    let pass: Vec<u64> = (0..2000).map(|_| random.below(u64::MAX)).collect();
    let requests: Vec<(u64, Vec<u64>)> = (0..6).flat_map(|_| pass.iter().map(|id| (3, vec![*id]))).collect();
    let plain = coverage(&requests, 500);
    let other = coverage(&scrambled(&requests, 0xabcd), 500);
    assert!(plain > 0.6 && (plain - other).abs() < 0.05, "{plain} {other}");
}

#[test]
fn blocks_of_one_request_cannot_be_saved_by_the_first_of_them() {
    let seed = 13;
    announce_seed("groups", seed);
    let mut random = Random::new(seed);
    let groups: Vec<(u64, Vec<u64>)> = (0..3000)
        .map(|_| {
            let first = random.below(1 << 40);
            (0, (first..first + 16).collect())
        })
        .collect();
    let expanded: Vec<(u64, Vec<u64>)> =
        groups.iter().flat_map(|(stream, ids)| ids.iter().map(|id| (*stream, vec![*id]))).collect();
    assert!(coverage(&groups, 2000).abs() < 0.01, "{}", coverage(&groups, 2000));
    assert!(coverage(&expanded, 2000) > 0.5, "the same blocks one by one look predictable");
}

#[test]
fn noise_is_left_alone() {
    let seed = 17;
    announce_seed("noise", seed);
    let mut random = Random::new(seed);
    let requests: Vec<(u64, Vec<u64>)> = (0..60_000).map(|_| (0, vec![random.below(5000) * 977])).collect();
    let score = play(&requests, 500, true);
    assert!(score.issued < 300, "{score:?}");
}

proptest! {
    #[test]
    fn any_reads_are_survived_and_no_block_is_proposed_that_is_there(
        reads in prop::collection::vec((0_u64..3, prop_oneof![0_u64..200, Just(u64::MAX), any::<u64>()], 1_u64..20), 1..400),
    ) {
        let mut predictor = Predictor::new(Config { capacity: 64 });
        let mut out = Vec::new();
        for (stream, first, count) in reads {
            let accesses: Vec<Access> = (0..count)
                .map(|block| Access { id: first.wrapping_add(block), outcome: Outcome::Miss })
                .collect();
            predictor.request(stream, &accesses, &|id| id % 2 == 0, &mut out);
            prop_assert!(out.iter().all(|id| id % 2 == 1));
            prop_assert!(out.len() <= 200 * accesses.len());
            out.clear();
        }
    }
}
