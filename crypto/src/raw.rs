//! SM4 in plain counter mode, for measurements alone.
//!
//! `tierstream bench crypto` reports what of SM4-GCM is cipher and what is hash, and compares with the `sm4` crate's
//! counter mode. Nothing else may use it: a key stream without a tag protects nothing that matters here, so the store
//! only ever sees [`Aead`](crate::Aead).

use aes_gcm::aead::inout::InOutBuf;
use ctr::cipher::{InnerIvInit, KeyInit, StreamCipherCore};

use crate::error::Result;
use crate::kernels::stream_with;
use crate::sm4::{RoundKeys, Sm4Kernel};

/// A key stream.
pub trait KeyStream: Send + Sync {
    /// Writes `from` XOR the key stream that starts at `counter` to `to`. The last 32 bits of the counter count, big
    /// endian, and wrap.
    ///
    /// # Panics
    /// When the two lengths differ.
    fn apply(&self, counter: &[u8; 16], from: &[u8], to: &mut [u8]);

    /// The same in place.
    fn apply_in_place(&self, counter: &[u8; 16], data: &mut [u8]);
}

impl std::fmt::Debug for dyn KeyStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyStream(key hidden)")
    }
}

/// SM4-CTR by the kernel of that name ([`crate::kernels()`]).
///
/// # Errors
/// `Unsupported` when there is no such SM4 kernel or this CPU does not run it.
pub fn sm4_ctr(kernel: &str, key: &[u8; 16]) -> Result<Box<dyn KeyStream>> {
    stream_with(kernel, key)
}

struct Stream<K>(K);

pub(crate) fn sm4_stream<K: Sm4Kernel + 'static>(key: &[u8; 16]) -> Box<dyn KeyStream> {
    Box::new(Stream(K::new(&RoundKeys::expand(key))))
}

impl<K: Sm4Kernel> KeyStream for Stream<K> {
    fn apply(&self, counter: &[u8; 16], from: &[u8], to: &mut [u8]) {
        self.0.ctr(counter, InOutBuf::new(from, to).expect("two buffers of the same length"));
    }

    fn apply_in_place(&self, counter: &[u8; 16], data: &mut [u8]) {
        self.0.ctr(counter, data.into());
    }
}

/// The `sm4` crate under the `ctr` crate, as their users have it.
struct CrateStream(sm4::Sm4);

pub(crate) fn sm4_crate(key: &[u8; 16]) -> Box<dyn KeyStream> {
    Box::new(CrateStream(sm4::Sm4::new(&(*key).into())))
}

impl CrateStream {
    fn apply_inout(&self, counter: &[u8; 16], data: InOutBuf<'_, '_, u8>) {
        let core =
            ctr::CtrCore::<_, ctr::flavors::Ctr32BE>::inner_iv_init(self.0.clone(), &(*counter).into());
        core.apply_keystream_partial(data);
    }
}

impl KeyStream for CrateStream {
    fn apply(&self, counter: &[u8; 16], from: &[u8], to: &mut [u8]) {
        self.apply_inout(counter, InOutBuf::new(from, to).expect("two buffers of the same length"));
    }

    fn apply_in_place(&self, counter: &[u8; 16], data: &mut [u8]) {
        self.apply_inout(counter, data.into());
    }
}
