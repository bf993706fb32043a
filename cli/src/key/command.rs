//! A command that prints a key, for keys that live in a key-management service or a hardware module.
//!
//! Bounded in time and in what it may print. What it prints is never logged; what it complains about is shown when it
//! fails. It gets no input, and ends with all that it started when its time is up.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tierstream_storage::clock::{Clock, SystemClock};
use tierstream_storage::keys::KEY_TEXT_BYTES_MAX;
use tierstream_storage::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

/// How long it may take: a round trip to a service, with its retries.
const PATIENCE: Duration = Duration::from_secs(30);
/// What of its complaints is kept.
const COMPLAINT_BYTES_MAX: usize = 4096;

/// Runs `command` in a shell and returns what it printed.
pub(super) fn run(command: &str) -> Result<Zeroizing<String>> {
    run_within(command, PATIENCE)
}

fn run_within(command: &str, patience: Duration) -> Result<Zeroizing<String>> {
    let what = command.split_whitespace().next().unwrap_or_default();
    let failed = |kind, why: String| {
        Error::new(kind, "run the key command", format!("`{what} ...` {why}"))
            .hint("run it by hand: it must print the text of a key file and exit with 0")
    };
    let system = |error: std::io::Error| failed(ErrorKind::Device, format!("cannot be run: {error}"));
    let child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(system)?;
    let mut running = Running { child, status: None };
    let mut printed = Pipe::new(running.child.stdout.take(), KEY_TEXT_BYTES_MAX + 1);
    let mut complained = Pipe::new(running.child.stderr.take(), COMPLAINT_BYTES_MAX);
    let pidfd = pidfd_open(Pid::from_child(&running.child), PidfdFlags::empty())
        .map_err(|error| system(error.into()))?;
    let clock = SystemClock::new();
    let deadline = clock.now() + patience;
    loop {
        // Once it has ended, only what lies in the pipes is read: something it started may hold them open.
        let left =
            if running.status.is_some() { Duration::ZERO } else { deadline.saturating_sub(clock.now()) };
        match ready(&printed, &complained, &pidfd, running.status.is_none(), left).map_err(system)? {
            Ready::Nothing if running.status.is_some() => break,
            Ready::Nothing if deadline <= clock.now() => {
                let seconds = patience.as_secs();
                return Err(failed(ErrorKind::Retry, format!("gave no key within {seconds} seconds")));
            }
            Ready::Nothing => {}
            Ready::Some { printed: true, .. } => printed.read().map_err(system)?,
            Ready::Some { complained: true, .. } => complained.read().map_err(system)?,
            Ready::Some { .. } => running.status = Some(running.child.wait().map_err(system)?),
        }
        if printed.bytes.len() > KEY_TEXT_BYTES_MAX {
            let why = format!("printed more than the {KEY_TEXT_BYTES_MAX} bytes of a key");
            return Err(failed(ErrorKind::Misuse, why));
        }
    }
    match running.status {
        Some(status) if status.success() => {}
        Some(status) => {
            return Err(failed(ErrorKind::Missing, format!("failed with {status}{}", complained.shown())));
        }
        None => return Err(failed(ErrorKind::Missing, "did not end".to_owned())),
    }
    match std::str::from_utf8(&printed.bytes) {
        Ok("") => Err(failed(ErrorKind::Missing, format!("printed nothing{}", complained.shown()))),
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(failed(ErrorKind::Misuse, "printed what is not text".to_owned())),
    }
}

/// A process that ends with this value at the latest, and its group with it.
struct Running {
    child: Child,
    status: Option<ExitStatus>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            // It may have ended meanwhile; then there is nobody to signal.
            let _gone = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _reaped = self.child.wait();
        }
    }
}

/// The reading end of a pipe, until the other end closes.
struct Pipe<R> {
    from: Option<R>,
    bytes: Zeroizing<Vec<u8>>,
    bytes_max: usize,
}

impl<R: Read + AsFd> Pipe<R> {
    fn new(from: Option<R>, bytes_max: usize) -> Self {
        // Room for all that is kept, so that no copy is left behind by growing.
        Self { from, bytes: Zeroizing::new(Vec::with_capacity(bytes_max)), bytes_max }
    }

    /// Reads what is there; what is beyond the limit is dropped.
    fn read(&mut self) -> std::io::Result<()> {
        let Some(from) = &mut self.from else { return Ok(()) };
        let mut chunk = Zeroizing::new([0; 1024]);
        match from.read(&mut *chunk) {
            Ok(0) => self.from = None,
            Ok(len) => {
                let room = self.bytes_max - self.bytes.len();
                self.bytes.extend_from_slice(&chunk[..len.min(room)]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What it said, for an error message.
    fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>())
            .filter(|line| !line.trim().is_empty())
            .collect();
        if lines.is_empty() { String::new() } else { format!(": {}", lines.join("; ")) }
    }
}

enum Ready {
    Nothing,
    Some { printed: bool, complained: bool },
}

fn ready(
    printed: &Pipe<impl AsFd>,
    complained: &Pipe<impl AsFd>,
    pidfd: &OwnedFd,
    running: bool,
    left: Duration,
) -> std::io::Result<Ready> {
    let mut fds = Vec::with_capacity(3);
    let printed = printed.from.as_ref().map(AsFd::as_fd);
    let complained = complained.from.as_ref().map(AsFd::as_fd);
    for fd in [printed, complained, running.then(|| pidfd.as_fd())].into_iter().flatten() {
        fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
    }
    let wait = Timespec::try_from(left).map_err(std::io::Error::other)?;
    match poll(&mut fds, Some(&wait)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Ready::Nothing),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let mut answers = fds.iter().map(|fd| !fd.revents().is_empty());
    let mut next = |present: bool| present && answers.next().unwrap_or(false);
    Ok(Ready::Some { printed: next(printed.is_some()), complained: next(complained.is_some()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_prints_comes_back_and_complaints_are_kept_apart() {
        let text = run("echo noise >&2; printf 'a key'").unwrap();
        assert_eq!(*text, "a key");
        // Something in the background that keeps the pipe open is not waited for.
        let text = run("sleep 100 & printf 'a key'").unwrap();
        assert_eq!(*text, "a key");
    }

    #[test]
    fn failures_say_what_the_command_said_and_never_what_it_printed() {
        let cases = [
            ("echo s3cret; echo 'permission\tdenied' >&2; exit 3", "permissiondenied"),
            ("echo s3cret; kill -9 $$", "signal: 9"),
            ("no-such-command-at-all", "not found"),
            ("true", "printed nothing"),
            ("head -c 100000 /dev/zero | tr '\\0' s", "more than the 4096 bytes"),
            ("printf '\\377\\376'", "not text"),
        ];
        for (command, words) in cases {
            let error = run(command).unwrap_err();
            assert!(error.to_string().contains(words), "{command}: {error}");
            assert!(!error.to_string().contains("s3cret") && error.hint_text().is_some(), "{error}");
        }
    }

    #[test]
    fn it_ends_when_its_time_is_up_with_all_that_it_started() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let command = format!("sh -c 'echo $$ >{}; exec sleep 1000'; true", file.path().display());
        let error = run_within(&command, Duration::from_millis(300)).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Retry && error.to_string().contains("within 0 seconds"),
            "{error}"
        );
        let pid = std::fs::read_to_string(file.path()).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        // It was killed with its group; the kernel takes a moment to end it, and its adopter another to reap it.
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
            assert_eq!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience)).unwrap(), 1);
        }
    }
}
