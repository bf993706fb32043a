//! Writing a file of the user's: whole under its name, or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use tierstream_storage::device::sync_directory;
use tierstream_storage::{Error, Result};

/// A file that gets its name when it is complete; dropped before, it leaves nothing.
pub(super) struct NewFile {
    file: File,
    path: PathBuf,
    partial: PathBuf,
    published: bool,
}

impl NewFile {
    /// Begins a file that will be at `path`, in the place of what is there.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".partial-{}", std::process::id()));
        let partial = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&partial);
        let file = file.map_err(|error| Error::io("create", path, error))?;
        Ok(Self { file, path: path.to_owned(), partial, published: false })
    }

    /// Appends `bytes`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", &self.path, error))
    }

    /// Makes the file durable and gives it its name.
    pub(super) fn publish(mut self) -> Result<()> {
        let renamed = self.file.sync_all().and_then(|()| std::fs::rename(&self.partial, &self.path));
        renamed.map_err(|error| Error::io("write", &self.path, error))?;
        self.published = true;
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
            _ => sync_directory(Path::new(".")),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.published {
            // Nothing more can be done about a file that cannot be removed.
            let _left = std::fs::remove_file(&self.partial);
        }
    }
}
