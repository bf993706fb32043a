//! Running the `tierstream` that was built.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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

/// Runs `tierstream` with `input` on its standard input.
///
/// # Panics
/// When it cannot be started.
pub fn tierstream_reading<S: AsRef<OsStr>>(input: &[u8], args: impl IntoIterator<Item = S>) -> Run {
    let mut command = Command::new(binary("tierstream"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        // A command that ends early closes the pipe: its own words say why.
        scope.spawn(move || drop(stdin.write_all(input)));
        Run::of(child.wait_with_output().expect("a child"))
    })
}

/// Runs `tierstream` with `variables` in its environment.
///
/// # Panics
/// When it cannot be started.
pub fn tierstream_with<S: AsRef<OsStr>>(
    variables: &[(&str, &str)],
    args: impl IntoIterator<Item = S>,
) -> Run {
    let mut command = Command::new(binary("tierstream"));
    command.envs(variables.iter().copied());
    Run::of(command.args(args).output().expect("the command starts"))
}

/// Runs `tierstream` on a terminal of its own: waits for each question of `dialogue` and types the answer. What it
/// prints, on either stream, is in `stdout`. `None` where there is no script(1).
///
/// # Panics
/// When it ends before it has asked everything.
#[must_use]
pub fn tierstream_on_terminal(args: &[&str], dialogue: &[(&str, &str)]) -> Option<Run> {
    let quoted: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
    let line = format!("'{}' {}", binary("tierstream").display(), quoted.join(" "));
    let started = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut script = started.ok()?;
    let mut typing = script.stdin.take().expect("a pipe");
    let mut screen = script.stdout.take().expect("a pipe");
    let (mut shown, mut seen) = (Vec::new(), 0);
    let mut byte = [0];
    for (question, answer) in dialogue {
        while !String::from_utf8_lossy(&shown[seen..]).contains(question) {
            let read = screen.read(&mut byte).expect("the screen");
            assert!(read == 1, "`{question}` was not asked: {}", String::from_utf8_lossy(&shown));
            shown.push(byte[0]);
        }
        seen = shown.len();
        typing.write_all(answer.as_bytes()).expect("the keyboard");
        typing.flush().expect("the keyboard");
    }
    screen.read_to_end(&mut shown).expect("the screen");
    drop(typing);
    let status = script.wait().expect("a child");
    let stdout = String::from_utf8_lossy(&shown).into_owned();
    Some(Run { code: status.code().unwrap_or(-1), stdout, stderr: String::new() })
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
