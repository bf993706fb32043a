//! A prediction allocates nothing, and all tables together stay within their bound.

use tierstream_prefetch::learned::{Access, Config, Outcome, Predictor};
use tierstream_storage::testing::{Allocations, Random, announce_seed};

#[global_allocator]
static ALLOCATIONS: Allocations = Allocations::new();

/// What the state of a predictor may take, whatever the number of objects.
const STATE_BYTES_MAX: usize = 64 << 20;

#[test]
fn a_prediction_allocates_nothing_and_its_tables_are_bounded() {
    let seed = 3;
    announce_seed("allocations", seed);
    let mut random = Random::new(seed);
    let before = ALLOCATIONS.live_bytes();
    let mut predictor = Predictor::new(Config { capacity: 1 << 20 });
    let state = ALLOCATIONS.live_bytes() - before;
    assert!(state <= STATE_BYTES_MAX, "{state} bytes");
    let mut out = Vec::with_capacity(4096);
    let mut accesses = Vec::with_capacity(64);
    let mut next = 0;
    let allocations = ALLOCATIONS.of_this_thread();
    let mut issued = 0;
    for number in 0..300_000_u64 {
        // Runs, returns to what was read before among ten million blocks, and noise.
        next = if random.below(20) == 0 { random.below(10_000_000) } else { next + 1 };
        let id = if random.below(10) == 0 { random.below(5000) * 7919 } else { next };
        accesses.clear();
        let outcome = if random.below(4) == 0 { Outcome::Hit } else { Outcome::Miss };
        accesses.extend((0..1 + random.below(3)).map(|block| Access { id: id + block, outcome }));
        out.clear();
        predictor.request(number % 5, &accesses, &|_| false, &mut out);
        issued += out.len();
        out.iter().filter(|id| *id % 3 == 0).for_each(|id| predictor.wasted(*id));
    }
    assert_eq!(ALLOCATIONS.of_this_thread(), allocations);
    assert!(issued > 1000, "{issued}: something was predicted");
}
