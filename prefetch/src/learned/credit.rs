//! Credit: a source fetches for a stream only while what it would have fetched is used often enough.
//!
//! Measured on all candidates that were likely enough, fetched or not, so that a source without credit earns it back
//! without a fetch.

use super::hash::{index, join, whole};

/// Below this share of used candidates a source has no credit, and above the second it has it back.
const OFF: f32 = 0.35;
const ON: f32 = 0.60;
const STREAMS: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Account {
    used: f32,
    seen: f32,
    on: bool,
    // Share of all its candidates that were used.
    yields: f32,
    ended: f32,
}

/// See the module.
pub(super) struct Credit {
    sources: Box<[Account]>,
    streams: Box<[Account]>,
}

impl Account {
    fn note(&mut self, used: bool, rate: f32) {
        self.seen = (self.seen + 1.0).min(1.0 / rate);
        self.used += (f32::from(u8::from(used)) - self.used) * (1.0 / (self.seen + 8.0)).max(rate);
        self.on = self.seen >= 40.0 && self.used >= if self.on { OFF } else { ON };
    }
}

impl Credit {
    pub(super) fn new(sources: usize) -> Self {
        let first = Account { used: 0.4, seen: 0.0, on: false, yields: 0.3, ended: 0.0 };
        Self { sources: vec![first; sources].into(), streams: vec![first; STREAMS * sources].into() }
    }

    fn account(&self, stream: u64, source: usize) -> usize {
        index(join(stream, 77) >> 11, STREAMS - 1) * self.sources.len() + source
    }

    /// Whether the source may fetch for the stream.
    pub(super) fn allows(&self, stream: u64, source: usize) -> bool {
        let own = &self.streams[self.account(stream, source)];
        if own.seen < 16.0 { self.sources[source].on } else { own.on }
    }

    /// The share of likely candidates that were used, in sixteenths.
    pub(super) fn level(&self, stream: u64, source: usize) -> u64 {
        u64::from(whole(self.streams[self.account(stream, source)].used * 15.99))
    }

    /// Share of all candidates that were used.
    pub(super) fn yields(&self, stream: u64, source: usize) -> f32 {
        self.streams[self.account(stream, source)].yields
    }

    /// What became of any candidate.
    pub(super) fn ended(&mut self, stream: u64, source: usize, used: bool) {
        let own = self.account(stream, source);
        let own = &mut self.streams[own];
        own.ended = (own.ended + 1.0).min(254.0);
        own.yields += (f32::from(u8::from(used)) - own.yields) / (own.ended + 2.0);
    }

    /// What became of a candidate that was likely enough.
    pub(super) fn note(&mut self, stream: u64, source: usize, used: bool) {
        let own = self.account(stream, source);
        self.streams[own].note(used, 1.0 / 128.0);
        self.sources[source].note(used, 1.0 / 256.0);
    }

    /// Share of likely candidates of the source that were used of late.
    pub(super) fn accuracy(&self, source: usize) -> f32 {
        self.sources[source].used
    }
}
