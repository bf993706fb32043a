//! The bytes of one simulated file: as programs see them, and as a crash leaves them.
//!
//! What was written is in a cache until it is synced. A crash keeps, for every sector of 512 bytes that was not synced,
//! any of the versions written since the last sync, or none: each sector for itself, since nothing promises an order.
//! The length behaves likewise. A sync that fails drops what it should have written and forgets that it was to be
//! written, as Linux does.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::testing::Random;
use crate::units::{to_u64, to_usize};

/// Bytes of a page, in which contents are kept.
pub(super) const PAGE: u64 = PAGE_LEN as u64;
const PAGE_LEN: usize = 4096;
/// Bytes that a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;

type Page = [u8; PAGE_LEN];

#[derive(Debug, Default)]
pub(super) struct Content {
    live: BTreeMap<u64, Arc<Page>>,
    durable: BTreeMap<u64, Arc<Page>>,
    // Pages written since the last sync, with the versions that a later write replaced.
    dirty: BTreeMap<u64, Vec<Arc<Page>>>,
    len: u64,
    durable_len: u64,
    // Lengths between the durable one and the present one.
    lens: Vec<u64>,
    reserved: u64,
    // Pages that do not hold what was last written there: the fault plan's doing.
    damaged: BTreeSet<u64>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let gone: Vec<u64> = self.live.range(len.div_ceil(PAGE)..).map(|(page, _)| *page).collect();
            for page in gone {
                self.change(page, |bytes| bytes.fill(0));
                self.live.remove(&page);
            }
            if !len.is_multiple_of(PAGE) && self.live.contains_key(&(len / PAGE)) {
                self.change(len / PAGE, |bytes| bytes[to_usize(len % PAGE)..].fill(0));
            }
        }
        self.lens.push(self.len);
        self.len = len;
    }

    /// Bytes of the device that it takes.
    pub(super) fn allocated(&self) -> u64 {
        let reserved_pages = self.reserved / PAGE;
        self.reserved + to_u64(self.live.range(reserved_pages..).count()) * PAGE
    }

    /// Bytes of the device that a write to `range` would take in addition.
    pub(super) fn needed(&self, range: &Range<u64>) -> u64 {
        let reserved_pages = self.reserved / PAGE;
        let new = |page: &u64| *page >= reserved_pages && !self.live.contains_key(page);
        to_u64((range.start / PAGE..range.end.div_ceil(PAGE)).filter(new).count()) * PAGE
    }

    pub(super) fn reserve(&mut self, len: u64) {
        self.reserved = self.reserved.max(len.next_multiple_of(PAGE));
        if len > self.len {
            self.set_len(len);
        }
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let end = self.len.min(offset.saturating_add(to_u64(buf.len())));
        let mut at = offset;
        while at < end {
            let upto = end.min((at / PAGE + 1) * PAGE);
            let target = &mut buf[to_usize(at - offset)..to_usize(upto - offset)];
            match self.live.get(&(at / PAGE)) {
                Some(page) => target.copy_from_slice(&page[to_usize(at % PAGE)..][..target.len()]),
                None => target.fill(0),
            }
            at = upto;
        }
        to_usize(end.saturating_sub(offset))
    }

    fn change(&mut self, page: u64, change: impl FnOnce(&mut Page)) {
        let bytes = self.live.entry(page).or_insert_with(|| Arc::new([0; PAGE_LEN]));
        let versions = self.dirty.entry(page).or_default();
        versions.push(Arc::clone(bytes));
        change(Arc::make_mut(bytes));
    }

    /// Writes `bytes` at `offset`, those of them whose sector is to be `kept`.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64, mut kept: impl FnMut(u64) -> bool) {
        let end = offset + to_u64(bytes.len());
        let mut at = offset;
        while at < end {
            let upto = end.min((at / PAGE + 1) * PAGE);
            let source = &bytes[to_usize(at - offset)..to_usize(upto - offset)];
            let whole_page = source.len() == to_usize(PAGE);
            let (page, within) = (at / PAGE, to_usize(at % PAGE));
            let mut all_kept = true;
            self.change(page, |target| {
                let mut done = 0;
                while done < source.len() {
                    let next = source.len().min(SECTOR - (within + done) % SECTOR + done);
                    if kept((at + to_u64(done)) / to_u64(SECTOR)) {
                        target[within + done..within + next].copy_from_slice(&source[done..next]);
                    } else {
                        all_kept = false;
                    }
                    done = next;
                }
            });
            if whole_page && all_kept {
                self.damaged.remove(&page);
            }
            at = upto;
        }
        if end > self.len {
            self.lens.push(self.len);
            self.len = end;
        }
    }

    /// Flips one bit where it is stored, past every cache.
    pub(super) fn flip(&mut self, at: u64, bit: u8) {
        for pages in [&mut self.live, &mut self.durable] {
            if let Some(page) = pages.get_mut(&(at / PAGE)) {
                Arc::make_mut(page)[to_usize(at % PAGE)] ^= 1 << bit;
            }
        }
        self.damaged.insert(at / PAGE);
    }

    pub(super) fn damage(&mut self, range: Range<u64>) {
        self.damaged.extend(range.start / PAGE..range.end.div_ceil(PAGE));
    }

    pub(super) fn is_damaged(&self, range: Range<u64>) -> bool {
        self.damaged.range(range.start / PAGE..range.end.div_ceil(PAGE)).next().is_some()
    }

    /// Pages that hold something.
    pub(super) fn pages(&self) -> Vec<u64> {
        self.live.keys().copied().collect()
    }

    /// Everything written so far is durable; or, where the sync fails, only the pages that are `kept`, and nobody will
    /// write the others.
    pub(super) fn sync(&mut self, mut kept: impl FnMut() -> bool) {
        for (page, _) in std::mem::take(&mut self.dirty) {
            if !kept() {
                continue;
            }
            match self.live.get(&page) {
                Some(bytes) => drop(self.durable.insert(page, Arc::clone(bytes))),
                None => drop(self.durable.remove(&page)),
            }
        }
        self.durable_len = self.len;
        self.lens.clear();
    }

    /// What a crash leaves.
    pub(super) fn crash(&mut self, random: &mut Random) {
        for (page, versions) in std::mem::take(&mut self.dirty) {
            let zeros = Arc::new([0; PAGE_LEN]);
            let durable = self.durable.get(&page).unwrap_or(&zeros);
            let latest = self.live.get(&page).unwrap_or(&zeros);
            let mut left: Page = **durable;
            for at in (0..left.len()).step_by(SECTOR) {
                let choice = to_usize(random.below(to_u64(versions.len()) + 2));
                let from = match choice {
                    0 => durable,
                    1 => latest,
                    older => &versions[older - 2],
                };
                left[at..at + SECTOR].copy_from_slice(&from[at..at + SECTOR]);
            }
            self.durable.insert(page, Arc::new(left));
        }
        let mut lens = std::mem::take(&mut self.lens);
        lens.extend([self.durable_len, self.len]);
        self.len = lens[to_usize(random.below(to_u64(lens.len())))];
        self.durable_len = self.len;
        let beyond = self.len.div_ceil(PAGE);
        self.durable.retain(|page, _| *page < beyond);
        if !self.len.is_multiple_of(PAGE)
            && let Some(last) = self.durable.get_mut(&(self.len / PAGE))
        {
            Arc::make_mut(last)[to_usize(self.len % PAGE)..].fill(0);
        }
        self.live = self.durable.clone();
        self.reserved = self.reserved.min(self.len.next_multiple_of(PAGE));
    }
}
