//! Which code the ciphers run, where the environment names it: for tests and comparisons.

use tierstream_storage::keys::force_kernel;
use tierstream_storage::{Error, Result};

use crate::doctor::supported_kernels;

/// Names the cipher kernel of this process.
pub(crate) const VARIABLE: &str = "TIERSTREAM_CIPHER_KERNEL";

/// Forces the kernel that the environment names, if it names one.
///
/// # Errors
/// When there is no such kernel, or this CPU does not run it.
pub(crate) fn force_from_environment() -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
    let Some(name) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let forced = force_kernel(&name.to_string_lossy());
    forced.map_err(|error| {
        Error::from(error).hint(format!("{VARIABLE} takes {}", supported_kernels().join(", ")))
    })
}
