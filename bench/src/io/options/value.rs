//! Values of options as fio writes them: sizes, times, ranges, lists by direction.

use std::ops::RangeInclusive;

use super::misuse;
use crate::{Error, Result};

/// The error for `value` of the option `key`.
pub(crate) fn bad(key: &str, value: &str, expected: &str) -> Error {
    misuse(format!("{key}={value}: found `{value}`, expected {expected}"))
}

/// A share of a whole, or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Bytes(u64),
    Percent(u64),
}

impl Amount {
    /// Bytes of it where all are `whole`.
    pub(crate) fn of(self, whole: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => whole / 100 * percent + whole % 100 * percent / 100,
        }
    }
}

/// Splits a number, with or without a fraction, from its suffix.
fn split(value: &str) -> Option<(f64, u64, String)> {
    if let Some(hex) = value.strip_prefix("0x") {
        let digits = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
        let number = u64::from_str_radix(&hex[..digits], 16).ok()?;
        return Some((number as f64, number, hex[digits..].to_ascii_lowercase()));
    }
    let digits = value.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, suffix) = value.split_at(digits);
    let float: f64 = number.parse().ok()?;
    let whole = if number.contains('.') { u64::MAX } else { number.parse().ok()? };
    Some((float, whole, suffix.to_ascii_lowercase()))
}

/// `number` (`whole` unless it has a fraction) times `factor`.
fn scaled(number: f64, whole: u64, factor: u64) -> Option<u64> {
    if whole != u64::MAX {
        return whole.checked_mul(factor);
    }
    let product = number * factor as f64;
    (product < 9e18).then(|| crate::number::whole(product))
}

/// fio's default `kb_base`, in which k is 1024 and ki is 1000.
pub(crate) const KB_BASE: u64 = 1024;

/// A size in bytes. With `kb_base` 1024, k, m, g, t and p are powers of 1024 and ki, mi, ... of 1000; with 1000 the
/// other way round, as SI and IEC have it.
pub(crate) fn bytes_of(key: &str, value: &str, kb_base: u64) -> Result<u64> {
    let parsed = split(value.trim()).and_then(|(number, whole, suffix)| {
        let letters = suffix.strip_suffix('b').unwrap_or(&suffix);
        let (letters, iec) = letters.strip_suffix('i').map_or((letters, false), |rest| (rest, true));
        let power = match letters {
            "" if !iec => 0,
            "k" => 1,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            "p" => 5,
            _ => return None,
        };
        let base: u64 = if iec == (kb_base == 1024) { 1000 } else { 1024 };
        scaled(number, whole, base.pow(power))
    });
    parsed
        .ok_or_else(|| bad(key, value, "a number of bytes, alone or with one of the suffixes k, m, g, t, p"))
}

/// A size, or a share in percent.
pub(crate) fn amount(key: &str, value: &str, kb_base: u64) -> Result<Amount> {
    match value.trim().strip_suffix('%') {
        Some(percent) => number(key, percent, 1..=100).map(Amount::Percent),
        None => bytes_of(key, value, kb_base).map(Amount::Bytes),
    }
}

/// A time in nanoseconds; a number alone is in units of `unit` nanoseconds.
pub(crate) fn nanos(key: &str, value: &str, unit: u64) -> Result<u64> {
    let parsed = split(value.trim()).and_then(|(number, whole, suffix)| {
        let factor = match suffix.as_str() {
            "" => unit,
            "ns" | "nsec" => 1,
            "us" | "usec" => 1_000,
            "ms" | "msec" => 1_000_000,
            "s" | "sec" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return None,
        };
        scaled(number, whole, factor)
    });
    parsed.ok_or_else(|| bad(key, value, "a time, alone or with one of the suffixes ns, us, ms, s, m, h, d"))
}

/// A number within `range`.
pub(crate) fn number(key: &str, value: &str, range: RangeInclusive<u64>) -> Result<u64> {
    let parsed = value.trim().parse().ok().filter(|number| range.contains(number));
    parsed.ok_or_else(|| {
        let expected = match *range.end() {
            u64::MAX => format!("a number from {}", range.start()),
            end => format!("a number from {} to {end}", range.start()),
        };
        bad(key, value, &expected)
    })
}

/// A positive or zero number with a fraction.
pub(crate) fn float(key: &str, value: &str) -> Result<f64> {
    let parsed = value.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    parsed.ok_or_else(|| bad(key, value, "a number, zero or above"))
}

/// 0 or 1, as fio writes them; true and false too.
pub(crate) fn switch(key: &str, value: &str) -> Result<bool> {
    match value.trim() {
        "0" | "false" => Ok(false),
        "1" | "" | "true" => Ok(true),
        _ => Err(bad(key, value, "0 or 1")),
    }
}

