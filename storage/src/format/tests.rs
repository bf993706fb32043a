use proptest::prelude::*;
use tierstream_crypto::{Cipher, DataKey, KeyProvider, RootKey};

use super::*;
use crate::error::ErrorKind;
use crate::units::to_usize;

fn header(payload_bytes: u64, index_bytes: u64, wraps: usize) -> Header {
    let root = RootKey::random("format-test").unwrap();
    let key = DataKey::random(Cipher::Sm4Gcm).unwrap();
    let params = SealParams {
        kind: Kind::Shard,
        cipher: Cipher::Sm4Gcm,
        compressed: false,
        file_id: FileId([7; 16]),
        data_set_id: FileId([9; 16]),
        generation: 3,
        block_bytes: 8192,
        record_align: 64,
    };
    Header {
        params,
        minor: 0,
        payload_bytes,
        record_count: 5,
        index_offset: 4096 + raw_stored_bytes(payload_bytes, params.block_bytes),
        index_bytes,
        commitment: [3; 32],
        wraps: (0..wraps).map(|_| root.wrap(&key, b"").unwrap()).collect(),
        damaged_slots: Vec::new(),
    }
}

#[test]
fn headers_come_back() {
    for (payload, index, wraps) in
        [(0, 0, 0), (1, 1, 1), (8128, 8128, 2), (8129, 100_000, 3), (1 << 30, 77, 4)]
    {
        let header = header(payload, index, wraps);
        let bytes = header.encode(|maced| {
            assert_eq!(maced.len(), 2016);
            [0xaa; 32]
        });
        let (parsed, mac) = Header::parse(&bytes).unwrap();
        assert_eq!(parsed, header);
        assert_eq!(mac, [0xaa; 32]);
    }
}

#[test]
fn sizes_agree_with_each_other() {
    assert_eq!(capacity(4096), 4032);
    assert_eq!(block_count(0, 4096), 0);
    assert_eq!(block_count(4033, 4096), 2);
    assert_eq!(plain_bytes(4033, 4096, 1), 1);
    assert_eq!(plain_bytes(4033, 4096, 2), 0);
    assert_eq!(raw_stored_bytes(8129, 8192), 8192 + 4096);
    assert_eq!(stored_bytes(4032), 4096);
    assert_eq!(stored_bytes(4033), 8192);
}

#[test]
fn broken_headers_are_refused_by_kind() {
    let good = header(100_000, 100, 1).encode(|_| [0; 32]);
    let change = |offset: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[offset..offset + bytes.len()].copy_from_slice(bytes);
        Header::parse(&bad).unwrap_err().kind()
    };
    assert_eq!(change(0, b"X"), ErrorKind::Misuse);
    assert_eq!(change(8, &[2]), ErrorKind::Unsupported);
    assert_eq!(change(12, &[9]), ErrorKind::Unsupported);
    assert_eq!(change(13, &[0]), ErrorKind::Unsupported, "files without a key are not read");
    assert_eq!(change(13, &[2]), ErrorKind::Unsupported, "AES with the key derivation of SM4");
    assert_eq!(change(13, &[4]), ErrorKind::Unsupported);
    assert_eq!(change(14, &[2]), ErrorKind::Unsupported);
    assert_eq!(change(15, &[2]), ErrorKind::Unsupported);
    for (offset, bytes) in [
        (56, &1_u32.to_le_bytes()[..]),
        (56, &(32_u32 << 20).to_le_bytes()),
        (60, &3_u32.to_le_bytes()),
        (64, &1_u64.to_le_bytes()),
        (72, &u64::MAX.to_le_bytes()),
        (88, &0_u64.to_le_bytes()),
        (88, &4097_u64.to_le_bytes()),
        (96, &u64::MAX.to_le_bytes()),
        (104, &0_u64.to_le_bytes()),
        (112, &[1]),
        (2000, &[1]),
    ] {
        assert_eq!(change(offset, bytes), ErrorKind::Corrupt, "offset {offset}");
    }
}

#[test]
fn slots_are_put_and_emptied_one_by_one_and_damage_to_one_spares_the_others() {
    let whole = header(100_000, 100, 2);
    let mut bytes = whole.encode(|_| [0; 32]);
    for (offset, byte) in [(0, 0), (2, 65), (2, 0), (3, 17), (300, 1), (512, 2), (513, 1)] {
        let mut bad = bytes.clone();
        bad[2560 + offset] = byte;
        let (parsed, _) = Header::parse(&bad).unwrap();
        assert_eq!(parsed.wraps[0], whole.wraps[0]);
        let number = if offset < 512 { 1 } else { 2 };
        assert_eq!(parsed.damaged_slots.len(), 1, "offset {offset}");
        assert!(parsed.damaged_slots[0].contains(&format!("wrap slot {number} is damaged")));
        assert!(matches!(wrap_slots(&bad)[number], WrapSlot::Damaged(_)));
    }
    put_wrap(&mut bytes, 3, Some(&whole.wraps[1]));
    put_wrap(&mut bytes, 1, None);
    let [first, second, third, fourth] = wrap_slots(&bytes);
    assert_eq!((first, second), (WrapSlot::InUse(whole.wraps[0].clone()), WrapSlot::Empty));
    assert_eq!((third, fourth), (WrapSlot::Empty, WrapSlot::InUse(whole.wraps[1].clone())));
    assert_eq!(Header::parse(&bytes).unwrap().0.wraps, whole.wraps);
}

