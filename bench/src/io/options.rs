//! Values of fio options, and the nearest known word for a mistyped one.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::{Error, ErrorKind, Result};

fn misuse(why: String) -> Error {
    Error::new(ErrorKind::Misuse, "parse", why)
}

/// The error for `value` of the option `key`.
pub(super) fn bad(key: &str, value: &str, expected: &str) -> Error {
    misuse(format!("{key}={value}: found `{value}`, expected {expected}"))
}

/// The error for an option that does not exist.
pub(super) fn unknown(key: &str, known: &[&str]) -> Error {
    let nearest = nearest(key, known);
    misuse(format!("unknown option `{key}`, the nearest known one is `{nearest}`"))
        .hint(format!("known options: {}", known.join(", ")))
}

/// Splits a number from its suffix.
fn split(value: &str) -> Option<(u64, String)> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = value.split_at(digits);
    Some((number.parse().ok()?, suffix.to_ascii_lowercase()))
}

/// A size in bytes; k, m, g and t are powers of 1024, as fio has them by default.
pub(super) fn bytes(key: &str, value: &str) -> Result<u64> {
    let parsed = split(value).and_then(|(number, suffix)| {
        let factor: u64 = match suffix.as_str() {
            "" => 1,
            "k" => 1 << 10,
            "m" => 1 << 20,
            "g" => 1 << 30,
            "t" => 1 << 40,
            _ => return None,
        };
        number.checked_mul(factor)
    });
    parsed.ok_or_else(|| {
        bad(key, value, "a number of bytes, alone or with one of the suffixes k, m, g, t (powers of 1024)")
    })
}

/// A time; seconds without a suffix.
pub(super) fn time(key: &str, value: &str) -> Result<Duration> {
    let parsed = split(value).and_then(|(number, suffix)| {
        let micros: u64 = match suffix.as_str() {
            "us" => 1,
            "ms" => 1_000,
            "" | "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return None,
        };
        number.checked_mul(micros).map(Duration::from_micros)
    });
    parsed.filter(|time| !time.is_zero()).ok_or_else(|| {
        bad(key, value, "a time above zero in seconds, or with one of the suffixes us, ms, s, m, h, d")
    })
}

/// A number within `range`.
pub(super) fn number(key: &str, value: &str, range: RangeInclusive<u64>) -> Result<u64> {
    let parsed = value.parse().ok().filter(|number| range.contains(number));
    parsed.ok_or_else(|| bad(key, value, &format!("a number from {} to {}", range.start(), range.end())))
}

/// 0 or 1.
pub(super) fn switch(key: &str, value: &str) -> Result<bool> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(bad(key, value, "0 or 1")),
    }
}

/// One of `words`, as what it stands for.
pub(super) fn word<T: Copy>(key: &str, value: &str, words: &[(&str, T)]) -> Result<T> {
    words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        bad(key, value, &format!("one of {}; the nearest is `{}`", all.join(", "), nearest(value, &all)))
    })
}

/// The word of `known` that takes the fewest edits to become `word`; the first of several.
fn nearest<'a>(word: &str, known: &[&'a str]) -> &'a str {
    known.iter().copied().min_by_key(|candidate| distance(word, candidate)).unwrap_or_default()
}

/// Insertions, deletions and substitutions between two words (Levenshtein), one row at a time.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, found) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, expected) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(found != *expected);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_fio_suffixes() {
        for (text, expected) in [("512", 512), ("4k", 4096), ("4K", 4096), ("1m", 1 << 20), ("2g", 2 << 30)] {
            assert_eq!(bytes("bs", text).unwrap(), expected, "{text}");
        }
        for text in ["", "k", "4x", "4kib", "-1", "1.5g", "99999999999g"] {
            let error = bytes("bs", text).unwrap_err().to_string();
            assert!(error.contains(&format!("found `{text}`, expected a number of bytes")), "{error}");
        }
        for (text, millis) in [("10", 10_000), ("10s", 10_000), ("250ms", 250), ("2m", 120_000)] {
            assert_eq!(time("runtime", text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        assert!(time("runtime", "0").is_err());
        assert!(time("runtime", "10 s").is_err());
    }

    #[test]
    fn the_nearest_word_takes_the_fewest_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(nearest("iodpeth", &["iodepth", "ioengine", "direct"]), "iodepth");
        assert_eq!(nearest("randreed", &["read", "randread", "randrw"]), "randread");
        let error = word("rw", "randreed", &[("read", 0), ("randread", 1)]).unwrap_err().to_string();
        assert!(error.contains("found `randreed`") && error.contains("nearest is `randread`"), "{error}");
    }
}
