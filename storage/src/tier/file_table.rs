//! Short numbers for files, so that tables of blocks stay small.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::format::FileId;

/// A file's number while the store is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileNo(pub u32);

/// Gives each file id one number and back.
#[derive(Debug, Default)]
pub struct FileTable {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    numbers: HashMap<FileId, FileNo>,
    ids: Vec<FileId>,
}

impl FileTable {
    /// The number of `id`, the same for every call.
    pub fn intern(&self, id: FileId) -> FileNo {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = inner.numbers.get(&id) {
            return *number;
        }
        let number = FileNo(u32::try_from(inner.ids.len()).expect("fewer than 2^32 files"));
        inner.ids.push(id);
        inner.numbers.insert(id, number);
        number
    }

    /// The id behind a number this table gave.
    ///
    /// # Panics
    /// For a number of another table.
    #[must_use]
    pub fn id(&self, number: FileNo) -> FileId {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.ids[crate::units::to_usize(u64::from(number.0))]
    }
}
