//! What of L2 is dirty: the ledger of objects that L2 alone has until they are drained to L3.
//!
//! Guarantees that what L2 holds for objects stays under its limit, that the oldest dirty object is drained first, and
//! that only what L3 has as well is ever given up: [`Ledger::evict`] refuses the rest. Pure bookkeeping: knows versions
//! and bytes, no files, no threads; its owner moves the bytes and waits.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorKind, Result};
use crate::host::Mistake;
use crate::units::human_bytes;

/// What to do with an object that wants to be written to L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is room, and it is reserved now.
    Admitted,
    /// There is room once this version, which L3 has as well, was evicted.
    Evict(u64),
    /// There will be room when dirty objects were drained.
    Wait,
    /// It will never fit: write it to L3.
    TooLarge,
}

/// Dirty and clean objects on L2, by version. Versions are unique and ascend in the order of the writes.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    limit: u64,
    reserved: u64,
    dirty: BTreeMap<u64, u64>,
    dirty_bytes: u64,
    clean: BTreeMap<u64, u64>,
    clean_bytes: u64,
    // Dirty objects that cannot be drained: they stay, and no longer stand in the way of those behind them.
    set_aside: BTreeSet<u64>,
}

impl Ledger {
    /// A ledger for at most `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Asks for room for `bytes`; with [`Admission::Admitted`] the caller owes [`Ledger::release`].
    pub fn reserve(&mut self, bytes: u64) -> Admission {
        if bytes > self.limit {
            return Admission::TooLarge;
        }
        let owed = self.dirty_bytes + self.reserved + bytes;
        if owed > self.limit {
            if let Some((oldest, _)) = self.dirty.first_key_value().filter(|_| Mistake::EvictsDirty.is_made())
            {
                return Admission::Evict(*oldest);
            }
            return Admission::Wait;
        }
        if owed + self.clean_bytes > self.limit
            && let Some((oldest, _)) = self.clean.first_key_value()
        {
            return Admission::Evict(*oldest);
        }
        self.reserved += bytes;
        Admission::Admitted
    }

    /// Gives back a reservation: the object was written, and is entered with its true length, or was not.
    pub fn release(&mut self, bytes: u64) {
        assert!(bytes <= self.reserved, "{bytes} bytes of {} reserved", self.reserved);
        self.reserved -= bytes;
    }

    /// An object is on L2 and nowhere else.
    pub fn enter_dirty(&mut self, version: u64, bytes: u64) {
        let known = self.dirty.insert(version, bytes).is_some() || self.clean.contains_key(&version);
        assert!(!known, "version {version} is entered once");
        self.dirty_bytes += bytes;
    }

    /// An object is on L2 and on L3.
    pub fn enter_clean(&mut self, version: u64, bytes: u64) {
        let known = self.clean.insert(version, bytes).is_some() || self.dirty.contains_key(&version);
        assert!(!known, "version {version} is entered once");
        self.clean_bytes += bytes;
    }

    /// A dirty object is durable on L3: from now on it may be evicted.
    pub fn drained(&mut self, version: u64) {
        self.set_aside.remove(&version);
        if let Some(bytes) = self.dirty.remove(&version) {
            self.dirty_bytes -= bytes;
            self.clean.insert(version, bytes);
            self.clean_bytes += bytes;
        }
    }

    /// An object left L2 because a newer version of it is durable, or it was deleted.
    pub fn superseded(&mut self, version: u64) {
        self.set_aside.remove(&version);
        if let Some(bytes) = self.dirty.remove(&version) {
            self.dirty_bytes -= bytes;
        }
        if let Some(bytes) = self.clean.remove(&version) {
            self.clean_bytes -= bytes;
        }
    }

    /// Gives up L2's copy of an object that L3 has as well.
    ///
    /// # Errors
    /// `Misuse` while it is dirty: L2 has the only copy.
    pub fn evict(&mut self, version: u64) -> Result<()> {
        if Mistake::EvictsDirty.is_made() {
            self.superseded(version);
        }
        if self.dirty.contains_key(&version) {
            let why = format!("version {version} is dirty: L2 has the only copy of it");
            return Err(Error::new(ErrorKind::Misuse, "evict", why));
        }
        if let Some(bytes) = self.clean.remove(&version) {
            self.clean_bytes -= bytes;
        }
        Ok(())
    }

    /// The dirty object to drain next: the oldest that was not set aside.
    #[must_use]
    pub fn oldest_dirty(&self) -> Option<u64> {
        self.dirty.keys().find(|version| !self.set_aside.contains(version)).copied()
    }

