#![expect(unsafe_code, reason = "the probe submits an entry, which the crate calls unsafe for any entry")]
//! A ring with the best flags that the kernel takes: the fewest interruptions of the thread that uses it.

use io_uring::{IoUring, opcode};

use crate::error::{Error, ErrorKind, Result};

/// From the best down. DEFER_TASKRUN (Linux 6.1) posts completions only when the thread asks for them, COOP_TASKRUN
/// (5.19) without interrupting it; NO_SQARRAY (6.6) saves an indirection per entry.
const RUNGS: [&str; 4] =
    ["SINGLE_ISSUER+DEFER_TASKRUN+NO_SQARRAY", "SINGLE_ISSUER+DEFER_TASKRUN", "COOP_TASKRUN", "no flags"];

/// A ring of `entries` entries that works, and its flags.
///
/// # Errors
/// `Unsupported` when the kernel has no io_uring or forbids it; `Full` when it has no room for another.
pub(super) fn set_up(entries: u32) -> Result<(IoUring, &'static str)> {
    set_up_from(&RUNGS, entries)
}

fn set_up_from(rungs: &[&'static str], entries: u32) -> Result<(IoUring, &'static str)> {
    let mut last = None;
    for flags in rungs {
        let mut builder = IoUring::builder();
        if flags.contains("DEFER") {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        if flags.contains("COOP") {
            builder.setup_coop_taskrun();
        }
        if flags.contains("NO_SQARRAY") {
            builder.setup_no_sqarray();
        }
        match builder.build(entries) {
            Ok(ring) => return probe(ring, flags),
            // EINVAL: a flag this kernel does not know; anything else will not change with fewer flags.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => {
                last = Some(error);
                break;
            }
        }
    }
    let error = last.expect("a failed attempt leaves its error");
    let kind =
        if error.raw_os_error() == Some(libc::ENOMEM) { ErrorKind::Full } else { ErrorKind::Unsupported };
    Err(Error::new(kind, "start io_uring", error.to_string()).caused_by(error))
}

/// Runs one no-op through the ring: a seccomp filter may let set-up pass and forbid the rest.
fn probe(mut ring: IoUring, flags: &'static str) -> Result<(IoUring, &'static str)> {
    let refused = |why: String| Error::new(ErrorKind::Unsupported, "start io_uring", why);
    // SAFETY: a no-op has neither buffer nor descriptor.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
    pushed.map_err(|_| refused("the submission queue is full at start".to_owned()))?;
    ring.submit_and_wait(1).map_err(|error| refused(error.to_string()))?;
    let done = ring.completion().next().is_some();
    if done { Ok((ring, flags)) } else { Err(refused("a no-op did not complete".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_works_where_the_first_does() {
        if let Err(error) = set_up(8) {
            return crate::testing::skip("io_uring", &error.to_string());
        }
        for first in 0..RUNGS.len() {
            set_up_from(&RUNGS[first..], 8).unwrap();
        }
    }
}
