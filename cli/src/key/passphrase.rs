//! Passphrases: from a file, from the environment, or typed on a terminal without echo.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tierstream_storage::keys::{PASSPHRASE_BYTES_MAX, PassphraseKey, RootKey, read_secret};
use tierstream_storage::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use crate::output;

/// The variable that scripts put a passphrase in.
const VARIABLE: &str = "TIERSTREAM_PASSPHRASE";
/// Attempts at a terminal.
const ATTEMPTS: usize = 3;

/// Where the passphrase is.
#[derive(Debug, Args)]
pub(crate) struct PassphraseArgs {
    /// File with the passphrase of a key that has one; else TIERSTREAM_PASSPHRASE, else it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    pub(crate) fn is_given(&self) -> bool {
        self.passphrase_file.is_some()
    }

    /// Opens `key`, asking up to three times at a terminal.
    pub(super) fn open(&self, key: &PassphraseKey) -> Result<RootKey> {
        if let Some(passphrase) = self.written()? {
            return open(key, &passphrase);
        }
        for attempt in 1.. {
            let typed =
                ask(&format!("passphrase for key {}: ", key.id()))?.ok_or_else(|| no_terminal(key))?;
            match open(key, &typed) {
                Err(error) if error.kind() == ErrorKind::Missing && attempt < ATTEMPTS => {
                    output::say("wrong passphrase, try again");
                }
                opened => return opened,
            }
        }
        unreachable!("the last attempt returns")
    }

    /// The passphrase that a file or the environment gives.
    fn written(&self) -> Result<Option<Zeroizing<String>>> {
        match &self.passphrase_file {
            Some(path) => of_file(path).map(Some),
            None => of_environment(),
        }
    }
}

/// The passphrase of a new key: typed twice where it is typed.
pub(crate) fn new_passphrase(args: &PassphraseArgs) -> Result<Zeroizing<String>> {
    if let Some(passphrase) = args.written()? {
        return Ok(passphrase);
    }
    let none = || {
        Error::new(
            ErrorKind::Missing,
            "make a key",
            "no passphrase was given, and there is no terminal to ask",
        )
        .hint(format!("use --passphrase-file FILE, or {VARIABLE} in the environment"))
    };
    let first = ask("passphrase for the new key: ")?.ok_or_else(none)?;
    let again = ask("the same again: ")?.ok_or_else(none)?;
    if *first != *again {
        return Err(Error::new(ErrorKind::Misuse, "make a key", "the two passphrases are not the same")
            .hint("try again"));
    }
    Ok(first)
}

fn open(key: &PassphraseKey, passphrase: &str) -> Result<RootKey> {
    key.open(passphrase.as_bytes()).map_err(|error| {
        let error = Error::from(error);
        match error.kind() {
            ErrorKind::Missing => error.hint("the key file is whole: only the passphrase is another"),
            _ => error,
        }
    })
}

fn no_terminal(key: &PassphraseKey) -> Error {
    let why = format!("key {} needs its passphrase, and there is no terminal to ask", key.id());
    Error::new(ErrorKind::Missing, "open key", why)
        .hint(format!("use --passphrase-file FILE, or {VARIABLE} in the environment"))
}

/// The first line of a file; an editor may have ended it.
fn of_file(path: &Path) -> Result<Zeroizing<String>> {
    let text = read_secret(path, PASSPHRASE_BYTES_MAX + 2)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

#[expect(clippy::disallowed_methods, reason = "only the command line reads the environment")]
fn of_environment() -> Result<Option<Zeroizing<String>>> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(None) };
    match value.into_string() {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(_) => Err(Error::new(ErrorKind::Misuse, "open key", format!("{VARIABLE} is not UTF-8"))),
    }
}

/// Asks on the terminal, without echo; `None` where stdin is none.
fn ask(question: &str) -> Result<Option<Zeroizing<String>>> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let failed = |error: rustix::io::Errno| Error::io("ask", Path::new("stdin"), error.into());
    let _quiet = Quiet::start().map_err(failed)?;
    output::ask(question);
    let answer = read_line(|| {
        let mut byte = [0];
        loop {
            match rustix::io::read(&stdin, &mut byte) {
                Ok(read) => return Ok((read == 1).then_some(byte[0])),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    });
    output::say("");
    answer.map(Some)
}

/// A terminal without echo and line editing, until this is dropped. Signals from the keyboard are off too, so that a
/// Ctrl-C cannot leave it so.
struct Quiet(Termios);

impl Quiet {
    fn start() -> rustix::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _gone = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// A line of bytes as a terminal sends them: backspace takes a character away, Ctrl-U all, Ctrl-C gives up.
fn read_line(mut next: impl FnMut() -> Result<Option<u8>>) -> Result<Zeroizing<String>> {
    // Room for all of it, so that no copy is left behind by growing.
    let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_BYTES_MAX + 1));
    while let Some(byte) = next()? {
        match byte {
            b'\n' | b'\r' => break,
            0x03 => return Err(Error::new(ErrorKind::Interrupted, "ask for a passphrase", "interrupted")),
            0x04 => break,
            0x08 | 0x7f => {
                // The bytes of one character go together.
                while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {}
            }
            0x15 => line.clear(),
            byte if line.len() <= PASSPHRASE_BYTES_MAX => line.push(byte),
            _ => {}
        }
    }
    match std::str::from_utf8(&line) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Error::new(ErrorKind::Misuse, "ask for a passphrase", "what was typed is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &str) -> Result<String> {
        let mut bytes = bytes.bytes();
        read_line(|| Ok(bytes.next())).map(|line| line.to_string())
    }

    #[test]
    fn a_typed_line_can_be_mended_and_given_up() {
        assert_eq!(typed("secret\nrest").unwrap(), "secret");
        assert_eq!(typed("secreX\x7ft\r").unwrap(), "secret");
        assert_eq!(typed("wrong\x15right\n").unwrap(), "right");
        assert_eq!(typed("密码é\x7f\x08\n").unwrap(), "密");
        assert_eq!(typed("\x7f\x7fa").unwrap(), "a");
        assert_eq!(typed("sec\x03").unwrap_err().kind(), ErrorKind::Interrupted);
        assert_eq!(
            typed(&"x".repeat(5000)).unwrap().len(),
            PASSPHRASE_BYTES_MAX + 1,
            "too long, as it will be told"
        );
    }

    #[test]
    fn a_passphrase_file_may_end_its_line() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        for (text, expected) in
            [("a b", "a b"), ("a b\n", "a b"), ("a b\r\n", "a b"), ("a\n\n", "a\n"), ("", "")]
        {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(*of_file(&path).unwrap(), expected);
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
        assert_eq!(of_file(&path).unwrap_err().kind(), ErrorKind::Denied);
    }
}
