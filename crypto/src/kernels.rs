//! Which code does the work: every kernel of every cipher, best first, and the choice between them.
//!
//! The choice is the first one that this CPU runs, unless [`force_kernel`] named another. That is the one exception to
//! "no global state": keys are made deep below the command line, and which code multiplies is nobody's business on the
//! way there. It can be set once per process and is never read from the environment here.

use std::sync::OnceLock;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::aead::aws_lc;
use crate::aead::{Aead, Cipher, rustcrypto, sm4_gcm};
use crate::detect::{CpuFeatures, cpu_features};
use crate::error::{Error, ErrorKind, Result};
use crate::raw::{KeyStream, sm4_crate, sm4_stream};
#[cfg(target_arch = "x86_64")]
use crate::sm4::{AesNi256, Gfni256, Gfni512, Vaes256};
use crate::sm4::{Portable, Sm4Kernel};

/// One implementation of one cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// What it computes.
    pub cipher: Cipher,
    /// Its name in options and reports.
    pub name: &'static str,
    /// Whether this CPU runs it.
    pub supported: bool,
}

type NewAead = fn(&[u8]) -> Box<dyn Aead>;
type NewStream = fn(&[u8; 16]) -> Box<dyn KeyStream>;

struct Entry {
    cipher: Cipher,
    name: &'static str,
    is_supported: fn(&CpuFeatures) -> bool,
    aead: NewAead,
    stream: Option<NewStream>,
}

impl Entry {
    const fn sm4<K: Sm4Kernel + 'static>() -> Self {
        Self {
            cipher: Cipher::Sm4Gcm,
            name: K::NAME,
            is_supported: K::is_supported,
            aead: sm4_gcm::<K>,
            stream: Some(sm4_stream::<K>),
        }
    }
}

/// All kernels, for each cipher best first; the last of a cipher runs everywhere.
static ENTRIES: &[Entry] = &[
    #[cfg(target_arch = "x86_64")]
    Entry::sm4::<Gfni512>(),
    #[cfg(target_arch = "x86_64")]
    Entry::sm4::<Gfni256>(),
    #[cfg(target_arch = "x86_64")]
    Entry::sm4::<Vaes256>(),
    #[cfg(target_arch = "x86_64")]
    Entry::sm4::<AesNi256>(),
    Entry::sm4::<Portable>(),
    Entry {
        cipher: Cipher::Sm4Gcm,
        name: rustcrypto::SM4,
        is_supported: |_| true,
        aead: |key| Box::new(rustcrypto::Sm4Gcm::new(key)),
        stream: Some(sm4_crate),
    },
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    Entry {
        cipher: Cipher::Aes256Gcm,
        name: aws_lc::NAME,
        is_supported: |_| true,
        aead: |key| Box::new(aws_lc::Aes256Gcm::new(key)),
        stream: None,
    },
    Entry {
        cipher: Cipher::Aes256Gcm,
        name: rustcrypto::AES,
        is_supported: |_| true,
        aead: |key| Box::new(rustcrypto::Aes256Gcm::new(key)),
        stream: None,
    },
];

static FORCED: OnceLock<&'static Entry> = OnceLock::new();

/// All kernels of `cipher`, best first.
#[must_use]
pub fn kernels(cipher: Cipher) -> Vec<Kernel> {
    let of_cipher = ENTRIES.iter().filter(|entry| entry.cipher == cipher);
    of_cipher.map(|entry| Kernel { cipher, name: entry.name, supported: entry.runs_here() }).collect()
}

/// Makes every key of this process use the kernel `name`, where its cipher is the key's. For tests and comparisons.
///
/// # Errors
/// `Unsupported` when there is no such kernel or this CPU does not run it, `Misuse` when another was forced before.
pub fn force_kernel(name: &str) -> Result<()> {
    let entry = find(name, |_| true)?;
    if FORCED.get_or_init(|| entry).name == name {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Misuse, "a kernel was forced before, and keys may use it"))
}

/// The name given to [`force_kernel`], if any was.
#[must_use]
pub fn forced_kernel() -> Option<&'static str> {
    FORCED.get().map(|entry| entry.name)
}

/// The cipher under `key`, by the best kernel of this machine or the forced one.
///
/// # Errors
/// `Misuse` when the key has not [`Cipher::key_bytes`] bytes.
pub fn aead(cipher: Cipher, key: &[u8]) -> Result<Box<dyn Aead>> {
    let cipher = cipher.engine();
    let forced = FORCED.get().copied().filter(|entry| entry.cipher == cipher);
    let best = || ENTRIES.iter().find(|entry| entry.cipher == cipher && entry.runs_here());
    forced.or_else(best).expect("the last kernel of a cipher runs everywhere").aead(key)
}

/// The cipher under `key`, by the kernel of that name: for tests, comparisons and measurements.
///
/// # Errors
/// `Unsupported` when the cipher has no such kernel or this CPU does not run it; `Misuse` as [`aead`].
pub fn aead_with(kernel: &str, cipher: Cipher, key: &[u8]) -> Result<Box<dyn Aead>> {
    find(kernel, |entry| entry.cipher == cipher)?.aead(key)
}

/// The key stream of SM4 by the kernel of that name.
pub(crate) fn stream_with(kernel: &str, key: &[u8; 16]) -> Result<Box<dyn KeyStream>> {
    let entry = find(kernel, |entry| entry.stream.is_some())?;
    let stream = entry.stream.expect("an entry that was looked up by this");
    Ok(stream(key))
}

impl Entry {
    fn runs_here(&self) -> bool {
        (self.is_supported)(&cpu_features())
    }

    fn aead(&self, key: &[u8]) -> Result<Box<dyn Aead>> {
        let (cipher, expected) = (self.cipher, self.cipher.key_bytes());
        if key.len() != expected {
            let found = key.len();
            let message = format!("{cipher} key of {found} bytes, expected {expected}");
            return Err(Error::new(ErrorKind::Misuse, message));
        }
        Ok((self.aead)(key))
    }
}

fn find(name: &str, wanted: impl Fn(&Entry) -> bool) -> Result<&'static Entry> {
    let refused = match ENTRIES.iter().find(|entry| entry.name == name && wanted(entry)) {
        Some(entry) if entry.runs_here() => return Ok(entry),
        Some(_) => format!("cipher kernel `{name}` needs instructions that this CPU has not"),
        None => format!("unknown cipher kernel `{name}`"),
    };
    Err(Error::new(ErrorKind::Unsupported, refused))
}
