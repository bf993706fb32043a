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
    Cipher::ALL.into_iter().flat_map(|cipher| [false, true].map(|compressed| params(cipher, compressed, 5)))
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
