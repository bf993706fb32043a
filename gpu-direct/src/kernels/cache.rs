//! Cubins on disk, one per source, GPU and driver.
//!
//! A file that is not whole is not used: its last 8 bytes are the hash of the rest. That guards against accidents. Who
//! can write to the directory decides what runs on the GPU, as with any program's cache: it is made for its owner alone.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// One cubin's place.
#[derive(Debug)]
pub(super) struct Cache {
    path: PathBuf,
}

impl Cache {
    /// The place for the GPU `name` of `capability` with a driver that speaks CUDA `driver`.
    pub(super) fn of(directory: &Path, name: &str, capability: u32, driver: i32) -> Self {
        let gpu: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let file = format!("{gpu}-sm{capability}-driver{driver}-{}.cubin", super::source_hash());
        Self { path: directory.join(file) }
    }

    /// The cubin, if there is a whole one.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = std::fs::read(&self.path).ok()?;
        let hash = bytes.split_off(bytes.len().checked_sub(8)?);
        (hash == xxh3_64(&bytes).to_le_bytes()).then_some(bytes)
    }

    /// Keeps `image`. A cache that cannot be written costs a second at the next start.
    pub(super) fn write(&self, image: &[u8]) {
        if let Err(error) = self.try_write(image) {
            tracing::info!(%error, path = %self.path.display(), "kernels are not cached");
        }
    }

    fn try_write(&self, image: &[u8]) -> std::io::Result<()> {
        if let Some(directory) = self.path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        // Processes that start at the same time write the same bytes to files of their own; the last name counts.
        let unfinished = self.path.with_extension(format!("{}.unfinished", std::process::id()));
        let hash = xxh3_64(image).to_le_bytes();
        std::fs::write(&unfinished, [image, &hash].concat())?;
        std::fs::rename(&unfinished, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cubin_comes_back_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::of(&directory.path().join("deep/er"), "NVIDIA H100 80GB HBM3", 90, 12080);
        assert!(cache.read().is_none());
        cache.write(b"image");
        assert_eq!(cache.read().unwrap(), b"image");
        assert_ne!(cache.path, Cache::of(directory.path(), "NVIDIA H100 80GB HBM3", 90, 13000).path);
        let mut bytes = std::fs::read(&cache.path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&cache.path, &bytes).unwrap();
        assert!(cache.read().is_none(), "a damaged cubin");
        std::fs::write(&cache.path, [1, 2, 3]).unwrap();
        assert!(cache.read().is_none(), "one cut short");
    }
}
