//! The text form that key files share: a first word that names the form, then `field: value`, separated by white space.
//!
//! Guarantees that no error repeats what was read: it may be key material.

use zeroize::Zeroizing;

use super::misuse;
use crate::error::Result;

/// Longest text of a key.
pub const KEY_TEXT_BYTES_MAX: usize = 4096;

/// The values of `names` in `text`, in that order; each must stand there once, and nothing else.
pub(super) fn fields<'a, const N: usize>(
    text: &'a str,
    magic: &str,
    names: [&str; N],
) -> Result<[&'a str; N]> {
    let mut words = text.split_ascii_whitespace();
    if words.next() != Some(magic) {
        return Err(misuse(format!("not a key: the first word is not `{magic}`")));
    }
    let mut values: [Option<&str>; N] = [None; N];
    let expected = || names.join(", ");
    for number in 1.. {
        let Some(word) = words.next() else { break };
        let (name, rest) = word
            .split_once(':')
            .ok_or_else(|| misuse(format!("field {number} of the key is not `field: value`")))?;
        let value = if rest.is_empty() { words.next().unwrap_or_default() } else { rest };
        let place = names.iter().position(|known| *known == name).ok_or_else(|| {
            misuse(format!("field {number} of the key is not known, expected {}", expected()))
        })?;
        if value.is_empty() {
            return Err(misuse(format!("field `{}` of the key has no value", names[place])));
        }
        if values[place].replace(value).is_some() {
            return Err(misuse(format!("field `{}` of the key stands there twice", names[place])));
        }
    }
    let missing: Vec<&str> =
        names.iter().zip(&values).filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        return Err(misuse(format!("the key lacks {}", missing.join(", "))));
    }
    Ok(values.map(|value| value.expect("none is missing")))
}

/// A decimal number from `range`.
pub(super) fn number(name: &str, value: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32> {
    value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        misuse(format!("field `{name}` of the key is not a number from {} to {}", range.start(), range.end()))
    })
}

/// `N` bytes from `2 * N` hexadecimal digits.
pub(super) fn bytes<const N: usize>(name: &str, value: &str) -> Result<Zeroizing<[u8; N]>> {
    let bad = || misuse(format!("field `{name}` of the key is not {} hexadecimal digits", N * 2));
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if value.len() != N * 2 {
        return Err(bad());
    }
    let mut bytes = Zeroizing::new([0; N]);
    for (byte, pair) in bytes.iter_mut().zip(value.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0]).ok_or_else(bad)? << 4 | digit(pair[1]).ok_or_else(bad)?;
    }
    Ok(bytes)
}

/// Appends `name: value` and a line end, the value in hexadecimal.
pub(super) fn put_bytes(text: &mut String, name: &str, value: &[u8]) {
    text.push_str(name);
    text.push_str(": ");
    for byte in value {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).expect("a hexadecimal digit"));
        }
    }
    text.push('\n');
}
