//! What many seeds came to, for people to read.

use std::fmt;

use super::disk::{Fault, FaultCounts, Part};
use super::host::SimHost;
use super::swarm::Mode;

/// Sums over seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Seeds.
    pub seeds: u64,
    /// Of them by mode: calm, crashes alone, faults alone, both.
    pub modes: [u64; 4],
    /// Times the machine crashed and was started again.
    pub crashes: u64,
    /// Times the store was opened.
    pub opens: u64,
    /// Of them, those that were refused, and those that left object files unopened.
    pub unsure_opens: (u64, u64),
    /// Data sets published, and publications that failed or were cut off.
    pub published: (u64, u64),
    /// Reads that gave the right bytes, and reads that failed where they may.
    pub reads: (u64, u64),
    /// Objects put, and puts that failed or were cut off.
    pub puts: (u64, u64),
    /// Objects read right, and reads that failed where they may.
    pub object_reads: (u64, u64),
    /// Bytes compared.
    pub bytes: u64,
    /// Blocks of L2 that were found damaged or unreadable, dropped and read from L3.
    pub heals: u64,
    /// Blocks read from L2, and from L3.
    pub hits: (u64, u64),
    /// Faults that struck.
    pub faults: FaultCounts,
    /// Operations on disks.
    pub operations: u64,
    /// Turns of threads.
    pub switches: u64,
}

impl Stats {
    pub(super) fn of_machine(&mut self, host: &SimHost) {
        self.faults = host.disk().counts();
        self.operations = host.disk().operations();
        self.switches = host.switches();
    }

    pub(super) fn count_mode(&mut self, mode: Mode) {
        self.seeds += 1;
        self.modes[mode as usize] += 1;
    }

    /// Adds those of other seeds.
    pub fn add(&mut self, other: &Self) {
        let Self {
            seeds,
            modes,
            crashes,
            opens,
            unsure_opens,
            published,
            reads,
            puts,
            object_reads,
            bytes,
            heals,
            hits,
            faults,
            operations,
            switches,
        } = self;
        *seeds += other.seeds;
        modes.iter_mut().zip(other.modes).for_each(|(mine, theirs)| *mine += theirs);
        *crashes += other.crashes;
        *opens += other.opens;
        add(unsure_opens, other.unsure_opens);
        add(published, other.published);
        add(reads, other.reads);
        add(puts, other.puts);
        add(object_reads, other.object_reads);
        *bytes += other.bytes;
        *heals += other.heals;
        add(hits, other.hits);
        faults.add(&other.faults);
        *operations += other.operations;
        *switches += other.switches;
    }
}

fn add(to: &mut (u64, u64), more: (u64, u64)) {
    to.0 += more.0;
    to.1 += more.1;
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [calm, crashes, faults, both] = self.modes;
        writeln!(
            f,
            "{} seeds: {calm} calm, {crashes} with crashes, {faults} with faults, {both} with both",
            self.seeds
        )?;
        writeln!(
            f,
            "  {} crashes, {} opens of the store, {} refused, {} with object files that could not be opened",
            self.crashes, self.opens, self.unsure_opens.0, self.unsure_opens.1
        )?;
        writeln!(
            f,
            "  {} data sets published, {} publications failed or cut off",
            self.published.0, self.published.1
        )?;
        writeln!(
            f,
            "  {} reads right ({} MiB compared), {} failed where they may",
            self.reads.0,
            self.bytes >> 20,
            self.reads.1
        )?;
        writeln!(
            f,
            "  objects: {} put, {} puts failed or cut off, {} read right, {} failed where they may",
            self.puts.0, self.puts.1, self.object_reads.0, self.object_reads.1
        )?;
        writeln!(
            f,
            "  blocks: {} from L2, {} from L3, {} of L2 dropped and healed",
            self.hits.0, self.hits.1, self.heals
        )?;
        writeln!(f, "  {} disk operations, {} turns of threads", self.operations, self.switches)?;
        write!(f, "  faults (L2/catalog/L3):")?;
        for fault in Fault::ALL {
            let counts = Part::ALL.map(|part| self.faults.count(part, fault).to_string());
            write!(f, " {fault:?} {}", counts.join("/"))?;
        }
        Ok(())
    }
}
