//! What is packed: a list of files with their sizes, in a fixed order.

use std::fs::Metadata;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use tierstream_storage::{Error, ErrorKind, Result};

/// Directories nested deeper than this are a loop or a mistake.
const DEPTH_MAX: usize = 128;

/// One file to pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Path below the root, with `/` between its parts; the sample's name.
    pub name: String,
    /// Its size when it was listed.
    pub bytes: u64,
    modified_nanos: u128,
}

/// Files below one directory, sorted by name.
#[derive(Clone, Debug)]
pub struct Input {
    root: PathBuf,
    files: Vec<InputFile>,
    left_out: u64,
}

impl Input {
    /// Lists all files below `root`. Links to files are followed; links to directories, sockets and other special files
    /// are left out and counted.
    ///
    /// # Errors
    /// `Missing` or `Denied` as the file system says; `Misuse` for names that are not UTF-8 and directories without
    /// files.
    pub fn scan(root: &Path) -> Result<Self> {
        let mut input = Self { root: root.to_owned(), files: Vec::new(), left_out: 0 };
        let metadata = std::fs::metadata(root).map_err(|error| {
            Error::io("list", root, error).hint("give the directory that holds the files to pack")
        })?;
        if !metadata.is_dir() {
            return Err(Error::new(ErrorKind::Misuse, "list", "not a directory")
                .at(root)
                .hint("give the directory that holds the files"));
        }
        input.descend(root, "", 0)?;
        if input.files.is_empty() {
            return Err(Error::new(ErrorKind::Misuse, "list", "there are no files in it")
                .at(root)
                .hint("give a directory that holds the files to pack"));
        }
        input.files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(input)
    }

    /// One file alone.
    ///
    /// # Errors
    /// As the file system says; `Misuse` for a name that is not UTF-8.
    pub fn of_file(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|error| Error::io("stat", path, error))?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "list", "the name is not UTF-8").at(path).hint("rename it")
        })?;
        let file =
            InputFile { name: name.to_owned(), bytes: metadata.len(), modified_nanos: modified(&metadata) };
        let root = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { root, files: vec![file], left_out: 0 })
    }

    /// The same input, without the files that `keep` refuses.
    #[must_use]
    pub fn filter(mut self, keep: impl Fn(&InputFile) -> bool) -> Self {
        self.files.retain(keep);
        self
    }

    /// Files from several places below `root`, in the order given.
    ///
    /// # Errors
    /// As [`Input::scan`].
    pub fn of_directories(root: &Path, directories: &[String]) -> Result<Self> {
        let mut all = Self { root: root.to_owned(), files: Vec::new(), left_out: 0 };
        for directory in directories {
            let before = all.files.len();
            all.descend(&root.join(directory), directory, 0)?;
            all.files[before..].sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(all)
    }

    fn descend(&mut self, directory: &Path, prefix: &str, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            let why = format!("more than {DEPTH_MAX} directories within each other");
            return Err(Error::new(ErrorKind::Misuse, "list", why).at(directory));
        }
        let entries = std::fs::read_dir(directory).map_err(|error| Error::io("list", directory, error))?;
        for entry in entries {
            let path = entry.map_err(|error| Error::io("list", directory, error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
                Error::new(ErrorKind::Misuse, "list", "the name is not UTF-8").at(&path).hint("rename it")
            })?;
            let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            let link = std::fs::symlink_metadata(&path).map_err(|error| Error::io("stat", &path, error))?;
            let metadata = std::fs::metadata(&path)
                .map_err(|error| Error::io("stat", &path, error).hint("is it a link that points nowhere?"))?;
            if metadata.is_file() {
                self.files.push(InputFile {
                    name,
                    bytes: metadata.len(),
                    modified_nanos: modified(&metadata),
                });
            } else if metadata.is_dir() && !link.is_symlink() {
                self.descend(&path, &name, depth + 1)?;
            } else {
                tracing::warn!(path = %path.display(), "left out: a link to a directory, or no ordinary file");
                self.left_out += 1;
            }
        }
        Ok(())
    }

    /// The directory that names are relative to.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The files, in order.
    #[must_use]
    pub fn files(&self) -> &[InputFile] {
        &self.files
    }

    /// Links and special files that were left out.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Keeps files from the start until they have `bytes` bytes.
    #[must_use]
    pub fn first_bytes(mut self, bytes: u64) -> Self {
        let mut sum = 0;
        let fits = self.files.iter().take_while(|file| {
            sum += file.bytes;
            sum <= bytes
        });
        let count = fits.count();
        self.files.truncate(count.max(1));
        self
    }

    /// Differs when a name, a size or a time of change does. Not for security: xxh3 of the list.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for file in &self.files {
            hash.update(file.name.as_bytes());
            hash.update(&[0]);
            hash.update(&file.bytes.to_le_bytes());
            hash.update(&file.modified_nanos.to_le_bytes());
        }
        format!("{:032x}", hash.digest128())
    }

    /// Opens file `number` at `offset`, to read the `bytes` that were listed.
    pub(super) fn open(&self, number: usize, offset: u64) -> Result<InputReader> {
        InputReader::open(&self.root.join(&self.files[number].name), self.files[number].bytes, offset)
    }
}

fn modified(metadata: &Metadata) -> u128 {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    modified.map_or(0, |since| since.as_nanos())
}

/// Reads one input file and notices when it is not as long as it was.
pub(super) struct InputReader {
    file: std::fs::File,
    path: PathBuf,
    left: u64,
}

impl InputReader {
    #[expect(clippy::disallowed_methods, reason = "the user's plain files are no data files of the store")]
    fn open(path: &Path, bytes: u64, offset: u64) -> Result<Self> {
        use std::io::{Seek, SeekFrom};
        let failed = |error| Error::io("read", path, error);
        let mut file = std::fs::File::open(path)
            .map_err(failed)
            .map_err(|error| error.hint("make it readable for this user, or leave it out of the input"))?;
        let found = file.metadata().map_err(failed)?.len();
        if found != bytes {
            return Err(changed(path, bytes, found));
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok(Self { file, path: path.to_owned(), left: bytes - offset })
    }

    /// Fills as much of `buf` as the file has left; zero at its end.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let want = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        if want == 0 {
            return Ok(0);
        }
        let read = loop {
            match self.file.read(&mut buf[..want]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| Error::io("read", &self.path, error))?,
            }
        };
        if read == 0 {
            return Err(changed(&self.path, self.left, 0));
        }
        self.left -= u64::try_from(read).expect("at most the buffer");
        Ok(read)
    }
}

fn changed(path: &Path, expected: u64, found: u64) -> Error {
    let why = format!("the file changed while it was packed: {found} bytes, expected {expected}");
    Error::new(ErrorKind::Retry, "read", why).at(path).hint("pack again when nothing writes to the input")
}
