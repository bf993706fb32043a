//! Counts as fractions and back.

/// A count as a number to divide: 53 bits are exact, and more were never counted.
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// A number without its fraction; zero where it is none or negative.
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for; the cast saturates")]
pub(crate) fn whole(number: f64) -> u64 {
    number as u64
}

/// `part` per `whole`; zero where there is nothing.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
