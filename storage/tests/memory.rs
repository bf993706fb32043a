//! What L1 and L2 take of memory: per cached block, and while they answer. A program of its own, because it counts every
//! allocation.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tierstream_storage::buf::HeapAllocator;
use tierstream_storage::catalog::{CatalogKind, open};
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::format::FileId;
use tierstream_storage::testing::{Allocations, Random};
use tierstream_storage::tier::{BlockKey, FileNo, FileTable, L2Config, Lookup, MemoryTier, NvmeTier, S3Fifo};

#[global_allocator]
static ALLOCATIONS: Allocations = Allocations::new();

const FRAME: usize = 4096;

/// One test at a time: what another allocates would be counted too.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(block: usize) -> BlockKey {
    BlockKey {
        file: FileNo(u32::try_from(block / 4096).unwrap()),
        block: u32::try_from(block % 4096).unwrap(),
    }
}

fn l1(frames: usize) -> MemoryTier {
    MemoryTier::new(FRAME, frames, &HeapAllocator, Box::new(S3Fifo::new(frames))).unwrap()
}

fn load(tier: &MemoryTier, block: usize) {
    let Lookup::Load(flight, mut blank) = tier.get_or_load(key(block)) else { panic!("{block} is there") };
    blank[0] = u8::try_from(block % 256).unwrap();
    tier.publish(key(block), &flight, blank, FRAME);
}

/// The memory of the blocks themselves is mapped and not allocated, so that it does not count here.
#[test]
fn both_tiers_together_take_at_most_64_bytes_per_cached_block() {
    let _alone = alone();
    const BLOCKS: usize = 100_000;
    let before = ALLOCATIONS.live_bytes();
    let tier = l1(BLOCKS);
    (0..2 * BLOCKS).for_each(|block| load(&tier, block));
    let l1_bytes = ALLOCATIONS.live_bytes() - before;
    assert_eq!(tier.usage().resident, u64::try_from(BLOCKS).unwrap());
    drop(tier);

    let dir = tempfile::tempdir().unwrap();
    let catalog = open(CatalogKind::Redb, dir.path()).unwrap();
    let files = Arc::new(FileTable::default());
    for file in 0..25_u8 {
        files.intern(FileId([file; 16]));
    }
    let config = [L2Config { path: dir.path().to_owned(), bytes: 1 << 30 }];
    let before = ALLOCATIONS.live_bytes();
    let tier = NvmeTier::open(&config, None, catalog, files).unwrap();
    let mut worst = 0.0_f64;
    let (mut admitted, mut l2_bytes) = (0, 0);
    for block in 0..BLOCKS {
        let reservation = tier.admit(key(block), FileId([1; 16]), FRAME).unwrap();
        tier.commit(&reservation);
        admitted += 1;
        if admitted > BLOCKS / 2 && admitted % 1000 == 0 {
            worst = worst.max(tier.index_bytes() as f64 / admitted as f64);
        }
    }
    tier.close();
    l2_bytes += ALLOCATIONS.live_bytes().saturating_sub(before);
    let each = |bytes: usize| bytes as f64 / BLOCKS as f64;
    println!(
        "bytes of memory per cached block: L1 {:.1}, L2 {:.1} (index {:.1}, at worst {worst:.1} while it grows)",
        each(l1_bytes),
        each(l2_bytes),
        each(tier.index_bytes())
    );
    assert!(each(l1_bytes) + worst.max(each(l2_bytes)) <= 64.0);
}

#[test]
fn blocks_that_share_frames_take_at_most_64_bytes_each_as_well() {
    let _alone = alone();
    for (len, frames) in [(40, 200), (500, 2000), (1900, 20_000)] {
        let before = ALLOCATIONS.live_bytes();
        let tier = l1(frames);
        let mut worst = 0.0_f64;
        for block in 0..frames * (FRAME / (len + 16)) {
            let Lookup::Load(flight, blank) = tier.get_or_load_of(key(block), len) else { panic!("{block}") };
            tier.publish(key(block), &flight, blank, len);
            // Once its frames are in use: they are counted in full from the start.
            let blocks = block + 1;
            if blocks >= 2 * frames && blocks % 1000 == 0 {
                worst = worst.max((ALLOCATIONS.live_bytes() - before) as f64 / blocks as f64);
            }
        }
        let usage = tier.usage();
        assert_eq!(usage.blocks, usage.packed_blocks);
        println!("L1 takes {worst:.1} bytes at worst for a packed block of {len} bytes");
        assert!(worst > 0.0 && worst <= 64.0, "{len}: {worst}");
    }
}

