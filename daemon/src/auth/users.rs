//! Users who log in with an authenticator: names, secrets, and the last code that each used.
//!
//! One file of JSON that its owner alone can read, written anew and renamed at each change, so that a crash leaves the
//! old one or the new one, and a code stays used after a restart.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tierstream_storage::{Error, ErrorKind, Result};

use super::text::{base32, of_base32};
use super::totp::Hash;

/// Users of one daemon.
const USERS_MAX: usize = 100_000;
const SECRET_BYTES: usize = 20;
const NAME_BYTES_MAX: usize = 64;

/// One user.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct User {
    secret: String,
    #[serde(default)]
    pub(crate) hash: Hash,
    #[serde(default)]
    pub(crate) last_step: Option<u64>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({:?}, last step {:?})", self.hash, self.last_step)
    }
}

impl User {
    /// A user with a secret of the kernel's randomness.
    pub(crate) fn new() -> Result<Self> {
        let mut secret = [0; SECRET_BYTES];
        tierstream_crypto::random_bytes(&mut secret)?;
        Ok(Self { secret: base32(&secret), hash: Hash::Sha1, last_step: None })
    }

    pub(crate) fn secret(&self) -> Vec<u8> {
        of_base32(&self.secret).unwrap_or_default()
    }

    /// The same user, who has used the code of `step`.
    pub(crate) fn used(self, step: u64) -> Self {
        Self { last_step: Some(step), ..self }
    }

    /// What an authenticator scans. Shown once, to whoever made the user.
    pub(crate) fn uri(&self, name: &str) -> String {
        format!(
            "otpauth://totp/tierstream:{name}?secret={}&issuer=tierstream&digits=6&period=30",
            self.secret
        )
    }
}

/// All users.
#[derive(Debug)]
pub(crate) struct Users {
    path: PathBuf,
    users: BTreeMap<String, User>,
}

impl Users {
    /// Reads the users in `path`; none when there is no such file.
    ///
    /// # Errors
    /// `Denied` when others than the owner may read the file, `Corrupt` when it is no such file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let users = match read_private(path)? {
            None => BTreeMap::new(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                // The text of the error may quote what it read.
                let place = format!("line {}, column {}", error.line(), error.column());
                Error::new(ErrorKind::Corrupt, "read users", place).at(path)
            })?,
        };
        Ok(Self { path: path.to_owned(), users })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// Adds or changes a user; what is on disk is what is in memory, or the change did not happen.
    pub(crate) fn put(&mut self, name: &str, user: User) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
            let why = "expected 1 to 64 letters, digits and -_.@ as the name of a user";
            return Err(Error::new(ErrorKind::Misuse, "add user", why));
        }
        if self.users.len() >= USERS_MAX && !self.users.contains_key(name) {
            return Err(Error::new(ErrorKind::Full, "add user", format!("there are {USERS_MAX}")));
        }
        let mut users = self.users.clone();
        users.insert(name.to_owned(), user);
        self.replace(users)
    }

    pub(crate) fn remove(&mut self, name: &str) -> Result<bool> {
        let mut users = self.users.clone();
        let was_there = users.remove(name).is_some();
        self.replace(users)?;
        Ok(was_there)
    }

    fn replace(&mut self, users: BTreeMap<String, User>) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(&users)
            .map_err(|error| Error::new(ErrorKind::Misuse, "write users", error.to_string()))?;
        write_private(&self.path, &bytes)?;
        self.users = users;
        Ok(())
    }
}

/// A file of secrets, which nobody but its owner may be able to read; none when it is not there.
pub(crate) fn read_private(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = |error| Error::io("read", path, error);
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(failed)?,
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let why = format!("mode {mode:o}: others can read it, expected 600");
        return Err(Error::new(ErrorKind::Denied, "read", why)
            .at(path)
            .hint("chmod 600 it, and renew the secrets in it"));
    }
    std::fs::read(path).map(Some).map_err(failed)
}

/// Writes such a file: under another name, synced, and renamed.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::io("write", path, error);
    let new = path.with_extension("new");
    let _left_by_a_crash = std::fs::remove_file(&new);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create_new(true).write(true).mode(0o600).open(&new).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&new, path).map_err(failed)
}
