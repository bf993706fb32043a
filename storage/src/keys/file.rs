//! Key files: read, written once, destroyed. Only their owner may read them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tierstream_crypto::{KEY_TEXT_BYTES_MAX, KeyText, PassphraseKey, RootKey};
use zeroize::Zeroizing;

use crate::device::sync_directory;
use crate::error::{Error, ErrorKind, Result};
use crate::units::to_u64;

/// Reads a key file that needs no passphrase.
///
/// # Errors
/// As [`read_key_text`]; `Misuse` when it needs a passphrase.
pub fn read_key_file(path: &Path) -> Result<RootKey> {
    match read_key_text(path)? {
        KeyText::Root(key) => Ok(key),
        KeyText::Passphrase(key) => {
            let why = format!("key {} needs a passphrase", key.id());
            Err(Error::new(ErrorKind::Misuse, "open key file", why).at(path))
        }
    }
}

/// Reads a key file of either kind.
///
/// # Errors
/// `Missing` when there is none, `Denied` when others than its owner may read it, `Misuse` when it is no key file,
/// `Corrupt` when it is seen to be damaged. No error repeats what the file holds.
pub fn read_key_text(path: &Path) -> Result<KeyText> {
    let text = read_secret(path, KEY_TEXT_BYTES_MAX).map_err(|error| {
        if error.kind() == ErrorKind::Missing {
            return error.hint(format!("make one: tierstream keys new {}", path.display()));
        }
        error
    })?;
    KeyText::parse(&text).map_err(|error| {
        let kind = Error::from(error.clone()).kind();
        Error::new(kind, "open key file", error.to_string())
            .at(path)
            .hint("restore the key file from its backup; without it the data cannot be read")
    })
}

/// Reads a small file that only its owner may read; pipes have no owner to check.
///
/// # Errors
/// `Missing` when there is none, `Denied` when others may read it, `Misuse` when it has more than `bytes_max` bytes or
/// is not UTF-8.
pub fn read_secret(path: &Path, bytes_max: usize) -> Result<Zeroizing<String>> {
    let file = open(path, std::fs::OpenOptions::new().read(true))?;
    // Room for all of it, so that no copy is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    file.take(to_u64(bytes_max) + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("read key file", path, error))?;
    let misuse = |why: String| Error::new(ErrorKind::Misuse, "read key file", why).at(path);
    if bytes.len() > bytes_max {
        return Err(misuse(format!("not a key: it is longer than {bytes_max} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| misuse("not a key: it is not UTF-8".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Opens a file that holds a secret, after a look at who may read it.
fn open(path: &Path, options: &std::fs::OpenOptions) -> Result<File> {
    let file = options.open(path).map_err(|error| Error::io("open key file", path, error))?;
    let metadata = file.metadata().map_err(|error| Error::io("stat", path, error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_file() && mode & 0o077 != 0 {
        let why = format!("others may read this key: mode {mode:04o}, expected 0600");
        return Err(Error::new(ErrorKind::Denied, "open key file", why)
            .at(path)
            .hint(format!("if nobody has read it yet: chmod 600 {}; else make a new key", path.display())));
    }
    Ok(file)
}

/// Writes `key` to a new file with mode 0600 and makes it durable.
///
/// # Errors
/// `Misuse` when the file exists, else as the file system says.
pub fn write_key_file(path: &Path, key: &RootKey) -> Result<()> {
    write(path, &key.to_text())
}

/// As [`write_key_file`], for a key that opens with a passphrase.
///
/// # Errors
/// As [`write_key_file`].
pub fn write_passphrase_key_file(path: &Path, key: &PassphraseKey) -> Result<()> {
    write(path, &key.to_text())
}

fn write(path: &Path, text: &str) -> Result<()> {
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
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a key is of no use, and would be in the way of the next attempt.
        drop(std::fs::remove_file(path));
        return Err(failed("write key file")(error));
    }
    sync_parent(path)
}

/// Overwrites a key file and removes its name. What the device keeps of overwritten blocks is beyond a program's reach.
///
/// # Errors
/// `Misuse` when it is no key file: nothing else is destroyed; else as the file system says.
pub fn destroy_key_file(path: &Path) -> Result<()> {
    read_key_text(path)?;
    let mut file = open(path, std::fs::OpenOptions::new().read(true).write(true))?;
    let failed = |error| Error::io("destroy key file", path, error);
    let len = file.metadata().map_err(failed)?.len();
    let mut noise = vec![0; KEY_TEXT_BYTES_MAX];
    tierstream_crypto::random_bytes(&mut noise)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    std::io::copy(&mut (&noise[..]).take(len), &mut file).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::remove_file(path).map_err(failed)?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

#[cfg(test)]
mod tests {
    use tierstream_crypto::PassphraseCost;

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
        assert_eq!(destroy_key_file(&path).unwrap_err().kind(), ErrorKind::Denied);
        assert!(path.exists());
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
            assert_eq!(destroy_key_file(&path).unwrap_err().kind(), ErrorKind::Misuse);
            assert!(std::fs::read(&path).unwrap() == contents.as_bytes());
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read_key_file(&path).is_err());
    }

    #[test]
    fn a_destroyed_key_file_is_overwritten_before_its_name_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("k"), dir.path().join("link"));
        let key = RootKey::random("k").unwrap();
        write_key_file(&path, &key).unwrap();
        // A second name shows what became of the bytes.
        std::fs::hard_link(&path, &link).unwrap();
        let before = std::fs::read(&link).unwrap();
        destroy_key_file(&path).unwrap();
        let after = std::fs::read(&link).unwrap();
        assert!(!path.exists() && after.len() == before.len());
        let same = before.iter().zip(&after).filter(|(a, b)| a == b).count();
        assert!(same < 16, "{same} of {} bytes are as they were", before.len());
    }

    #[test]
    fn a_key_under_a_passphrase_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let key = RootKey::random("k").unwrap();
        let sealed = PassphraseKey::seal(&key, b"12345678", PassphraseCost::LEAST).unwrap();
        write_passphrase_key_file(&path, &sealed).unwrap();
        assert!(read_key_file(&path).unwrap_err().to_string().contains("needs a passphrase"));
        let KeyText::Passphrase(again) = read_key_text(&path).unwrap() else { panic!("another kind") };
        assert_eq!(again.open(b"12345678").unwrap().id(), key.id());

        let mut text = std::fs::read_to_string(&path).unwrap();
        text = text.replace("salt: ", "salt: 0");
        text.remove(text.find("salt: ").unwrap() + 10);
        std::fs::write(&path, text).unwrap();
        assert_eq!(read_key_text(&path).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
