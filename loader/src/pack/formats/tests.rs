use std::io::Write;
use std::path::PathBuf;

use proptest::prelude::*;
use tierstream_storage::testing::Random;

use super::*;
use crate::dtype::Dtype;

type Read = (Option<String>, Vec<Vec<u8>>);

fn all(format: &dyn Format) -> Result<Vec<Read>> {
    let mut samples = Vec::new();
    for part in 0..format.parts().len() {
        format.read(part, &mut |sample: Sample<'_>| {
            let values = sample.values.iter().map(|value| value.to_vec()).collect();
            samples.push((sample.name.map(str::to_owned), values));
            Ok(())
        })?;
    }
    Ok(samples)
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    }

    fn open(&self, name: &str, format: FormatName, options: &OpenOptions) -> Result<Vec<Read>> {
        all(&*open(&self.0.path().join(name), format, options)?)
    }
}

/// A tar header as ustar has it.
pub(super) fn tar_header(name: &str, size: usize, kind: u8) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn tar_entry(name: &str, bytes: &[u8], kind: u8) -> Vec<u8> {
    let mut entry = tar_header(name, bytes.len(), kind);
    entry.extend_from_slice(bytes);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

fn tar(entries: &[(&str, &[u8], u8)]) -> Vec<u8> {
    let mut archive: Vec<u8> =
        entries.iter().flat_map(|(name, bytes, kind)| tar_entry(name, bytes, *kind)).collect();
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[test]
fn neighbouring_files_of_an_archive_are_a_sample() {
    let scratch = Scratch::new();
    let long = format!("{}/deep.jpg", "d".repeat(150));
    let pax = |key: &str, value: &str| {
        let len = key.len() + value.len() + 3;
        let len = len + (len + 3).to_string().len();
        format!("{len} {key}={value}\n")
    };
    let long_pax = pax("path", &long.replace("deep.jpg", "deep.cls"));
    let archive = tar(&[
        ("dir/", b"", b'5'),
        ("README", b"no extension", b'0'),
        ("a/1.jpg", b"one", b'0'),
        ("a/1.cls", b"7", b'0'),
        ("link", b"", b'2'),
        ("a/2.cls", b"8", 0),
        ("a/2.JPG", &[9; 600], b'0'),
        ("././@LongLink", &[long.as_bytes(), b"\0"].concat(), b'L'),
        ("cut", b"deep", b'0'),
        ("pax", long_pax.as_bytes(), b'x'),
        ("cut", b"3", b'0'),
    ]);
    scratch.file("set/0.tar", &archive);
    let found = scratch.open("set", FormatName::WebDataset, &OpenOptions::default()).unwrap();
    let sample =
        |name: &str, jpg: &[u8], cls: &[u8]| (Some(name.to_owned()), vec![jpg.to_vec(), cls.to_vec()]);
    let deep = format!("{}/deep", "d".repeat(150));
    assert_eq!(
        found,
        [sample("a/1", b"one", b"7"), sample("a/2", &[9; 600], b"8"), sample(&deep, b"deep", b"3")]
    );
    let chosen = OpenOptions { fields: Some(vec!["cls".to_owned()]), ..OpenOptions::default() };
    let found = scratch.open("set", FormatName::WebDataset, &chosen).unwrap();
    assert_eq!(found[1].1, [b"8".to_vec()]);

    // Every cut is noticed: nothing is lost silently.
    let path = scratch.file("cut/0.tar", &archive);
    for len in (0..archive.len() - 1024).step_by(256) {
        std::fs::write(&path, &archive[..len]).unwrap();
        let error = scratch.open("cut", FormatName::WebDataset, &OpenOptions::default()).unwrap_err();
        assert!(error.place().is_some(), "{error}");
    }
    let missing = tar(&[("1.jpg", b"a", b'0'), ("1.cls", b"b", b'0'), ("2.jpg", b"a", b'0')]);
    scratch.file("missing/0.tar", &missing);
    let error = scratch.open("missing", FormatName::WebDataset, &OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("sample `2` has no file `.cls`"), "{error}");
}

/// An MDS shard of these samples, whose columns are all of any length but the last, an i64.
fn mds(scratch: &Scratch, samples: &[(Vec<u8>, i64)]) -> Vec<u8> {
    let bodies: Vec<Vec<u8>> = samples
        .iter()
        .map(|(data, number)| {
            let len = u32::try_from(data.len()).unwrap();
            [&len.to_le_bytes()[..], data, &number.to_le_bytes()].concat()
        })
        .collect();
    let count = u32::try_from(bodies.len()).unwrap();
    let mut at = 4 * (count + 2) + 2;
    let mut shard = count.to_le_bytes().to_vec();
    shard.extend_from_slice(&at.to_le_bytes());
    for body in &bodies {
        at += u32::try_from(body.len()).unwrap();
        shard.extend_from_slice(&at.to_le_bytes());
    }
    shard.extend_from_slice(b"{}");
    bodies.iter().for_each(|body| shard.extend_from_slice(body));
    let index = serde_json::json!({"version": 2, "shards": [{
        "column_names": ["data", "number"], "column_encodings": ["bytes", "int"], "column_sizes": [null, 8],
        "compression": null, "format": "mds", "hashes": [], "samples": count, "size_limit": 1 << 26, "version": 2,
        "raw_data": {"basename": "shard.00000.mds", "bytes": shard.len(), "hashes": {}},
        "zip_data": null}]});
    scratch.file("mds/index.json", index.to_string().as_bytes());
    scratch.file("mds/shard.00000.mds", &shard);
    shard
}

#[test]
fn an_mds_shard_is_read_and_damage_is_named() {
    let scratch = Scratch::new();
    let samples = [(b"first".to_vec(), 5), (Vec::new(), -1), (vec![3; 1000], i64::MAX)];
    let shard = mds(&scratch, &samples);
    assert_eq!(FormatName::detect(&scratch.0.path().join("mds")).unwrap(), FormatName::Mds);
    let expected: Vec<Read> = samples
        .iter()
        .map(|(data, number)| (None, vec![data.clone(), number.to_le_bytes().to_vec()]))
        .collect();
    assert_eq!(scratch.open("mds", FormatName::Mds, &OpenOptions::default()).unwrap(), expected);
    let schema = open(&scratch.0.path().join("mds"), FormatName::Mds, &OpenOptions::default()).unwrap();
    assert_eq!(schema.schema().fields()[1], crate::Field::fixed("number", Dtype::I64, &[]));
    for at in 0..20 {
        let mut bad = shard.clone();
        bad[at] ^= 0x40;
        scratch.file("mds/shard.00000.mds", &bad);
        let error = scratch.open("mds", FormatName::Mds, &OpenOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
    }
    // Compressed as MosaicML writes it.
    std::fs::remove_file(scratch.0.path().join("mds/shard.00000.mds")).unwrap();
    let index = std::fs::read_to_string(scratch.0.path().join("mds/index.json")).unwrap();
    let zipped = index.replace("\"compression\":null", "\"compression\":\"zstd:3\"").replace(
        "\"zip_data\":null",
        "\"zip_data\":{\"basename\":\"shard.00000.mds.zstd\",\"bytes\":1,\"hashes\":{}}",
    );
    scratch.file("mds/index.json", zipped.as_bytes());
    scratch.file("mds/shard.00000.mds.zstd", &zstd::bulk::compress(&shard, 3).unwrap());
    assert_eq!(scratch.open("mds", FormatName::Mds, &OpenOptions::default()).unwrap(), expected);
    scratch.file("mds/index.json", index.replace("shard.00000.mds", "../shard.00000.mds").as_bytes());
    assert!(scratch.open("mds", FormatName::Mds, &OpenOptions::default()).is_err());
}

#[test]
fn rows_of_arrays_are_samples() {
    let scratch = Scratch::new();
    let data: Vec<u8> = (0..60).collect();
    let npy = [npy::header(Dtype::U16, &[5, 2, 3]), data.clone()].concat();
    scratch.file("a/x.npy", &npy);
    let found = scratch.open("a", FormatName::Npy, &OpenOptions::default()).unwrap();
    let rows: Vec<Vec<u8>> = data.chunks(12).map(<[u8]>::to_vec).collect();
    assert!(found.iter().map(|(_, values)| &values[0]).eq(&rows));
    for len in 0..npy.len() {
        scratch.file("a/x.npy", &npy[..len]);
        assert!(scratch.open("a", FormatName::Npy, &OpenOptions::default()).is_err(), "cut to {len}");
    }
    let labels: Vec<u8> = (0..5_i64).flat_map(i64::to_le_bytes).collect();
    let table = tierstream_storage::tensor::TensorTable::build(
        [
            ("label".to_owned(), tierstream_storage::tensor::Dtype::I64, vec![5]),
            ("x".to_owned(), tierstream_storage::tensor::Dtype::U16, vec![5, 2, 3]),
        ],
        std::collections::BTreeMap::new(),
    );
    let file = [table.unwrap().file_prefix(), labels.clone(), data.clone()].concat();
    scratch.file("b.safetensors", &file);
    let found = scratch.open("b.safetensors", FormatName::Safetensors, &OpenOptions::default()).unwrap();
    assert_eq!(found[3].1, [3_i64.to_le_bytes().to_vec(), rows[3].clone()]);
    let other = tierstream_storage::tensor::TensorTable::build(
        [
            ("a".to_owned(), tierstream_storage::tensor::Dtype::U8, vec![5]),
            ("b".to_owned(), tierstream_storage::tensor::Dtype::U8, vec![6]),
        ],
        std::collections::BTreeMap::new(),
    );
    scratch.file("c.safetensors", &[other.unwrap().file_prefix(), vec![0; 11]].concat());
    let error = scratch.open("c.safetensors", FormatName::Safetensors, &OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("no first dimension in common"), "{error}");
}

#[test]
fn headers_of_npy_are_numpys_own() {
    // What `numpy.save` writes for np.zeros((5, 2, 3), np.uint16) and np.zeros(7, np.float32), NumPy 1.23 and later.
    let wide = b"{'descr': '<u2', 'fortran_order': False, 'shape': (5, 2, 3), }";
    let header = npy::header(Dtype::U16, &[5, 2, 3]);
    assert!(header[10..].starts_with(wide) && header.len() == 128 && header.ends_with(b" \n"));
    let parsed = npy::parse_header("{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }").unwrap();
    assert_eq!(parsed, ("<f4".to_owned(), false, vec![7]));
    for bad in [
        "",
        "{}",
        "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'shape': (1,)}",
    ] {
        assert_eq!(npy::parse_header(bad), None, "{bad}");
    }
}

#[test]
fn token_files_are_cut_from_their_start() {
    let scratch = Scratch::new();
    let tokens: Vec<u8> = (0..25_u16).flat_map(u16::to_le_bytes).collect();
    scratch.file("t/a.bin", &tokens);
    let mut header = vec![0; 1024];
    header[..4].copy_from_slice(&20_240_520_u32.to_le_bytes());
    header[4] = 1;
    header[8] = 25;
    scratch.file("t/b.bin", &[header, tokens.clone()].concat());
    let options = OpenOptions { sample_tokens: Some(10), ..OpenOptions::default() };
    let found = scratch.open("t", FormatName::Tokens, &options).unwrap();
    let values: Vec<&Vec<u8>> = found.iter().map(|(_, values)| &values[0]).collect();
    assert_eq!(values, [&tokens[..20], &tokens[20..40], &tokens[..20], &tokens[20..40]]);
    let format = open(&scratch.0.path().join("t"), FormatName::Tokens, &options).unwrap();
    assert_eq!(format.left_over_bytes(), 20);
    assert!(scratch.open("t", FormatName::Tokens, &OpenOptions::default()).is_err(), "no length");
    scratch.file("t/a.bin", &tokens[1..]);
    assert!(
        scratch.open("t", FormatName::Tokens, &options).unwrap_err().to_string().contains("whole number")
    );
}

#[test]
fn lines_of_json_come_once_each_whatever_the_parts() {
    let scratch = Scratch::new();
    // Long enough for several parts.
    let mut random = Random::new(3);
    let texts: Vec<String> = (0..300_u32)
        .map(|n| format!("{n}").repeat(usize::try_from(random.below(100_000)).unwrap()))
        .collect();
    let lines: String = (0..)
        .zip(&texts)
        .map(|(n, text)| format!("{{\"n\":{n},\"text\":\"{text}\",\"ok\":true}}\r\n"))
        .collect();
    scratch.file("lines.jsonl", lines.as_bytes());
    let options =
        OpenOptions { fields: Some(vec!["text".to_owned(), "n".to_owned()]), ..OpenOptions::default() };
    let path = scratch.0.path().join("lines.jsonl");
    assert_eq!(FormatName::detect(&path).unwrap(), FormatName::Jsonl);
    let format = open(&path, FormatName::Jsonl, &options).unwrap();
    assert!(format.parts().len() > 1, "{} bytes", lines.len());
    let found = all(&*format).unwrap();
    assert_eq!(found.len(), texts.len());
    for ((number, text), (_, values)) in (0_i64..).zip(&texts).zip(found) {
        assert_eq!(values, [text.as_bytes().to_vec(), number.to_le_bytes().to_vec()]);
    }
    for (bad, expected) in [
        ("{\"n\":1}\n{\"n\":\"x\"}\n", "expected i64"),
        ("{\"n\":1}\n{\"m\":1}\n", "no field `n`"),
        ("{\"n\":1}\nn\n", "no JSON object"),
        ("[1]\n", "no JSON object"),
    ] {
        scratch.file("bad.jsonl", bad.as_bytes());
        let error = scratch.open("bad.jsonl", FormatName::Jsonl, &OpenOptions::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn folders_are_classes() {
    let scratch = Scratch::new();
    for (name, bytes) in [("in/dog/1.jpg", "a"), ("in/cat/x/2.jpg", "b"), ("in/cat/1.jpg", "c")] {
        scratch.file(name, bytes.as_bytes());
    }
    let found = scratch.open("in", FormatName::ClassFolders, &OpenOptions::default()).unwrap();
    let sample = |name: &str, data: &[u8], label: i64| {
        (Some(name.to_owned()), vec![data.to_vec(), label.to_le_bytes().to_vec()])
    };
    assert_eq!(
        found,
        [sample("cat/1.jpg", b"c", 0), sample("cat/x/2.jpg", b"b", 0), sample("dog/1.jpg", b"a", 1)]
    );
    scratch.file("in/loose.jpg", b"d");
    assert!(scratch.open("in", FormatName::ClassFolders, &OpenOptions::default()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// No bytes make a parser panic, hang, or take memory that the file does not hold.
    #[test]
    fn damaged_files_give_samples_or_an_error(
        kind in 0_usize..5, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>(), cuts: bool,
    ) {
        let scratch = Scratch::new();
        let npy = [npy::header(Dtype::F32, &[4, 3]), vec![1; 48]].concat();
        let zip = stored_zip(&[("x.npy", &npy), ("y.npy", &npy)]);
        let table = tierstream_storage::tensor::TensorTable::build(
            [("x".to_owned(), tierstream_storage::tensor::Dtype::U8, vec![5, 2])], std::collections::BTreeMap::new());
        let (format, name, mut bytes) = match kind {
            0 => (FormatName::WebDataset, "x.tar", tar(&[("1.a", b"one", b'0'), ("1.b", b"two", b'0'), ("2.a", b"3", b'0'), ("2.b", b"", b'0')])),
            1 => (FormatName::Npy, "x.npy", npy),
            2 => (FormatName::Npy, "x.npz", zip),
            3 => (FormatName::Safetensors, "x.safetensors", [table.unwrap().file_prefix(), vec![7; 10]].concat()),
            _ => (FormatName::Mds, "mds/shard.00000.mds", mds(&scratch, &[(vec![1; 9], 1), (vec![], 2)])),
        };
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        scratch.file(name, &bytes);
        let name = if kind == 4 { "mds" } else { name };
        if let Err(error) = scratch.open(name, format, &OpenOptions::default()) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

/// A zip archive of stored members, as `numpy.savez` writes it.
fn stored_zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let at = u32::try_from(archive.len()).unwrap();
        let (name_len, len) = (u16::try_from(name.len()).unwrap(), u32::try_from(bytes.len()).unwrap());
        let sizes = [[0; 4], len.to_le_bytes(), len.to_le_bytes()].concat();
        archive.extend_from_slice(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0");
        archive.extend_from_slice(&sizes);
        archive.extend_from_slice(&name_len.to_le_bytes());
        archive.extend_from_slice(&[0; 2]);
        archive.extend_from_slice(name.as_bytes());
        archive.extend_from_slice(bytes);
        directory.extend_from_slice(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0");
        directory.extend_from_slice(&sizes);
        directory.extend_from_slice(&name_len.to_le_bytes());
        directory.extend_from_slice(&[0; 12]);
        directory.extend_from_slice(&at.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (at, len) = (u32::try_from(archive.len()).unwrap(), u32::try_from(directory.len()).unwrap());
    let count = u16::try_from(members.len()).unwrap().to_le_bytes();
    archive.extend_from_slice(&directory);
    archive.extend_from_slice(
        &[&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &len.to_le_bytes(), &at.to_le_bytes(), &[0; 2]]
            .concat(),
    );
    archive
}

#[test]
fn members_of_an_npz_are_fields() {
    let scratch = Scratch::new();
    let x = [npy::header(Dtype::U8, &[3, 2]), vec![1, 2, 3, 4, 5, 6]].concat();
    let y = [npy::header(Dtype::I8, &[3]), vec![7, 8, 9]].concat();
    scratch.file("a.npz", &stored_zip(&[("x.npy", &x), ("y.npy", &y)]));
    let found = scratch.open("a.npz", FormatName::Npy, &OpenOptions::default()).unwrap();
    assert_eq!(found[1].1, [vec![3, 4], vec![8]]);
}

#[cfg(feature = "parquet")]
#[test]
fn rows_of_parquet_files_are_samples() {
    use std::sync::Arc;

    use ::parquet::data_type::{ByteArrayType, Int32Type, Int64Type};
    use ::parquet::file::writer::SerializedFileWriter;

    let message = "message m { required int64 n; required binary text (UTF8); \
                   required group ids (LIST) { repeated group list { required int32 element; } } }";
    let schema = Arc::new(::parquet::schema::parser::parse_message_type(message).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
    for group in 0..2_i64 {
        let mut row_group = writer.next_row_group().unwrap();
        let mut column = row_group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[group, 10 + group], None, None).unwrap();
        column.close().unwrap();
        let mut column = row_group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&["a".into(), "bc".into()], None, None).unwrap();
        column.close().unwrap();
        let mut column = row_group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&[1, 2, 3], Some(&[1, 1, 1]), Some(&[0, 1, 0])).unwrap();
        column.close().unwrap();
        row_group.close().unwrap();
    }
    writer.close().unwrap();
    let scratch = Scratch::new();
    let path = scratch.file("a.parquet", &bytes);
    assert_eq!(FormatName::detect(&path).unwrap(), FormatName::Parquet);
    let found = scratch.open("a.parquet", FormatName::Parquet, &OpenOptions::default()).unwrap();
    let ids = |ids: &[i32]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
    let row =
        |n: i64, text: &[u8], of: &[i32]| (None, vec![n.to_le_bytes().to_vec(), text.to_vec(), ids(of)]);
    let expected = [row(0, b"a", &[1, 2]), row(10, b"bc", &[3]), row(1, b"a", &[1, 2]), row(11, b"bc", &[3])];
    assert_eq!(found, expected);
    // Whatever is damaged gives samples or an error, and never takes the process with it.
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x55;
        scratch.file("a.parquet", &bad);
        let _any = scratch.open("a.parquet", FormatName::Parquet, &OpenOptions::default());
    }
    scratch.file("a.parquet", &bytes[..bytes.len() - 3]);
    assert!(scratch.open("a.parquet", FormatName::Parquet, &OpenOptions::default()).is_err());
}
