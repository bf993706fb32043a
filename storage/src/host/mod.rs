//! What a store needs of the machine besides devices: threads, messages, waiting, random numbers.
//!
//! Every wait of this crate goes through here: [`channel`], [`Monitor`], [`pause`], [`JoinHandle`]. On a real machine
//! these are crossbeam's and std's own, with nothing added. With the feature `testing` a thread may belong to a
//! simulated host (`SimulatedHost`), as a process belongs to a name space: what that thread starts, waits for, draws
//! and opens is then the simulated host's, which runs one of its threads at a time, in an order that a seed decides
//! (docs/design/0008-simulation.md). A thread that entered no simulated host, and every build without the feature, has
//! the real machine.
//!
//! What runs on a simulated host must not wait for anything but through this module, nor wait while it holds a lock that
//! another of its threads may want: the other would stop the one thread that runs.

mod bell;
pub mod channel;
mod mistake;
mod monitor;
#[cfg(any(test, feature = "testing"))]
mod simulated;
mod thread;

pub use bell::Bell;
pub use mistake::Mistake;
pub use monitor::Monitor;
#[cfg(any(test, feature = "testing"))]
pub use simulated::{Entry, SimulatedFile, SimulatedFiles, SimulatedHost, current, enter};
pub use thread::{JoinHandle, pause, spawn};

use crate::error::Result;

/// Fills `bytes` from the system's random source.
///
/// # Errors
/// `Device` when the kernel gives no random numbers.
pub fn random_bytes(bytes: &mut [u8]) -> Result<()> {
    #[cfg(any(test, feature = "testing"))]
    if let Some(host) = current() {
        host.random_bytes(bytes);
        return Ok(());
    }
    Ok(tierstream_crypto::random_bytes(bytes)?)
}
