//! Tensors and safetensors files through a store.

use std::collections::BTreeMap;

use super::{Fixture, put};
use crate::error::ErrorKind;
use crate::format::capacity;
use crate::store::object::{PutOptions, SafetensorsFile, TensorPayload};
use crate::store::{RangeSource, Store};
use crate::tensor::{ALIGN, Dtype};
use crate::testing::{Random, announce_seed};
use crate::units::{to_u64, to_usize};

fn export(store: &Store, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let object = store.get(name).unwrap();
    object
        .export_safetensors(&mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
    bytes
}

/// A file of the reference implementation, with tensors smaller and larger than a block.
fn reference_file(random: &mut Random) -> Vec<u8> {
    let data: Vec<Vec<u8>> = (0..random.below(9) + 1)
        .map(|_| {
            let mut bytes = vec![0; to_usize(random.below(40_000) / 4 * 4)];
            random.fill(&mut bytes);
            bytes
        })
        .collect();
    let views = data.iter().enumerate().map(|(number, data)| {
        let shape = vec![data.len() / 4, 4];
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, shape, data).unwrap();
        (format!("h.{number}.weight"), view)
    });
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize(views, Some(metadata)).unwrap()
}

#[test]
fn safetensors_files_come_back_bit_for_bit() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for seed in 0..6 {
        announce_seed("safetensors round trip", seed);
        let mut random = Random::new(seed);
        let mut file = reference_file(&mut random);
        if seed % 2 == 1 {
            // Other writers order keys and pad as they like: kept as it is.
            let len = to_usize(u64::from_le_bytes(file[..8].try_into().unwrap()));
            let json: BTreeMap<String, serde_json::Value> =
                serde_json::from_slice(&file[8..8 + len]).unwrap();
            let other = serde_json::to_string_pretty(&json).unwrap() + "   ";
            file.splice(0..8 + len, [&to_u64(other.len()).to_le_bytes()[..], other.as_bytes()].concat());
        }
        let path = fixture.path("in.safetensors");
        std::fs::write(&path, &file).unwrap();
        let source = SafetensorsFile::open(&path).unwrap();
        store.put("model", &source, &PutOptions::default()).unwrap();
        assert_eq!(export(&store, "model"), file);
        if seed == 2 {
            store.flush().unwrap();
            drop(store);
            store = fixture.open();
        }
        assert!(export(&store, "model") == file, "seed {seed}");
        let read = safetensors::SafeTensors::deserialize(&file).unwrap();
        let object = store.get("model").unwrap();
        assert_eq!(object.tensors().unwrap().tensors().len(), read.len());
        for (name, view) in read.tensors() {
            assert_eq!(object.tensor(&name).unwrap().read().unwrap(), view.data());
        }
    }
}

#[test]
fn files_that_are_none_are_refused_before_anything_is_written() {
    let fixture = Fixture::new();
    let path = fixture.path("x.safetensors");
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        SafetensorsFile::open(&path).map(drop)
    };
    let file = reference_file(&mut Random::new(1));
    open(&file).unwrap();
    open(b"\x02\0\0\0\0\0\0\0{}").unwrap();
    for bad in [
        &b""[..],
        &file[..7],
        &file[..100],
        &file[..file.len() - 1],
        &[&file[..], b"x"].concat(),
        &[0xff; 64],
        b"\x03\0\0\0\0\0\0\0{}",
    ] {
        let error = open(bad).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("x.safetensors"), "{error}");
    }
    assert_eq!(SafetensorsFile::open(fixture.dir.path()).unwrap_err().kind(), ErrorKind::Misuse);
}

#[test]
fn a_slice_reads_only_the_blocks_that_hold_it() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let per_block = capacity(super::BLOCK);
    // 64 rows, each as long as a block and a half.
    let row = to_usize(per_block / 2 * 3);
    let mut data = vec![0; row * 64];
    Random::new(4).fill(&mut data);
    let shape = [64, to_u64(row)];
    let tensors = TensorPayload::new(&[("w", Dtype::U8, &shape, &data)], BTreeMap::new()).unwrap();
    store.put("model", &tensors, &PutOptions::default()).unwrap();
    let object = store.get("model").unwrap();
    let tensor = object.tensor("w").unwrap();
    let reads = || store.metrics().l2.hits;
    let before = reads();
    let rows = tensor.rows(10..12).unwrap();
    assert!(rows == data[10 * row..12 * row]);
    assert_eq!(reads() - before, 3, "two rows are three blocks");
    let before = reads();
    let column = tensor.slice(&[0..64, 5..6]).unwrap();
    assert!(column.iter().enumerate().all(|(at, byte)| *byte == data[at * row + 5]));
    assert!(reads() - before <= 64, "one block for each row at most");
    assert_eq!(tensor.rows(0..65).unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(object.tensor("b").unwrap_err().kind(), ErrorKind::Missing);
    put(&store, "plain", b"x");
    assert_eq!(store.get("plain").unwrap().tensors().unwrap_err().kind(), ErrorKind::Misuse);
}

#[test]
fn a_view_keeps_its_block_while_everything_else_is_read() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let small: Vec<Vec<u8>> = (0..20).map(|number| vec![number; 900]).collect();
    let large = vec![0xee; 3 << 20];
    let names: Vec<String> = (0..20).map(|number| format!("bias.{number}")).collect();
    let length = [900];
    let all = [to_u64(large.len())];
    let mut tensors: Vec<(&str, Dtype, &[u64], &[u8])> =
        names.iter().zip(&small).map(|(name, data)| (&name[..], Dtype::U8, &length[..], &data[..])).collect();
    tensors.push(("weight", Dtype::U8, &all, &large));
    let payload = TensorPayload::new(&tensors, BTreeMap::new()).unwrap();
    store.put("model", &payload, &PutOptions::default()).unwrap();
    let object = store.get("model").unwrap();
    let views: Vec<_> = names
        .iter()
        .map(|name| object.tensor(name).unwrap().view().unwrap().expect("in one block"))
        .collect();
    assert!(object.tensor("weight").unwrap().view().unwrap().is_none(), "larger than a block");
    // L1 has 1 MiB: this reads three times as much through it, and the object is replaced.
    assert!(object.tensor("weight").unwrap().read().unwrap() == large);
    put(&store, "model", b"something else");
    store.flush().unwrap();
    drop((object, store));
    for (view, data) in views.iter().zip(&small) {
        assert_eq!(&view[..], &data[..]);
        assert_eq!(to_u64(view.as_ptr().addr()) % ALIGN, 0);
    }
}
