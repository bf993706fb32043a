//! A directory with input, a key and a packed data set, made by the command itself.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tierstream_storage::testing::Random;

use crate::command::{Run, tierstream};

/// A line that must never lie on disk as it is.
const SECRET: &str = "the patient in bed twelve is called Rosalind";

/// A temporary directory with `input/`, `key`, `l2/` and, once packed, `set/`.
#[derive(Debug)]
pub struct Workplace {
    directory: tempfile::TempDir,
}

impl Default for Workplace {
    fn default() -> Self {
        Self::new()
    }
}

impl Workplace {
    /// A workplace with a few hundred kilobytes of text as input and a fresh key.
    ///
    /// # Panics
    /// When the file system refuses.
    #[must_use]
    pub fn new() -> Self {
        let workplace = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        // Other users must be able to reach what the tests give them.
        std::fs::set_permissions(workplace.directory.path(), std::fs::Permissions::from_mode(0o755))
            .expect("chmod");
        let mut random = Random::new(1);
        let words = ["shard", "block", "sample", "epoch", "tier", SECRET, "\n"];
        for number in 0..40 {
            let path = workplace.path("input").join(format!("{}/text-{number:02}.txt", number % 3));
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            let text: String = (0..1000).flat_map(|_| [words[pick(&mut random, words.len())], " "]).collect();
            std::fs::write(path, text).expect("an input file");
        }
        std::fs::create_dir(workplace.path("l2")).expect("a directory");
        tierstream(["keys", "new", &workplace.arg("key")]).ok();
        workplace
    }

    /// A workplace whose input is packed into `set/`, in small blocks and several shards.
    #[must_use]
    pub fn packed() -> Self {
        let workplace = Self::new();
        workplace.pack("set", &["--sample-bytes", "65"]).ok();
        workplace
    }

    /// Packs the input to `output` with `flags`.
    pub fn pack(&self, output: &str, flags: &[&str]) -> Run {
        let (input, output, key) = (self.arg("input"), self.arg(output), self.arg("key"));
        let fixed = ["pack", &input, &output, "--key", &key, "--block-size", "4K", "--shard-mib", "1"];
        tierstream(fixed.iter().chain(flags))
    }

    /// The path of `name` in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same as an argument.
    ///
    /// # Panics
    /// When temporary paths are not UTF-8.
    #[must_use]
    pub fn arg(&self, name: &str) -> String {
        self.path(name).to_str().expect("a UTF-8 path").to_owned()
    }

    /// All files below `name`.
    ///
    /// # Panics
    /// When the directory cannot be read.
    #[must_use]
    pub fn files(&self, name: &str) -> Vec<PathBuf> {
        let mut todo = vec![self.path(name)];
        let mut files = Vec::new();
        while let Some(path) = todo.pop() {
            if path.is_dir() {
                todo.extend(
                    std::fs::read_dir(&path)
                        .expect("a directory")
                        .map(|entry| entry.expect("an entry").path()),
                );
            } else {
                files.push(path);
            }
        }
        files.sort();
        files
    }

    /// Names directly in the workplace, sorted.
    ///
    /// # Panics
    /// When the directory cannot be read.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).expect("the workplace");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Whether any file below `name` holds the secret line as it is.
    ///
    /// # Panics
    /// When a file cannot be read.
    #[must_use]
    pub fn shows_secret(&self, name: &str) -> bool {
        self.files(name).iter().any(|path| {
            let bytes = std::fs::read(path).expect("a file");
            bytes.windows(24).any(|window| window == &SECRET.as_bytes()[..24])
        })
    }
}

fn pick(random: &mut Random, len: usize) -> usize {
    usize::try_from(random.below(u64::try_from(len).expect("a small number"))).expect("a small number")
}

/// Flips one bit of the byte at `offset` of the file `path`.
///
/// # Panics
/// When the file cannot be changed.
pub fn flip_byte(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("a file to change");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte there");
    byte[0] ^= 0x40;
    file.write_all_at(&byte, offset).expect("a write");
}
