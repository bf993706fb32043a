//! The names in one simulated directory: as programs see them, and as a crash leaves them.
//!
//! Each change of names happens whole or not at all. One that was not followed by a sync of its directory may be lost
//! in a crash; the changes of one directory are then lost from the last one backwards. That a file was synced says
//! nothing of its name, as POSIX has it and no better.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Number of a file or directory.
pub(super) type Inode = usize;

/// A name set or, with `None`, removed.
pub(super) type NameChange = (OsString, Option<Inode>);

#[derive(Debug, Default)]
pub(super) struct Names {
    live: BTreeMap<OsString, Inode>,
    durable: BTreeMap<OsString, Inode>,
    log: Vec<Change>,
}

/// Names set or, with `None`, removed in one step.
#[derive(Clone, Debug)]
struct Change {
    number: u64,
    names: Vec<NameChange>,
}

impl Names {
    pub(super) fn get(&self, name: &std::ffi::OsStr) -> Option<Inode> {
        self.live.get(name).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&OsString, Inode)> {
        self.live.iter().map(|(name, inode)| (name, *inode))
    }

    /// Changes names in one step, the disk's `number`-th.
    pub(super) fn change(&mut self, number: u64, names: Vec<NameChange>) {
        apply(&mut self.live, &names);
        self.log.push(Change { number, names });
    }

    pub(super) fn sync(&mut self) {
        self.log.clear();
        self.durable.clone_from(&self.live);
    }

    /// Numbers of the changes that a crash may lose.
    pub(super) fn pending(&self) -> impl Iterator<Item = u64> {
        self.log.iter().map(|change| change.number)
    }

    /// What a crash leaves: the changes up to number `last`.
    pub(super) fn crash(&mut self, last: u64) {
        for change in self.log.drain(..).filter(|change| change.number <= last) {
            apply(&mut self.durable, &change.names);
        }
        self.live.clone_from(&self.durable);
    }
}

fn apply(names: &mut BTreeMap<OsString, Inode>, changes: &[NameChange]) {
    for (name, inode) in changes {
        match inode {
            Some(inode) => drop(names.insert(name.clone(), *inode)),
            None => drop(names.remove(name)),
        }
    }
}
