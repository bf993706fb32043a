use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::testing::{Random, announce_seed};
use crate::units::{to_u64, to_usize};

fn parse(header: &str) -> crate::Result<TensorTable> {
    TensorTable::parse(header.as_bytes().to_vec())
}

#[test]
fn hostile_headers_are_refused_with_their_reason() {
    let one = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    assert_eq!(parse(&format!("{{{one}}}")).unwrap().data_bytes(), 8);
    let cases: &[(&str, &str)] = &[
        ("", "no JSON object"),
        ("[]", "no JSON object"),
        (" {}", "no JSON object"),
        ("{", "EOF"),
        (r#"{"a":1}"#, "expected struct"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"dtype":"F32"}}"#, "duplicate field"),
        (&format!("{{{one},{one}}}"), "`a` stands there twice"),
        (r#"{"__metadata__":{},"__metadata__":{}}"#, "`__metadata__` stands there twice"),
        (r#"{"__metadata__":{"k":"1","k":"2"}}"#, "`k` stands there twice"),
        (r#"{"__metadata__":{"k":1}}"#, "expected a string"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9]}}"#, "expected 8 bytes"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, "expected 8 bytes"),
        (r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, "invalid"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#, "follow a gap"),
        (r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, "a whole number of bytes"),
        (
            r#"{"a":{"dtype":"U8","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}}"#,
            "a whole number of",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#,
            "overlap",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
            "overlap",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}}"#,
            "gap",
        ),
    ];
    for (header, why) in cases {
        let error = parse(header).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains(why), "{header}: {error}");
    }
    let unknown = parse(r#"{"a":{"dtype":"F128","shape":[1],"data_offsets":[0,16]}}"#).unwrap_err();
    assert!(unknown.kind() == ErrorKind::Unsupported && unknown.to_string().contains("`a`"), "{unknown}");
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse(&deep).unwrap_err().kind(), ErrorKind::Corrupt);
    let long = format!(r#"{{"{}":1}}"#, "\u{1}".repeat(100_000));
    assert!(parse(&long).unwrap_err().to_string().len() < 1000, "a message of bounded length");
}

#[test]
fn the_length_before_the_header_is_bounded() {
    let of = |len: u64, file: u64| TensorTable::header_bytes(len.to_le_bytes(), file);
    assert_eq!(of(100, 108).unwrap(), 100);
    for (len, file) in [(101, 108), (1, 8), (1, 0), (HEADER_BYTES_MAX + 1, u64::MAX), (u64::MAX, u64::MAX)] {
        assert_eq!(of(len, file).unwrap_err().kind(), ErrorKind::Corrupt, "{len} of {file}");
    }
}

/// Random tensors as the oracle's types and ours.
fn random_tensors(random: &mut Random) -> Vec<(String, Dtype, Vec<u64>, Vec<u8>)> {
    (0..random.below(12))
        .map(|number| {
            let dtype = Dtype::ALL[to_usize(random.below(to_u64(Dtype::ALL.len())))];
            let mut shape: Vec<u64> = (0..random.below(4)).map(|_| random.below(6)).collect();
            if dtype.bits() < 8 {
                shape.push(8);
            }
            let mut data = vec![0; to_usize(dtype.bytes_of(&shape).unwrap())];
            random.fill(&mut data);
            (format!("layer.{number}.\"weight\u{e9}"), dtype, shape, data)
        })
        .collect()
}

#[test]
fn our_tables_are_those_of_the_reference_implementation() {
    for seed in 0..200 {
        announce_seed("safetensors oracle", seed);
        let mut random = Random::new(seed);
        let tensors = random_tensors(&mut random);
        let metadata: BTreeMap<String, String> =
            (0..random.below(3)).map(|of| (format!("k{of}"), format!("{}", random.below(99)))).collect();
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            let dtype = serde_json::from_value(serde_json::json!(dtype.name())).expect("a type it knows");
            let shape = shape.iter().map(|length| to_usize(*length)).collect();
            (name.clone(), safetensors::tensor::TensorView::new(dtype, shape, data).unwrap())
        });
        // It writes no JSON for metadata that are there but empty, beside no tensors.
        let given = (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect());
        let oracle = safetensors::serialize(views, given).unwrap();

        // Ours reads what it wrote.
        let len = TensorTable::header_bytes(oracle[..8].try_into().unwrap(), to_u64(oracle.len())).unwrap();
        let table = TensorTable::parse(oracle[8..8 + len].to_vec()).unwrap();
        assert_eq!(to_u64(8 + len) + table.data_bytes(), to_u64(oracle.len()));
        assert_eq!(table.metadata(), &metadata);
        for (name, dtype, shape, data) in &tensors {
            let info = &table.tensors()[table.index_of(name).unwrap()];
            assert_eq!((info.dtype, &info.shape), (*dtype, shape));
            let start = 8 + len + to_usize(info.data.start);
            assert_eq!(&oracle[start..start + data.len()], data);
        }

        // It reads what ours writes, in the same order of data.
        let described = tensors.iter().map(|(name, dtype, shape, _)| (name.clone(), *dtype, shape.clone()));
        let built = TensorTable::build(described, metadata).unwrap();
        let mut file = built.file_prefix();
        assert!(file.len().is_multiple_of(8));
        for info in built.tensors() {
            let (.., data) = tensors.iter().find(|(name, ..)| *name == info.name).unwrap();
            file.extend_from_slice(data);
        }
        let read = safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(read.len(), tensors.len());
        for (name, _, shape, data) in &tensors {
            let view = read.tensor(name).unwrap();
            assert_eq!(view.data(), &data[..]);
            assert_eq!(view.shape().iter().map(|of| to_u64(*of)).collect::<Vec<_>>(), *shape);
        }
        let order = |table: &TensorTable| -> Vec<_> {
            table.tensors().iter().filter(|info| info.bytes() > 0).map(|info| info.name.clone()).collect()
        };
        assert_eq!(order(&table), order(&built));
    }
}

#[test]
fn mutated_headers_never_pass_where_the_reference_refuses() {
    let valid = r#"{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"I8","shape":[5],"data_offsets":[24,29]}}"#;
    let mut accepted = 0;
    for seed in 0..4000 {
        let mut random = Random::new(seed);
        let mut bytes = valid.as_bytes().to_vec();
        for _ in 0..=random.below(3) {
            let at = to_usize(random.below(to_u64(bytes.len())));
            match random.below(3) {
                0 => bytes[at] = b"0123456789[]{},:\"abFI"[to_usize(random.below(21))],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"0129,[]\"x"[to_usize(random.below(9))]),
            }
        }
        let mut file = to_u64(bytes.len()).to_le_bytes().to_vec();
        file.extend_from_slice(&bytes);
        let Ok(table) = TensorTable::parse(bytes) else { continue };
        accepted += 1;
        file.resize(file.len() + to_usize(table.data_bytes()), 0);
        let oracle = safetensors::SafeTensors::deserialize(&file);
        assert!(oracle.is_ok(), "seed {seed}: {:?}: {oracle:?}", String::from_utf8_lossy(table.header()));
    }
    assert!(accepted > 30, "{accepted} of the mutations are headers still");
}

