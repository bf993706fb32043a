#![no_main]
//! Blocks with any trailer, body, zstd frame and dictionary, sealed with the right key: an error, or bytes that stay
//! within the block.

use std::sync::Arc;

use libfuzzer_sys::{arbitrary, fuzz_target};
use tierstream_crypto::{Cipher, DataKey, FileKeys, Nonce};
use tierstream_storage::codec::{BlockCodec, Dictionary, Scratch};
use tierstream_storage::format::{BlockKind, FileId, Kind, SealParams, TRAILER_BYTES};

const BLOCK: usize = 16 << 10;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    cipher: u8,
    index: bool,
    plain_bytes: u16,
    /// Whether lengths and identity in the trailer are made right.
    right: bool,
    coding: u8,
    coded_bytes: u32,
    trailer: [u8; 48],
    sectors: u8,
    dictionary: &'a [u8],
    body: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let cipher = Cipher::from_id(1 + input.cipher % 3).expect("1 to 3");
    let params = SealParams {
        kind: Kind::Shard,
        cipher,
        compressed: true,
        file_id: FileId([5; 16]),
        data_set_id: FileId([1; 16]),
        generation: 1,
        block_bytes: BLOCK as u32,
        record_align: 1,
    };
    let key = DataKey::from_bytes(cipher, &vec![3; cipher.key_bytes()]).expect("a key of its length");
    let keys = Arc::new(FileKeys::derive(&key, &[5; 16], b"fuzz"));
    let mut codec = BlockCodec::new(Arc::clone(&keys), &params);
    if let Ok(dictionary) = Dictionary::for_opening(input.dictionary) {
        codec = codec.with_dictionary(Arc::new(dictionary));
    }
    let kind = if input.index { BlockKind::Index } else { BlockKind::Data };
    let plain_bytes = usize::from(input.plain_bytes) % (BLOCK - TRAILER_BYTES + 1);
    let mut trailer = input.trailer;
    let mut stored = 4096 * (1 + usize::from(input.sectors % 4));
    if input.right {
        trailer = [0; 48];
        trailer[..4].copy_from_slice(b"TSB1");
        trailer[4] = kind.id();
        trailer[5] = input.coding % 2;
        trailer[8..16].copy_from_slice(&9_u64.to_le_bytes());
        trailer[16..32].fill(5);
        trailer[32..36].copy_from_slice(&(plain_bytes as u32).to_le_bytes());
        let coded = match input.coding % 2 {
            0 => plain_bytes,
            _ => input.body.len().min(BLOCK - TRAILER_BYTES).min(input.coded_bytes as usize),
        };
        trailer[36..40].copy_from_slice(&(coded as u32).to_le_bytes());
        stored = (coded + TRAILER_BYTES).next_multiple_of(4096);
    }
    let mut block = vec![0; stored];
    let len = input.body.len().min(stored - TRAILER_BYTES);
    block[..len].copy_from_slice(&input.body[..len]);
    block[stored - 64..stored - 16].copy_from_slice(&trailer);
    let nonce = Nonce::block(u32::from(kind.id()), 9);
    let tag = match cipher {
        Cipher::AuthOnly => keys.block_cipher().seal_in_place(&nonce, &block[..stored - 16], &mut []),
        _ => keys.block_cipher().seal_in_place(&nonce, &trailer, &mut block[..stored - 64]),
    };
    block[stored - 16..].copy_from_slice(&tag);

    let mut plain = vec![0xee; BLOCK];
    let mut scratch = Scratch::new().expect("memory");
    let opened = codec.open(kind, 9, plain_bytes, &block, &mut plain, &mut scratch);
    if opened.is_ok() && trailer[5] == 0 {
        assert_eq!(plain[..plain_bytes.min(len)], input.body[..plain_bytes.min(len)]);
    }
    // A raw block is opened with its padding; nothing is written behind that.
    let end = if trailer[5] == 0 { stored - TRAILER_BYTES } else { plain_bytes };
    if opened.is_ok() {
        assert!(plain[end.max(plain_bytes)..].iter().all(|byte| *byte == 0xee), "written beyond the block");
    }
});
