//! The SM4 kernels take the same steps whatever the secrets are.
//!
//! The proof is valgrind's: key and message are marked as undefined memory, and memcheck reports every branch and
//! every address that depends on undefined bytes, through all computation and whatever their values. The same must
//! find the leaks of a table, of a branch and of the `sm4` crate, else this test fails. Beside it a dudect-style
//! measurement is printed; time on shared machines is no ground for a verdict.
//!
//! What valgrind cannot run (GFNI, AVX-512) is not shown here; those kernels have no tables at all. `open` ends with a
//! branch on whether the tag was right, which is no secret, so that sealing stands for both.

mod measured;
mod poison;

use std::hint::black_box;
use std::process::{Command, ExitCode};

use tierstream_crypto::{Cipher, Nonce, aead_with, kernels, raw::sm4_ctr};

use poison::poison;

/// What runs under valgrind, in a process of its own.
const POISONED: &str = "--poisoned";
/// Exit code of memcheck when it found something, and of a subject that cannot run there.
const FOUND: i32 = 99;
const CANNOT: i32 = 98;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, subject] = &arguments[..]
        && flag == POISONED
    {
        return run_poisoned(subject);
    }
    measured::report();
    if let Some(reason) = poison::missing() {
        return skip(&reason);
    }
    for leaky in ["a table", "a branch", "sm4-crate"] {
        assert_eq!(memcheck(leaky).0, Some(FOUND), "memcheck did not find the leak of {leaky}");
        say(&format!("{leaky}: leaks, and memcheck finds it"));
    }
    let mut shown = 0;
    for kernel in kernels(Cipher::Sm4Gcm).iter().filter(|kernel| kernel.name != "sm4-crate") {
        match memcheck(kernel.name) {
            (Some(0), _) => {
                say(&format!("{}: no branch and no address depends on key or message", kernel.name));
                shown += 1;
            }
            (Some(CANNOT), _) => {
                say(&format!("skipped: {} (valgrind has not its instructions)", kernel.name))
            }
            (_, report) => panic!("{} depends on secrets:\n{report}", kernel.name),
        }
    }
    assert!(shown > 0, "valgrind runs at least the portable kernel");
    ExitCode::SUCCESS
}

/// Says why the test was not run; with `REQUIRE=valgrind` in the environment that is a failure.
fn skip(reason: &str) -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "REQUIRE is an interface of the tests")]
    let required = std::env::var("REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == "valgrind"), "REQUIRE=valgrind, but {reason}");
    say(&format!("skipped: {reason}"));
    ExitCode::SUCCESS
}

#[expect(clippy::print_stdout, reason = "a test with a harness of its own")]
fn say(text: &str) {
    println!("constant_time: {text}");
}

/// Runs a subject under memcheck: its exit code and what memcheck said.
fn memcheck(subject: &str) -> (Option<i32>, String) {
    let itself = std::env::current_exe().expect("the path of this test");
    let ran = Command::new("valgrind")
        .args(["--tool=memcheck", "--quiet", "--leak-check=no", &format!("--error-exitcode={FOUND}")])
        .arg(itself)
        .args([POISONED, subject])
        .output()
        .expect("valgrind, which was found before");
    (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

fn run_poisoned(subject: &str) -> ExitCode {
    let mut key = [0x3c; 16];
    poison(&mut key);
    match subject {
        "a table" => leak_by_table(&key),
        "a branch" => leak_by_branch(&key),
        kernel => {
            let known = kernels(Cipher::Sm4Gcm).into_iter().find(|known| known.name == kernel);
            if !known.expect("a kernel's name").supported {
                return ExitCode::from(CANNOT.unsigned_abs().to_le_bytes()[0]);
            }
            encrypt_secrets(kernel, &key);
        }
    }
    ExitCode::SUCCESS
}

/// Key expansion, and messages of every path through a kernel: whole groups, part of one, few blocks, part of a block.
fn encrypt_secrets(kernel: &str, key: &[u8; 16]) {
    let aead = aead_with(kernel, Cipher::Sm4Gcm, key).expect("a key of 16 bytes");
    let stream = sm4_ctr(kernel, key).expect("a supported kernel");
    for length in [5000, 2048, 700, 100, 7] {
        let mut message = vec![0x7e; length];
        poison(&mut message);
        black_box(aead.seal_in_place(&Nonce::block(0, 1), b"public", &mut message));
        stream.apply_in_place(&[0xff; 16], &mut message);
        black_box(&message);
    }
}

fn leak_by_table(key: &[u8; 16]) {
    let table: [u8; 256] = std::array::from_fn(|i| i.to_le_bytes()[0].wrapping_mul(167));
    for byte in key {
        black_box(black_box(&table)[usize::from(*byte)]);
    }
}

fn leak_by_branch(key: &[u8; 16]) {
    for byte in key {
        if byte & 1 == 1 {
            black_box(byte.wrapping_mul(3));
        }
    }
}
