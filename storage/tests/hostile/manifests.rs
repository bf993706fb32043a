//! Manifests with every byte of their text changed, sealed again with the right key.

use tierstream_crypto::Cipher;
use tierstream_storage::format::{Manifest, SealParams};

use crate::forge::{Forge, Seal};

fn forge() -> (Forge, SealParams, String) {
    let forge = Forge::new(Seal { cipher: Cipher::Sm4Gcm, compressed: false });
    let (params, json) = forge.manifest_text("set");
    (forge, params, String::from_utf8(json).unwrap())
}

#[test]
fn every_byte_of_the_text_may_change() {
    let (forge, params, json) = forge();
    let (mut parsed, mut opened) = (0, 0);
    for at in 0..json.len() {
        let byte = json.as_bytes()[at];
        for value in [0, b'0', b'9', b'"', b'}', b'/', 0xff, byte ^ 1, byte ^ 4, byte.wrapping_add(1)] {
            let mut bad = json.clone().into_bytes();
            bad[at] = value;
            if value == byte || Manifest::parse(&bad).is_err() {
                continue;
            }
            parsed += 1;
            forge.install_manifest("set", params, &bad);
            opened += usize::from(forge.survives("set", &format!("byte {at} of the manifest is {value}")));
        }
    }
    // Names and schema may change; ids, MACs and lengths may not.
    assert!(opened > 0 && parsed > opened, "{opened} of {parsed} opened");
}

#[test]
fn every_number_may_be_extreme() {
    let (forge, params, json) = forge();
    let manifest: serde_json::Value = serde_json::from_str(&json).unwrap();
    let numbers = ["/version", "/block_bytes", "/record_align", "/payload_bytes", "/records"]
        .map(str::to_owned)
        .into_iter()
        .chain(["file_bytes", "payload_bytes", "records"].map(|name| format!("/shards/0/{name}")));
    for pointer in numbers {
        let number = manifest.pointer(&pointer).unwrap().as_u64().unwrap();
        let near = [number + 1, number.wrapping_sub(1), number / 2, number * 2];
        for value in near.into_iter().chain([0, 1, 4096, 1 << 24, 1 << 32, 1 << 36, 1 << 63, u64::MAX]) {
            let mut bad = manifest.clone();
            *bad.pointer_mut(&pointer).unwrap() = value.into();
            // With the sums made right again the rest is looked at as well.
            for sums in [false, true] {
                if sums {
                    for name in ["payload_bytes", "records"] {
                        let of = |shard: usize| bad["shards"][shard][name].as_u64().unwrap_or(0);
                        bad[name] = of(0).wrapping_add(of(1)).into();
                    }
                }
                forge.install_manifest("set", params, &serde_json::to_vec(&bad).unwrap());
                let opened = forge.survives("set", &format!("{pointer} is {value}"));
                assert!(
                    !opened || value == number || sums && pointer.matches('/').count() == 1,
                    "{pointer} {value}"
                );
            }
        }
    }
}

#[test]
fn shards_may_be_missing_repeated_or_anywhere() {
    let (forge, params, json) = forge();
    for (from, to) in [
        ("shard-00000.tss", "shard-00001.tss"),
        ("shard-00000.tss", "manifest.tsm"),
        ("shard-00000.tss", "/etc/passwd"),
        ("shard-00000.tss", ".."),
        ("shard-00000.tss", "nowhere.tss"),
        ("\"shards\":[", "\"shards\":[],\"more\":["),
        ("{\"version\"", "[{\"version\""),
        ("\"fields\":[]", "\"fields\":[[[[[[[[[[[[[[[[[[[[[[[["),
    ] {
        assert!(json.contains(from), "{from}");
        forge.install_manifest("set", params, json.replacen(from, to, 1).as_bytes());
        assert!(!forge.survives("set", &format!("{to} for {from}")), "{to}");
    }
    let deep = format!("{{\"schema\":{}", "[".repeat(200_000));
    forge.install_manifest("set", params, deep.as_bytes());
    assert!(!forge.survives("set", "a deep schema"));
    forge.install_manifest("set", params, b"");
    assert!(!forge.survives("set", "an empty manifest"));
    forge.install_manifest("set", SealParams { block_bytes: 4096, ..params }, json.as_bytes());
    assert!(!forge.survives("set", "blocks of another length than the manifest's own"));
}
