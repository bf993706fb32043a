//! SM4-GCM: published vectors, random messages against the CPU's kernels, wrong tags.

use crate::cipher::{KeyTable, Message, Outcome, PackedMessages};
use tierstream_crypto::{Aead, Cipher, Nonce, Sm4Schedule, Tag, aead};
use tierstream_storage::testing::{Random, announce_seed, tell};

use super::launch::{Argument, Kernel, Launch, Machine};
use super::on_every_machine;

/// A message as it was sealed, perhaps spoilt since.
struct Sealed {
    key: usize,
    nonce: Nonce,
    aad: Vec<u8>,
    body: Vec<u8>,
    tag: Tag,
}

/// What must not be written to.
const CANARY: u8 = 0xa5;

/// Opens `sealed` on `machine` by `blocks` thread blocks; in place or from one buffer to another. `None` is a refusal,
/// whose plaintext was checked to be zero.
fn open(
    machine: &mut dyn Machine,
    keys: &[[u8; 16]],
    sealed: &[Sealed],
    blocks: u32,
    in_place: bool,
) -> Vec<Option<Vec<u8>>> {
    let mut memory = Vec::new();
    for key in keys {
        memory.extend_from_slice(KeyTable::new(&Sm4Schedule::expand(key)).as_bytes());
    }
    let mut messages = Vec::new();
    for message in sealed {
        let from = memory.len();
        memory.extend_from_slice(&message.body);
        // At least 16 bytes that are nobody's, to 16.
        memory.resize((memory.len() + 16).next_multiple_of(16), CANARY);
        let to = if in_place { from } else { memory.len() };
        if !in_place {
            memory.resize((to + message.body.len() + 16).next_multiple_of(16), CANARY);
        }
        messages.push(Message {
            sealed: from as u64,
            plain: to as u64,
            bytes: u32::try_from(message.body.len()).unwrap(),
            key: u32::try_from(message.key).unwrap(),
            nonce: message.nonce,
            aad: message.aad.clone(),
            tag: message.tag,
        });
    }
    let at = memory.len() as u64;
    let packed = PackedMessages::new(&messages, at).unwrap();
    memory.extend_from_slice(packed.as_bytes());
    let launch = Launch {
        kernel: Kernel::Open,
        grid: blocks,
        block: 128,
        arguments: vec![
            Argument::Address(0),
            Argument::Address(0),
            Argument::Address(at + packed.messages_at()),
            Argument::Address(at + packed.work_at()),
            Argument::U32(packed.items()),
            Argument::Address(at),
        ],
        memory,
    };
    let after = machine.run(&launch);
    let at = usize::try_from(at).unwrap();
    let outcomes = PackedMessages::outcomes(&after[at..at + packed.state_bytes()]);
    assert_eq!(outcomes.len(), sealed.len());
    let mut opened = Vec::new();
    for ((outcome, message), sealed) in outcomes.into_iter().zip(&messages).zip(sealed) {
        let (from, to) = (usize::try_from(message.sealed).unwrap(), usize::try_from(message.plain).unwrap());
        let len = sealed.body.len();
        let plain = after[to..to + len].to_vec();
        assert!(in_place || after[from..from + len] == sealed.body, "the ciphertext was changed");
        assert!(after[to + len..][..16].iter().all(|byte| *byte == CANARY), "written beyond the end");
        match outcome {
            Outcome::Opened => opened.push(Some(plain)),
            Outcome::Refused => {
                assert!(plain.iter().all(|byte| *byte == 0), "plaintext of a message that was refused");
                opened.push(None);
            }
            Outcome::Pending => panic!("a message of {len} bytes was not dealt with"),
        }
    }
    opened
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    bytes(text).try_into().unwrap()
}

