//! The order of one lane and its bounds.

use super::*;
use crate::buf::HeapAllocator;
use crate::io::queue::LaneQueue;
use crate::testing::{Random, announce_seed};

const SLOT: usize = 64 * 1024;

struct Maker {
    _dir: tempfile::TempDir,
    file: Arc<DeviceFile>,
    arena: Arc<Arena>,
}

impl Maker {
    fn new(slots: usize) -> Self {
        let dir = tmp();
        let directory = Directory::open(dir.path()).unwrap();
        let file = DeviceFile::open(&directory, "f", Access::CreateNew).unwrap();
        Self { _dir: dir, file, arena: Arena::new("test", SLOT, slots, &HeapAllocator).unwrap() }
    }

    fn request(&self, tag: u64, offset: u64, len: usize, priority: Priority, deadline: u64) -> Request {
        let mut op = Op::read(Arc::clone(&self.file), offset, len, self.arena.try_take(0).unwrap());
        op.tag = tag;
        Request { op, lane: Lane::Fast, priority, deadline, done: Box::new(|_, _| {}) }
    }
}

fn limits(depth: usize, bytes: usize, merge: MergeLimits) -> LaneLimits {
    LaneLimits { depth, bytes, merge, sweep: 0 }
}

const NO_MERGING: MergeLimits = MergeLimits::NONE;
const PRIORITIES: [Priority; 4] =
    [Priority::Demand, Priority::Announced, Priority::Predicted, Priority::Background];

#[test]
fn a_read_of_several_blocks_is_raised_by_the_name_of_any() {
    let maker = Maker::new(4);
    let mut queue = LaneQueue::new(limits(9, usize::MAX, NO_MERGING));
    for (tag, more) in [(10, 0), (20, 3), (30, 0)] {
        let mut request = maker.request(tag, tag << 20, 4096, Priority::Announced, tag);
        request.op.more_tags = more;
        queue.push(request);
    }
    for other in [19, 24, 29] {
        queue.raise(other, Priority::Demand);
    }
    queue.raise(23, Priority::Demand);
    let order: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|request| request.op.tag).collect();
    assert_eq!(order, [20, 10, 30]);
}

#[test]
fn any_mix_of_arrivals_and_raises_comes_out_in_order() {
    let maker = Maker::new(200);
    for seed in 0..50 {
        announce_seed("lane queue", seed);
        let mut random = Random::new(seed);
        let mut queue = LaneQueue::new(limits(usize::MAX, usize::MAX, MergeLimits::DISK));
        // A sorted list is the model: priority, deadline, arrival.
        let mut model: Vec<(Priority, u64, u64)> = Vec::new();
        for arrival in 0..200 {
            let priority = PRIORITIES[crate::units::to_usize(random.below(4))];
            let deadline = random.below(5);
            queue.push(maker.request(arrival, arrival << 30, 4096, priority, deadline));
            model.push((priority, deadline, arrival));
            if random.one_in(4) {
                let (tag, to) =
                    (random.below(arrival + 1), PRIORITIES[crate::units::to_usize(random.below(4))]);
                queue.raise(tag, to);
                for entry in model.iter_mut().filter(|entry| entry.2 == tag && entry.0 > to) {
                    entry.0 = to;
                }
            }
            if random.one_in(3) {
                model.sort_unstable();
                let expected = (!model.is_empty()).then(|| model.remove(0).2);
                assert_eq!(queue.pop().map(|request| request.op.tag), expected, "seed {seed}");
            }
            assert_eq!(queue.len(), model.len());
        }
        model.sort_unstable();
        for entry in model {
            assert_eq!(queue.pop().map(|request| request.op.tag), Some(entry.2), "seed {seed}");
        }
        assert!(queue.pop().is_none() && queue.len() == 0);
    }
}

