//! Running the `tierstream` that was built.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a run of the command gave.
#[derive(Debug)]
pub struct Run {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The run, which must have succeeded.
    ///
    /// # Panics
    /// When it did not.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "the command failed: {self:#?}");
        self
    }

    /// The run, which must have failed with `code`, said all of `words` on stderr, and given a hint.
    ///
    /// # Panics
    /// When it did not, or when it panicked.
    pub fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in: {self:#?}");
        }
        assert!(self.stderr.contains("hint:") || code == 2, "no hint: {self:#?}");
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is not one JSON value.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A program that was built beside this test: in the directory above that of the test itself.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let directory = test.parent().and_then(Path::parent).expect("target/release/deps/TEST");
    let path = directory.join(name);
    assert!(path.exists(), "{} is not built: run `make test`", path.display());
    path
}

/// Runs `tierstream` with `args`.
///
/// # Panics
/// When it cannot be started.
pub fn tierstream<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    Run::of(Command::new(binary("tierstream")).args(args).output().expect("the command starts"))
}

/// Runs `tierstream` as a user without privileges, from `copy`, a place that this user can reach: as root all files are
/// readable and writable, and a test of permissions would show nothing.
///
/// # Panics
/// When it cannot be started.
pub fn tierstream_as_nobody<S: AsRef<OsStr>>(copy: &Path, args: impl IntoIterator<Item = S>) -> Run {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    let program = copy.join("tierstream");
    if !program.exists() {
        std::fs::copy(binary("tierstream"), &program).expect("a copy of the command");
    }
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    Run::of(command.args(args).current_dir("/").output().expect("the command starts"))
}
