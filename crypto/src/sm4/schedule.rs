//! What a device that computes SM4-GCM itself needs of a key.

use std::fmt;

use zeroize::Zeroize;

use super::RoundKeys;

/// The expanded form of an SM4-GCM key, for kernels that run elsewhere (on a GPU). Wiped on drop; whoever hands it on
/// is to wipe the copy.
#[derive(Clone)]
pub struct Sm4Schedule {
    /// The 32 round keys for rounds whose S-boxes are the circuit of `crypto/src/sm4/sbox.rs`: its constants are merged
    /// in, so that these are not the standard's keys. The first byte of a word is its highest.
    pub circuit_keys: [u32; 32],
    /// GCM's hash key: the encryption of zero.
    pub hash_key: [u8; 16],
}

impl Drop for Sm4Schedule {
    fn drop(&mut self) {
        self.circuit_keys.zeroize();
        self.hash_key.zeroize();
    }
}

impl fmt::Debug for Sm4Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sm4Schedule(key hidden)")
    }
}

impl Sm4Schedule {
    /// Expands a key.
    #[must_use]
    pub fn expand(key: &[u8; 16]) -> Self {
        let keys = RoundKeys::expand(key);
        Self { circuit_keys: *keys.for_circuit(), hash_key: keys.encrypt_block(&[0; 16]) }
    }
}