fn bytes(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn the_published_vector_opens() {
    // RFC 8998, A.1.
    let key = array("0123456789abcdeffedcba9876543210");
    let sealed = || Sealed {
        key: 0,
        nonce: Nonce::random(array("00001234567800000000abcd")),
        aad: bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
        body: bytes(
            "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735\
             d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d",
        ),
        tag: array("83de3541e4c2b58177e065a9bf7b62ec"),
    };
    let plain: Vec<u8> =
        [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0xee, 0xaa].into_iter().flat_map(|byte| [byte; 8]).collect();
    on_every_machine(|machine| {
        for in_place in [false, true] {
            assert_eq!(open(machine, &[key], &[sealed()], 1, in_place), [Some(plain.clone())]);
        }
    });
}

#[test]
fn wycheproofs_vectors_open_or_are_refused() {
    let text = include_str!("../../../../crypto/src/aead/tests/wycheproof_sm4_gcm.txt");
    on_every_machine(|machine| {
        let (mut opened, mut refused) = (0, 0);
        for case in wycheproof(text) {
            let result = open(machine, &[case.key], &[case.sealed], 1, false).pop().unwrap();
            assert_eq!(result, case.plain, "case {}", case.number);
            if case.plain.is_some() { opened += 1 } else { refused += 1 }
        }
        assert!(opened > 20 && refused > 20, "{opened} opened, {refused} refused");
        tell(&format!("kernels: {opened} vectors opened, {refused} refused"));
    });
}

struct Vector {
    number: String,
    key: [u8; 16],
    sealed: Sealed,
    plain: Option<Vec<u8>>,
}

/// Reads `field = value` lines in groups that empty lines separate.
fn wycheproof(text: &str) -> impl Iterator<Item = Vector> {
    text.split("\n\n").filter(|group| !group.starts_with('#')).map(|group| {
        let field = |wanted: &str| {
            let mut lines = group.lines().filter_map(|line| line.split_once(" ="));
            lines.find(|(name, _)| *name == wanted).map(|(_, value)| value.trim()).unwrap()
        };
        let plain = (field("Result") == "valid").then(|| bytes(field("PT")));
        let sealed = Sealed {
            key: 0,
            nonce: Nonce::random(array(field("IV"))),
            aad: bytes(field("AAD")),
            body: bytes(field("CT")),
            tag: array(field("Tag")),
        };
        Vector { number: field("Number").to_owned(), key: array(field("Key")), sealed, plain }
    })
}

/// A random message, sealed by the best kernel of this CPU.
fn seal(random: &mut Random, keys: &[Box<dyn Aead>], len: usize, aad: usize) -> (Sealed, Vec<u8>) {
    let key = usize::try_from(random.below(keys.len() as u64)).unwrap();
    let (mut plain, mut aad, mut nonce) = (vec![0; len], vec![0; aad], [0; 12]);
    random.fill(&mut plain);
    random.fill(&mut aad);
    random.fill(&mut nonce);
    let nonce = Nonce::random(nonce);
    let mut body = plain.clone();
    let tag = keys[key].seal_in_place(&nonce, &aad, &mut body);
    (Sealed { key, nonce, aad, body, tag }, plain)
}

#[test]
fn random_messages_open_as_the_cpu_sealed_them() {
    let seed = 0x7e57_0008;
    announce_seed("random_messages_open_as_the_cpu_sealed_them", seed);
    on_every_machine(|machine| {
        let mut random = Random::new(seed);
        let raw: Vec<[u8; 16]> = (0..3)
            .map(|_| {
                let mut key = [0; 16];
                random.fill(&mut key);
                key
            })
            .collect();
        let keys: Vec<Box<dyn Aead>> = raw.iter().map(|key| aead(Cipher::Sm4Gcm, key).unwrap()).collect();
        // Around the ends of slots, tiles, warps and segments, with and without AAD, and some in between.
        let mut lens =
            vec![0, 1, 15, 16, 17, 4079, 4080, 4096, 4097, 16368, 65472, 65519, 65520, 65536, 65537, 200_000];
        lens.extend((0..12).map(|_| usize::try_from(random.below(140_000)).unwrap()));
        let (mut sealed, mut plain) = (Vec::new(), Vec::new());
        for (number, len) in lens.iter().enumerate() {
            let (message, expected) = seal(&mut random, &keys, *len, [48, 0, 1, 16, 77][number % 5]);
            sealed.push(message);
            plain.push(Some(expected));
        }
        for (blocks, in_place) in [(64, false), (3, true)] {
            let opened = open(machine, &raw, &sealed, blocks, in_place);
            for (number, (opened, plain)) in opened.iter().zip(&plain).enumerate() {
                assert!(opened == plain, "message {number} of {} bytes", lens[number]);
            }
        }
    });
}

#[test]
fn one_changed_bit_anywhere_is_refused_and_the_others_open() {
    let seed = 0x7e57_0009;
    announce_seed("one_changed_bit_anywhere_is_refused_and_the_others_open", seed);
    on_every_machine(|machine| {
        let mut random = Random::new(seed);
        let raw = [[0x5a; 16]];
        let keys = [aead(Cipher::Sm4Gcm, &raw[0]).unwrap()];
        let (mut sealed, mut expected) = (Vec::new(), Vec::new());
        for number in 0..24 {
            let len = if number == 0 { 140_000 } else { 1 + usize::try_from(random.below(9000)).unwrap() };
            let (mut message, plain) = seal(&mut random, &keys, len, 48);
            let bit = 1 << random.below(8);
            let mut spoil = |bytes: &mut [u8]| {
                let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
                bytes[at] ^= bit;
            };
            match number % 5 {
                0 => spoil(&mut message.body),
                1 => spoil(&mut message.aad),
                2 => spoil(&mut message.tag),
                3 => {
                    let mut nonce = *message.nonce.as_bytes();
                    spoil(&mut nonce);
                    message.nonce = Nonce::random(nonce);
                }
                _ => {}
            }
            sealed.push(message);
            expected.push((number % 5 == 4).then_some(plain));
        }
        assert!(open(machine, &raw, &sealed, 16, false) == expected);
        assert!(open(machine, &raw, &sealed, 16, true) == expected);
    });
}

#[test]
fn counters_wrap_in_their_last_32_bits_alone() {
    // A nonce of ones: a carry out of the counter would change it. Messages are too short for the counter itself to wrap.
    on_every_machine(|machine| {
        let key = [0x11; 16];
        let cipher = aead(Cipher::Sm4Gcm, &key).unwrap();
        let (nonce, plain) = (Nonce::random([0xff; 12]), vec![3; 70_000]);
        let mut body = plain.clone();
        let tag = cipher.seal_in_place(&nonce, b"", &mut body);
        let sealed = Sealed { key: 0, nonce, aad: Vec::new(), body, tag };
        assert!(open(machine, &[key], &[sealed], 2, false) == [Some(plain)]);
    });
}
