//! One process per host owns the tiers; jobs read through it over a Unix socket.
//!
//! [`Server`] answers from one [`RangeSource`]; [`Client`] is a [`RangeSource`] itself, so that a loader does not care
//! whether the tiers are its own or shared.
//!
//! Guarantees: only the user the server runs as, and root, get an answer; only data sets below the directories that the
//! operator named can be opened; every frame is bounded, and so is the number of clients; a client that sends garbage,
//! stops in the middle or dies costs its own connection alone. Keys never leave the server: clients get plain bytes.
//!
//! Deliberately knows no samples and no batches.
//!
//! [`RangeSource`]: tierstream_storage::RangeSource

mod client;
mod protocol;
mod server;

pub use client::Client;
pub use server::{Server, ServerConfig, ServerHandle};

#[cfg(test)]
mod tests;
