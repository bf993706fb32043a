//! Indexes with every byte of their directory and block table changed, sealed again with the right key.

use tierstream_crypto::Cipher;
use tierstream_storage::format::{BlockKind, Index, SectionType};
use tierstream_storage::units::{to_u64, to_usize};

use crate::forge::{Forge, OWN, Opened, Seal};

fn forge(compressed: bool) -> (Forge, Opened, Vec<u8>) {
    let forge = Forge::new(Seal { cipher: Cipher::Sm4Gcm, compressed });
    let file = Opened::read(std::fs::read(forge.shard("set", 0)).unwrap(), &forge.root);
    let index = file.open(BlockKind::Index, None);
    (forge, file, index)
}

#[test]
fn every_byte_of_the_directory_and_the_block_table_may_change() {
    for compressed in [false, true] {
        let (forge, file, index) = forge(compressed);
        let directory = Index::parse(&index, to_u64(index.len())).unwrap();
        let first = if compressed { SectionType::BLOCK_TABLE } else { OWN };
        let end = match compressed {
            true => to_usize(directory.section(first).unwrap().end),
            false => to_usize(directory.section(first).unwrap().start),
        };
        let (mut opened, mut refused) = (0, 0);
        for at in 0..end {
            for value in [0, 1, 0x7f, 0xff, index[at] ^ 1, index[at] ^ 0x80, index[at].wrapping_sub(1)] {
                if value == index[at] {
                    continue;
                }
                let mut bad = index.clone();
                bad[at] = value;
                forge.install("set", &file.with_index(&bad));
                match forge.survives("set", &format!("byte {at} of the index is {value}")) {
                    true => opened += 1,
                    false => refused += 1,
                }
            }
        }
        assert!(refused > 50 && opened > 0, "{refused} refused, {opened} opened");
    }
}

#[test]
fn indexes_of_every_length_are_read_or_refused() {
    for compressed in [false, true] {
        let (forge, file, index) = forge(compressed);
        for len in (0..120).chain([index.len() - 1, index.len() / 2]) {
            forge.install("set", &file.with_index(&index[..len]));
            let opened = forge.survives("set", &format!("an index of {len} bytes"));
            assert!(!opened || !compressed && len == 0, "{len}");
        }
        let longer = [&index[..], &[0; 9000]].concat();
        forge.install("set", &file.with_index(&longer));
        assert!(forge.survives("set", "an index with room behind it"));
    }
}

#[test]
fn sections_may_hold_anything() {
    let (forge, file, index) = forge(true);
    let directory = Index::parse(&index, to_u64(index.len())).unwrap();
    let contents = |section: SectionType| {
        let range = directory.section(section).unwrap();
        index[to_usize(range.start)..to_usize(range.end)].to_vec()
    };
    let (table, dictionary) = (contents(SectionType::BLOCK_TABLE), contents(SectionType::DICTIONARY));
    let tables =
        [vec![], vec![0; table.len()], vec![0xff; table.len()], table[4..].to_vec(), vec![1; 4 << 10]];
    let reversed: Vec<u8> = table.chunks(4).rev().flatten().copied().collect();
    for bad in tables.into_iter().chain([reversed]) {
        let sections = [(SectionType::BLOCK_TABLE, bad), (SectionType::DICTIONARY, dictionary.clone())];
        forge.install("set", &file.with_index(&Index::encode(&sections)));
        assert!(!forge.survives("set", "a wrong block table"));
    }
    // zstd's own magic, and nothing of a dictionary behind it.
    let magic_alone = [&0xec30_a437_u32.to_le_bytes()[..], &[7; 200]].concat();
    for bad in [vec![], magic_alone, vec![0; (1 << 20) + 1]] {
        let sections = [(SectionType::BLOCK_TABLE, table.clone()), (SectionType::DICTIONARY, bad)];
        forge.install("set", &file.with_index(&Index::encode(&sections)));
        assert!(!forge.survives("set", "a wrong dictionary"));
    }
    for critical in [3, 9, 15] {
        let sections = [
            (SectionType::BLOCK_TABLE, table.clone()),
            (SectionType::DICTIONARY, dictionary.clone()),
            (SectionType(critical), vec![1]),
        ];
        forge.install("set", &file.with_index(&Index::encode(&sections)));
        assert!(!forge.survives("set", "a section of a newer version"));
    }
}
