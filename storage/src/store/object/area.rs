//! The object files of one tier: a home in which a name means that the file is whole and durable.
//!
//! A file is `ID.tso`, where `ID` is the file's id in hexadecimal: names of objects are inside the files, sealed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::{Directory, fs};
use crate::error::{ErrorKind, Result};
use crate::format::FileId;
use crate::home::{DirectoryHome, ShardHome, Upload};
use crate::io::{IoService, Lane};

const SUBDIRECTORY: &str = "objects";
const SUFFIX: &str = ".tso";
/// Says that there are objects here which the catalog has not been told of.
const BEHIND: &str = "unrecorded";

/// The object files of L2 or L3.
#[derive(Debug)]
pub(super) struct Area {
    pub(super) home: Arc<dyn ShardHome>,
    // Files that were to be removed and could not be.
    stayed: Mutex<BTreeSet<FileId>>,
    // What a failed put left was removed, but not durably yet.
    discarded: AtomicBool,
}

/// What [`Area::scan`] found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Files with a final name.
    pub(super) files: BTreeSet<FileId>,
    /// Unfinished files, which were removed.
    pub(super) removed: u64,
    /// Whether files here may be current that the catalog does not know: see [`Area::mark_behind`].
    pub(super) behind: bool,
}

impl Area {
    /// The area in a directory below `parent`, which must exist.
    pub(super) fn below(parent: &Path, lane: Lane) -> Result<Self> {
        // Names the parent's own error first: a device that is not mounted must not be made up for.
        Directory::open(parent)?;
        let path = parent.join(SUBDIRECTORY);
        if fs::is_directory(&path)?.is_none() {
            fs::create_directory(&path)?;
        }
        // Every time: whoever made it may have died before it was durable.
        fs::sync_directory(parent)?;
        Ok(Self::new(Arc::new(DirectoryHome::new(Directory::open(&path)?, lane))))
    }

    /// The area that `home` is.
    pub(super) fn new(home: Arc<dyn ShardHome>) -> Self {
        Self { home, stayed: Mutex::default(), discarded: AtomicBool::new(false) }
    }

    pub(super) fn final_name(id: FileId) -> String {
        format!("{id}{SUFFIX}")
    }

    /// Begins the file of `id`.
    pub(super) fn begin(&self, id: FileId) -> Result<Arc<dyn Upload>> {
        self.home.begin(&Self::final_name(id))
    }

    /// Makes the names durable, and what is gone.
    pub(super) fn sync(&self) -> Result<()> {
        let discarded = self.discarded.swap(false, Ordering::SeqCst);
        self.home.settle().inspect_err(|_| {
            self.discarded.fetch_or(discarded, Ordering::SeqCst);
        })
    }

    /// Whether a file of a put that was refused may be found by the next opening.
    pub(super) fn may_find_refused(&self) -> bool {
        self.discarded.load(Ordering::SeqCst) || !self.stayed().is_empty()
    }

    /// Removes a file of any name; whatever hinders that is told, and the next opening tries again.
    pub(super) fn remove(&self, id: FileId) {
        if self.remove_name(&Self::final_name(id)).is_err() {
            self.stayed().insert(id);
        }
    }

    /// Removes what could not be removed before. As long as some of it stays, no deletion may be forgotten: the next
    /// opening would find an older version and no word that it is gone.
    ///
    /// # Errors
    /// When something still stays.
    pub(super) fn remove_what_stayed(&self) -> Result<()> {
        let mut stays = Ok(());
        let ids = std::mem::take(&mut *self.stayed());
        for id in ids {
            if let Err(error) = self.remove_name(&Self::final_name(id)) {
                self.stayed().insert(id);
                stays = Err(error);
            }
        }
        stays
    }

    fn stayed(&self) -> MutexGuard<'_, BTreeSet<FileId>> {
        self.stayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what a failed write left behind, whichever name it has got to.
    pub(super) fn discard(&self, id: FileId) {
        self.remove(id);
        self.discarded.store(true, Ordering::SeqCst);
    }

    fn remove_name(&self, name: &str) -> Result<()> {
        self.home.remove(name).inspect_err(|error| {
            tracing::warn!(name, %error, "an object file that is not needed stays");
        })
    }

    /// Leaves a mark, durably, that the catalog has not been told of what is acknowledged from now on.
    pub(super) fn mark_behind(&self, io: &IoService) -> Result<()> {
        match self.home.begin(BEHIND)?.publish(io) {
            // It is there already, but perhaps not durable.
            Err(error) if error.kind() == ErrorKind::Misuse => self.sync(),
            marked => marked,
        }
    }

    /// The catalog knows everything again. A mark that stays makes the next opening more careful than it need be.
    pub(super) fn clear_behind(&self) {
        drop(self.remove_name(BEHIND));
    }

    /// Lists the final names and removes what has none. What is listed and what is gone is durable then: a name that was
    /// seen must not vanish, nor one that was removed come back, once others were removed for it.
    pub(super) fn scan(&self) -> Result<Scan> {
        let is_ours = |name: &str| is_object_file(name) || name == BEHIND;
        let mut scan = Scan { removed: self.home.clean_up(&is_ours)?, ..Scan::default() };
        for name in self.home.list()? {
            if let Some(id) = name.strip_suffix(SUFFIX).and_then(parse_id) {
                scan.files.insert(id);
            }
            scan.behind |= name == BEHIND;
        }
        self.sync()?;
        Ok(scan)
    }
}

/// Where object files of the tier at `parent` lie.
pub(in crate::store) fn directory_in(parent: &Path) -> PathBuf {
    parent.join(SUBDIRECTORY)
}

/// Whether a file of this name holds an object.
pub(in crate::store) fn is_object_file(name: &str) -> bool {
    name.strip_suffix(SUFFIX).and_then(parse_id).is_some()
}

fn parse_id(text: &str) -> Option<FileId> {
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 32 || !text.bytes().all(hexadecimal) {
        return None;
    }
    let id = u128::from_str_radix(text, 16).ok()?;
    Some(FileId(id.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::ServiceConfig;

    #[test]
    fn names_are_ids_and_what_is_unfinished_goes() {
        let dir = tempfile::tempdir().unwrap();
        let area = Area::below(dir.path(), Lane::Fast).unwrap();
        let io = IoService::start(&ServiceConfig::default(), None).unwrap();
        let id = FileId([0xa7; 16]);
        assert_eq!(parse_id(&id.to_string()), Some(id));
        assert_eq!(parse_id(&id.to_string().to_uppercase()), None);
        let path = |name: &str| area.home.location().join(name);
        let partial = format!("{id}.tso.partial");
        for name in [&partial, "notes.partial", "README"] {
            std::fs::write(path(name), b"x").unwrap();
        }
        let scan = area.scan().unwrap();
        assert_eq!((scan.files.len(), scan.removed), (0, 1));
        assert!(!path(&partial).exists() && path("notes.partial").exists());
        area.begin(id).unwrap().publish(&io).unwrap();
        assert_eq!(area.scan().unwrap().files.into_iter().collect::<Vec<_>>(), [id]);
        assert!(!area.may_find_refused());
        area.remove(id);
        area.discard(id);
        assert!(area.may_find_refused());
        assert!(area.scan().unwrap().files.is_empty() && !area.may_find_refused());
        for _ in 0..2 {
            area.mark_behind(&io).unwrap();
            assert!(area.scan().unwrap().behind);
        }
        area.clear_behind();
        assert!(!area.scan().unwrap().behind);
    }
}
