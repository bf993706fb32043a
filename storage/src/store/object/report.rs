//! What callers are told: of an object, a put, the drain, and what an opening repaired.

use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::catalog::{CatalogKind, CatalogStore, Table};
use crate::error::Result;

/// Lines of detail that a report keeps; more are only counted.
const DETAILS_KEPT: usize = 100;

/// One object, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// Its version; a later put of any object has a higher one.
    pub version: u64,
    /// Length of what was put, in bytes.
    pub payload_bytes: u64,
    /// Length of its sealed file, in bytes.
    pub file_bytes: u64,
    /// Whether it is a set of tensors.
    pub tensors: bool,
    /// Whether L2 has a copy.
    pub on_l2: bool,
    /// Whether L3 has a copy; while it has none, the object is dirty.
    pub on_l3: bool,
    /// How often it was opened.
    pub reads: u32,
}

impl ObjectInfo {
    pub(super) fn new(name: &str, record: &Record) -> Self {
        Self {
            name: name.to_owned(),
            version: record.version,
            payload_bytes: record.payload_bytes,
            file_bytes: record.file_bytes,
            tensors: record.tensors,
            on_l2: record.on_l2,
            on_l3: record.on_l3,
            reads: record.reads,
        }
    }
}

/// What an acknowledged put did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PutReport {
    /// The object's version.
    pub version: u64,
    /// Length of its sealed file.
    pub file_bytes: u64,
    /// Whether it is on L3 already; else it is on L2 and will be drained.
    pub on_l3: bool,
}

/// What one step of the drain did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Which object.
    pub name: String,
    /// Which version.
    pub version: u64,
    /// Bytes that were written to L3; none for a deletion.
    pub bytes: u64,
}

/// The objects of a store at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStatus {
    /// Objects there are.
    pub objects: u64,
    /// Objects and deletions that L2 alone has.
    pub dirty_objects: u64,
    /// Their bytes.
    pub dirty_bytes: u64,
    /// Those among them that cannot be drained, because their copy on L2 is damaged.
    pub stuck_objects: u64,
    /// Bytes of objects on L2, dirty or not.
    pub l2_bytes: u64,
    /// What they may be.
    pub l2_limit_bytes: u64,
    /// Why objects are written past L2, if they are.
    pub l2_refused: Option<String>,
    /// Why the last step of the drain failed, if it did.
    pub drain_error: Option<String>,
}

/// What opening found amiss and put right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecoveryReport {
    /// Why the catalog was made anew, if it was.
    pub catalog_rebuilt: Option<String>,
    /// Objects in files that the catalog did not know, and that are current now.
    pub adopted: u64,
    /// Files of interrupted writes and of replaced versions, removed.
    pub leftovers_removed: u64,
    /// Objects whose whereabouts the catalog had wrong.
    pub corrected: u64,
    /// Files that cannot be opened, and were left as they are.
    pub unreadable: u64,
    /// Objects whose only copies are gone, or have given way to an older one.
    pub lost: u64,
    /// Objects that are dirty and will be drained.
    pub dirty: u64,
    /// What was found, in words; at most a hundred lines.
    pub details: Vec<String>,
}

impl RecoveryReport {
    pub(super) fn detail(&mut self, line: String) {
        if self.details.len() < DETAILS_KEPT {
            self.details.push(line);
        }
    }

    /// Whether everything was as the catalog said.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self { dirty: self.dirty, ..Self::default() }
    }
}

/// The objects that a catalog knows, without a key or a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ObjectSummary {
    /// Objects there are.
    pub objects: u64,
    /// Objects and deletions that L2 alone has.
    pub dirty_objects: u64,
    /// Their bytes.
    pub dirty_bytes: u64,
    /// Bytes of objects on L2, dirty or not.
    pub l2_bytes: u64,
}

/// What `catalog` says of objects.
///
/// # Errors
/// As the catalog.
pub fn object_summary(catalog: &dyn CatalogStore) -> Result<ObjectSummary> {
    let mut summary = ObjectSummary::default();
    catalog.scan(Table::Objects, &[], None, &mut |_, value| {
        if let Some(record) = Record::decode(value) {
            summary.objects += u64::from(!record.tombstone);
            summary.dirty_objects += u64::from(record.is_dirty());
            summary.dirty_bytes += if record.is_dirty() { record.file_bytes } else { 0 };
            summary.l2_bytes += if record.on_l2 { record.file_bytes } else { 0 };
        }
        ControlFlow::Continue(())
    })?;
    Ok(summary)
}

/// What the catalog in the L2 directory `l2` says of objects. None when the directory has none.
///
/// # Errors
/// `Retry` while a store has it open, else as the catalog says.
pub fn objects_in(kind: CatalogKind, l2: &Path) -> Result<Option<ObjectSummary>> {
    if crate::device::fs::is_directory(&super::area::directory_in(l2))?.is_none() {
        return Ok(None);
    }
    object_summary(&*crate::catalog::open(kind, l2)?).map(Some)
}
