//! What must be remembered across restarts: where blocks lie on L2, which generation of a data set was seen.
//!
//! [`CatalogStore`] is small on purpose: get, an atomic and durable batch, an ordered scan. redb is the embedded
//! default; RocksDB stands behind the feature `rocksdb` for daemons with millions of objects
//! (docs/design/0002-catalog.md). What is recorded here about clean data can be thrown away: it costs a cold start.

mod redb;
#[cfg(feature = "rocksdb")]
mod rocks;
#[cfg(any(test, feature = "testing"))]
mod simulated;

pub use self::redb::RedbCatalog;
#[cfg(feature = "rocksdb")]
pub use rocks::RocksCatalog;

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::device::fs;
use crate::error::{Error, ErrorKind, Result};

/// The tables of a catalog. Keys and values are bytes; their layout belongs to the module that owns the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Blocks on L2, owned by [`crate::tier`].
    Blocks,
    /// Segments on L2, owned by [`crate::tier`].
    Segments,
    /// Data sets and the highest generation seen of each, owned by [`crate::store`].
    DataSets,
    /// Objects: version, placement, heat and whether L2 has the only copy; owned by [`crate::store`].
    Objects,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 4] = [Self::Blocks, Self::Segments, Self::DataSets, Self::Objects];

    fn name(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Segments => "segments",
            Self::DataSets => "data-sets",
            Self::Objects => "objects",
        }
    }
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Sets `key` to `value`.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.changes.push((table, key.to_vec(), Some(value.to_vec())));
    }

    /// Removes `key`; that it is not there is no error.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.changes.push((table, key.to_vec(), None));
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Called for each entry of a scan, in the order of keys.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered map from bytes to bytes per table, durable and atomic by batch.
pub trait CatalogStore: Send + Sync + fmt::Debug {
    /// The value of `key`.
    ///
    /// # Errors
    /// `Corrupt` or `Device` when the catalog cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Applies all changes of `batch`, in its order, and returns when they are durable.
    ///
    /// # Errors
    /// `Full` or `Device`; then none of them happened, now or after a crash.
    fn apply(&self, batch: &Batch) -> Result<()>;

    /// Visits the entries with `from <= key < to` in ascending order of keys, until `visit` breaks.
    ///
    /// # Errors
    /// `Corrupt` or `Device` when the catalog cannot be read.
    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()>;

    /// Its name in reports: "redb", "rocksdb".
    fn name(&self) -> &'static str;
}

/// Which catalog to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatalogKind {
    /// redb: one file, pure Rust.
    #[default]
    Redb,
    /// RocksDB: for millions of objects; needs the feature `rocksdb`.
    RocksDb,
}

impl FromStr for CatalogKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "redb" => Ok(Self::Redb),
            "rocksdb" => Ok(Self::RocksDb),
            _ => Err(Error::new(
                ErrorKind::Misuse,
                "parse",
                format!("unknown catalog `{text}`, expected redb or rocksdb"),
            )),
        }
    }
}

const REDB: &str = "catalog.redb";
const ROCKSDB: &str = "catalog.rocksdb";

/// Opens the catalog of `kind` in `directory`, making it if there is none.
///
/// # Errors
/// `Retry` when another process has it open, `Unsupported` when this build has no such catalog, `Corrupt`, `Denied`,
/// `Full` or `Device` as the file system says.
pub fn open(kind: CatalogKind, directory: &Path) -> Result<Arc<dyn CatalogStore>> {
    match kind {
        CatalogKind::Redb => Ok(Arc::new(RedbCatalog::open(&directory.join(REDB))?)),
        #[cfg(feature = "rocksdb")]
        CatalogKind::RocksDb => Ok(Arc::new(RocksCatalog::open(&directory.join(ROCKSDB))?)),
        #[cfg(not(feature = "rocksdb"))]
        CatalogKind::RocksDb => {
            Err(Error::new(ErrorKind::Unsupported, "open", "this build has no RocksDB catalog")
                .hint("build with --features rocksdb, or use --catalog redb"))
        }
    }
}

/// As [`open`], but a catalog that is damaged is put aside and begun anew: what it says of clean data is found again on
/// L3, and what is dirty says itself what it is. Returns why, if it was.
///
/// # Errors
/// As [`open`], but not `Corrupt`.
pub fn open_or_rebuild(
    kind: CatalogKind,
    directory: &Path,
) -> Result<(Arc<dyn CatalogStore>, Option<String>)> {
    let error = match open(kind, directory) {
        Err(error) if error.kind() == ErrorKind::Corrupt => error,
        opened => return Ok((opened?, None)),
    };
    let name = match kind {
        CatalogKind::Redb => REDB,
        CatalogKind::RocksDb => ROCKSDB,
    };
    let (path, aside) = (directory.join(name), directory.join(format!("{name}.damaged")));
    if fs::is_directory(&aside)? == Some(true) {
        fs::remove_directory_all(&aside)?;
    }
    fs::rename(&path, &aside)?;
    tracing::warn!(%error, aside = %aside.display(), "the catalog is damaged: it was put aside and is made anew");
    Ok((open(kind, directory)?, Some(error.to_string())))
}

/// The error for a catalog that another process holds.
fn busy(path: &Path) -> Error {
    Error::new(ErrorKind::Retry, "open", "another process has this catalog open")
        .at(path)
        .hint("use another --l2 directory, or share one through `tierstream serve`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::conformance;

    #[test]
    fn redb_conforms() {
        let dir = tempfile::tempdir().unwrap();
        conformance::catalog_store(dir.path(), &|path| open(CatalogKind::Redb, path));
    }

    #[cfg(feature = "rocksdb")]
    #[test]
    fn rocksdb_conforms() {
        let dir = tempfile::tempdir().unwrap();
        conformance::catalog_store(dir.path(), &|path| open(CatalogKind::RocksDb, path));
    }

    #[cfg(not(feature = "rocksdb"))]
    #[test]
    fn a_catalog_that_was_not_built_says_how_to_get_it() {
        let error = open(CatalogKind::RocksDb, Path::new("/nowhere")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.hint_text().unwrap().contains("--features rocksdb"));
    }

    #[test]
    fn a_damaged_catalog_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("catalog.redb"), [7; 10_000]).unwrap();
        let error = open(CatalogKind::Redb, dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.hint_text().unwrap().contains("move it away"), "{error}");
        let (catalog, why) = open_or_rebuild(CatalogKind::Redb, dir.path()).unwrap();
        assert!(why.unwrap().contains("damaged") && dir.path().join("catalog.redb.damaged").exists());
        assert_eq!(catalog.get(Table::Objects, b"x").unwrap(), None);
        drop(catalog);
        assert_eq!(open_or_rebuild(CatalogKind::Redb, dir.path()).unwrap().1, None);
    }
}
