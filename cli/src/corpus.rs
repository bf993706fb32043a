//! The demo's corpus: the source text of the crates this program was built from, which Cargo left on this machine.
//!
//! Always there after a build, real text, and pinned: Cargo.lock names each crate and version.

use std::path::{Path, PathBuf};

use tierstream_loader::pack::Input;
use tierstream_storage::{Error, ErrorKind, Result};

const LOCK: &str = include_str!("../../Cargo.lock");

/// The Rust source files of the crates in Cargo.lock, up to `bytes` bytes of them.
///
/// # Errors
/// `Missing` when Cargo's registry is not on this machine.
pub(crate) fn of_cargo(bytes: u64) -> Result<Input> {
    let registry = registry_sources()?;
    let mut crates: Vec<String> =
        packages(LOCK).into_iter().filter(|name| registry.join(name).is_dir()).collect();
    crates.sort();
    if crates.is_empty() {
        return Err(missing(&registry));
    }
    let input = Input::of_directories(&registry, &crates)?;
    let is_source = |name: &str| Path::new(name).extension().is_some_and(|extension| extension == "rs");
    Ok(input.filter(|file| file.bytes > 0 && is_source(&file.name)).first_bytes(bytes))
}

/// `name-version` of every package of a Cargo.lock that came from a registry.
fn packages(lock: &str) -> Vec<String> {
    lock.split("[[package]]")
        .filter_map(|package| {
            let field = |name: &str| {
                let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""))?;
                line.strip_suffix('"')
            };
            field("source")?;
            Some(format!("{}-{}", field("name")?, field("version")?))
        })
        .collect()
}

/// Where Cargo unpacks the sources of a registry's crates.
#[expect(clippy::disallowed_methods, reason = "the command line reads the environment, as cargo does")]
fn registry_sources() -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cargo"))
    });
    let sources = home.unwrap_or_default().join("registry/src");
    let registries = std::fs::read_dir(&sources).map_err(|_| missing(&sources))?;
    // One directory per registry; the crates lie in the one that Cargo.lock names, which is the only one in most homes.
    let mut registries: Vec<PathBuf> =
        registries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    registries.sort();
    let names = packages(LOCK);
    let crates_in = |registry: &PathBuf| names.iter().filter(|name| registry.join(name).is_dir()).count();
    registries.into_iter().max_by_key(crates_in).ok_or_else(|| missing(&sources))
}

fn missing(place: &Path) -> Error {
    Error::new(
        ErrorKind::Missing,
        "find the demo's corpus",
        "Cargo's sources of the dependencies are not on this machine",
    )
    .at(place)
    .hint("run `make demo` where tierstream was built, or give a directory of text with --input DIR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_names_registry_packages_alone() {
        let names = packages(LOCK);
        assert!(names.len() > 100);
        assert!(names.iter().any(|name| name.starts_with("io-uring-0.7")));
        assert!(!names.iter().any(|name| name.starts_with("tierstream")));
    }
}
