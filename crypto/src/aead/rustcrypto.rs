//! The portable kernels: GCM of the `aes-gcm` crate over the block ciphers of the `sm4` and `aes` crates.
//!
//! They run on every CPU (using AES and carry-less multiply instructions where there are some), are the oracle for every
//! faster kernel, and the last to be chosen. The `sm4` crate looks its S-box up in a table, whose timing depends on
//! secrets: see docs/HAZARDS.md.

use std::fmt;

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{AesGcm, aes::Aes256};

use super::{Aead, Cipher, Nonce, Tag, wiped};
use crate::error::Result;

type Sm4GcmCore = AesGcm<sm4::Sm4, U12>;
type Aes256GcmCore = AesGcm<Aes256, U12>;

/// The name of SM4-GCM here.
pub(crate) const SM4: &str = "sm4-crate";
/// The name of AES-256-GCM here.
pub(crate) const AES: &str = "aes-crate";

/// The `body` must be shorter than 2^36 - 31 bytes; blocks are at most 16 MiB.
const LENGTH: &str = "a message within GCM's length limit";

macro_rules! kernel {
    ($name:ident, $core:ty, $cipher:expr, $kernel:expr) => {
        /// The portable kernel of this cipher under one key.
        pub(crate) struct $name {
            core: $core,
        }

        impl $name {
            /// Expands `key`, whose length the caller checked.
            pub(crate) fn new(key: &[u8]) -> Self {
                Self { core: <$core>::new_from_slice(key).expect("a key of the cipher's length") }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(key hidden)"))
            }
        }

        impl Aead for $name {
            fn cipher(&self) -> Cipher {
                $cipher
            }

            fn kernel(&self) -> &'static str {
                $kernel
            }

            fn seal_in_place(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8]) -> Tag {
                let tag = self.core.encrypt_inout_detached(&nonce.0.into(), aad, body.into()).expect(LENGTH);
                tag.into()
            }

            fn seal_into(&self, nonce: &Nonce, aad: &[u8], plain: &[u8], sealed: &mut [u8]) -> Tag {
                let buffers = InOutBuf::new(plain, sealed).expect("two buffers of the same length");
                self.core.encrypt_inout_detached(&nonce.0.into(), aad, buffers).expect(LENGTH).into()
            }

            fn open_in_place(&self, nonce: &Nonce, aad: &[u8], body: &mut [u8], tag: &Tag) -> Result<()> {
                let opened = self.core.decrypt_inout_detached(
                    &nonce.0.into(),
                    aad,
                    (&mut *body).into(),
                    &(*tag).into(),
                );
                opened.map_err(|_| wiped(body))
            }

            fn open_into(
                &self,
                nonce: &Nonce,
                aad: &[u8],
                sealed: &[u8],
                plain: &mut [u8],
                tag: &Tag,
            ) -> Result<()> {
                let buffers = InOutBuf::new(sealed, plain).expect("two buffers of the same length");
                let opened = self.core.decrypt_inout_detached(&nonce.0.into(), aad, buffers, &(*tag).into());
                opened.map_err(|_| wiped(plain))
            }
        }
    };
}

kernel!(Sm4Gcm, Sm4GcmCore, Cipher::Sm4Gcm, SM4);
kernel!(Aes256Gcm, Aes256GcmCore, Cipher::Aes256Gcm, AES);