#[test]
fn a_hit_allocates_nothing_and_is_quick() {
    let _alone = alone();
    const BLOCKS: usize = 1000;
    let tier = l1(BLOCKS);
    (0..BLOCKS).for_each(|block| load(&tier, block));
    let clock = SystemClock::new();
    let mut random = Random::new(1);
    let mut nanos: Vec<u64> = Vec::with_capacity(200_000);
    let allocated = ALLOCATIONS.of_this_thread();
    let mut sum = 0;
    for _ in 0..200_000 {
        let block = usize::try_from(random.below(1000)).unwrap();
        let began = clock.now();
        let view = tier.view(key(block)).unwrap();
        sum += u64::from(view[0]);
        let ticket = tier.get(key(block)).unwrap();
        let again = ticket.try_get().unwrap().unwrap();
        drop((view, ticket, again));
        nanos.push(u64::try_from((clock.now() - began).as_nanos()).unwrap());
    }
    assert_eq!(ALLOCATIONS.of_this_thread(), allocated, "a hit allocates");
    assert!(sum > 0);
    nanos.sort_unstable();
    println!("two hits of L1 and the clock: p50 {} ns, p99 {} ns", nanos[100_000], nanos[198_000]);
}

/// Two threads do not wait for each other: printed, because a busy machine is no reason to fail.
#[test]
fn hits_of_two_threads() {
    let _alone = alone();
    const BLOCKS: usize = 4096;
    const HITS: usize = 1_000_000;
    let tier = l1(BLOCKS);
    (0..BLOCKS).for_each(|block| load(&tier, block));
    let clock = SystemClock::new();
    let run = |seed: u64| {
        let mut random = Random::new(seed);
        let began = clock.now();
        for _ in 0..HITS {
            let block = usize::try_from(random.below(4096)).unwrap();
            assert_eq!(tier.view(key(block)).unwrap()[0], u8::try_from(block % 256).unwrap());
        }
        clock.now() - began
    };
    let alone = (0..3).map(&run).min().unwrap();
    let together = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|seed| {
                scope.spawn({
                    let run = &run;
                    move || run(seed)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap_or(Duration::ZERO)
    });
    let per_hit = |took: Duration| took.as_nanos() as f64 / HITS as f64;
    println!("a hit of L1: {:.0} ns alone, {:.0} ns with a second thread", per_hit(alone), per_hit(together));
    assert_eq!(tier.usage().evictions, 0);
}

/// Bytes of the payload that blocks of 64 KiB carry, as the format cuts them.
const CAPACITY: u64 = 65_536 - 64;

/// Loads the blocks of objects of these lengths into an L1 of 64 KiB frames and says how much of it holds nothing.
fn fragmentation(lengths: impl Iterator<Item = u64> + Clone) -> f64 {
    let blocks: usize = lengths.clone().map(|bytes| usize::try_from(bytes.div_ceil(CAPACITY)).unwrap()).sum();
    let policy = Box::new(S3Fifo::new(blocks));
    let tier = MemoryTier::new(65_536, blocks, &HeapAllocator, policy).unwrap();
    for (object, bytes) in (0..).zip(lengths) {
        for block in 0..bytes.div_ceil(CAPACITY) {
            let key = BlockKey { file: FileNo(object), block: u32::try_from(block).unwrap() };
            let len = usize::try_from((bytes - block * CAPACITY).min(CAPACITY)).unwrap();
            let Lookup::Load(flight, blank) = tier.get_or_load_of(key, len) else {
                panic!("{key:?} is there")
            };
            tier.publish(key, &flight, blank, len);
        }
    }
    tier.usage().fragmentation_percent()
}

/// Tensors of BERT-base (Devlin et al. 2019), as elements.
fn bert_base() -> Vec<u64> {
    const WIDTH: u64 = 768;
    let layer =
        [[WIDTH * WIDTH; 4].as_slice(), [WIDTH; 9].as_slice(), [WIDTH * 3072, 3072 * WIDTH, 3072].as_slice()]
            .concat();
    let mut tensors = vec![30_522 * WIDTH, 512 * WIDTH, 2 * WIDTH, WIDTH, WIDTH, WIDTH * WIDTH, WIDTH];
    (0..12).for_each(|_| tensors.extend(&layer));
    tensors
}

#[test]
fn at_most_five_percent_of_l1_is_empty_room() {
    let _alone = alone();
    let tensors = bert_base();
    assert_eq!((tensors.len(), tensors.iter().sum::<u64>()), (199, 109_482_240));
    // A training step in FP32: weights, gradients and the optimizer's two moments, each tensor an object of its own.
    let step = (0..4).flat_map(|_| tensors.iter().map(|elements| elements * 4));
    // Shards of images of some hundred kilobytes and of samples of 2048 tokens: packed back to back.
    let mut random = Random::new(7);
    let shards: Vec<u64> = (0..8)
        .map(|shard| {
            let sample =
                |random: &mut Random| if shard % 2 == 0 { 60_000 + random.below(120_000) } else { 4096 };
            (0..300).map(|_| sample(&mut random)).sum()
        })
        .collect();
    // The same samples, and short texts, each an object of its own.
    let apart: Vec<u64> = (0..6000)
        .map(|sample| match sample % 3 {
            0 => 60_000 + random.below(120_000),
            1 => 4096,
            _ => 2 * (1 + random.below(512)),
        })
        .collect();
    for (what, percent) in [
        ("a step of BERT-base", fragmentation(step)),
        ("images and tokens, packed", fragmentation(shards.into_iter())),
        ("images, tokens and texts, each by itself", fragmentation(apart.into_iter())),
    ] {
        println!("empty room in L1 under {what}: {percent:.2} %");
        assert!(percent <= 5.0, "{what}: {percent} %");
    }
}
