//! Authenticated encryption and the key hierarchy: bytes in, checked bytes out.
//!
//! Guarantees: no plaintext is visible to the caller before its tag was verified (on failure the destination is
//! zero); keys are wiped on drop and never printed; tags, commitments and MACs are compared in constant time.
//!
//! Deliberately knows no file, no tier, no tensor. `tierstream-storage` is its only caller on the data path.
//!
//! ```
//! use tierstream_crypto::{Cipher, DataKey, FileKeys, Nonce};
//!
//! let key = DataKey::random(Cipher::Sm4Gcm)?;
//! let keys = FileKeys::derive(&key, b"file id", b"context that both sides know");
//! let mut body = *b"sixteen byte msg";
//! let nonce = Nonce::block(0, 7);
//! let tag = keys.block_cipher().seal_in_place(&nonce, b"aad", &mut body);
//! keys.block_cipher().open_in_place(&nonce, b"aad", &mut body, &tag)?;
//! assert_eq!(&body, b"sixteen byte msg");
//! # Ok::<(), tierstream_crypto::Error>(())
//! ```

mod aead;
mod detect;
mod error;
mod file_keys;
mod kernels;
mod keys;
pub mod raw;
mod sm4;
#[cfg(target_arch = "x86_64")]
mod vector;

pub use aead::{Aead, Cipher, NONCE_BYTES, Nonce, TAG_BYTES, Tag};
pub use detect::{CpuFeatures, cpu_features};
pub use error::{Error, ErrorKind, Result};
pub use file_keys::{COMMITMENT_BYTES, FileKeys, MAC_BYTES};
pub use kernels::{Kernel, aead, aead_with, force_kernel, forced_kernel, kernels};
pub use keys::{
    DataKey, FINGERPRINT_BYTES, Fingerprint, KEK_NAME_BYTES_MAX, KEY_TEXT_BYTES_MAX, KekId, KeyProvider,
    KeyRing, KeyText, PASSPHRASE_BYTES_MAX, PASSPHRASE_BYTES_MIN, PassphraseCost, PassphraseKey, ROOT_BYTES,
    RootKey, WrappedKey, random_bytes,
};
pub use sm4::Sm4Schedule;
