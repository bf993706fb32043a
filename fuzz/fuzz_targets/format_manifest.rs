#![no_main]
//! Hostile manifests: refused, or one whose text form comes back and whose shards lie in its directory.

use libfuzzer_sys::fuzz_target;
use tierstream_storage::format::Manifest;

fuzz_target!(|data: &[u8]| {
    let Ok(manifest) = Manifest::parse(data) else { return };
    let sum: u64 = manifest.shards.iter().map(|shard| shard.file_bytes).sum();
    assert!(sum >= manifest.shards.iter().map(|shard| shard.file_bytes).max().unwrap_or(0));
    assert!(manifest.shards.iter().all(|shard| !shard.file.contains('/') && !shard.file.starts_with('.')));
    let text = manifest.encode().expect("no longer than what was read");
    let again = Manifest::parse(&text).expect("a text form that we wrote");
    // Numbers of the owner's schema may round; the rest may not change.
    assert_eq!(
        (&again.shards, again.records, &again.name),
        (&manifest.shards, manifest.records, &manifest.name)
    );
});
