//! One process per host owns the tiers; jobs read through it over a Unix socket.
//!
//! [`Server`] answers from one [`Store`]; [`Client`] is a [`RangeSource`], so that a loader does not care whether the
//! tiers are its own or shared. A client on the same host gets blocks where they lie: it maps L1 read only and is told
//! places in it, under leases ([`Client::lease`]); docs/design/0010-daemon.md has the protocol and who owns what.
//!
//! Guarantees: who is asked for by no policy gets nothing: without one only the user the server runs as, and root, get an
//! answer; only data sets below the directories that the operator named can be opened; every decision is written down; every frame is bounded, and so is the number of clients and of leases; a client that
//! sends garbage, stops in the middle or dies costs its own connection alone, and what it held is free at once. Keys
//! never leave the server: clients get plain bytes.
//!
//! Deliberately knows no samples and no batches.
//!
//! [`RangeSource`]: tierstream_storage::RangeSource
//! [`Store`]: tierstream_storage::Store

mod auth;
mod client;
mod http;
mod local;
mod protocol;
mod roots;
mod server;
mod session;

pub use auth::{AuditReport, AuthConfig, verify_audit};
pub use client::{Client, ClientConfig, Lease};
pub use protocol::{Login, Role, Token, Whoami};
pub use server::{Server, ServerConfig, ServerHandle};

#[cfg(test)]
mod tests;
