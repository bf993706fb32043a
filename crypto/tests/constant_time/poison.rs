#![expect(unsafe_code, reason = "valgrind's client requests are instructions, not calls")]
//! Asks valgrind's memcheck to treat memory as undefined.
//!
//! A request is a sequence of rotations that changes nothing on a CPU and that valgrind recognises; this is
//! `VALGRIND_MAKE_MEM_UNDEFINED` of valgrind.h and memcheck.h, without their C.

use std::process::Command;

/// Why memory cannot be poisoned on this machine, if it cannot.
pub(crate) fn missing() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the requests to valgrind are written for x86-64".to_owned());
    }
    match Command::new("valgrind").arg("--version").output() {
        Ok(ran) if ran.status.success() => None,
        Ok(ran) => Some(format!("valgrind --version ended with {}", ran.status)),
        Err(error) => Some(format!("valgrind does not start: {error}")),
    }
}

/// Marks `secret` as undefined.
///
/// # Panics
/// When this process does not run under memcheck, for then nothing would be found.
pub(crate) fn poison(secret: &mut [u8]) {
    const MAKE_MEM_UNDEFINED: u64 = u64::from_be_bytes([0, 0, 0, 0, b'M', b'C', 0, 1]);
    let request = [MAKE_MEM_UNDEFINED, secret.as_mut_ptr() as u64, secret.len() as u64, 0, 0, 0];
    assert_eq!(ask(&request), u64::MAX, "not under valgrind's memcheck");
}

/// The answer to a request, 0 outside valgrind.
#[cfg(target_arch = "x86_64")]
fn ask(request: &[u64; 6]) -> u64 {
    let mut answer = 0;
    // SAFETY: the rotations add up to 128 bits and the exchange is of a register with itself, so that a CPU changes
    // nothing but flags. Valgrind reads the six words, which the reference keeps alive, and writes rdx.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") request,
            inout("rdx") answer,
            options(nostack),
        );
    }
    answer
}

#[cfg(not(target_arch = "x86_64"))]
fn ask(_: &[u64; 6]) -> u64 {
    0
}
