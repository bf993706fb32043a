use proptest::prelude::*;
use tierstream_crypto::{Cipher, RootKey};

use super::*;
use crate::codec::{FinalSizes, open_header, seal_header};
use crate::format::{HEADER_BYTES, Header, Kind, raw_stored_bytes};
use crate::testing::Random;

const BLOCK: usize = 16 * 1024;

fn params(cipher: Cipher, compressed: bool, id: u8) -> SealParams {
    SealParams {
        kind: Kind::Shard,
        cipher,
        compressed,
        file_id: FileId([id; 16]),
        data_set_id: FileId([1; 16]),
        generation: 1,
        block_bytes: u32::try_from(BLOCK).unwrap(),
        record_align: 1,
    }
}

fn codec(params: &SealParams) -> BlockCodec {
    let sealer = seal_header(params, &RootKey::random("codec-test").unwrap()).unwrap();
    BlockCodec::new(Arc::clone(sealer.keys()), params)
}

fn sample(len: usize, seed: u64, compressible: bool) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Random::new(seed).fill(&mut bytes);
    if compressible {
        bytes.iter_mut().for_each(|byte| *byte = b'a' + *byte % 4);
    }
    bytes
}

fn all_ciphers_and_codecs() -> impl Iterator<Item = SealParams> {
    let ciphers = Cipher::ALL.into_iter().chain([Cipher::AuthOnly]);
    ciphers.flat_map(|cipher| [false, true].map(|compressed| params(cipher, compressed, 5)))
}

#[test]
fn every_length_comes_back() {
    let mut scratch = Scratch::new().unwrap();
    for params in all_ciphers_and_codecs() {
        let codec = codec(&params);
        for len in [0, 1, 63, 64, 4031, 4032, 4033, 8000, 8192, BLOCK - 65, BLOCK - 64] {
            for compressible in [false, true] {
                let plain = sample(len, 7, compressible);
                let mut block = vec![0xee; BLOCK];
                block[..len].copy_from_slice(&plain);
                let stored = codec.seal(BlockKind::Data, 3, len, &mut block, &mut scratch);
                if params.compressed && compressible && len > 8000 {
                    assert!(stored < to_usize(stored_bytes(to_u64(len))), "{len} bytes did not shrink");
                }
                let before = block.clone();
                let mut opened = vec![0xdd; BLOCK];
                codec.open(BlockKind::Data, 3, len, &block[..stored], &mut opened, &mut scratch).unwrap();
                assert_eq!(opened[..len], plain);
                assert_eq!(block, before, "opening must not change the stored block");
            }
        }
    }
}

#[test]
fn any_flipped_bit_is_found_and_shows_nothing() {
    let mut scratch = Scratch::new().unwrap();
    for params in all_ciphers_and_codecs() {
        let codec = codec(&params);
        let plain = sample(6000, 9, true);
        let mut block = vec![0; BLOCK];
        block[..6000].copy_from_slice(&plain);
        let stored = codec.seal(BlockKind::Data, 0, 6000, &mut block, &mut scratch);
        for byte in 0..stored {
            let mut bad = block[..stored].to_vec();
            bad[byte] ^= 1 << (byte % 8);
            let mut opened = vec![0; BLOCK];
            let error = codec.open(BlockKind::Data, 0, 6000, &bad, &mut opened, &mut scratch).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert_eq!(error.place().unwrap().block, Some(("data", 0)));
            assert!(opened.iter().all(|byte| *byte == 0), "plaintext shown at byte {byte}");
        }
    }
}

#[test]
fn a_block_opens_only_in_its_own_place() {
    let mut scratch = Scratch::new().unwrap();
    let (own, other) = (codec(&params(Cipher::Sm4Gcm, true, 5)), codec(&params(Cipher::Sm4Gcm, true, 6)));
    let mut block = vec![0; BLOCK];
    let stored = own.seal(BlockKind::Data, 4, 5000, &mut block, &mut scratch);
    let mut plain = vec![0; BLOCK];
    let mut open = |codec: &BlockCodec, kind, number, len, stored: usize| {
        codec
            .open(kind, number, len, &block[..stored], &mut plain, &mut scratch)
            .map_err(|error| error.kind())
    };
    open(&own, BlockKind::Data, 4, 5000, stored).unwrap();
    let corrupt = Err(ErrorKind::Corrupt);
    assert_eq!(open(&own, BlockKind::Data, 5, 5000, stored), corrupt, "another number");
    assert_eq!(open(&own, BlockKind::Index, 4, 5000, stored), corrupt, "another kind");
    assert_eq!(open(&own, BlockKind::Data, 4, 4999, stored), corrupt, "another length");
    assert_eq!(open(&other, BlockKind::Data, 4, 5000, stored), corrupt, "another file");
    assert_eq!(open(&own, BlockKind::Data, 4, 5000, stored + 4096), corrupt, "trailing bytes");
    assert_eq!(open(&own, BlockKind::Data, 4, 5000, 0), corrupt, "nothing");
}

