mod vectors;

use proptest::prelude::*;

use super::*;
use crate::{aead, aead_with, kernels};

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

/// Runs `check` on every kernel of `cipher` that this CPU has; says which it has not.
fn on_every_kernel(cipher: Cipher, mut check: impl FnMut(&str)) {
    for kernel in kernels(cipher) {
        if kernel.supported {
            check(kernel.name);
        } else {
            eprintln!("skipped: {} (this CPU has not its instructions)", kernel.name);
        }
    }
}

/// Bytes that differ from each other and are the same in every run.
fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 167 + i / 251 + seed * 59).to_le_bytes()[0]).collect()
}

#[test]
fn published_vectors_open_and_seal() {
    for v in &VECTORS {
        on_every_kernel(v.cipher, |kernel| {
            let aead = aead_with(kernel, v.cipher, &hex(v.key)).unwrap();
            assert_eq!(aead.kernel(), kernel);
            let nonce = Nonce::random(hex(v.nonce).try_into().unwrap());
            let mut body = hex(v.plain);
            let tag = aead.seal_in_place(&nonce, &hex(v.aad), &mut body);
            assert_eq!(body, hex(v.sealed), "{kernel}");
            assert_eq!(tag.to_vec(), hex(v.tag), "{kernel}");

            let mut plain = vec![0xa5; body.len()];
            aead.open_into(&nonce, &hex(v.aad), &body, &mut plain, &tag).unwrap();
            assert_eq!(plain, hex(v.plain), "{kernel}");
            aead.open_in_place(&nonce, &hex(v.aad), &mut body, &tag).unwrap();
            assert_eq!(body, hex(v.plain), "{kernel}");
        });
    }
}

/// Every way to seal and open one message on one kernel, against the oracle's ciphertext and tag. Offsets move each
/// buffer within its allocation, so that vector loads and stores meet every alignment; the bytes around stay.
fn check_message(aead: &dyn Aead, oracle: &dyn Aead, length: usize, aad: &[u8], offsets: [usize; 2]) {
    const GUARD: u8 = 0x5a;
    let context = format!("{} at {length} bytes, {} of aad, offsets {offsets:?}", aead.kernel(), aad.len());
    let nonce = Nonce::block(3, length as u64);
    let placed = |bytes: &[u8], offset: usize| {
        let mut buffer = vec![GUARD; offset + bytes.len() + 64];
        buffer[offset..offset + bytes.len()].copy_from_slice(bytes);
        buffer
    };
    let check = |buffer: &[u8], offset: usize, body: &[u8], what: &str| {
        assert!(buffer[offset..offset + length] == *body, "{what} by {context}");
        let guards = buffer[..offset].iter().chain(&buffer[offset + length..]);
        assert!(guards.into_iter().all(|byte| *byte == GUARD), "{what} wrote outside by {context}");
    };
    let plain = pattern(length, aad.len());
    let mut sealed = plain.clone();
    let tag = oracle.seal_in_place(&nonce, aad, &mut sealed);
    let [from, to] = offsets;
    let (from_range, to_range) = (from..from + length, to..to + length);

    let mut buffer = placed(&plain, from);
    assert_eq!(
        aead.seal_in_place(&nonce, aad, &mut buffer[from_range.clone()]),
        tag,
        "seal_in_place by {context}"
    );
    check(&buffer, from, &sealed, "seal_in_place");
    aead.open_in_place(&nonce, aad, &mut buffer[from_range.clone()], &tag).expect(&context);
    check(&buffer, from, &plain, "open_in_place");

    let source = placed(&plain, from);
    let mut destination = placed(&vec![1; length], to);
    let found = aead.seal_into(&nonce, aad, &source[from_range.clone()], &mut destination[to_range.clone()]);
    assert_eq!(found, tag, "seal_into by {context}");
    check(&destination, to, &sealed, "seal_into");
    check(&source, from, &plain, "the source of seal_into");
    let source = placed(&sealed, from);
    let body = &source[from_range.clone()];
    aead.open_into(&nonce, aad, body, &mut destination[to_range.clone()], &tag).expect(&context);
    check(&destination, to, &plain, "open_into");

    let mut wrong = tag;
    wrong[length % TAG_BYTES] ^= 0x80;
    destination[to_range.clone()].fill(0xee);
    let error = aead.open_into(&nonce, aad, body, &mut destination[to_range], &wrong).expect_err(&context);
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    check(&destination, to, &vec![0; length], "open_into with a wrong tag");
    let mut buffer = placed(&sealed, from);
    assert!(aead.open_in_place(&nonce, aad, &mut buffer[from_range], &wrong).is_err(), "{context}");
    check(&buffer, from, &vec![0; length], "open_in_place with a wrong tag");
}