#[test]
fn a_table_that_cannot_be_is_not_built() {
    let build = |tensors: &[(&str, Dtype, &[u64])]| {
        let tensors = tensors.iter().map(|(name, dtype, shape)| ((*name).to_owned(), *dtype, shape.to_vec()));
        TensorTable::build(tensors.collect::<Vec<_>>(), BTreeMap::new()).map(drop)
    };
    build(&[("a", Dtype::F32, &[]), ("b", Dtype::F4, &[2])]).unwrap();
    for tensors in [
        &[("a", Dtype::F32, &[1][..]), ("a", Dtype::F32, &[1])][..],
        &[("__metadata__", Dtype::F32, &[1])],
        &[("a", Dtype::F4, &[3])],
        &[("a", Dtype::F32, &[u64::MAX, 2])],
        &[("a", Dtype::U8, &[u64::MAX]), ("b", Dtype::U8, &[1])],
    ] {
        assert_eq!(build(tensors).unwrap_err().kind(), ErrorKind::Misuse, "{tensors:?}");
    }
}

proptest! {
    #[test]
    fn places_are_aligned_apart_and_seldom_cut(
        lengths in proptest::collection::vec(0_u64..40_000, 0..50),
        block in 1_u64..16,
    ) {
        let capacity = block * 4096 - 64;
        let places = layout::places(lengths.iter().copied(), capacity);
        let (mut end, mut padding) = (0, 0);
        for (place, length) in places.iter().zip(&lengths) {
            prop_assert_eq!(place.end - place.start, *length);
            prop_assert!(place.start >= end && place.start.is_multiple_of(ALIGN));
            let blocks = place.end.div_ceil(capacity) - place.start / capacity;
            prop_assert!(*length > capacity / 8 || blocks <= 1, "{:?} of {}", place, capacity);
            padding += place.start - end;
            end = place.end;
        }
        let blocks = end.div_ceil(capacity);
        let most = (blocks + 1) * capacity / 8 + to_u64(lengths.len()) * ALIGN;
        prop_assert!(padding <= most, "{} of padding in {} blocks", padding, blocks);
    }

    #[test]
    fn a_slice_is_what_indexing_gives(
        axes in proptest::collection::vec((0_u64..6, 0_u64..6, 0_u64..6), 0..4),
        given in 0_usize..4,
        wide in any::<bool>(),
    ) {
        let shape: Vec<u64> = axes.iter().map(|(length, ..)| *length).collect();
        let ranges: Vec<_> = axes
            .iter()
            .take(given)
            .map(|(length, a, b)| (*a).min(*b).min(*length)..(*a).max(*b).min(*length))
            .collect();
        let (dtype, size) = if wide { (Dtype::F32, 4) } else { (Dtype::U8, 1) };
        // Every element's number, if all its coordinates are in range.
        let total: u64 = shape.iter().product();
        let mut expected = Vec::new();
        for element in 0..total {
            let mut left = element;
            let mut inside = true;
            for (axis, length) in shape.iter().enumerate().rev() {
                let at = left % length;
                left /= length;
                inside &= ranges.get(axis).is_none_or(|range| range.contains(&at));
            }
            if inside {
                expected.extend(element * size..(element + 1) * size);
            }
        }
        let runs = runs(dtype, &shape, &ranges).unwrap();
        let bytes = runs.bytes();
        let found: Vec<u64> = runs.clone().flatten().collect();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(bytes, to_u64(expected.len()));
        let runs: Vec<_> = runs.collect();
        prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start), "{:?}", runs);
    }
}

#[test]
fn slices_that_are_none_are_refused() {
    let slice = |dtype: Dtype, shape: &[u64], pairs: &[(u64, u64)]| {
        let ranges: Vec<_> = pairs.iter().map(|(start, end)| *start..*end).collect();
        runs(dtype, shape, &ranges)
    };
    for (dtype, shape, pairs) in [
        (Dtype::F32, &[4, 4][..], &[(0, 5)][..]),
        (Dtype::F32, &[4, 4], &[(2, 1)]),
        (Dtype::F32, &[4], &[(0, 1), (0, 1)]),
        (Dtype::F32, &[], &[(0, 0)]),
        (Dtype::F4, &[4, 3], &[(0, 1)]),
        (Dtype::F4, &[8], &[(1, 2)]),
    ] {
        assert_eq!(slice(dtype, shape, pairs).unwrap_err().kind(), ErrorKind::Misuse, "{shape:?} {pairs:?}");
    }
    assert!(slice(Dtype::F4, &[4, 4], &[(1, 3)]).unwrap().eq(std::iter::once(2..6)));
    assert_eq!(slice(Dtype::U8, &[0, u64::MAX, 4], &[]).unwrap().next(), None);
}
