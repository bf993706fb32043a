//! Runs a command in a world without io_uring: `without-io-uring COMMAND [ARG...]`.
//!
//! A seccomp filter answers the three system calls with EPERM, as the default profiles of Docker and containerd do.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// io_uring_setup, io_uring_enter, io_uring_register: the same numbers on every architecture.
const CALLS: [i64; 3] = [425, 426, 427];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let program = args.next().ok_or("usage: without-io-uring COMMAND [ARG...]")?;
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> = CALLS.map(|call| (call, Vec::new())).into();
    let forbid = SeccompAction::Errno(u32::try_from(rustix::io::Errno::PERM.raw_os_error())?);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, forbid, std::env::consts::ARCH.try_into()?)?;
    let filter: BpfProgram = filter.try_into()?;
    apply_filter(&filter)?;
    Err(Command::new(program).args(args).exec().into())
}