#[test]
fn without_encryption_bytes_lie_as_they_are_and_are_checked_all_the_same() {
    let mut scratch = Scratch::new().unwrap();
    let codec = codec(&params(Cipher::AuthOnly, false, 5));
    let plain = sample(5000, 3, false);
    let mut block = vec![0; BLOCK];
    block[..5000].copy_from_slice(&plain);
    let stored = codec.seal(BlockKind::Data, 2, 5000, &mut block, &mut scratch);
    assert_eq!(block[..5000], plain);
    // GMAC: the tag of SM4-GCM over nothing, with all before it as AAD.
    let (covered, tag) = block[..stored].split_at(stored - TAG_BYTES);
    let expected = codec.keys.block_cipher().seal_in_place(&nonce(BlockKind::Data, 2), covered, &mut []);
    assert_eq!(tag, expected);
    // Nothing unchecked is delivered: a changed block gives zeros and an error.
    block[77] ^= 1;
    let mut opened = vec![0xee; BLOCK];
    let error =
        codec.open(BlockKind::Data, 2, 5000, &block[..stored], &mut opened, &mut scratch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(opened.iter().all(|byte| *byte == 0));
}

/// Records that share their words, as those of a data set do: sample `seed` of a text.
fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut text = Vec::new();
    while text.len() < len {
        let word = random.below(1000).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        text.extend_from_slice(format!("{word:016x} ").as_bytes());
    }
    text.truncate(len);
    text
}

fn dictionary() -> Vec<u8> {
    let (samples, lens) = (text(1, 400_000), vec![4000; 100]);
    Dictionary::train(&samples, &lens, 32 << 10).unwrap().expect("words to learn")
}

#[test]
fn a_dictionary_shrinks_small_blocks_and_is_needed_to_open_them() {
    let mut scratch = Scratch::new().unwrap();
    let params = params(Cipher::Sm4Gcm, true, 5);
    let root = RootKey::random("codec-test").unwrap();
    let keys = Arc::clone(seal_header(&params, &root).unwrap().keys());
    let plain_codec = || BlockCodec::new(Arc::clone(&keys), &params);
    let bytes = dictionary();
    let writer = plain_codec().with_dictionary(Arc::new(Dictionary::for_sealing(&bytes).unwrap()));
    let reader = plain_codec().with_dictionary(Arc::new(Dictionary::for_opening(&bytes).unwrap()));
    let plain = text(2, 16_000);
    let seal = |codec: &BlockCodec, scratch: &mut Scratch| {
        let mut block = vec![0; BLOCK];
        block[..plain.len()].copy_from_slice(&plain);
        let stored = codec.seal(BlockKind::Data, 0, plain.len(), &mut block, scratch);
        block.truncate(stored);
        block
    };
    let (with, without) = (seal(&writer, &mut scratch), seal(&plain_codec(), &mut scratch));
    assert!(with.len() < without.len(), "{} with, {} without", with.len(), without.len());
    let mut open = |codec: &BlockCodec| {
        let mut opened = vec![0xdd; BLOCK];
        codec
            .open(BlockKind::Data, 0, plain.len(), &with, &mut opened, &mut scratch)
            .map(|()| opened[..plain.len()] == plain)
            .map_err(|error| (error.kind(), opened.iter().take(plain.len()).all(|byte| *byte == 0)))
    };
    assert_eq!(open(&reader), Ok(true));
    assert_eq!(open(&plain_codec()), Err((ErrorKind::Corrupt, true)), "no dictionary");
    let other = Dictionary::for_opening(b"eight bytes or more of anything").unwrap();
    assert_eq!(open(&plain_codec().with_dictionary(Arc::new(other))), Err((ErrorKind::Corrupt, true)));
}