fn sections() -> Vec<(SectionType, Vec<u8>)> {
    vec![
        (SectionType::BLOCK_TABLE, vec![1, 2, 3]),
        (SectionType(17), vec![]),
        (SectionType(16), vec![9; 100]),
    ]
}

#[test]
fn an_index_comes_back_and_unknown_sections_are_skipped_unless_critical() {
    let bytes = Index::encode(&sections());
    let parse = |bytes: &[u8]| Index::parse(bytes, to_u64(bytes.len()));
    let index = parse(&bytes).unwrap();
    for (section, contents) in sections() {
        let range = index.section(section).unwrap();
        assert_eq!(bytes[to_usize(range.start)..to_usize(range.end)], contents);
    }
    assert_eq!(index.section(SectionType(99)), None);

    let mut future = bytes.clone();
    future[8..12].copy_from_slice(&7_u32.to_le_bytes());
    assert_eq!(parse(&future).unwrap_err().kind(), ErrorKind::Unsupported);
    future[12] = 0;
    parse(&future).unwrap();
}

#[test]
fn broken_indexes_are_refused() {
    let good = Index::encode(&sections());
    let change = |offset: usize, value: u64| {
        let mut bad = good.clone();
        bad[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        assert_eq!(
            Index::parse(&bad, to_u64(bad.len())).unwrap_err().kind(),
            ErrorKind::Corrupt,
            "offset {offset}"
        );
    };
    change(16, 0); // before the directory's end
    change(16, 81); // not a multiple of 8
    change(24, u64::MAX); // overflow
    change(24, 1 << 20); // beyond the index
    change(24, 20); // overlaps the next
    change(32, 16); // twice
    for len in 0..80 {
        assert!(Index::parse(&good[..len], to_u64(len)).is_err());
    }
    let mut many = good.clone();
    many[4..8].copy_from_slice(&65_u32.to_le_bytes());
    assert!(Index::parse(&many, to_u64(many.len())).is_err());
}

#[test]
fn manifests_come_back_and_broken_ones_are_refused() {
    let mut manifest = Manifest::new("m".to_owned(), serde_json::json!({"fields": []}), 65536, 1);
    for number in 0..3 {
        manifest.push(ShardEntry {
            file: format!("shard-{number:05}.tss"),
            id: [number; 16],
            mac: [number; 32],
            file_bytes: 8192,
            payload_bytes: 100,
            records: 10,
        });
    }
    let json = String::from_utf8(manifest.encode().unwrap()).unwrap();
    assert_eq!(Manifest::parse(json.as_bytes()).unwrap(), manifest);
    for (from, to) in [
        ("shard-00001.tss", "../shard"),
        ("shard-00001.tss", ".."),
        ("shard-00001.tss", ""),
        ("\"records\":30", "\"records\":31"),
        ("\"payload_bytes\":300", "\"payload_bytes\":18446744073709551615"),
        ("01010101", "0101010z"),
        ("{", "["),
    ] {
        let error = Manifest::parse(json.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{from} to {to}");
    }
    let error = Manifest::parse(json.replacen("\"version\":1", "\"version\":2", 1).as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

proptest! {
    #[test]
    fn parsers_never_panic(seed in any::<u64>(), len in 0_usize..5000, edits in 0_usize..20) {
        let mut random = crate::testing::Random::new(seed);
        let mut noise = vec![0; len];
        random.fill(&mut noise);
        let _outcome = (Index::parse(&noise, to_u64(len)), Manifest::parse(&noise));
        // Near misses go deeper than noise.
        let mut bytes = header(random.below(1 << 20), random.below(1 << 16), 2).encode(|_| [0; 32]);
        let mut index = Index::encode(&sections());
        for _ in 0..edits {
            bytes[crate::units::to_usize(random.below(2600))] = random.next_u64().to_le_bytes()[0];
            let at = crate::units::to_usize(random.below(crate::units::to_u64(index.len())));
            index[at] ^= 1 << random.below(8);
        }
        let _outcome = (Header::parse(&bytes), Index::parse(&index, to_u64(index.len())));
        let mut trailer = [0; TRAILER_BYTES];
        random.fill(&mut trailer);
        trailer[..4].copy_from_slice(b"TSB1");
        let _outcome = Trailer::parse(&trailer);
    }
}
