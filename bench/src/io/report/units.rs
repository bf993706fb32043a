//! Numbers as fio prints them.

/// `value` in four digits or less of the largest unit, as fio prints sizes and rates.
fn short(value: f64, base: f64, units: &[&str]) -> String {
    let mut scaled = value;
    let mut unit = 0;
    while scaled >= 9_999.5 && unit + 1 < units.len() {
        scaled /= base;
        unit += 1;
    }
    let digits = match scaled {
        whole if whole.fract() == 0.0 || whole >= 99.95 => 0,
        tens if tens >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{}", units[unit])
}

/// Bytes in KiB, MiB, ...
pub(super) fn binary(bytes: f64) -> String {
    short(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Bytes in kB, MB, ...
pub(super) fn decimal(bytes: f64) -> String {
    short(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB"])
}

/// A count with k, M, G.
pub(super) fn count(number: f64) -> String {
    short(number, 1000.0, &["", "k", "M", "G"])
}

/// The unit that fio would print latencies of this spread in, and its nanoseconds.
pub(super) fn latency_unit(min: u64, max: u64, stddev: f64) -> (&'static str, f64) {
    let fits =
        |unit: f64| min as f64 > 2_000.0 * unit && max as f64 > 99_999.0 * unit && stddev > 1_000.0 * unit;
    if fits(1_000.0) {
        ("msec", 1e6)
    } else if fits(1.0) {
        ("usec", 1e3)
    } else {
        ("nsec", 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(count(20_700.0), "20.7k");
        assert_eq!(count(9_999.0), "9999");
        assert_eq!(binary(8_388_608.0), "8192KiB");
        assert_eq!(binary(84_700_000.0), "80.8MiB");
        assert_eq!(decimal(84_700_000.0), "84.7MB");
        assert_eq!(binary(9.5 * 1024.0 * 1024.0 * 1024.0), "9728MiB");
        assert_eq!(count(0.0), "0");
        assert_eq!(latency_unit(3_000, 200_000, 2_000.0).0, "usec");
        assert_eq!(latency_unit(1_000, 200_000, 2_000.0).0, "nsec");
    }
}