#[test]
fn hostile_dictionaries_do_no_harm() {
    assert_eq!(Dictionary::for_opening(&[]).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(Dictionary::for_opening(&vec![1; (1 << 20) + 1]).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(Dictionary::train(b"too little", &[10], 1 << 12).unwrap(), None);
    assert_eq!(Dictionary::train(b"", &[], 100).unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(Dictionary::train(b"", &[], 2 << 20).unwrap_err().kind(), ErrorKind::Misuse);
    let good = dictionary();
    let params = params(Cipher::Aes256Gcm, true, 5);
    let root = RootKey::random("codec-test").unwrap();
    let keys = Arc::clone(seal_header(&params, &root).unwrap().keys());
    let mut scratch = Scratch::new().unwrap();
    let plain = text(3, 9000);
    let writer = BlockCodec::new(Arc::clone(&keys), &params)
        .with_dictionary(Arc::new(Dictionary::for_sealing(&good).unwrap()));
    let mut block = vec![0; BLOCK];
    block[..plain.len()].copy_from_slice(&plain);
    let stored = writer.seal(BlockKind::Data, 0, plain.len(), &mut block, &mut scratch);
    let (mut refused, mut wrong, mut right) = (0, 0, 0);
    // The head with zstd's magic, the dictionary's number and the entropy tables, byte by byte; then the contents.
    for at in (0..200).chain((200..good.len()).step_by(97)) {
        for value in [0, 0xff, good[at] ^ 0x55] {
            let mut bad = good.clone();
            bad[at] = value;
            let Ok(dictionary) = Dictionary::for_opening(&bad) else {
                refused += 1;
                continue;
            };
            let reader = BlockCodec::new(Arc::clone(&keys), &params).with_dictionary(Arc::new(dictionary));
            let mut opened = vec![0xdd; BLOCK];
            match reader.open(BlockKind::Data, 0, plain.len(), &block[..stored], &mut opened, &mut scratch) {
                Ok(()) if opened[..plain.len()] == plain => right += 1,
                // Another dictionary gives other bytes: whoever can write one has the key and could write the bytes.
                Ok(()) => wrong += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
            }
            assert!(opened[plain.len()..].iter().all(|byte| *byte == 0xdd), "written beyond the block");
        }
    }
    assert!(refused > 0 && right > 0 && wrong > 0, "{refused} refused, {right} right, {wrong} wrong");
}

#[test]
fn headers_bind_their_key_and_every_byte() {
    let root = RootKey::random("k").unwrap();
    for cipher in Cipher::ALL {
        let params = params(cipher, false, 8);
        let sealer = seal_header(&params, &root).unwrap();
        let index_offset = 4096 + raw_stored_bytes(100_000, params.block_bytes);
        let sizes = FinalSizes { payload_bytes: 100_000, record_count: 9, index_offset, index_bytes: 50 };
        let (header, bytes, mac) = sealer.header(sizes);
        let opened = open_header(&bytes, &root).unwrap();
        assert_eq!((&opened.header, opened.mac), (&header, mac));

        for at in 0..HEADER_BYTES {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            // Slots that are not in use open nothing; damage to them is reported and does not stop a reader.
            let noticed = match open_header(&bad, &root) {
                Ok(opened) => at >= 2560 && opened.header.damaged_slots.len() == 1,
                Err(_) => at < 2560,
            };
            assert!(noticed, "byte {at} is outside every check");
        }
        let stranger = open_header(&bytes, &RootKey::random("k").unwrap()).unwrap_err();
        assert_eq!(stranger.kind(), ErrorKind::Missing);
        assert!(stranger.hint_text().unwrap().contains("--key"));
        let again = seal_header(&params, &root).unwrap().header(sizes);
        assert_ne!(again.2, mac, "each write has a key of its own");
        assert!(Header::parse(&again.1).is_ok());
    }
}

proptest! {
    #[test]
    fn hostile_blocks_never_panic(seed in any::<u64>(), sectors in 0_usize..5, claimed in 0_usize..BLOCK) {
        let mut scratch = Scratch::new().unwrap();
        let codec = codec(&params(Cipher::Sm4Gcm, true, 5));
        let mut random = Random::new(seed);
        let mut stored = vec![0; sectors * 4096];
        random.fill(&mut stored);
        if sectors > 0 {
            let trailer = Trailer {
                kind: BlockKind::Data,
                coding: if random.one_in(2) { Coding::Raw } else { Coding::Zstd },
                number: 1,
                file_id: FileId([5; 16]),
                plain_bytes: u32::try_from(claimed).unwrap(),
                coded_bytes: u32::try_from(random.below(u64::from(u32::MAX))).unwrap(),
            };
            let at = stored.len() - TRAILER_BYTES;
            trailer.write(&[0; 16], (&mut stored[at..]).try_into().unwrap());
        }
        let mut plain = vec![0; BLOCK];
        prop_assert!(codec.open(BlockKind::Data, 1, claimed, &stored, &mut plain, &mut scratch).is_err());
    }
}