    /// A dirty object cannot be drained: it is damaged, say. It stays, those behind it go on.
    pub fn set_aside(&mut self, version: u64) {
        if self.dirty.contains_key(&version) {
            self.set_aside.insert(version);
        }
    }

    /// What was set aside is to be drained again, in its place.
    pub fn try_again(&mut self) {
        self.set_aside.clear();
    }

    /// Objects that L2 alone has.
    #[must_use]
    pub fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    /// Their bytes.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes
    }

    /// Those among them that cannot be drained.
    #[must_use]
    pub fn set_aside_count(&self) -> usize {
        self.set_aside.len()
    }

    /// Bytes on L2, dirty and clean.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.dirty_bytes + self.clean_bytes
    }

    /// What it may hold.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The error for a writer who waited in vain.
    #[must_use]
    pub fn full(&self) -> Error {
        let why = format!(
            "{} of L2 wait to be drained to L3, of {} that may",
            human_bytes(self.dirty_bytes + self.reserved),
            human_bytes(self.limit)
        );
        Error::new(ErrorKind::Full, "put", why)
            .hint("L3 takes them more slowly than they come: write again later, or raise --l2-size")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, announce_seed};

    #[test]
    fn dirty_objects_are_never_given_up_and_leave_in_order() {
        let mut ledger = Ledger::new(100);
        assert_eq!(ledger.reserve(101), Admission::TooLarge);
        for version in [3, 1, 2] {
            assert_eq!(ledger.reserve(30), Admission::Admitted);
            ledger.release(30);
            ledger.enter_dirty(version, 30);
        }
        assert_eq!(ledger.reserve(30), Admission::Wait);
        assert_eq!(ledger.full().kind(), ErrorKind::Full);
        assert_eq!(ledger.evict(1).unwrap_err().kind(), ErrorKind::Misuse);
        assert_eq!((ledger.oldest_dirty(), ledger.bytes()), (Some(1), 90));
        ledger.set_aside(1);
        assert_eq!(ledger.oldest_dirty(), Some(2));
        assert_eq!(ledger.evict(1).unwrap_err().kind(), ErrorKind::Misuse, "set aside is still dirty");
        ledger.drained(2);
        assert_eq!(ledger.reserve(30), Admission::Evict(2));
        ledger.evict(2).unwrap();
        assert_eq!(ledger.reserve(30), Admission::Admitted);
        assert_eq!((ledger.dirty_count(), ledger.dirty_bytes(), ledger.set_aside_count()), (2, 60, 1));
        ledger.try_again();
        assert_eq!((ledger.oldest_dirty(), ledger.set_aside_count()), (Some(1), 0));
    }

    #[test]
    fn its_sums_are_those_of_a_plain_model() {
        for seed in 0..50 {
            announce_seed("ledger", seed);
            let mut random = Random::new(seed);
            let mut ledger = Ledger::new(1000);
            // Version to bytes and whether it is dirty.
            let mut model: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
            for version in 0..400 {
                let bytes = random.below(300);
                match ledger.reserve(bytes) {
                    Admission::Admitted => {
                        ledger.release(bytes);
                        ledger.enter_dirty(version, bytes);
                        model.insert(version, (bytes, true));
                    }
                    Admission::Evict(victim) => {
                        assert!(!model.remove(&victim).expect("it is there").1, "{victim} was dirty");
                        ledger.evict(victim).unwrap();
                    }
                    Admission::Wait => {
                        let oldest = model.iter().find(|(_, (_, dirty))| *dirty).map(|(version, _)| *version);
                        assert_eq!(ledger.oldest_dirty(), oldest);
                        let oldest = oldest.expect("who waits, waits for somebody");
                        if random.one_in(3) {
                            ledger.superseded(oldest);
                            model.remove(&oldest);
                        } else {
                            ledger.drained(oldest);
                            model.get_mut(&oldest).expect("it is there").1 = false;
                        }
                    }
                    Admission::TooLarge => panic!("nothing is"),
                }
                let sum = |dirty: bool| -> u64 {
                    model.values().filter(|(_, of)| !dirty || *of).map(|(bytes, _)| bytes).sum()
                };
                assert_eq!((ledger.dirty_bytes(), ledger.bytes()), (sum(true), sum(false)));
                assert!(ledger.bytes() <= 1000);
            }
        }
    }
}
