//! Downward edges only: crates by their manifests and sources, modules of storage by their sources.

use std::path::{Path, PathBuf};

use tierstream_tests::source_root;

/// What each crate may use of ours (docs/ARCHITECTURE.md, layers). Dev-dependencies may add `testing` features of the
/// same crates, nothing else.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("crypto", &[]),
    ("storage", &["crypto"]),
    ("prefetch", &["storage"]),
    ("loader", &["prefetch", "storage"]),
    ("gpu-direct", &["loader", "storage", "crypto"]),
    ("train", &["gpu-direct", "loader", "prefetch", "storage"]),
    ("daemon", &["prefetch", "storage", "crypto"]),
    ("bench", &["train", "daemon", "gpu-direct", "loader", "prefetch", "storage", "crypto"]),
    ("python", &["daemon", "gpu-direct", "loader", "prefetch", "storage"]),
    ("cli", &["bench", "train", "daemon", "gpu-direct", "loader", "prefetch", "storage"]),
    ("tests", &["bench", "train", "daemon", "gpu-direct", "loader", "prefetch", "storage", "crypto"]),
];

/// The modules of storage, lowest first. A module uses only those above it in this list.
const STORAGE: [&str; 16] = [
    "error", "units", "clock", "host", "metrics", "buf", "device", "io", "home", "format", "codec", "keys",
    "tensor", "catalog", "tier", "store",
];

/// Modules where unsafe code may stand.
const UNSAFE: [&str; 17] = [
    "storage/src/buf/arena.rs",
    "storage/src/buf/shared.rs",
    "storage/src/io/mmap.rs",
    "storage/src/io/uring/",
    "storage/src/tier/frames.rs",
    "storage/tests/hostile/allocations.rs",
    "gpu-direct/src/cuda/",
    "gpu-direct/src/dlpack.rs",
    "daemon/src/local/shm.rs",
    "python/src/dlpack.rs",
    "bench/src/os.rs",
    "bench/src/io/engine/libaio.rs",
    "bench/src/io/engine/uring.rs",
    "crypto/src/sm4/",
    "crypto/src/vector.rs",
    "crypto/src/aead/",
    "crypto/tests/constant_time/poison.rs",
];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "no sources in {}", directory.display());
    found
}

/// The source without comments and without its test module: tests may look around.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Words of the form `prefix` + identifier.
fn names_after(code: &str, prefix: &str) -> Vec<String> {
    code.split(prefix)
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn crates_use_only_what_lies_below_them() {
    for (krate, allowed) in ALLOWED {
        let root = source_root().join(krate);
        let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
        let own = krate.replace('-', "_");
        let mut used = names_after(&manifest.replace("name = \"tierstream-", ""), "tierstream-");
        used.retain(|name| name != &own && !own.starts_with(&format!("{name}_")));
        for source in sources(&root) {
            used.extend(names_after(&code(&source), "tierstream_"));
        }
        for name in used.iter().map(|name| name.replace('_', "-")) {
            let known =
                ALLOWED.iter().any(|(other, _)| *other == name || other.split('-').next() == Some(&name));
            let fine = allowed.iter().any(|other| *other == name || other.split('-').next() == Some(&name));
            assert!(!known || fine || name == krate, "{krate} uses {name}, which is not below it");
        }
    }
}

#[test]
fn every_crate_is_listed() {
    let manifest = std::fs::read_to_string(source_root().join("Cargo.toml")).unwrap();
    let members: Vec<&str> =
        manifest.lines().filter_map(|line| line.trim().strip_prefix('"')?.split('"').next()).collect();
    let listed: Vec<&str> = ALLOWED.iter().map(|(krate, _)| *krate).collect();
    assert_eq!(members, listed, "Cargo.toml and this test name the same crates in the same order");
}

#[test]
fn modules_of_storage_use_only_what_lies_below_them() {
    let root = source_root().join("storage/src");
    for source in sources(&root) {
        let relative = source.strip_prefix(&root).unwrap();
        let module =
            relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "testing"].contains(&module) || relative.ends_with("tests.rs") {
            continue;
        }
        let rank = |name: &str| STORAGE.iter().position(|known| *known == name);
        let own = rank(module).unwrap_or_else(|| panic!("storage::{module} has no place in the list"));
        for used in names_after(&code(&source), "crate::") {
            // Types that the crate root re-exports belong to modules that are named elsewhere in the same file.
            if let Some(used_rank) = rank(&used) {
                assert!(used_rank <= own, "storage::{module} uses storage::{used}: {}", source.display());
            }
        }
    }
}

/// Whether `File::open` is called, and not only a type of ours whose name ends so.
fn opens_files(code: &str) -> bool {
    code.match_indices("File::open(")
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_ascii_alphanumeric()))
}

#[test]
fn invariants_of_the_text_hold() {
    for (krate, _) in ALLOWED {
        for source in sources(&source_root().join(krate)) {
            let relative =
                source.strip_prefix(source_root()).unwrap_or(&source).to_string_lossy().replace("../", "");
            let relative = relative.split("tests/../").last().unwrap_or(&relative).to_owned();
            if relative.starts_with("tests/")
                || relative.ends_with("tests.rs")
                || relative.contains("/testing")
                || relative.contains("/tests/")
            {
                continue;
            }
            let code = code(&source);
            if code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn") {
                assert!(UNSAFE.iter().any(|place| relative.starts_with(place)), "unsafe code in {relative}");
            }
            // Only storage::device opens data files; the exceptions say why beside the call.
            if opens_files(&code) && !relative.starts_with("storage/src/device/") {
                assert!(code.contains("clippy::disallowed_methods"), "{relative} opens files");
            }
            // Only storage::host waits and starts threads, only storage::device touches names: a simulated host stands
            // under both. The engines of the real machine and key files are below or beside it.
            let apart =
                ["storage/src/host/", "storage/src/device/", "storage/src/io/psync", "storage/src/io/uring"];
            if relative.starts_with("storage/src/")
                && !relative.starts_with("storage/src/keys/")
                && !apart.iter().any(|place| relative.starts_with(place))
            {
                let elsewhere = [
                    ("crossbeam::channel", "storage::host::channel"),
                    ("Condvar", "storage::host::Monitor"),
                    ("thread::Builder", "storage::host::spawn"),
                    ("thread::spawn", "storage::host::spawn"),
                    ("park_timeout", "storage::host::pause"),
                    ("tierstream_crypto::random_bytes", "storage::host::random_bytes"),
                    ("std::fs::", "storage::device::fs"),
                ];
                for (call, instead) in elsewhere {
                    assert!(!code.contains(call), "{relative} uses {call}: use {instead}");
                }
            }
            // Only gpu_direct::cuda calls the driver.
            if code.contains("sys::cu") {
                assert!(relative.starts_with("gpu-direct/src/cuda/"), "{relative}");
            }
            // Ciphers are used in codec alone; key types may be named elsewhere.
            if relative.starts_with("storage/src/") && !relative.starts_with("storage/src/codec/") {
                for call in ["seal_in_place", "open_in_place", "open_into("] {
                    assert!(!code.contains(call), "{relative} calls {call}");
                }
            }
        }
    }
}
