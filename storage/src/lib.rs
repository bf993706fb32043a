//! Sealed files on three tiers.
//!
//! Skeleton while the modules land.
pub mod buf;
pub mod codec;
pub mod format;
pub mod clock;
pub mod device;
mod error;
pub mod io;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod units;
pub use error::{Error, ErrorKind, Place, Result};
