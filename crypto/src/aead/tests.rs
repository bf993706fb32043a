use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

struct Vector {
    cipher: Cipher,
    key: &'static str,
    nonce: &'static str,
    aad: &'static str,
    plain: &'static str,
    sealed: &'static str,
    tag: &'static str,
}

/// RFC 8998 A.1 for SM4; test cases 13 to 16 of the GCM specification (McGrew and Viega) for AES-256.
const VECTORS: [Vector; 5] = [
    Vector {
        cipher: Cipher::Sm4Gcm,
        key: "0123456789abcdeffedcba9876543210",
        nonce: "00001234567800000000abcd",
        aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        plain: "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd\
                eeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa",
        sealed: "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735\
                 d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d",
        tag: "83de3541e4c2b58177e065a9bf7b62ec",
    },
    Vector {
        cipher: Cipher::Aes256Gcm,
        key: "0000000000000000000000000000000000000000000000000000000000000000",
        nonce: "000000000000000000000000",
        aad: "",
        plain: "",
        sealed: "",
        tag: "530f8afbc74536b9a963b4f1c4cb738b",
    },
    Vector {
        cipher: Cipher::Aes256Gcm,
        key: "0000000000000000000000000000000000000000000000000000000000000000",
        nonce: "000000000000000000000000",
        aad: "",
        plain: "00000000000000000000000000000000",
        sealed: "cea7403d4d606b6e074ec5d3baf39d18",
        tag: "d0d1c8a799996bf0265b98b5d48ab919",
    },
    Vector {
        cipher: Cipher::Aes256Gcm,
        key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        nonce: "cafebabefacedbaddecaf888",
        aad: "",
        plain: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        sealed: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                 8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
        tag: "b094dac5d93471bdec1a502270e3cc6c",
    },
    Vector {
        cipher: Cipher::Aes256Gcm,
        key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        nonce: "cafebabefacedbaddecaf888",
        aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        plain: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        sealed: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                 8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        tag: "76fc6ece0f4e1768cddf8853bb2d551b",
    },
];

#[test]
fn published_vectors_open_and_seal() {
    for v in &VECTORS {
        let aead = aead(v.cipher, &hex(v.key)).unwrap();
        let nonce = Nonce::random(hex(v.nonce).try_into().unwrap());
        let mut body = hex(v.plain);
        let tag = aead.seal_in_place(&nonce, &hex(v.aad), &mut body);
        assert_eq!(body, hex(v.sealed), "{}", v.cipher);
        assert_eq!(tag.to_vec(), hex(v.tag), "{}", v.cipher);

        let mut plain = vec![0xa5; body.len()];
        aead.open_into(&nonce, &hex(v.aad), &body, &mut plain, &tag).unwrap();
        assert_eq!(plain, hex(v.plain));
        aead.open_in_place(&nonce, &hex(v.aad), &mut body, &tag).unwrap();
        assert_eq!(body, hex(v.plain));
    }
}

#[test]
fn sm4_matches_the_standards_block() {
    use sm4::cipher::{BlockCipherEncrypt, KeyInit};
    // GB/T 32907-2016, example 1: one block, and the same block encrypted a million times.
    let key = hex("0123456789abcdeffedcba9876543210");
    let cipher = sm4::Sm4::new_from_slice(&key).unwrap();
    let mut block = sm4::cipher::Block::<sm4::Sm4>::try_from(&key[..]).unwrap();
    cipher.encrypt_block(&mut block);
    assert_eq!(block.to_vec(), hex("681edf34d206965e86b3e94f536e4246"));
    for _ in 1..1_000_000 {
        cipher.encrypt_block(&mut block);
    }
    assert_eq!(block.to_vec(), hex("595298c7c6fd271f0402f804c33d3f66"));
}

#[test]
fn keys_of_the_wrong_length_are_refused() {
    for cipher in Cipher::ALL {
        for length in [0, cipher.key_bytes() - 1, cipher.key_bytes() + 1] {
            assert_eq!(aead(cipher, &vec![0; length]).unwrap_err().kind(), ErrorKind::Misuse);
        }
    }
}

#[test]
fn debug_hides_the_key() {
    for cipher in Cipher::ALL {
        let aead = aead(cipher, &vec![0x42; cipher.key_bytes()]).unwrap();
        let text = format!("{aead:?}");
        assert!(text.contains("hidden") && !text.contains("42") && !text.contains("66"), "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens_and_what_is_changed_does_not(
        cipher in prop::sample::select(&Cipher::ALL[..]),
        key in any::<[u8; 32]>(),
        number in any::<u64>(),
        aad in prop::collection::vec(any::<u8>(), 0..200),
        plain in prop::collection::vec(any::<u8>(), 0..5000),
        flip in any::<prop::sample::Index>(),
    ) {
        let aead = aead(cipher, &key[..cipher.key_bytes()]).unwrap();
        let nonce = Nonce::block(0, number);
        let mut sealed = plain.clone();
        let tag = aead.seal_in_place(&nonce, &aad, &mut sealed);

        let mut opened = vec![0xff; plain.len()];
        aead.open_into(&nonce, &aad, &sealed, &mut opened, &tag).unwrap();
        prop_assert_eq!(&opened, &plain);

        // One bit of body, tag or AAD, or another nonce: refused, and the destination is zero.
        let bits = (sealed.len() + TAG_BYTES + aad.len()) * 8;
        let bit = flip.index(bits);
        let (mut bad, mut bad_tag, mut bad_aad) = (sealed.clone(), tag, aad.clone());
        let byte = bit / 8;
        let target = if byte < bad.len() {
            &mut bad[byte]
        } else if byte < sealed.len() + TAG_BYTES {
            &mut bad_tag[byte - sealed.len()]
        } else {
            &mut bad_aad[byte - sealed.len() - TAG_BYTES]
        };
        *target ^= 1 << (bit % 8);
        let mut destination = vec![0xff; plain.len()];
        let error = aead.open_into(&nonce, &bad_aad, &bad, &mut destination, &bad_tag).unwrap_err();
        prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
        prop_assert!(destination.iter().all(|byte| *byte == 0));
        prop_assert!(aead.open_in_place(&nonce, &bad_aad, &mut bad, &bad_tag).is_err());
        prop_assert!(bad.iter().all(|byte| *byte == 0));
        let other = Nonce::block(1, number);
        prop_assert!(aead.open_in_place(&other, &aad, &mut sealed.clone(), &tag).is_err());
    }
}
