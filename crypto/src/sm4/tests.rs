use proptest::prelude::*;

use super::*;
use crate::raw::sm4_ctr;
use crate::{Cipher, kernels};

#[test]
fn counters_wrap_in_their_last_32_bits() {
    let mut counter = [0xff; BLOCK_BYTES];
    counter[15] = 0xfe;
    let mut wrapped = [0xff; BLOCK_BYTES];
    wrapped[12..].fill(0);
    assert_eq!(add32(&counter, 2), wrapped);
    assert_eq!(add32(&wrapped, 0x0102_0304)[12..], [1, 2, 3, 4]);
}

#[test]
fn round_keys_are_the_standards() {
    // GB/T 32907-2016, example 1.
    let key = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128.to_be_bytes();
    let keys = RoundKeys::expand(&key);
    assert_eq!(keys.words()[..4], [0xf121_86f9, 0x4166_2b61, 0x5a6a_b19a, 0x7ba9_2077]);
    assert_eq!(keys.words()[31], 0x9124_a012);
}

/// The names of the SM4 kernels that this CPU runs.
fn names() -> impl Iterator<Item = &'static str> {
    kernels(Cipher::Sm4Gcm).into_iter().filter(|kernel| kernel.supported).map(|kernel| kernel.name)
}

/// The encryption of one block, as the key stream of that block.
fn encrypt(kernel: &str, key: &[u8; 16], block: &Block) -> Block {
    let mut stream = [0; BLOCK_BYTES];
    sm4_ctr(kernel, key).unwrap().apply_in_place(block, &mut stream);
    stream
}

#[test]
fn every_kernel_gives_the_standards_block() {
    // GB/T 32907-2016, example 1.
    let key = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128.to_be_bytes();
    for kernel in names() {
        let block = encrypt(kernel, &key, &key);
        assert_eq!(block, 0x681e_df34_d206_965e_86b3_e94f_536e_4246_u128.to_be_bytes(), "{kernel}");
    }
}

#[test]
fn a_million_encryptions_give_the_standards_block() {
    // GB/T 32907-2016, example 2.
    let key = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128.to_be_bytes();
    let expected = 0x5952_98c7_c6fd_271f_0402_f804_c33d_3f66_u128.to_be_bytes();
    for kernel in names() {
        let cipher = sm4_ctr(kernel, &key).unwrap();
        let mut block = key;
        for _ in 0..1_000_000 {
            let mut next = [0; BLOCK_BYTES];
            cipher.apply_in_place(&block, &mut next);
            block = next;
        }
        assert_eq!(block, expected, "{kernel}");
    }
}

#[test]
fn key_streams_match_block_by_block_around_the_wrap_of_the_counter() {
    let key = *b"a key of 16 byte";
    let oracle = "sm4-crate";
    for before_wrap in [0, 1, 2, 3, 4, 15, 16, 63, 64, 65, 127, 128, 129, 255, 300] {
        let mut counter = [0xff; BLOCK_BYTES];
        counter[12..].copy_from_slice(&0_u32.wrapping_sub(before_wrap).to_be_bytes());
        let length = 300 * BLOCK_BYTES + 5;
        let expected: Vec<u8> =
            (0..=300).flat_map(|i| encrypt(oracle, &key, &add32(&counter, i))).take(length).collect();
        for kernel in names() {
            let mut found = vec![0xff; length];
            sm4_ctr(kernel, &key).unwrap().apply(&counter, &vec![0; length], &mut found);
            assert!(found == expected, "{kernel}, {before_wrap} blocks before the wrap");
        }
    }
}

#[test]
fn a_split_key_stream_is_the_whole_one() {
    let key = *b"another of these";
    let counter = [0xc3; BLOCK_BYTES];
    let length = 9000;
    let mut whole = vec![0; length];
    sm4_ctr("sm4-crate", &key).unwrap().apply_in_place(&counter, &mut whole);
    for kernel in names() {
        let cipher = sm4_ctr(kernel, &key).unwrap();
        for blocks in [1, 2, 7, 16, 63, 64, 65, 100, 127, 128, 129, 200] {
            let mut parts = vec![0; length];
            for (number, part) in parts.chunks_mut(blocks * BLOCK_BYTES).enumerate() {
                cipher.apply_in_place(&add32(&counter, number * blocks), part);
            }
            assert!(parts == whole, "{kernel} in parts of {blocks} blocks");
        }
    }
}

#[test]
fn carries_reach_every_byte_of_the_counter() {
    let key = *b"carries and ends";
    for last in [0xff, 0x00ff_ffff, 0xffff, 0x00ff_00ff, 0x01ff_ffff, 0x7fff_ffff, 0xfeff_ffff, u32::MAX] {
        for before in [0_u32, 1, 13, 31, 32, 33, 100, 127] {
            let mut counter = [0x77; BLOCK_BYTES];
            counter[12..].copy_from_slice(&last.wrapping_sub(before).to_be_bytes());
            let mut expected = vec![0; 260 * BLOCK_BYTES];
            sm4_ctr("sm4-crate", &key).unwrap().apply_in_place(&counter, &mut expected);
            for kernel in names() {
                let mut found = vec![0; expected.len()];
                sm4_ctr(kernel, &key).unwrap().apply_in_place(&counter, &mut found);
                assert!(found == expected, "{kernel} from {counter:02x?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_key_stream_is_the_oracles(
        key in any::<[u8; 16]>(),
        counter in any::<[u8; 16]>(),
        data in prop::collection::vec(any::<u8>(), 0..6000),
        start in 0..64_usize,
        split in any::<prop::sample::Index>(),
    ) {
        let mut expected = data.clone();
        sm4_ctr("sm4-crate", &key).unwrap().apply_in_place(&counter, &mut expected);
        for kernel in names() {
            let cipher = sm4_ctr(kernel, &key).unwrap();
            let mut found = vec![0; start + data.len()];
            cipher.apply(&counter, &data, &mut found[start..]);
            prop_assert!(found[start..] == expected, "{} into another buffer", kernel);

            // In place, in two calls that meet between two blocks.
            let blocks = split.index(data.len() / BLOCK_BYTES + 1);
            found[start..].copy_from_slice(&data);
            let (first, second) = found[start..].split_at_mut(blocks * BLOCK_BYTES);
            cipher.apply_in_place(&counter, first);
            cipher.apply_in_place(&add32(&counter, blocks), second);
            prop_assert!(found[start..] == expected, "{} in place, split at block {}", kernel, blocks);
        }
    }
}
