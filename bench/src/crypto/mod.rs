//! How fast this machine seals and opens, in GB/s (1e9 bytes) of one core: each kernel that it runs, in each mode, beside
//! memcpy.
//!
//! All are measured in one run and in turn, so that a busy moment hits each alike, and the best of many short samples
//! counts: what the code can do, not what else the machine did. From one buffer to another, as the store does. Knows
//! the keys of nobody: it makes its own.

mod case;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tierstream_crypto::{Cipher, Kernel, aead, cpu_features, forced_kernel, kernels};
use tierstream_storage::clock::Clock;
use tierstream_storage::units::{human_bytes, to_u64};

use self::case::{Case, Mode};
use crate::Result;
use crate::os::time_stamp_counter;

/// The smallest unit of a sealed file, the default block, and a large block.
const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
/// Turns of each case.
const TURNS: usize = 50;

/// A number by the length of the message in bytes.
pub type BySize = BTreeMap<usize, f64>;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// GB/s of "memcpy", of the chosen kernels ("sm4_gcm_open", "sm4_gcm_seal", "sm4_ctr", "aes256_gcm_open",
    /// "aes256_gcm_seal"), and of what they are compared with ("sm4_crate_ctr", "aes_crate_open").
    #[serde(flatten)]
    pub gbps: BTreeMap<String, BySize>,
    /// What the project promises, at 1 MiB: "sm4_gcm_open / sm4_crate_ctr" and so on.
    pub ratios: BTreeMap<&'static str, f64>,
    /// The kernel that keys get, by cipher.
    pub chosen: BTreeMap<&'static str, &'static str>,
    /// The kernel that was forced, if one was.
    pub forced: Option<&'static str>,
    /// GB/s of each kernel that this CPU runs, by mode.
    pub kernels: BTreeMap<&'static str, BTreeMap<&'static str, BySize>>,
    /// Cycles of the time stamp counter per byte, by kernel and mode; null where there is none.
    pub cycles_per_byte: Option<BTreeMap<&'static str, BTreeMap<&'static str, BySize>>>,
    /// What these cycles are, or why there are none.
    pub cycles: String,
    /// What of this CPU decides which kernels it runs.
    pub cpu_features: String,
}

/// The name of a cipher in the report.
fn key_of(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::Sm4Gcm => "sm4_gcm",
        Cipher::Aes256Gcm => "aes256_gcm",
        Cipher::AuthOnly => "sm4_gmac",
    }
}

/// Measures memcpy and every kernel. Takes about ten seconds.
///
/// # Errors
/// None but of the ciphers, which have no reason to.
pub fn run(clock: &dyn Clock) -> Result<Report> {
    run_turns(clock, TURNS)
}

fn run_turns(clock: &dyn Clock, turns: usize) -> Result<Report> {
    let supported: Vec<Kernel> =
        Cipher::ALL.into_iter().flat_map(kernels).filter(|kernel| kernel.supported).collect();
    let mut copies: Vec<_> = SIZES.into_iter().map(|size| (size, Case::copy(size))).collect();
    let mut cases = Vec::new();
    for kernel in &supported {
        for mode in Mode::all(kernel.cipher) {
            for size in SIZES {
                cases.push((kernel, *mode, size, Case::kernel(kernel, *mode, size)?));
            }
        }
    }
    let (began, ticks) = (clock.now(), time_stamp_counter());
    for _ in 0..turns {
        for (_, copy) in &mut copies {
            copy.turn(clock)?;
        }
        for (_, _, _, case) in &mut cases {
            case.turn(clock)?;
        }
    }
    let seconds = (clock.now() - began).as_secs_f64();
    let hertz = time_stamp_counter().zip(ticks).map(|(end, begin)| (end - begin) as f64 / seconds);

    let mut by_kernel: BTreeMap<_, BTreeMap<_, BySize>> = BTreeMap::new();
    for (kernel, mode, size, case) in &cases {
        let modes = by_kernel.entry(kernel.name).or_default();
        modes.entry(mode.name()).or_default().insert(*size, case.gbps());
    }
    let mut report = Report {
        gbps: BTreeMap::new(),
        ratios: BTreeMap::new(),
        chosen: BTreeMap::new(),
        forced: forced_kernel(),
        cycles_per_byte: hertz.map(|hertz| cycles_per_byte(&by_kernel, hertz)),
        cycles: match hertz {
            Some(hertz) => format!("of the time stamp counter at {:.3} GHz, not of the core", hertz / 1e9),
            None => "none: this machine has no time stamp counter that a program may read".to_owned(),
        },
        kernels: by_kernel,
        cpu_features: cpu_features().to_string(),
    };
    report.gbps.insert("memcpy".to_owned(), copies.iter().map(|(size, copy)| (*size, copy.gbps())).collect());
    for cipher in Cipher::ALL {
        let chosen = aead(cipher, &vec![0; cipher.key_bytes()])?.kernel();
        report.chosen.insert(key_of(cipher), chosen);
        for mode in Mode::all(cipher) {
            let name = match mode {
                Mode::Ctr => "sm4_ctr".to_owned(),
                mode => format!("{}_{}", key_of(cipher), mode.name()),
            };
            report.copy_row(name, chosen, *mode);
        }
    }
    report.copy_row("sm4_crate_ctr".to_owned(), "sm4-crate", Mode::Ctr);
    report.copy_row("aes_crate_open".to_owned(), "aes-crate", Mode::Open);
    report.add_ratios();
    Ok(report)
}

