//! Peak memory that training takes in this process, as the kernel counts it.
//!
//! Resident memory is what an operator sees and what the out-of-memory killer counts. The number is the highest resident
//! size since the start (`VmHWM`) less the resident size at the start (`VmRSS`): gradients, moments, activations,
//! scratch and allocator slack, but neither the program nor the weights that were there before. So start the meter after building
//! the model and before building the trainer, and compare two precisions in two processes: what one run frees, the
//! allocator may keep.
//!
//! See proc_pid_status(5) and, for the reset of the peak by writing 5 to `clear_refs`, proc_pid_clear_refs(5).
//! GPU memory is not in it.

use std::fs;

use crate::error::{Error, ErrorKind, Result};

const STATUS: &str = "/proc/self/status";
const CLEAR_REFS: &str = "/proc/self/clear_refs";
/// What to write to [`CLEAR_REFS`] to set `VmHWM` back to `VmRSS`.
const RESET_PEAK: &str = "5";

/// Measures the peak from its start on.
#[derive(Clone, Copy, Debug)]
pub struct MemoryMeter {
    start_kib: u64,
}

impl MemoryMeter {
    /// Sets the kernel's peak back to the present size and remembers that.
    ///
    /// [`ErrorKind::Unsupported`] where `/proc` is missing or may not be written; the message says which.
    pub fn start() -> Result<Self> {
        fs::write(CLEAR_REFS, RESET_PEAK).map_err(|error| unsupported(CLEAR_REFS, &error.to_string()))?;
        Ok(Self { start_kib: read("VmRSS")? })
    }

    /// Highest resident size since the start, less that at the start, in MiB.
    ///
    /// [`ErrorKind::Unsupported`] if `/proc` cannot be read.
    pub fn peak_mib(&self) -> Result<f64> {
        let kib = read("VmHWM")?.saturating_sub(self.start_kib);
        #[expect(clippy::cast_precision_loss, reason = "2^52 KiB are more than any machine has")]
        Ok(kib as f64 / 1024.0)
    }
}

fn unsupported(path: &str, reason: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("cannot measure peak memory: {path}: {reason}"))
}

/// A field of the status file in KiB.
fn read(field: &str) -> Result<u64> {
    let text = fs::read_to_string(STATUS).map_err(|error| unsupported(STATUS, &error.to_string()))?;
    parse(&text, field).ok_or_else(|| unsupported(STATUS, &format!("no {field} in kB")))
}

/// `VmHWM:     1234 kB`
fn parse(text: &str, field: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "Name:\tx\nVmHWMx:\t 1 kB\nVmHWM:\t   2048 kB\nVmRSS:\t12\n";
        assert_eq!(parse(text, "VmHWM"), Some(2048));
        assert_eq!(parse(text, "VmRSS"), None, "without its unit");
        assert_eq!(parse(text, "VmPeak"), None);
    }

    #[test]
    fn a_buffer_that_was_touched_and_freed_is_in_the_peak() {
        const MIB: usize = 1 << 20;
        let meter = MemoryMeter::start().unwrap();
        drop(std::hint::black_box(vec![1u8; 256 * MIB]));
        let peak = meter.peak_mib().unwrap();
        assert!(peak > 250.0, "{peak} MiB");
    }
}
