//! Bytes as text: hexadecimal, base64 for URLs, base32 as authenticators want it.

const HEX: &[u8; 16] = b"0123456789abcdef";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

pub(crate) fn hex(bytes: &[u8]) -> String {
    digits(bytes, 4, HEX)
}

/// RFC 4648, section 5, without padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    digits(bytes, 6, BASE64)
}

/// RFC 4648, section 6, without padding.
pub(crate) fn base32(bytes: &[u8]) -> String {
    digits(bytes, 5, BASE32)
}

/// The bytes of [`base64`] text; none for anything else, a second spelling of the same bytes included.
pub(crate) fn of_base64(text: &str) -> Option<Vec<u8>> {
    let bytes = values(text, 6, BASE64)?;
    (base64(&bytes) == text).then_some(bytes)
}

/// The bytes of base32 as people type it: small letters, blanks and padding are fine.
pub(crate) fn of_base32(text: &str) -> Option<Vec<u8>> {
    let typed: String = text.chars().filter(|c| !c.is_whitespace() && *c != '=' && *c != '-').collect();
    values(&typed.to_ascii_uppercase(), 5, BASE32)
}

fn digits(bytes: &[u8], bits: u32, alphabet: &[u8]) -> String {
    let mask = (1_u32 << bits) - 1;
    let (mut text, mut held, mut count) = (String::new(), 0_u32, 0);
    let digit = |value: u32| {
        alphabet.get(usize::try_from(value & mask).unwrap_or(0)).map_or(' ', |byte| char::from(*byte))
    };
    for byte in bytes {
        (held, count) = ((held << 8 | u32::from(*byte)) & 0xffff, count + 8);
        while count >= bits {
            count -= bits;
            text.push(digit(held >> count));
        }
    }
    if count > 0 {
        text.push(digit(held << (bits - count)));
    }
    text
}

fn values(text: &str, bits: u32, alphabet: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut held, mut count) = (Vec::new(), 0_u32, 0);
    for character in text.bytes() {
        let value = u32::try_from(alphabet.iter().position(|known| *known == character)?).ok()?;
        (held, count) = ((held << bits | value) & 0xffff, count + bits);
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(held >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_4648_vectors() {
        let base32s = ["", "MY", "MZXQ", "MZXW6", "MZXW6YQ", "MZXW6YTB", "MZXW6YTBOI"];
        let base64s = ["", "Zg", "Zm8", "Zm9v", "Zm9vYg", "Zm9vYmE", "Zm9vYmFy"];
        for (len, (thirty_two, sixty_four)) in base32s.into_iter().zip(base64s).enumerate() {
            let bytes = &b"foobar"[..len];
            assert_eq!((base32(bytes).as_str(), base64(bytes).as_str()), (thirty_two, sixty_four));
            assert_eq!(of_base32(thirty_two).unwrap(), bytes);
            assert_eq!(of_base64(sixty_four).unwrap(), bytes);
        }
        assert_eq!(hex(&[0, 0xf7, 0x3c]), "00f73c");
        assert_eq!(of_base32("mzxw 6ytb-oi======").unwrap(), b"foobar");
        assert!(of_base64("Zh").is_none(), "bits behind the last byte");
        assert!(of_base64("Zg==").is_none() && of_base64("Z+").is_none() && of_base32("M1").is_none());
    }
}
