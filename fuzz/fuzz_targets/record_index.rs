#![no_main]
//! Hostile sections of the loader: record ends, record length, names, schema. An error, or places within the payload.

use std::sync::Arc;

use libfuzzer_sys::{arbitrary, fuzz_target};
use tierstream_loader::{Schema, ShardIndex, name_of};
use tierstream_storage::buf::HostMemory;
use tierstream_storage::format::SectionType;
use tierstream_storage::metrics::Snapshot;
use tierstream_storage::{DataSetInfo, RangeRead, RangeSource, Result, Section, ShardInfo};

#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    records: u64,
    payload_bytes: u64,
    align: u8,
    /// Whether there are as many records as the section has room for.
    fits: bool,
    length: Option<&'a [u8]>,
    ends: &'a [u8],
    names: &'a [u8],
    schema: &'a [u8],
    sample: u64,
}

/// A source of these sections and nothing else.
#[derive(Debug)]
struct Sections<'a>(&'a Input<'a>);

impl RangeSource for Sections<'_> {
    fn open_data_set(&self, _: &str) -> Result<Arc<DataSetInfo>> {
        unreachable!("nobody opens it")
    }

    fn section(&self, _: &DataSetInfo, _: usize, section: SectionType) -> Result<Option<Section>> {
        let bytes = match section.0 {
            19 => self.0.length,
            20 => Some(self.0.ends),
            _ => None,
        };
        bytes
            .map(|bytes| {
                let mut memory = HostMemory::anonymous(bytes.len())?;
                memory.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
                Ok(Section::of_memory(memory, bytes.len()))
            })
            .transpose()
    }

    fn read(&self, _: &DataSetInfo, _: &mut [RangeRead<'_>]) -> Result<()> {
        unreachable!("nobody reads it")
    }

    fn metrics(&self) -> Snapshot {
        Snapshot::default()
    }
}

fuzz_target!(|input: Input<'_>| {
    let records = if input.fits { input.ends.len() as u64 / 5 } else { input.records };
    let payload_bytes = input.payload_bytes % ((64 << 30) + 1);
    let shard = ShardInfo { file: "shard".to_owned(), file_bytes: 0, payload_bytes, records };
    let info = DataSetInfo {
        handle: 0,
        id: String::new(),
        generation: 1,
        name: String::new(),
        schema: serde_json::Value::Null,
        source: serde_json::Value::Null,
        cipher: String::new(),
        cipher_kernel: String::new(),
        compressed: false,
        block_bytes: 4096,
        record_align: 1 << (input.align % 13),
        payload_bytes,
        file_bytes: 0,
        records,
        l2_warm_bytes: 0,
        shards: vec![shard],
    };
    if let Ok(index) = ShardIndex::read(&Sections(&input), &info, 0) {
        for sample in [0, 1, records / 2, records.saturating_sub(1), records, input.sample] {
            if let Some(range) = index.range(sample) {
                assert!(sample < records && range.start <= range.end && range.end <= payload_bytes);
            }
        }
    }
    for sample in [0, 1, input.sample, records.saturating_sub(1)] {
        let _name = name_of(input.names, records, sample);
        let _name = name_of(input.names, input.records, sample);
    }
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(input.schema)
        && let Ok(schema) = Schema::from_json(&json)
    {
        let _fits = (schema.fits(input.sample), schema.fits(0), schema.sample_bytes());
        let again = Schema::from_json(&schema.to_json()).expect("a text form that we wrote");
        assert_eq!(again, schema);
    }
});
