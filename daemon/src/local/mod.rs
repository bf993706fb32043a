//! Blocks for clients on this host, without a copy: L1 is mapped by the client, blocks are handed over by their place.
//!
//! The layout of the shared memory is in [`ring`], the rules of leases in [`lease`], what crosses the socket in
//! [`fds`]. Unsafe code stands in [`shm`] and nowhere else.

pub(crate) mod fds;
pub(crate) mod lease;
pub(crate) mod ring;
pub(crate) mod service;
pub(crate) mod shm;
