//! Keys for people and programs above this crate: key files, and the parts of `tierstream-crypto` that they name.
//!
//! Where a key comes from when not from a file (a variable, a command, a prompt) is the command line's business.

mod file;

pub use file::{
    destroy_key_file, read_key_file, read_key_text, read_secret, write_key_file, write_passphrase_key_file,
};
pub use tierstream_crypto::{
    Cipher, CpuFeatures, Fingerprint, KEY_TEXT_BYTES_MAX, KekId, KeyProvider, KeyRing, KeyText,
    PASSPHRASE_BYTES_MAX, PASSPHRASE_BYTES_MIN, PassphraseCost, PassphraseKey, RootKey, cpu_features,
    force_kernel, forced_kernel, kernels,
};

/// The name of the code that seals and opens with `cipher` on this machine.
#[must_use]
pub fn cipher_kernel(cipher: Cipher) -> &'static str {
    // The kernel depends on the machine alone; any key of the right length asks the question.
    let aead = tierstream_crypto::aead(cipher, &vec![0; cipher.key_bytes()]);
    aead.map_or("none", |aead| aead.kernel())
}
