//! Headers with every byte and every field changed: by one without the key, and sealed again by one who has it.

use tierstream_storage::codec::open_header;
use tierstream_storage::format::HEADER_BYTES;

use crate::forge::{Forge, Opened, Seal, seals};

/// Other values for the byte `byte`: each bit flipped, the extremes, one more and one less.
fn other_values(byte: u8) -> impl Iterator<Item = u8> {
    let flipped = (0..8).map(move |bit| byte ^ (1 << bit));
    let mut values: Vec<u8> =
        flipped.chain([0, 0xff, byte.wrapping_add(1), byte.wrapping_sub(1)]).filter(|v| *v != byte).collect();
    values.sort_unstable();
    values.dedup();
    values.into_iter()
}

#[test]
fn without_the_key_no_bit_of_a_header_can_change() {
    for seal in seals() {
        let forge = Forge::new(seal);
        let bytes = std::fs::read(forge.shard("set", 0)).unwrap();
        let good: [u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().unwrap();
        open_header(&good, &*forge.root).unwrap();
        for at in 0..2048 {
            for value in other_values(good[at]) {
                let mut bad = good;
                bad[at] = value;
                assert!(open_header(&bad, &*forge.root).is_err(), "byte {at} of {seal:?} may be {value}");
            }
        }
    }
}

#[test]
fn with_the_key_any_byte_of_a_header_may_change_and_nothing_else_happens() {
    for seal in seals() {
        let forge = Forge::new(seal);
        let file = Opened::read(std::fs::read(forge.shard("set", 0)).unwrap(), &forge.root);
        let (mut refused, mut opened, mut read) = (0, 0, 0);
        for at in (0..112).chain([112, 127, 159, 160, 1000, 2015]) {
            for value in other_values(file.bytes[at]) {
                let Some(bytes) = file.with_header(|head| head[at] = value, &forge.root) else { continue };
                let head: &[u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().unwrap();
                if open_header(head, &*forge.root).is_err() {
                    refused += 1;
                    continue;
                }
                forge.install("set", &bytes);
                opened += 1;
                read += usize::from(forge.survives("set", &format!("{seal:?}: byte {at} is {value}")));
            }
        }
        assert!(refused > 100 && opened > 100, "{refused} refused, {opened} opened");
        // Only the number of records changes no byte of the payload.
        assert!(read > 0 && read < opened, "{read} of {opened} read");
    }
}

#[test]
fn with_the_key_every_field_may_be_extreme() {
    for compressed in [false, true] {
        let forge = Forge::new(Seal { cipher: tierstream_crypto::Cipher::Sm4Gcm, compressed });
        let file = Opened::read(std::fs::read(forge.shard("set", 0)).unwrap(), &forge.root);
        // Offset and length of each number: generation, block_bytes, record_align, and the six sizes.
        let fields = [(48, 8), (56, 4), (60, 4), (64, 8), (72, 8), (80, 8), (88, 8), (96, 8), (104, 8)];
        for (at, len) in fields {
            let mut number = [0; 8];
            number[..len].copy_from_slice(&file.bytes[at..at + len]);
            let number = u64::from_le_bytes(number);
            let near = [number.wrapping_add(1), number.wrapping_sub(1), number * 2, number / 2];
            let sizes =
                [0, 1, 4095, 4096, 4097, 8192, 16384, 16 << 20, 1 << 31, 1 << 32, 64 << 30, 1 << 40, 1 << 63];
            for value in near.into_iter().chain(sizes).chain([u64::MAX, u64::MAX - 4095, u64::MAX / 2]) {
                let change =
                    |head: &mut [u8]| head[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
                let bytes = file.with_header(change, &forge.root).unwrap();
                forge.install("set", &bytes);
                forge.survives("set", &format!("the field at {at} is {value}"));
            }
        }
        // Sizes that agree with each other and not with the file.
        for payload in [1_u64, 8128, 1 << 20, 64 << 30] {
            let blocks = payload.div_ceil(8128);
            let index_offset = 4096
                + if compressed {
                    blocks * 4096
                } else {
                    tierstream_storage::format::raw_stored_bytes(payload, 8192)
                };
            let index_bytes = file.sealed.header.index_bytes;
            let index_stored = tierstream_storage::format::raw_stored_bytes(index_bytes, 8192);
            let sizes = [blocks, payload, 7, index_offset, index_bytes, index_offset + index_stored];
            let change = |head: &mut [u8]| {
                for (size, at) in sizes.into_iter().zip((64..).step_by(8)) {
                    head[at..at + 8].copy_from_slice(&size.to_le_bytes());
                }
            };
            let mut bytes = file.with_header(change, &forge.root).unwrap();
            // The length the header names, as a sparse file would have it for nothing.
            if sizes[5] < 1 << 24 {
                bytes.resize(usize::try_from(sizes[5]).unwrap(), 0);
            }
            forge.install("set", &bytes);
            assert!(!forge.survives("set", &format!("a payload of {payload}")), "{payload}");
        }
    }
}