fn cycles_per_byte(
    gbps: &BTreeMap<&'static str, BTreeMap<&'static str, BySize>>,
    hertz: f64,
) -> BTreeMap<&'static str, BTreeMap<&'static str, BySize>> {
    let mut cycles = gbps.clone();
    for number in cycles.values_mut().flat_map(BTreeMap::values_mut).flat_map(BTreeMap::values_mut) {
        *number = hertz / 1e9 / *number;
    }
    cycles
}

impl Report {
    /// A row of a kernel's under a name of its own.
    fn copy_row(&mut self, name: String, kernel: &str, mode: Mode) {
        let row = self.kernels.get(kernel).and_then(|modes| modes.get(mode.name()));
        self.gbps.insert(name, row.cloned().unwrap_or_default());
    }

    fn add_ratios(&mut self) {
        let at = |name: &str, size: usize| self.gbps.get(name).and_then(|row| row.get(&size)).copied();
        let [small, _, large] = SIZES;
        let ratios = [
            ("sm4_gcm_open / sm4_crate_ctr", at("sm4_gcm_open", large), at("sm4_crate_ctr", large)),
            ("sm4_ctr / sm4_crate_ctr", at("sm4_ctr", large), at("sm4_crate_ctr", large)),
            ("sm4_gcm_open / aes256_gcm_open", at("sm4_gcm_open", large), at("aes256_gcm_open", large)),
            ("sm4_gcm_seal / sm4_gcm_open", at("sm4_gcm_seal", large), at("sm4_gcm_open", large)),
            ("sm4_gcm_open of 4 KiB / of 1 MiB", at("sm4_gcm_open", small), at("sm4_gcm_open", large)),
            ("aes256_gcm_open / aes_crate_open", at("aes256_gcm_open", large), at("aes_crate_open", large)),
        ];
        self.ratios = ratios.into_iter().filter_map(|(name, a, b)| Some((name, a? / b?))).collect();
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, numbers: &BySize) -> fmt::Result {
    write!(f, "{name:<24}")?;
    for gbps in numbers.values() {
        write!(f, "{gbps:>10.3}")?;
    }
    writeln!(f)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24}", "GB/s of one core")?;
        for size in SIZES {
            write!(f, "{:>10}", human_bytes(to_u64(size)))?;
        }
        writeln!(f)?;
        for (name, numbers) in &self.gbps {
            row(f, name, numbers)?;
        }
        writeln!(f, "\nby kernel")?;
        for (kernel, modes) in &self.kernels {
            for (mode, numbers) in modes {
                row(f, &format!("{kernel} {mode}"), numbers)?;
            }
        }
        if let Some(cycles) = &self.cycles_per_byte {
            writeln!(f, "\ncycles per byte")?;
            for (kernel, modes) in cycles {
                for (mode, numbers) in modes {
                    row(f, &format!("{kernel} {mode}"), numbers)?;
                }
            }
        }
        writeln!(f)?;
        for (name, ratio) in &self.ratios {
            writeln!(f, "{name}: {ratio:.3}")?;
        }
        for (cipher, kernel) in &self.chosen {
            let forced = if self.forced == Some(*kernel) { " (forced)" } else { "" };
            writeln!(f, "{cipher}: {kernel}{forced}")?;
        }
        writeln!(f, "cycles: {}", self.cycles)?;
        writeln!(f, "CPU features: {}", self.cpu_features)
    }
}

#[cfg(test)]
mod tests {
    use tierstream_storage::clock::SystemClock;

    use super::*;

    #[test]
    fn each_kernel_and_mode_has_a_number_at_each_length() {
        let report = run_turns(&SystemClock::new(), 1).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        let text = report.to_string();
        let check = |name: &str, row: &serde_json::Value| {
            for size in ["4096", "65536", "1048576"] {
                let gbps = row[size].as_f64().unwrap_or_else(|| panic!("{name} at {size}: {row}"));
                assert!(gbps > 0.0001 && gbps < 1000.0, "{name} at {size}: {gbps}");
            }
            assert!(text.contains(name), "{name} is not in\n{text}");
        };
        for name in ["memcpy", "sm4_gcm_open", "sm4_gcm_seal", "sm4_ctr", "sm4_crate_ctr", "aes256_gcm_open"]
        {
            check(name, &json[name]);
        }
        for cipher in Cipher::ALL {
            for kernel in kernels(cipher).into_iter().filter(|kernel| kernel.supported) {
                for mode in Mode::all(cipher) {
                    let name = format!("{} {}", kernel.name, mode.name());
                    check(&name, &json["kernels"][kernel.name][mode.name()]);
                }
            }
            assert_eq!(
                json["chosen"][key_of(cipher)],
                kernels(cipher).iter().find(|k| k.supported).unwrap().name
            );
        }
        assert_eq!(json["ratios"].as_object().unwrap().len(), 6);
        assert_eq!(json["cpu_features"], cpu_features().to_string());
        assert_eq!(json["cycles_per_byte"].is_null(), cfg!(not(target_arch = "x86_64")));
    }
}
