//! What the golden files hold and how they are packed: the same for the program that makes them and the test that reads
//! them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tierstream_loader::Dtype;
use tierstream_loader::pack::{DictionarySize, Input, Layout, PackConfig, PackProgress, pack};
use tierstream_storage::Result;
use tierstream_storage::io::ServiceConfig;
use tierstream_storage::keys::{Cipher, KeyProvider, RootKey};
use tierstream_storage::testing::Random;

/// Where they are kept, below the root of the tree.
pub(crate) const DIRECTORY: &str = "tests/data/v1";
/// The key of all of them. It is published with them: nothing else is to be sealed with it.
pub(crate) const KEY: &str = "golden.key";

/// One golden data set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Golden {
    pub(crate) cipher: Cipher,
    pub(crate) compressed: bool,
    pub(crate) dictionary: bool,
    pub(crate) fixed: bool,
}

/// Every cipher with records of one length, uncompressed, and of many, compressed with and without a dictionary.
pub(crate) fn all() -> impl Iterator<Item = Golden> {
    [Cipher::Sm4Gcm, Cipher::Aes256Gcm, Cipher::AuthOnly].into_iter().flat_map(|cipher| {
        [(false, false, true), (true, false, false), (true, true, false)]
            .map(|(compressed, dictionary, fixed)| Golden { cipher, compressed, dictionary, fixed })
    })
}

impl Golden {
    pub(crate) fn name(&self) -> String {
        let records = if self.fixed { "fixed" } else { "variable" };
        let codec = match (self.compressed, self.dictionary) {
            (false, _) => "raw",
            (true, false) => "zstd",
            (true, true) => "dictionary",
        };
        format!("{}-{codec}-{records}", self.cipher)
    }

    /// The files that were packed, by name.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        if self.fixed {
            return vec![("text".to_owned(), words(1, 10_000))];
        }
        let lens = [700, 0, 12_000, 1, 9000, 8128, 12_345];
        let file = |(number, len)| (format!("{}/file-{number}", number % 2), words(u64::from(number), len));
        let mut files: Vec<_> = (0_u32..).zip(lens).map(file).collect();
        files.sort();
        files
    }

    /// Packs it to `output`, from files made in `scratch`.
    pub(crate) fn pack(&self, scratch: &Path, output: PathBuf, keys: &Arc<dyn KeyProvider>) -> Result<()> {
        let root = scratch.join(self.name());
        for (name, bytes) in self.files() {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(&path, bytes).expect("a file");
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the file");
            // The manifest tells when its input was changed.
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_800_000_000)).expect("a time");
        }
        let config = PackConfig {
            output,
            overwrite: false,
            resume: false,
            cipher: self.cipher,
            compressed: self.compressed,
            dictionary: self.dictionary.then_some(DictionarySize::Bytes(1024)),
            block_bytes: if self.fixed { 4096 } else { 8192 },
            shard_bytes: 1 << 20,
            layout: match self.fixed {
                true => Layout::Cut { sample_bytes: SAMPLE_BYTES, dtype: Dtype::U16 },
                false => Layout::PerFile,
            },
            threads: 1,
            io: ServiceConfig::default(),
        };
        pack(&Input::scan(&root)?, &config, keys, &PackProgress::default()).map(drop)
    }
}

/// Length of every sample of the data sets with records of one length.
pub(crate) const SAMPLE_BYTES: u64 = 300;

/// Words that repeat, so that they compress, and enough of them for a dictionary.
fn words(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut text = Vec::new();
    while text.len() < len {
        let word = random.below(300) * 0x9e37_79b1;
        text.extend_from_slice(format!("{word:x} ").as_bytes());
    }
    text.truncate(len);
    text
}

/// The key of the golden files in `directory`.
pub(crate) fn key(directory: &Path) -> Arc<dyn KeyProvider> {
    let text = std::fs::read_to_string(directory.join(KEY)).expect("the golden key");
    Arc::new(RootKey::parse(&text).expect("a key"))
}
