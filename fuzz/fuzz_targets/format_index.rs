#![no_main]
//! Hostile index directories: refused, or sections apart from each other and within the index.

use libfuzzer_sys::fuzz_target;
use tierstream_storage::format::{INDEX_HEAD_BYTES, Index, SectionType};

fuzz_target!(|data: (u64, &[u8])| {
    let (more, bytes) = data;
    // A reader has the first bytes of an index that may be longer.
    let head = &bytes[..bytes.len().min(usize::try_from(INDEX_HEAD_BYTES).expect("a few kilobytes"))];
    let index_bytes =
        if bytes.len() > head.len() { bytes.len() as u64 + more % (1 << 37) } else { bytes.len() as u64 };
    let Ok(index) = Index::parse(head, index_bytes) else { return };
    let mut ranges: Vec<_> = (0..64).filter_map(|section| index.section(SectionType(section))).collect();
    ranges.sort_by_key(|range| (range.start, range.end));
    for range in &ranges {
        assert!(range.start >= 8 && range.start <= range.end && range.end <= index_bytes);
    }
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "sections overlap");
});