/// One of `words`.
pub(crate) fn word<'a>(key: &str, value: &str, words: &[&'a str]) -> Result<&'a str> {
    words.iter().find(|word| **word == value.trim()).copied().ok_or_else(|| {
        let nearest = super::nearest(value, words.iter().copied());
        bad(key, value, &format!("one of {}; the nearest is `{nearest}`", words.join(", ")))
    })
}

/// Values for reads and writes: `r`, `r,w` or `r,w,t`. One alone holds for both; an empty one keeps `default`.
pub(crate) fn by_direction<T: Clone>(
    value: &str,
    default: &[T; 2],
    mut parse: impl FnMut(&str) -> Result<T>,
) -> Result<[T; 2]> {
    let parts: Vec<&str> = value.split(',').map(str::trim).collect();
    let mut of = |number: usize| match parts.get(number) {
        Some(&"") => Ok(default[number].clone()),
        Some(part) => parse(part),
        None => parse(parts.last().copied().unwrap_or_default()),
    };
    match parts.len() {
        1 => {
            let both = parse(parts[0])?;
            Ok([both.clone(), both])
        }
        2 | 3 => Ok([of(0)?, of(1)?]),
        _ => Err(bad("list", value, "at most three values: for reads, writes and trims")),
    }
}

/// A range `low-high` of sizes, or one size for both ends.
pub(crate) fn range(key: &str, value: &str, kb_base: u64) -> Result<(u64, u64)> {
    let (low, high) = value.split_once(['-', ':']).unwrap_or((value, value));
    let (low, high) = (bytes_of(key, low, kb_base)?, bytes_of(key, high, kb_base)?);
    if low > high {
        return Err(bad(key, value, "a range whose first end is not the greater"));
    }
    Ok((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(key: &str, value: &str) -> Result<u64> {
        bytes_of(key, value, KB_BASE)
    }

    #[test]
    fn sizes_and_times_have_fio_suffixes() {
        for (text, expected) in [
            ("512", 512),
            ("4k", 4096),
            ("4K", 4096),
            ("4kb", 4096),
            ("4ki", 4000),
            ("1m", 1 << 20),
            ("1.5g", 3 << 29),
            ("0x10k", 16 << 10),
            ("2p", 2 << 50),
        ] {
            assert_eq!(bytes("bs", text).unwrap(), expected, "{text}");
        }
        assert_eq!(bytes_of("bs", "4k", 1000).unwrap(), 4000);
        assert_eq!(bytes_of("bs", "4ki", 1000).unwrap(), 4096);
        for text in ["", "k", "4x", "-1", "99999999999p", "1..5", "i"] {
            let error = bytes("bs", text).unwrap_err().to_string();
            assert!(error.contains(&format!("found `{text}`, expected a number of bytes")), "{error}");
        }
        for (text, millis) in [("10", 10_000), ("10s", 10_000), ("250ms", 250), ("2m", 120_000), ("0.5", 500)]
        {
            assert_eq!(nanos("runtime", text, 1_000_000_000).unwrap(), millis * 1_000_000, "{text}");
        }
        assert_eq!(nanos("thinktime", "7", 1_000).unwrap(), 7_000);
        assert!(nanos("runtime", "10 x", 1).is_err());
    }

    #[test]
    fn lists_and_ranges() {
        let parse = |text: &str| bytes("bs", text);
        assert_eq!(by_direction("4k", &[1, 2], parse).unwrap(), [4096, 4096]);
        assert_eq!(by_direction("4k,8k", &[1, 2], parse).unwrap(), [4096, 8192]);
        assert_eq!(by_direction(",8k", &[1, 2], parse).unwrap(), [1, 8192]);
        assert_eq!(by_direction("4k,", &[1, 2], parse).unwrap(), [4096, 2]);
        assert!(by_direction("1,2,3,4", &[1, 2], parse).is_err());
        assert_eq!(range("bsrange", "1k-4k", 1024).unwrap(), (1024, 4096));
        assert!(range("bsrange", "4k-1k", 1024).is_err());
        assert_eq!(amount("size", "50%", 1024).unwrap().of(1000), 500);
        assert_eq!(amount("size", "1%", 1024).unwrap().of(199), 1);
        assert!(amount("size", "101%", 1024).is_err());
        let error = word("rw", "randreed", &["read", "randread"]).unwrap_err().to_string();
        assert!(error.contains("found `randreed`") && error.contains("nearest is `randread`"), "{error}");
    }
}
