#![no_main]
//! Hostile headers, as they are and authenticated with the right key: refused, or sizes that agree with each other and
//! bytes that come back.

use libfuzzer_sys::fuzz_target;
use tierstream_crypto::{Cipher, DataKey, FileKeys, KeyProvider, RootKey};
use tierstream_storage::codec::open_header;
use tierstream_storage::format::{HEADER_BYTES, Header, PROLOGUE_BYTES, put_wrap, wrap_slots};

const KEY: &str = "tierstream-key-v1\nname: fuzz\nversion: 1\nroot: \
                   000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

fn check(header: &Header, bytes: &[u8; HEADER_BYTES]) {
    let params = &header.params;
    assert!(header.file_bytes() >= 4096 && header.file_bytes().is_multiple_of(4096));
    assert!(header.block_count() <= u64::from(u32::MAX) && params.block_bytes.is_multiple_of(4096));
    for number in [0, header.index_block_count() / 2, header.index_block_count().saturating_sub(1)] {
        if number < header.index_block_count() {
            let (offset, len) = header.index_block(number);
            assert!(len <= header.block_slot_bytes() && offset + len as u64 <= header.file_bytes());
        }
    }
    let again = header.encode(|_| bytes[2016..2048].try_into().expect("32 bytes"));
    assert!(again[..2048] == bytes[..2048], "what was parsed is not what was there");
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = [0; HEADER_BYTES];
    let len = data.len().min(HEADER_BYTES);
    bytes[..len].copy_from_slice(&data[..len]);
    let _slots = wrap_slots(&bytes);
    if let Ok((header, _)) = Header::parse(&bytes) {
        check(&header, &bytes);
    }

    // The same fields, as one who has the key would write them.
    bytes[..12].copy_from_slice(b"TIERSEAL\x01\0\0\0");
    bytes[13] = 1 + bytes[13] % 3;
    bytes[14] = 1 + u8::from(bytes[13] == 2);
    bytes[112..128].fill(0);
    bytes[160..2016].fill(0);
    let root = RootKey::parse(KEY).expect("a key");
    let prologue: [u8; PROLOGUE_BYTES] = bytes[..PROLOGUE_BYTES].try_into().expect("64 bytes");
    let cipher = Cipher::from_id(bytes[13]).expect("1 to 3");
    let key = DataKey::from_bytes(cipher, &vec![7; cipher.key_bytes()]).expect("a key of its length");
    let keys = FileKeys::derive(&key, &prologue[16..32], &prologue);
    bytes[128..160].copy_from_slice(keys.commitment());
    put_wrap(&mut bytes, 0, Some(&root.wrap(&key, &prologue).expect("random numbers")));
    let mac = keys.mac(&bytes[..2016]);
    bytes[2016..2048].copy_from_slice(&mac);
    if let Ok(sealed) = open_header(&bytes, &root) {
        check(&sealed.header, &bytes);
    }
});
