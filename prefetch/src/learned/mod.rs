//! Predicts reads that nobody announced.
//!
//! Candidates come from a few sources that know a kind of order each: runs of neighbours (`runs`), blocks of one
//! neighbourhood that are read together (`regions`), and what followed the same block before (`cursors` over
//! `history`). An on-line model (`model`) says how likely each is to be used while memory would keep it, and learns from
//! what became of all of them, fetched or not (`pending`).
//!
//! Guarantees: fixed tables, no allocation per read, bounded work per read, the same answers for the same reads.
//! Deliberately knows neither the store nor time: blocks are numbers, and distances are counted in misses and requests.

mod credit;
mod cursors;
mod hash;
mod history;
mod model;
mod pending;
mod predictor;
mod regions;
mod runs;
mod streams;

pub use predictor::{Access, Config, Outcome, Predictor, SOURCES, Source, SourceCounts};

#[cfg(test)]
mod tests;
