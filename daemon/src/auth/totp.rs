//! One-time codes by time: RFC 6238 over HMAC (RFC 4226).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

/// Seconds that a code is good for.
pub(crate) const STEP_SECONDS: u64 = 30;
/// Steps that a person's clock may be off, before and after.
const DRIFT_STEPS: u64 = 1;
/// Digits of a code, as every authenticator shows.
pub(crate) const DIGITS: u32 = 6;

/// The hash under the HMAC. SHA-1 is what authenticators do unless told otherwise, and is not broken in this use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Hash {
    #[default]
    Sha1,
    Sha256,
    Sha512,
}

impl Hash {
    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// The code of one step.
pub(crate) fn code(hash: Hash, secret: &[u8], step: u64, digits: u32) -> String {
    let tag = hmac::sign(&hmac::Key::new(hash.algorithm(), secret), &step.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag.last().copied().unwrap_or(0) & 0xf);
    let word = tag.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).unwrap_or_default();
    let number = (u32::from_be_bytes(word) & 0x7fff_ffff) % 10_u32.pow(digits);
    format!("{number:0width$}", width = usize::try_from(digits).unwrap_or(6))
}

/// The step that `typed` is the code of, near `now` and after `last`: a code is taken once, and none before it after it.
pub(crate) fn verify(hash: Hash, secret: &[u8], typed: &str, now: u64, last: Option<u64>) -> Option<u64> {
    let current = now / STEP_SECONDS;
    let mut found = None;
    // All are looked at, so that time does not tell which one it was.
    for step in current.saturating_sub(DRIFT_STEPS)..=current + DRIFT_STEPS {
        let expected = code(hash, secret, step, DIGITS);
        let equal = verify_slices_are_equal(expected.as_bytes(), typed.as_bytes()).is_ok();
        if equal && last.is_none_or(|last| step > last) {
            found = Some(step);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_6238_appendix_b() {
        let secret = |len: usize| b"1234567890".iter().copied().cycle().take(len).collect::<Vec<u8>>();
        for (time, sha1, sha256, sha512) in [
            (59, "94287082", "46119246", "90693936"),
            (1_111_111_109, "07081804", "68084774", "25091201"),
            (1_111_111_111, "14050471", "67062674", "99943326"),
            (1_234_567_890, "89005924", "91819424", "93441116"),
            (2_000_000_000, "69279037", "90698825", "38618901"),
            (20_000_000_000_u64, "65353130", "77737706", "47863826"),
        ] {
            let step = time / STEP_SECONDS;
            assert_eq!(code(Hash::Sha1, &secret(20), step, 8), sha1);
            assert_eq!(code(Hash::Sha256, &secret(32), step, 8), sha256);
            assert_eq!(code(Hash::Sha512, &secret(64), step, 8), sha512);
        }
    }

    #[test]
    fn a_code_is_good_once_and_near_its_time() {
        let (secret, now) = (b"twenty bytes of key.", 1_000_000_000);
        let typed = code(Hash::Sha1, secret, now / STEP_SECONDS, DIGITS);
        let check = |now, last| verify(Hash::Sha1, secret, &typed, now, last);
        let step = check(now, None).unwrap();
        assert_eq!((check(now + 30, None), check(now - 30, None)), (Some(step), Some(step)));
        assert_eq!((check(now + 75, None), check(now - 75, None)), (None, None));
        assert_eq!((check(now, Some(step)), check(now, Some(step + 1))), (None, None), "replayed");
        assert_eq!(check(now, Some(step - 1)), Some(step));
        for wrong in ["", "000000", &typed[1..], &format!("{typed}0")] {
            assert!(wrong == typed || verify(Hash::Sha1, secret, wrong, now, None).is_none(), "{wrong}");
        }
    }
}
