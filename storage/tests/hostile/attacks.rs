//! What one without the key can do to files: each is found, and the error names shard, block and offset.

use std::path::Path;

use tierstream_storage::format::{BlockKind, HEADER_BYTES, Header};
use tierstream_storage::units::{to_u64, to_usize};

use crate::forge::{Forge, copy, found, seals};

/// Where the data blocks of the shard at `path` lie: offset and length of each.
fn blocks(forge: &Forge, shard: &Path) -> Vec<(usize, usize)> {
    let bytes = std::fs::read(shard).unwrap();
    let header: &[u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().unwrap();
    let (header, _) = Header::parse(header).unwrap();
    // A stored block ends with a trailer that begins with `TSB1`, in the last 64 bytes of some sector.
    let mut found = Vec::new();
    let mut start = HEADER_BYTES;
    for end in (HEADER_BYTES + 4096..=to_usize(header.index_offset)).step_by(4096) {
        if bytes[end - 64..end - 60] == *b"TSB1" {
            found.push((start, end - start));
            start = end;
        }
    }
    assert_eq!(to_u64(found.len()), header.block_count(), "{:?}", forge.seal);
    found
}

/// Changes the bytes of shard 0, expects the damage to be found in data block `block` there, and puts them back.
fn attack(forge: &Forge, what: &str, block: usize, change: impl FnOnce(&mut Vec<u8>)) {
    let shard = forge.shard("set", 0);
    let whole = std::fs::read(&shard).unwrap();
    let (offset, len) = blocks(forge, &shard)[block];
    let mut bytes = whole.clone();
    change(&mut bytes);
    assert!(bytes != whole, "{what} changes nothing");
    std::fs::write(&shard, bytes).unwrap();
    let error = found(forge.read("set"), what);
    let place = error.place().unwrap();
    assert_eq!(place.path, shard, "{what}: {error}");
    assert_eq!(place.block, Some((BlockKind::Data.name(), to_u64(block))), "{what}: {error}");
    assert_eq!((place.offset, place.len), (Some(to_u64(offset)), Some(to_u64(len))), "{what}: {error}");
    std::fs::write(&shard, whole).unwrap();
    forge.read("set").unwrap();
}

/// Two neighbours of the same stored length, to exchange.
fn twins(blocks: &[(usize, usize)]) -> usize {
    let pairs = blocks.windows(2).position(|pair| pair[0].1 == pair[1].1);
    pairs.expect("two blocks of the same stored length")
}

#[test]
fn reordered_blocks_are_found() {
    for seal in seals() {
        let forge = Forge::new(seal);
        let blocks = blocks(&forge, &forge.shard("set", 0));
        let first = twins(&blocks);
        let ((a, len), (b, _)) = (blocks[first], blocks[first + 1]);
        attack(&forge, "two blocks exchanged", first, |bytes| {
            let (low, high) = bytes.split_at_mut(b);
            low[a..a + len].swap_with_slice(&mut high[..len]);
        });
    }
}

#[test]
fn duplicated_blocks_are_found() {
    for seal in seals() {
        let forge = Forge::new(seal);
        let blocks = blocks(&forge, &forge.shard("set", 0));
        let first = twins(&blocks);
        let ((a, len), (b, _)) = (blocks[first], blocks[first + 1]);
        attack(&forge, "a block twice", first + 1, |bytes| bytes.copy_within(a..a + len, b));
    }
}

#[test]
fn a_block_of_another_shard_or_data_set_is_found() {
    for seal in seals() {
        let forge = Forge::new(seal);
        forge.write("other", false);
        let own = blocks(&forge, &forge.shard("set", 0));
        for (what, other) in [
            ("a block of another shard", forge.shard("set", 1)),
            ("the same block of another data set of the same contents and key", forge.shard("other", 0)),
        ] {
            let theirs = blocks(&forge, &other);
            let bytes_of_other = std::fs::read(other).unwrap();
            let same = (0..own.len()).find(|number| own[*number].1 == theirs[*number].1);
            let number = same.expect("a block of the same stored length");
            let ((to, len), (from, _)) = (own[number], theirs[number]);
            attack(&forge, what, number, |bytes| {
                bytes[to..to + len].copy_from_slice(&bytes_of_other[from..from + len]);
            });
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_block_is_found() {
    for seal in seals() {
        let forge = Forge::new(seal);
        for (number, (offset, len)) in blocks(&forge, &forge.shard("set", 0)).into_iter().enumerate() {
            // The first byte, the last padding, every field of the trailer, the tag.
            for at in [0, 100, len - 65, len - 64, len - 60, len - 59, len - 56, len - 48, len - 32, len - 1]
            {
                attack(&forge, "a flipped bit", number, |bytes| bytes[offset + at] ^= 1);
            }
        }
    }
}

#[test]
fn a_file_of_another_length_is_found() {
    for seal in seals() {
        let forge = Forge::new(seal);
        let shard = forge.shard("set", 0);
        let whole = std::fs::read(&shard).unwrap();
        let last = blocks(&forge, &shard).last().map(|(offset, len)| offset + len).unwrap();
        for len in [0, 1, HEADER_BYTES, HEADER_BYTES + 4096, last, whole.len() - 4096, whole.len() - 1] {
            std::fs::write(&shard, &whole[..len]).unwrap();
            let error = found(forge.read("set"), "a shard cut short").to_string();
            let lengths = [len.to_string(), "cut short".to_owned(), "shard-00000.tss".to_owned()];
            assert!(lengths.iter().all(|part| error.contains(part)), "{error}");
        }
        for more in [1, 4096, whole.len()] {
            let longer: Vec<u8> = whole.iter().copied().cycle().take(whole.len() + more).collect();
            std::fs::write(&shard, longer).unwrap();
            let error = found(forge.read("set"), "a shard that grew").to_string();
            assert!(error.contains("longer than it was written") && error.contains("shard-00000"), "{error}");
        }
    }
}

#[test]
fn a_block_that_was_deleted_with_its_bytes_made_up_elsewhere_is_found() {
    for seal in seals() {
        let forge = Forge::new(seal);
        let (offset, len) = blocks(&forge, &forge.shard("set", 0))[2];
        // What follows moves up; the index ends in zeros, so that the length stays.
        let shard = forge.shard("set", 0);
        let mut bytes = std::fs::read(&shard).unwrap();
        bytes.drain(offset..offset + len);
        bytes.extend(std::iter::repeat_n(0, len));
        std::fs::write(&shard, bytes).unwrap();
        let error = found(forge.read("set"), "a deleted block");
        assert_eq!(error.place().unwrap().path, shard);
        assert!(error.place().unwrap().block.is_some(), "{error}");
    }
}

#[test]
fn a_shard_in_the_place_of_another_is_found() {
    for seal in seals() {
        let forge = Forge::new(seal);
        forge.write("other", false);
        let shard = forge.shard("set", 0);
        for from in [forge.shard("set", 1), forge.shard("other", 0)] {
            std::fs::copy(from, &shard).unwrap();
            let error = found(forge.read("set"), "a swapped shard").to_string();
            assert!(error.contains("shard-00000.tss") && error.contains("another file"), "{error}");
        }
    }
}

#[test]
fn a_shard_of_the_generation_before_is_found() {
    for seal in seals() {
        let forge = Forge::new(seal);
        let shard = forge.shard("set", 0);
        let older = std::fs::read(&shard).unwrap();
        forge.write("set", true);
        forge.read("set").unwrap();
        std::fs::write(&shard, older).unwrap();
        let error = found(forge.read("set"), "a shard rolled back");
        let text = error.to_string();
        assert!(text.contains("shard-00000.tss") && text.contains("another file"), "{text}");
        assert!(error.hint_text().unwrap().contains("rolled back"), "{text}");
    }
}

#[test]
fn an_index_block_of_another_file_is_found() {
    for seal in seals() {
        let forge = Forge::new(seal);
        let (own, other) = (forge.shard("set", 0), forge.shard("set", 1));
        let (mut bytes, theirs) = (std::fs::read(&own).unwrap(), std::fs::read(&other).unwrap());
        let (to, from) = (bytes.len() - 4096, theirs.len() - 4096);
        bytes[to..].copy_from_slice(&theirs[from..]);
        std::fs::write(&own, bytes).unwrap();
        let error = found(forge.read("set"), "an index block of another shard");
        let place = error.place().unwrap();
        assert_eq!((place.path.clone(), place.block), (own, Some(("index", 0))), "{error}");
        assert!(place.offset.is_some(), "{error}");
    }
}

#[test]
fn a_manifest_of_another_data_set_opens_none_of_its_shards() {
    let forge = Forge::new(seals().next().unwrap());
    forge.write("other", false);
    copy(&forge.path("set"), &forge.path("mixed"));
    std::fs::copy(forge.path("other").join("manifest.tsm"), forge.path("mixed").join("manifest.tsm"))
        .unwrap();
    let error = found(forge.read("mixed"), "a manifest of another data set").to_string();
    assert!(error.contains("shard-00000.tss") && error.contains("another file"), "{error}");
}
