//! Key files: a root key in a file that only its owner can read.
//!
//! Also names the parts of `tierstream-crypto` that users of this crate need, so that they depend on one crate.

use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

pub use tierstream_crypto::{Cipher, CpuFeatures, KeyProvider, RootKey, cpu_features};

use crate::device::sync_directory;
use crate::error::{Error, ErrorKind, Result};

/// The name of the code that seals and opens with `cipher` on this machine.
#[must_use]
pub fn cipher_kernel(cipher: Cipher) -> &'static str {
    // The kernel depends on the machine alone; any key of the right length asks the question.
    let aead = tierstream_crypto::aead(cipher, &vec![0; cipher.key_bytes()]);
    aead.map_or("none", |aead| aead.kernel())
}

/// A key file is a few hundred bytes; more is something else.
const FILE_BYTES_MAX: u64 = 4096;

/// Reads a key file.
///
/// # Errors
/// `Missing` when there is none, `Denied` when others than its owner may read it, `Misuse` when it is no key file. No
/// error repeats what the file holds.
#[expect(
    clippy::disallowed_methods,
    reason = "a key file is no data file: it is small, read once, never cached"
)]
pub fn read_key_file(path: &Path) -> Result<RootKey> {
    let file = std::fs::File::open(path).map_err(|error| {
        let error = Error::io("open key file", path, error);
        if error.kind() == ErrorKind::Missing {
            return error.hint(format!("make one: tierstream keys new {}", path.display()));
        }
        error
    })?;
    let metadata = file.metadata().map_err(|error| Error::io("stat", path, error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let why = format!("others may read this key: mode {mode:04o}, expected 0600");
        return Err(Error::new(ErrorKind::Denied, "open key file", why)
            .at(path)
            .hint(format!("if nobody has read it yet: chmod 600 {}; else make a new key", path.display())));
    }
    let mut text = zeroize::Zeroizing::new(String::with_capacity(512));
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Error::io("read key file", path, error))?;
    RootKey::parse(&text).map_err(|error| {
        Error::new(ErrorKind::Misuse, "open key file", error.to_string())
            .at(path)
            .hint("restore the key file from its backup; without it the data cannot be read")
    })
}

/// Writes `key` to a new file with mode 0600 and makes it durable.
///
/// # Errors
/// `Misuse` when the file exists, else as the file system says.
pub fn write_key_file(path: &Path, key: &RootKey) -> Result<()> {
    let failed = |op| move |error| Error::io(op, path, error);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("create key file"))
        .map_err(|error| {
            if error.kind() == ErrorKind::Misuse {
                return error
                    .hint("a key is never overwritten: data sealed under it could not be read any more");
            }
            error
        })?;
    file.write_all(key.to_text().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed("write key file"))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_comes_back_and_is_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let key = RootKey::random("k").unwrap();
        write_key_file(&path, &key).unwrap();
        assert_eq!(read_key_file(&path).unwrap().id(), key.id());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = write_key_file(&path, &key).unwrap_err();
        assert!(
            again.kind() == ErrorKind::Misuse && again.hint_text().unwrap().contains("never overwritten")
        );

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let open = read_key_file(&path).unwrap_err();
        assert!(
            open.kind() == ErrorKind::Denied && open.hint_text().unwrap().contains("chmod 600"),
            "{open}"
        );
    }

    #[test]
    fn what_is_no_key_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let missing = read_key_file(&dir.path().join("none")).unwrap_err();
        assert!(missing.kind() == ErrorKind::Missing && missing.hint_text().unwrap().contains("keys new"));
        let path = dir.path().join("k");
        for contents in ["", "secret sauce", &"x".repeat(100_000)] {
            std::fs::write(&path, contents).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let error = read_key_file(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse);
            assert!(!error.to_string().contains("sauce"));
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read_key_file(&path).is_err());
    }
}
