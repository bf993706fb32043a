//! The embedded catalog: one file, copy-on-write B-trees, pure Rust.

use std::ops::Bound;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition, TableError};

use super::{Batch, CatalogStore, Table, Visit, busy};
use crate::device::fs;
use crate::error::{Error, ErrorKind, Result};

/// Memory for pages; the catalog is read in full at start and written in batches afterwards.
const CACHE_BYTES: usize = 16 << 20;

/// A catalog in one redb file.
#[derive(Debug)]
pub struct RedbCatalog {
    database: Database,
    path: PathBuf,
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

impl RedbCatalog {
    /// Opens or makes the catalog at `path`.
    ///
    /// # Errors
    /// As [`super::open`].
    pub fn open(path: &Path) -> Result<Self> {
        let database = if fs::exists(path)? { Self::database(path)? } else { Self::create(path)? };
        Ok(Self { database, path: path.to_owned() })
    }

    /// Makes a catalog under another name first: redb sizes the file before it writes what makes it a database, and one
    /// that was cut off in between does not open.
    fn create(path: &Path) -> Result<Database> {
        let unfinished = path.with_extension("redb.new");
        let database = Self::database(&unfinished).or_else(|error| {
            // Another process that makes it at this moment holds its lock; what nobody holds was left by one that died.
            if error.kind() != ErrorKind::Corrupt {
                return Err(error);
            }
            fs::remove_file(&unfinished)?;
            Self::database(&unfinished)
        })?;
        fs::rename(&unfinished, path)?;
        if let Some(directory) = path.parent() {
            fs::sync_directory(directory)?;
        }
        Ok(database)
    }

    fn database(path: &Path) -> Result<Database> {
        // redb takes some damage for a fault of its own and panics.
        let opened = catch_unwind(|| Self::try_database(path));
        let opened =
            opened.map_err(|_| damaged("open", path, &redb::Error::Corrupted("panicked".to_owned())))?;
        opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => busy(path),
            DatabaseError::Storage(error) => of_storage("open", path, error),
            error => damaged("open", path, &error),
        })
    }

    fn try_database(path: &Path) -> std::result::Result<Database, DatabaseError> {
        #[cfg(any(test, feature = "testing"))]
        if let Some(host) = crate::host::current() {
            let backend = super::simulated::SimulatedBackend::open(&*host, path)
                .map_err(|error| DatabaseError::Storage(StorageError::Io(error)))?;
            return Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        }
        Database::builder().set_cache_size(CACHE_BYTES).create(path)
    }

    fn error(&self, op: &'static str, error: impl Into<redb::Error>) -> Error {
        match error.into() {
            redb::Error::Io(error) => Error::io(op, &self.path, error),
            error => damaged(op, &self.path, &error),
        }
    }
}

fn of_storage(op: &'static str, path: &Path, error: StorageError) -> Error {
    match error {
        StorageError::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            damaged(op, path, &error)
        }
        StorageError::Io(error) => Error::io(op, path, error),
        error => damaged(op, path, &error),
    }
}

fn damaged(op: &'static str, path: &Path, error: &dyn std::error::Error) -> Error {
    Error::new(ErrorKind::Corrupt, op, format!("the catalog is damaged: {error}"))
        .at(path)
        .hint("move it away: it is made anew from what lies on L2 and L3")
}

impl CatalogStore for RedbCatalog {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let read = self.database.begin_read().map_err(|error| self.error("read", error))?;
        match read.open_table(definition(table)) {
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(self.error("read", error)),
            Ok(rows) => {
                let value = rows.get(key).map_err(|error| self.error("read", error))?;
                Ok(value.map(|value| value.value().to_vec()))
            }
        }
    }

    fn apply(&self, batch: &Batch) -> Result<()> {
        let write = self.database.begin_write().map_err(|error| self.error("write", error))?;
        for table in Table::ALL {
            let mut changes = batch.changes.iter().filter(|(of, _, _)| *of == table).peekable();
            if changes.peek().is_none() {
                continue;
            }
            let mut rows = write.open_table(definition(table)).map_err(|error| self.error("write", error))?;
            for (_, key, value) in changes {
                let changed = match value {
                    Some(value) => rows.insert(&key[..], &value[..]).map(drop),
                    None => rows.remove(&key[..]).map(drop),
                };
                changed.map_err(|error| self.error("write", error))?;
            }
        }
        write.commit().map_err(|error| self.error("commit", error))
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let read = self.database.begin_read().map_err(|error| self.error("read", error))?;
        let rows = match read.open_table(definition(table)) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            rows => rows.map_err(|error| self.error("read", error))?,
        };
        let range = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        for row in rows.range::<&[u8]>(range).map_err(|error| self.error("read", error))? {
            let (key, value) = row.map_err(|error| self.error("read", error))?;
            if visit(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        "redb"
    }
}
