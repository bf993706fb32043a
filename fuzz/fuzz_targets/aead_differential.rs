#![no_main]
//! Every cipher kernel that this CPU runs against the last one, which is another project's code: the same bytes for
//! every way to seal and open, and zeroes for whatever is not genuine.

use libfuzzer_sys::fuzz_target;
use tierstream_crypto::{Aead, Cipher, Nonce, TAG_BYTES, Tag, aead_with, kernels};

/// Longer than two of the largest groups of blocks that a kernel takes at once, and their ends.
const BODY_BYTES_MAX: usize = 9000;

/// What the fuzzer's bytes mean.
struct Case<'a> {
    cipher: Cipher,
    key: &'a [u8],
    nonce: Nonce,
    aad: &'a [u8],
    body: Vec<u8>,
    /// Where bodies start in their buffers: vector instructions must not mind.
    offset: usize,
    /// Which bit of body, tag or associated data is wrong.
    flip: usize,
}

impl<'a> Case<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        let (head, data) = data.split_at_checked(8)?;
        let cipher = Cipher::ALL[usize::from(head[0] & 1)];
        let (key, data) = data.split_at_checked(cipher.key_bytes())?;
        let (nonce, data) = data.split_at_checked(12)?;
        let (aad, pattern) = data.split_at_checked(usize::from(head[1]).min(data.len()))?;
        // Long bodies from few bytes, so that the fuzzer can change what matters.
        let repeat = usize::from(head[2]) + 1;
        let body =
            pattern.iter().copied().cycle().take(pattern.len() * repeat).take(BODY_BYTES_MAX).collect();
        Some(Self {
            cipher,
            key,
            nonce: Nonce::random(nonce.try_into().ok()?),
            aad,
            body,
            offset: usize::from(head[3] & 63),
            flip: usize::from(u16::from_le_bytes([head[4], head[5]])),
        })
    }

    /// A buffer of its own with `body` at the offset.
    fn placed(&self, body: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0x5a; self.offset];
        buffer.extend_from_slice(body);
        buffer
    }

    fn check(&self, kernel: &str, aead: &dyn Aead, sealed: &[u8], tag: &Tag) {
        let Self { nonce, aad, body, offset, .. } = self;
        let mut buffer = self.placed(body);
        assert_eq!(aead.seal_in_place(nonce, aad, &mut buffer[*offset..]), *tag, "{kernel}");
        assert!(buffer[*offset..] == *sealed, "{kernel} sealed in place");
        aead.open_in_place(nonce, aad, &mut buffer[*offset..], tag).expect("a genuine tag");
        assert!(buffer[*offset..] == *body, "{kernel} opened in place");

        let mut buffer = self.placed(&vec![1; body.len()]);
        assert_eq!(aead.seal_into(nonce, aad, body, &mut buffer[*offset..]), *tag, "{kernel}");
        assert!(buffer[*offset..] == *sealed, "{kernel} sealed");
        aead.open_into(nonce, aad, sealed, &mut buffer[*offset..], tag).expect("a genuine tag");
        assert!(buffer[*offset..] == *body, "{kernel} opened");

        let (mut sealed, mut aad, mut tag) = (sealed.to_vec(), aad.to_vec(), *tag);
        let bit = self.flip % (8 * (sealed.len() + aad.len() + TAG_BYTES));
        let byte =
            sealed.iter_mut().chain(&mut aad).chain(&mut tag).nth(bit / 8).expect("a byte of the three");
        *byte ^= 1 << (bit % 8);
        aead.open_into(nonce, &aad, &sealed, &mut buffer[*offset..], &tag).expect_err("a wrong bit");
        assert!(buffer[*offset..].iter().all(|byte| *byte == 0), "{kernel} left what it opened");
        aead.open_in_place(nonce, &aad, &mut sealed, &tag).expect_err("a wrong bit");
        assert!(sealed.iter().all(|byte| *byte == 0), "{kernel} left what it opened in place");
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(case) = Case::parse(data) else { return };
    let kernels = kernels(case.cipher);
    let oracle = kernels.last().expect("a kernel of each cipher").name;
    let oracle = aead_with(oracle, case.cipher, case.key).expect("a key of the right length");
    let mut sealed = case.body.clone();
    let tag = oracle.seal_in_place(&case.nonce, case.aad, &mut sealed);
    for kernel in kernels.iter().filter(|kernel| kernel.supported) {
        let aead = aead_with(kernel.name, case.cipher, case.key).expect("a key of the right length");
        case.check(kernel.name, &*aead, &sealed, &tag);
    }
});
