//! The catalog for millions of objects: RocksDB, a log-structured merge tree (C++, feature `rocksdb`).

use std::fmt;
use std::path::{Path, PathBuf};

use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch, WriteOptions};

use super::{Batch, CatalogStore, Table, Visit, busy};
use crate::error::{Error, ErrorKind, Result};

/// A catalog in one RocksDB directory. Tables are key prefixes of one byte, so that a batch is one write.
pub struct RocksCatalog {
    db: DB,
    path: PathBuf,
}

impl fmt::Debug for RocksCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RocksCatalog({})", self.path.display())
    }
}

fn prefix(table: Table) -> u8 {
    match table {
        Table::Blocks => b'b',
        Table::Segments => b's',
        Table::DataSets => b'd',
        Table::Objects => b'o',
    }
}

fn prefixed(table: Table, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 1);
    full.push(prefix(table));
    full.extend_from_slice(key);
    full
}

impl RocksCatalog {
    /// Opens or makes the catalog at `path`.
    ///
    /// # Errors
    /// As [`super::open`].
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_keep_log_file_num(2);
        // Without compression libraries in the build, and with keys and values of a few dozen bytes.
        options.set_compression_type(rocksdb::DBCompressionType::None);
        let db = DB::open(&options, path).map_err(|error| error_of("open", path, &error))?;
        Ok(Self { db, path: path.to_owned() })
    }

    fn error(&self, op: &'static str, error: &rocksdb::Error) -> Error {
        error_of(op, &self.path, error)
    }
}

fn error_of(op: &'static str, path: &Path, error: &rocksdb::Error) -> Error {
    use rocksdb::ErrorKind as Rocks;
    let kind = match error.kind() {
        // RocksDB says both "lock hold by current process" and "While lock file: ... Resource temporarily unavailable".
        Rocks::IOError if error.to_string().contains("lock") => return busy(path),
        Rocks::Corruption => ErrorKind::Corrupt,
        Rocks::InvalidArgument => ErrorKind::Misuse,
        Rocks::NotSupported => ErrorKind::Unsupported,
        Rocks::Busy | Rocks::TryAgain | Rocks::TimedOut => ErrorKind::Retry,
        Rocks::IOError if error.to_string().contains("No space left") => ErrorKind::Full,
        Rocks::IOError if error.to_string().contains("Permission denied") => ErrorKind::Denied,
        _ => ErrorKind::Device,
    };
    Error::new(kind, op, error.to_string())
        .at(path)
        .hint("if the catalog is damaged, move it away: it is made anew from what lies on L2 and L3")
}

impl CatalogStore for RocksCatalog {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.db.get(prefixed(table, key)).map_err(|error| self.error("read", &error))
    }

    fn apply(&self, batch: &Batch) -> Result<()> {
        let mut write = WriteBatch::default();
        for (table, key, value) in &batch.changes {
            match value {
                Some(value) => write.put(prefixed(*table, key), value),
                None => write.delete(prefixed(*table, key)),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(write, &options).map_err(|error| self.error("write", &error))
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        let start = prefixed(table, from);
        for row in self.db.iterator(IteratorMode::From(&start, Direction::Forward)) {
            let (key, value) = row.map_err(|error| self.error("read", &error))?;
            let Some(key) = key.strip_prefix(&[prefix(table)]) else { break };
            if to.is_some_and(|to| key >= to) || visit(key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        "rocksdb"
    }
}
