//! What L1 commits and does not use under two mixes of tensors: packed into one data set, whose blocks go through the
//! store, and each an object of its own, whose blocks as the format cuts them fill an L1 and then a smaller one again and
//! again. Frames in use are counted against the bytes of the tensors in them.

use std::sync::Arc;

use tierstream_storage::buf::HeapAllocator;
use tierstream_storage::format::capacity;
use tierstream_storage::keys::Cipher;
use tierstream_storage::store::Urgency;
use tierstream_storage::tier::{BlockKey, FileNo, Lookup, MemoryTier, S3Fifo};
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{RangeSource, Store, StoreConfig};

use super::StoreBench;
use super::read::{BLOCK_BYTES, Place, location, pack, random_keys};
use super::report::{Fragmentation, Report};
use crate::random::Random;
use crate::{Error, ErrorKind, Result};

/// Tensors start where a vector register can load them and safetensors readers expect them.
const TENSOR_ALIGN: u32 = 64;
const HALF: usize = 2;

/// Fills the report's `fragmentation`.
///
/// # Errors
/// As the device and the store say.
pub(super) fn run(bench: &StoreBench, report: &mut Report) -> Result<()> {
    report.fragmentation = Fragmentation {
        bert_base_step: percent(bench, &bert_base_step())?,
        image_token_loader: percent(bench, &image_token_loader())?,
        bert_base_step_apart: percent_apart(&bert_base_step())?,
        image_token_loader_apart: percent_apart(&image_token_loader())?,
    };
    Ok(())
}

/// Every tensor an object of its own, in a shuffled order: the worse of an L1 that holds all of them and one that holds a
/// quarter, after each was loaded three times.
fn percent_apart(lengths: &[usize]) -> Result<f64> {
    let room = to_usize(capacity(BLOCK_BYTES));
    let mut blocks: Vec<(BlockKey, usize)> = Vec::new();
    for (object, length) in (0..).zip(lengths) {
        for (block, start) in (0..).zip((0..*length).step_by(room)) {
            blocks.push((BlockKey { file: FileNo(object), block }, room.min(length - start)));
        }
    }
    let mut worst = 0.0_f64;
    for (part, rounds) in [(1, 1), (4, 3)] {
        let frames = (blocks.len() / part).max(64);
        let policy = Box::new(S3Fifo::new(frames));
        let tier = MemoryTier::new(BLOCK_BYTES as usize, frames, &HeapAllocator, policy)?;
        let mut random = Random::new(to_u64(part));
        for _ in 0..rounds {
            for last in (1..blocks.len()).rev() {
                blocks.swap(last, to_usize(random.below(to_u64(last) + 1)));
            }
            for (key, len) in &blocks {
                // No byte is written: what the frames hold does not matter here.
                if let Lookup::Load(flight, blank) = tier.get_or_load_of(*key, *len) {
                    tier.publish(*key, &flight, blank, *len);
                }
            }
        }
        worst = worst.max(tier.usage().fragmentation_percent());
    }
    Ok(worst)
}

/// Packs tensors of these lengths and brings every block of them into L1.
fn percent(bench: &StoreBench, lengths: &[usize]) -> Result<f64> {
    let place = Place::new(&bench.directory, "tierstream-bench-mix")?;
    let set = place.path().join("set");
    let keys = random_keys()?;
    let zeros = vec![0; lengths.iter().copied().max().unwrap_or(0)];
    // What is wasted does not depend on the cipher: the fast one.
    pack(&keys, &set, Cipher::Aes256Gcm, TENSOR_ALIGN, |write| {
        lengths.iter().try_for_each(|length| write(&zeros[..*length]))
    })?;
    let store =
        Store::open(StoreConfig { block_bytes: BLOCK_BYTES, ..StoreConfig::default() }, Arc::clone(&keys))?;
    let opened = store.open_data_set(location(&set)?)?;
    let file = store.files(&opened)?[0];
    let (mut committed, mut delivered, mut number) = (0_u64, 0_u64, 0);
    while delivered < opened.payload_bytes {
        let ticket = store.fetch(BlockKey { file, block: number }, Urgency::DEMAND)?;
        let ticket = ticket.ok_or_else(|| Error::new(ErrorKind::Full, "read", "no room for a block"))?;
        delivered += ticket.wait(store.patience())?.len() as u64;
        committed += store.l1_block_bytes();
        number += 1;
    }
    let used: usize = lengths.iter().sum();
    Ok(100.0 * (committed as f64 - used as f64) / committed as f64)
}

/// Weights, gradients of the same sizes and the activations of 8 sequences of 128 tokens, in half precision: BERT-base
/// has 12 layers of width 768 with 12 heads, an inner width of 3072 and 30,522 words.
fn bert_base_step() -> Vec<usize> {
    const WIDTH: usize = 768;
    const INNER: usize = 3072;
    let mut weights = vec![30_522 * WIDTH, 512 * WIDTH, 2 * WIDTH, WIDTH, WIDTH];
    for _ in 0..12 {
        // Query, key, value and output, then the two halves of the inner layer, each with its bias; two norms.
        weights.extend([WIDTH * WIDTH, WIDTH].repeat(4));
        weights.extend([WIDTH * INNER, INNER, INNER * WIDTH, WIDTH]);
        weights.extend([WIDTH; 4]);
    }
    weights.extend([WIDTH * WIDTH, WIDTH, WIDTH * 2, 2]);
    let (sequences, tokens) = (8, 128);
    let rows = sequences * tokens;
    let mut activations = Vec::new();
    for _ in 0..12 {
        activations.extend([rows * WIDTH; 5]);
        activations.extend([sequences * 12 * tokens * tokens, rows * INNER, rows * WIDTH, rows, rows]);
    }
    [weights.clone(), weights, activations].concat().into_iter().map(|elements| elements * HALF).collect()
}

/// 2,000 compressed images between 8 KiB and 512 KiB, most of them small, and 20,000 token sequences of up to 512.
fn image_token_loader() -> Vec<usize> {
    let mut random = Random::new(7);
    let mut below = |bound: u64| usize::try_from(random.below(bound)).expect("a small number");
    let images: Vec<usize> = (0..2000)
        .map(|_| {
            let doublings = below(6);
            (8 << 10 << doublings) + below(8 << 10 << doublings)
        })
        .collect();
    let sequences: Vec<usize> = (0..20_000).map(|_| (1 + below(512)) * HALF).collect();
    [images, sequences].concat()
}