fn key(cipher: Cipher) -> Vec<u8> {
    pattern(cipher.key_bytes(), 5)
}

#[test]
fn every_length_to_four_kib_matches_the_oracle() {
    for cipher in Cipher::ALL {
        let oracle = aead_with(oracle(cipher), cipher, &key(cipher)).unwrap();
        on_every_kernel(cipher, |kernel| {
            let aead = aead_with(kernel, cipher, &key(cipher)).unwrap();
            for length in 0..=4096 + 33 {
                check_message(&*aead, &*oracle, length, &pattern(length % 70, 1), [length % 67, length % 61]);
            }
        });
    }
}

#[test]
fn lengths_around_groups_and_long_messages_match_the_oracle() {
    for cipher in Cipher::ALL {
        let oracle = aead_with(oracle(cipher), cipher, &key(cipher)).unwrap();
        on_every_kernel(cipher, |kernel| {
            let aead = aead_with(kernel, cipher, &key(cipher)).unwrap();
            for kib in [5_usize, 6, 7, 8, 9, 10, 12, 16, 24, 32, 64] {
                for around in [-17_isize, -16, -15, -1, 0, 1, 15, 16, 17] {
                    let length = (kib << 10).checked_add_signed(around).unwrap();
                    let aad = pattern(length % 300, 2);
                    check_message(&*aead, &*oracle, length, &aad, [length % 64, kib]);
                }
            }
            check_message(&*aead, &*oracle, (1 << 20) + 7, &[], [0, 0]);
        });
    }
}

#[test]
fn associated_data_of_any_length_matches_the_oracle() {
    for cipher in Cipher::ALL {
        let oracle = aead_with(oracle(cipher), cipher, &key(cipher)).unwrap();
        on_every_kernel(cipher, |kernel| {
            let aead = aead_with(kernel, cipher, &key(cipher)).unwrap();
            for aad in (0..600).chain([2047, 2048, 2049, 4096, 65536 + 5]) {
                check_message(&*aead, &*oracle, 40, &pattern(aad, 3), [1, 2]);
            }
        });
    }
}

#[test]
fn messages_cut_short_or_drawn_out_are_refused() {
    for cipher in Cipher::ALL {
        on_every_kernel(cipher, |kernel| {
            let aead = aead_with(kernel, cipher, &key(cipher)).unwrap();
            let nonce = Nonce::block(9, 9);
            for length in [1, 15, 16, 17, 512, 1023, 1024, 2048, 4096, 5000] {
                let mut sealed = pattern(length, 7);
                let tag = aead.seal_in_place(&nonce, b"aad", &mut sealed);
                sealed.push(0);
                for wrong in [0, length / 2, length.saturating_sub(16), length - 1, length + 1] {
                    let mut body = sealed[..wrong].to_vec();
                    let mut plain = vec![0xa5; wrong];
                    assert!(aead.open_into(&nonce, b"aad", &body, &mut plain, &tag).is_err(), "{kernel}");
                    assert!(aead.open_in_place(&nonce, b"aad", &mut body, &tag).is_err(), "{kernel}");
                    assert!(
                        plain.iter().chain(&body).all(|byte| *byte == 0),
                        "{kernel}, {wrong} of {length}"
                    );
                }
                // What stands in the associated data is no part of the message.
                let mut body = sealed[1..length].to_vec();
                let moved = [&b"aad"[..], &sealed[..1]].concat();
                assert!(aead.open_in_place(&nonce, &moved, &mut body, &tag).is_err(), "{kernel}, {length}");
            }
        });
    }
}

/// The kernel that the others are compared with: the last, which is another project's code.
fn oracle(cipher: Cipher) -> &'static str {
    kernels(cipher).last().expect("a kernel of each cipher").name
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
        on_every_kernel(cipher, |kernel| {
            let aead = aead_with(kernel, cipher, &vec![0x42; cipher.key_bytes()]).unwrap();
            let text = format!("{aead:?}");
            assert!(text.contains("hidden") && !text.contains("42") && !text.contains("66"), "{text}");
        });
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens_and_what_is_changed_does_not(
        cipher in prop::sample::select(&Cipher::ALL[..]),
        which in any::<prop::sample::Index>(),
        key in any::<[u8; 32]>(),
        number in any::<u64>(),
        aad in prop::collection::vec(any::<u8>(), 0..200),
        plain in prop::collection::vec(any::<u8>(), 0..5000),
        flip in any::<prop::sample::Index>(),
    ) {
        let kernels: Vec<_> = kernels(cipher).into_iter().filter(|kernel| kernel.supported).collect();
        let kernel = kernels[which.index(kernels.len())].name;
        let aead = aead_with(kernel, cipher, &key[..cipher.key_bytes()]).unwrap();
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
