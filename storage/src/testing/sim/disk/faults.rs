//! What goes wrong on a simulated disk, how often, and how often it did.

use std::path::Path;

/// A part of the machine that fails in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Data files of L2.
    L2,
    /// The catalog's file.
    Catalog,
    /// L3.
    L3,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 3] = [Self::L2, Self::Catalog, Self::L3];

    pub(super) fn of(path: &Path) -> Self {
        let text = path.to_string_lossy();
        if text.contains("catalog") {
            Self::Catalog
        } else if text.starts_with("/l2") {
            Self::L2
        } else {
            Self::L3
        }
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A read or write moves half of what was asked.
    Short,
    /// EINTR or EAGAIN, before anything is done.
    Interrupted,
    /// A read fails with EIO.
    ReadError,
    /// A write fails with EIO, part of it done.
    WriteError,
    /// A sync fails with EIO; what it should have written is lost in the next crash.
    SyncError,
    /// Making, renaming, removing or syncing a name fails with EIO.
    NameError,
    /// ENOSPC.
    NoSpace,
    /// One bit of what was read is flipped on the way.
    FlippedRead,
    /// A read gives the bytes of another place of the file.
    MisdirectedRead,
    /// One bit of what is written is flipped on the way.
    FlippedWrite,
    /// Only the first sectors of a write arrive; it is acknowledged.
    TornWrite,
    /// A write is acknowledged and never happens.
    LostWrite,
    /// A write lands at another place of the file.
    MisdirectedWrite,
    /// A bit flips where it is stored.
    Rot,
    /// An operation takes up to two minutes.
    Slow,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 15] = [
        Self::Short,
        Self::Interrupted,
        Self::ReadError,
        Self::WriteError,
        Self::SyncError,
        Self::NameError,
        Self::NoSpace,
        Self::FlippedRead,
        Self::MisdirectedRead,
        Self::FlippedWrite,
        Self::TornWrite,
        Self::LostWrite,
        Self::MisdirectedWrite,
        Self::Rot,
        Self::Slow,
    ];

    /// Whether stored bytes are wrong afterwards although the write was acknowledged.
    #[must_use]
    pub fn is_silent(self) -> bool {
        matches!(
            self,
            Self::FlippedWrite | Self::TornWrite | Self::LostWrite | Self::MisdirectedWrite | Self::Rot
        )
    }

    /// Whether the program sees no more of it than a delay or a second try.
    #[must_use]
    pub fn is_harmless(self) -> bool {
        matches!(self, Self::Short | Self::Interrupted)
    }
}

/// How often faults strike: one in so many operations of that part, 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    rates: [[u64; Fault::ALL.len()]; Part::ALL.len()],
}

impl FaultRates {
    /// One in how many operations of `part` suffers `fault`.
    #[must_use]
    pub fn one_in(&self, part: Part, fault: Fault) -> u64 {
        self.rates[part as usize][fault as usize]
    }

    /// Sets how often `fault` strikes `part`.
    pub fn set(&mut self, part: Part, fault: Fault, one_in: u64) {
        self.rates[part as usize][fault as usize] = one_in;
    }
}

/// How often which fault struck where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    counts: [[u64; Fault::ALL.len()]; Part::ALL.len()],
}

impl FaultCounts {
    /// How often `fault` struck `part`.
    #[must_use]
    pub fn count(&self, part: Part, fault: Fault) -> u64 {
        self.counts[part as usize][fault as usize]
    }

    /// How often faults that the program can see struck `part`.
    #[must_use]
    pub fn harm(&self, part: Part) -> u64 {
        Fault::ALL.into_iter().filter(|fault| !fault.is_harmless()).map(|fault| self.count(part, fault)).sum()
    }

    pub(super) fn note(&mut self, part: Part, fault: Fault) {
        self.counts[part as usize][fault as usize] += 1;
    }

    /// Adds the counts of another disk.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().flatten().zip(other.counts.iter().flatten()) {
            *mine += theirs;
        }
    }
}