#[test]
fn depth_bytes_and_the_reserve_for_demands_are_kept() {
    let maker = Maker::new(64);
    let start = |limits, priority, len| {
        let mut queue = LaneQueue::new(limits);
        (0..20).for_each(|tag| queue.push(maker.request(tag, tag << 30, len, priority, 0)));
        let mut started = 0;
        while let Some(request) = queue.pop() {
            started += 1;
            queue.in_flight += 1;
            queue.bytes_in_flight += request.op.len;
        }
        started
    };
    assert_eq!(start(limits(16, usize::MAX, NO_MERGING), Priority::Demand, SLOT), 16);
    assert_eq!(
        start(limits(16, usize::MAX, NO_MERGING), Priority::Background, SLOT),
        14,
        "an eighth is kept free"
    );
    assert_eq!(start(limits(16, 5 * SLOT, NO_MERGING), Priority::Demand, SLOT), 5);
    assert_eq!(start(limits(16, SLOT / 2, NO_MERGING), Priority::Demand, SLOT), 1, "one may always go");
}

#[test]
fn on_an_nvme_only_small_reads_that_follow_each_other_merge() {
    let maker = Maker::new(64);
    let merged = |len: usize, offsets: &[u64]| {
        let mut queue = LaneQueue::new(limits(16, usize::MAX, MergeLimits::NVME));
        for (tag, offset) in (0..).zip(offsets) {
            queue.push(maker.request(tag, *offset, len, Priority::Demand, 0));
        }
        let head = queue.pop().unwrap();
        queue.take_neighbours(&head).len()
    };
    assert_eq!(merged(4096, &[0, 4096, 8192]), 2);
    assert_eq!(merged(4096, &[0, 8192, 4096]), 0, "not the next in order");
    assert_eq!(merged(SLOT, &[0, 65536]), 0, "too long to be copied once more");
    let all: Vec<u64> = (0..40).map(|block| block * 4096).collect();
    assert_eq!(merged(4096, &all), 31, "128 KiB and no more");
}

const SWEEP: usize = 16;

/// Random reads from a queue that sweeps over so many: how far the head goes. No order is broken that must be kept.
fn way_of_the_head(maker: &Maker, seed: u64, sweep: usize) -> u64 {
    let mut random = Random::new(seed);
    let mut queue = LaneQueue::new(LaneLimits { sweep, ..limits(usize::MAX, usize::MAX, NO_MERGING) });
    // Priority, deadline, arrival, and how often something less urgent of the same priority went before it.
    let mut model: Vec<(Priority, u64, u64, usize)> = Vec::new();
    let (mut head, mut way) = (0_u64, 0);
    let mut pop = |queue: &mut LaneQueue, model: &mut Vec<(Priority, u64, u64, usize)>| {
        model.sort_unstable();
        let request = queue.pop().expect("it has what the model has");
        let at = model.iter().position(|entry| entry.2 == request.op.tag).expect("it was pushed");
        assert_eq!(model[0].0, request.priority, "a higher priority goes first");
        assert!(at == 0 || request.priority != Priority::Demand, "demands keep their order");
        model[..at].iter_mut().for_each(|entry| entry.3 += 1);
        let passed = model.iter().map(|entry| entry.3).max().unwrap_or(0);
        assert!(passed < (2 * sweep).max(1), "{passed} less urgent ones went before one");
        way += request.op.offset.abs_diff(head);
        head = request.op.offset;
        model.remove(at);
    };
    for arrival in 0..200 {
        let priority = if random.one_in(20) { Priority::Demand } else { Priority::Announced };
        // Not quite in the order of the deadlines.
        let deadline = arrival / 3 + random.below(9);
        queue.push(maker.request(arrival, random.below(1 << 20) * 4096, 4096, priority, deadline));
        model.push((priority, deadline, arrival, 0));
        if arrival > 60 {
            pop(&mut queue, &mut model);
        }
    }
    while !model.is_empty() {
        pop(&mut queue, &mut model);
    }
    assert!(queue.pop().is_none());
    way
}

#[test]
fn a_disk_sweeps_over_the_most_urgent_and_starves_none() {
    let maker = Maker::new(200);
    let (mut swept, mut in_order) = (0, 0);
    for seed in 0..40 {
        announce_seed("sweep", seed);
        swept += way_of_the_head(&maker, seed, SWEEP);
        in_order += way_of_the_head(&maker, seed, 0);
    }
    assert!(swept * 2 < in_order, "the head went {swept} bytes, in the order of deadlines {in_order}");
}
