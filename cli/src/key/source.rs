//! One way to spell where a key is, for every flag that takes one.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use tierstream_storage::keys::{KEY_TEXT_BYTES_MAX, KeyText, RootKey, read_key_text};
use tierstream_storage::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use super::PassphraseArgs;
use super::command::run;

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// A key file.
    File(PathBuf),
    /// The text of a key file in an environment variable.
    Environment(String),
    /// A command that prints the text of a key file.
    Command(String),
    /// The key itself, which everybody on the machine can see by now. Not kept, so that it is not shown as well.
    Typed,
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Environment(name) => write!(f, "env:{name}"),
            Self::Typed => f.write_str("a key on the command line"),
            // A command may hold a token.
            Self::Command(command) => write!(f, "cmd:{} ...", command.split(' ').next().unwrap_or_default()),
        }
    }
}

/// Parses a value of `--key`.
pub(crate) fn key_parser() -> impl TypedValueParser<Value = KeySource> {
    OsStringValueParser::new().try_map(parse)
}

fn parse(value: OsString) -> std::result::Result<KeySource, String> {
    let text = value.to_str().unwrap_or_default();
    let source = if let Some(name) = text.strip_prefix("env:") {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err("env: needs the name of a variable, as in env:TIERSTREAM_KEY".to_owned());
        }
        KeySource::Environment(name.to_owned())
    } else if let Some(command) = text.strip_prefix("cmd:") {
        if command.trim().is_empty() {
            return Err("cmd: needs a command that prints the key".to_owned());
        }
        KeySource::Command(command.to_owned())
    } else if let Some(path) = text.strip_prefix("file:") {
        KeySource::File(PathBuf::from(path))
    } else if text.starts_with("tierstream-") && text.contains(':') {
        KeySource::Typed
    } else {
        KeySource::File(PathBuf::from(value))
    };
    match &source {
        KeySource::File(path) if path.as_os_str().is_empty() => {
            Err("the path of the key file is empty".to_owned())
        }
        _ => Ok(source),
    }
}

impl KeySource {
    /// Reads what is there; a key under a passphrase stays closed.
    pub(crate) fn read(&self) -> Result<KeyText> {
        match self {
            Self::File(path) => read_key_text(path),
            Self::Environment(name) => self.parse(&variable(name)?),
            Self::Command(command) => self.parse(&run(command)?),
            Self::Typed => {
                let why = "a key on the command line is seen by everybody on this machine";
                Err(Error::new(ErrorKind::Misuse, "read key", why)
                    .hint("make a new key, and put it into a file, or into a variable for env:NAME"))
            }
        }
    }

    /// Reads the key, and asks for its passphrase where it has one.
    pub(crate) fn unlock(&self, passphrase: &PassphraseArgs) -> Result<RootKey> {
        match self.read()? {
            KeyText::Root(key) => Ok(key),
            KeyText::Passphrase(key) => {
                // An error of the passphrase's own file has its place already.
                passphrase.open(&key).map_err(|error| match error.place() {
                    Some(_) => error,
                    None => error.at(&PathBuf::from(self.to_string())),
                })
            }
        }
    }

    fn parse(&self, text: &str) -> Result<KeyText> {
        let refused = |kind, why: String| {
            Error::new(kind, "read key", why).at(&PathBuf::from(self.to_string())).hint(
                "it must give the text of a key file, as `tierstream keys new` writes it; line ends may be blanks",
            )
        };
        if text.len() > KEY_TEXT_BYTES_MAX {
            return Err(refused(
                ErrorKind::Misuse,
                format!("not a key: it is longer than {KEY_TEXT_BYTES_MAX} bytes"),
            ));
        }
        KeyText::parse(text).map_err(|error| refused(Error::from(error.clone()).kind(), error.to_string()))
    }
}

#[expect(clippy::disallowed_methods, reason = "only the command line reads the environment")]
fn variable(name: &str) -> Result<Zeroizing<String>> {
    let failed = |kind, why: &str| {
        Error::new(kind, "read key", why)
            .at(&PathBuf::from(format!("env:{name}")))
            .hint(format!("export {name}=\"$(cat job.key)\""))
    };
    match std::env::var_os(name) {
        None => Err(failed(ErrorKind::Missing, "the environment has no such variable")),
        Some(value) => value
            .into_string()
            .map(Zeroizing::new)
            .map_err(|_| failed(ErrorKind::Misuse, "the variable's value is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_understood_and_shows_no_secret() {
        let parse = |text: &str| parse(OsString::from(text));
        assert_eq!(parse("a/job.key"), Ok(KeySource::File("a/job.key".into())));
        assert_eq!(parse("file:env:x"), Ok(KeySource::File("env:x".into())));
        assert_eq!(parse("env:KEY"), Ok(KeySource::Environment("KEY".to_owned())));
        let command = parse("cmd:vault read --token s3cret").unwrap();
        assert_eq!(command, KeySource::Command("vault read --token s3cret".to_owned()));
        assert_eq!(command.to_string(), "cmd:vault ...");
        for text in ["", "env:", "env:A=B", "cmd:", "cmd:  ", "file:"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("tierstream-key-v1 name:k version:1 root:00"), Ok(KeySource::Typed));
        assert!(KeySource::Typed.read().is_err());
    }
}
