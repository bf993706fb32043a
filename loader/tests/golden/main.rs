//! Version 1 of the sealed format, kept as files: today's reader reads them, and today's writer makes files that differ
//! from them in nothing but what is drawn at random. Made by `loader/examples/golden.rs`.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod recipe;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use recipe::Golden;
use tierstream_loader::{Dataset, RECORD_NAMES, name_of};
use tierstream_storage::codec::Scratch;
use tierstream_storage::format::{BlockKind, HEADER_BYTES, Header, Manifest};
use tierstream_storage::io::ServiceConfig;
use tierstream_storage::keys::KeyProvider;
use tierstream_storage::store::{VerifyProgress, verify};
use tierstream_storage::testing::SealedImage;
use tierstream_storage::{RangeRead, Store, StoreConfig, WriteContext};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(recipe::DIRECTORY)
}

/// The samples that must come out of the files that went in.
fn samples(golden: &Golden) -> Vec<Vec<u8>> {
    let files = golden.files();
    if !golden.fixed {
        return files.into_iter().map(|(_, bytes)| bytes).collect();
    }
    let len = usize::try_from(recipe::SAMPLE_BYTES).unwrap();
    let mut text = files[0].1.clone();
    text.resize(text.len().next_multiple_of(len), 0);
    text.chunks(len).map(<[u8]>::to_vec).collect()
}

fn check(golden: &Golden, path: &Path, keys: &Arc<dyn KeyProvider>) {
    let config = StoreConfig { l1_bytes: 1 << 20, block_bytes: 8192, ..StoreConfig::default() };
    let store = Store::open(config, Arc::clone(keys)).unwrap();
    let dataset = Dataset::open(Arc::new(store), path.to_str().unwrap()).unwrap();
    let samples = samples(golden);
    assert_eq!(dataset.len(), u64::try_from(samples.len()).unwrap());
    for (number, expected) in (0..).zip(&samples) {
        let read = dataset.locate(number).unwrap();
        let mut found = vec![0; usize::try_from(read.range.end - read.range.start).unwrap()];
        dataset.read(&mut [RangeRead { shard: read.shard, range: read.range, to: &mut found }]).unwrap();
        assert!(found == *expected, "sample {number} of {}", golden.name());
    }
    let names = dataset.source().section(dataset.info(), 0, RECORD_NAMES).unwrap();
    assert_eq!(names.is_some(), !golden.fixed);
    for (number, (name, _)) in (0..).zip(golden.files()).filter(|_| !golden.fixed) {
        let records = u64::try_from(samples.len()).unwrap();
        assert_eq!(name_of(names.as_deref().unwrap(), records, number), Some(&name[..]));
    }
    let context = WriteContext::new(&ServiceConfig::default(), 8192, 1).unwrap();
    let report = verify(&context, &**keys, path, 1, &VerifyProgress::default()).unwrap();
    assert!(report.errors.is_empty() && report.cipher == golden.cipher.name(), "{report:?}");
}

#[test]
fn todays_reader_reads_them() {
    let keys = recipe::key(&directory());
    for golden in recipe::all() {
        check(&golden, &directory().join(golden.name()), &keys);
    }
}

fn image(directory: &Path, file: &str, keys: &Arc<dyn KeyProvider>) -> SealedImage {
    SealedImage::open(std::fs::read(directory.join(file)).unwrap(), &**keys).unwrap()
}

/// A header without what is drawn at random, or follows from it: ids, commitment, MAC, and the wrap of the data key.
fn fixed_part(image: &SealedImage) -> [u8; HEADER_BYTES] {
    let mut head: [u8; HEADER_BYTES] = image.bytes[..HEADER_BYTES].try_into().unwrap();
    for random in [16..48, 128..160, 2016..2048, 2048 + 88..2048 + 148] {
        head[random].fill(0);
    }
    head
}

/// A manifest without the ids and MACs of its shards.
fn text_without_ids(image: &SealedImage) -> Manifest {
    let mut manifest = Manifest::parse(&image.plain(BlockKind::Data).unwrap()).unwrap();
    manifest.shards.iter_mut().for_each(|shard| (shard.id, shard.mac) = ([0; 16], [0; 32]));
    manifest
}

#[test]
fn todays_writer_makes_them_but_for_what_is_random() {
    let keys = recipe::key(&directory());
    let scratch = tempfile::tempdir().unwrap();
    for golden in recipe::all() {
        // Under its own name, which the manifest keeps.
        let (kept, fresh) = (directory().join(golden.name()), scratch.path().join("out").join(golden.name()));
        std::fs::create_dir_all(fresh.parent().unwrap()).unwrap();
        golden.pack(scratch.path(), fresh.clone(), &keys).unwrap();
        check(&golden, &fresh, &keys);
        for file in ["shard-00000.tss", "manifest.tsm"] {
            let what = format!("{file} of {}", golden.name());
            let (old, new) = (image(&kept, file, &keys), image(&fresh, file, &keys));
            assert_ne!(old.sealed.mac, new.sealed.mac, "{what}: each write has a key of its own");
            assert!(fixed_part(&old) == fixed_part(&new), "{what}: the headers differ");
            if file == "manifest.tsm" {
                assert_eq!(text_without_ids(&old), text_without_ids(&new));
            } else {
                for kind in [BlockKind::Data, BlockKind::Index] {
                    assert_eq!(old.blocks(kind).unwrap(), new.blocks(kind).unwrap(), "{what}");
                }
            }
        }
        std::fs::remove_dir_all(fresh).unwrap();
    }
}

#[test]
fn the_same_keys_give_the_same_bytes() {
    let keys = recipe::key(&directory());
    let mut scratch = Scratch::new().unwrap();
    for golden in recipe::all() {
        for file in ["shard-00000.tss", "manifest.tsm"] {
            let old = image(&directory().join(golden.name()), file, &keys);
            let what = format!("{file} of {}", golden.name());
            let header: &Header = &old.sealed.header;
            let mac = |maced: &[u8]| old.sealed.keys.mac(maced);
            assert!(header.encode(mac)[..] == old.bytes[..HEADER_BYTES], "{what}: the header");
            let codec = old.codec().unwrap();
            for block in [BlockKind::Data, BlockKind::Index].into_iter().flat_map(|k| old.blocks(k).unwrap())
            {
                let mut sealed = vec![0; header.block_slot_bytes()];
                sealed[..block.plain.len()].copy_from_slice(&block.plain);
                let len = block.plain.len();
                let stored = codec.seal(block.kind, block.number, len, &mut sealed, &mut scratch);
                // Another version of zstd may write another frame; that it is read is what matters.
                assert!(sealed[..stored] == old.bytes[block.stored.clone()], "{what}: {:?}", block.stored);
            }
        }
    }
}
