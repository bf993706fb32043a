//! How fast this machine seals and opens, in GB/s (1e9 bytes) of one core, beside memcpy.
//!
//! All are measured in one run and in turn, so that a busy moment hits each alike, and the best of many short samples
//! counts: what the code can do, not what else the machine did. Opens as the store does, from a sealed buffer into
//! another. Knows the keys of nobody: it makes its own.

use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;
use std::time::Duration;

use serde::Serialize;
use tierstream_crypto::{Aead, Cipher, Nonce, Tag, aead, cpu_features};
use tierstream_storage::clock::Clock;

use crate::Result;
use crate::random::Random;

/// The smallest unit of a sealed file, the default block, and a large block.
const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
/// Bytes of one sample: long beside a look at the clock (25 ns), short beside a time slice.
const SAMPLE_BYTES: usize = 1 << 20;
/// Samples of each case; the slowest kernel takes about 10 ms for one.
const SAMPLES: usize = 50;
/// As long as the associated data of a block (docs/specs/format.md).
const AAD: [u8; 48] = [0; 48];

/// GB/s by what was done and by the bytes done at once.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// "memcpy", "sm4_gcm_open", "sm4_gcm_seal", ... each by message length in bytes.
    #[serde(flatten)]
    pub gbps: BTreeMap<String, BTreeMap<usize, f64>>,
    /// The code that did it, by cipher.
    pub kernels: BTreeMap<&'static str, &'static str>,
    /// What of this CPU decides which code that is.
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

/// Measures memcpy and, for each cipher, sealing and opening. Takes a few seconds.
///
/// # Errors
/// None but of the ciphers, which have no reason to.
pub fn run(clock: &dyn Clock) -> Result<Report> {
    run_samples(clock, SAMPLES)
}

fn run_samples(clock: &dyn Clock, samples: usize) -> Result<Report> {
    let mut cases = Vec::new();
    let mut kernels = BTreeMap::new();
    for size in SIZES {
        cases.push(Case::new(Work::Copy, size)?);
        for cipher in Cipher::ALL {
            let open = Case::new(Work::Open(cipher), size)?;
            kernels.insert(key_of(cipher), open.aead.kernel());
            cases.push(open);
            cases.push(Case::new(Work::Seal(cipher), size)?);
        }
    }
    for _ in 0..samples {
        for case in &mut cases {
            case.sample(clock)?;
        }
    }
    let mut gbps: BTreeMap<String, BTreeMap<usize, f64>> = BTreeMap::new();
    for case in cases {
        gbps.entry(case.work.name()).or_default().insert(case.plain.len(), case.gbps());
    }
    Ok(Report { gbps, kernels, cpu_features: cpu_features().to_string() })
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Copy,
    Open(Cipher),
    Seal(Cipher),
}

impl Work {
    fn name(self) -> String {
        match self {
            Self::Copy => "memcpy".to_owned(),
            Self::Open(cipher) => format!("{}_open", key_of(cipher)),
            Self::Seal(cipher) => format!("{}_seal", key_of(cipher)),
        }
    }
}

/// One thing done to messages of one length.
#[derive(Debug)]
struct Case {
    work: Work,
    aead: Box<dyn Aead>,
    sealed: Vec<u8>,
    tag: Tag,
    plain: Vec<u8>,
    best: Duration,
}

impl Case {
    fn new(work: Work, size: usize) -> Result<Self> {
        let cipher = match work {
            Work::Copy => Cipher::Aes256Gcm,
            Work::Open(cipher) | Work::Seal(cipher) => cipher,
        };
        let aead = aead(cipher, &vec![7; cipher.key_bytes()])?;
        let mut sealed = vec![0; size];
        Random::new(1).fill(&mut sealed);
        let tag = aead.seal_in_place(&Nonce::block(0, 0), &AAD, &mut sealed);
        Ok(Self { work, aead, sealed, tag, plain: vec![0; size], best: Duration::MAX })
    }

    fn repeats(&self) -> usize {
        SAMPLE_BYTES / self.plain.len()
    }

    fn sample(&mut self, clock: &dyn Clock) -> Result<()> {
        let nonce = Nonce::block(0, 0);
        let started = clock.now();
        for _ in 0..self.repeats() {
            let (sealed, plain) = (black_box(&self.sealed[..]), black_box(&mut self.plain[..]));
            match self.work {
                Work::Copy => plain.copy_from_slice(sealed),
                Work::Open(_) => self.aead.open_into(&nonce, &AAD, sealed, plain, &self.tag)?,
                // One nonce for all: nobody will see these messages.
                Work::Seal(_) => {
                    black_box(self.aead.seal_in_place(&nonce, &AAD, plain));
                }
            }
            black_box(&mut self.plain);
        }
        self.best = self.best.min(clock.now() - started);
        Ok(())
    }

    fn gbps(&self) -> f64 {
        let bytes = self.repeats() * self.plain.len();
        bytes as f64 / 1e9 / self.best.as_secs_f64().max(1e-9)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<18}", "GB/s of one core")?;
        for size in SIZES {
            write!(
                f,
                "{:>10}",
                tierstream_storage::units::human_bytes(tierstream_storage::units::to_u64(size))
            )?;
        }
        writeln!(f)?;
        for (name, by_size) in &self.gbps {
            write!(f, "{name:<18}")?;
            for gbps in by_size.values() {
                write!(f, "{gbps:>10.3}")?;
            }
            writeln!(f)?;
        }
        for (cipher, kernel) in &self.kernels {
            writeln!(f, "{cipher}: {kernel}")?;
        }
        writeln!(f, "CPU features: {}", self.cpu_features)
    }
}

#[cfg(test)]
mod tests {
    use tierstream_storage::clock::SystemClock;

    use super::*;

    #[test]
    fn each_case_has_a_number_at_each_length() {
        let report = run_samples(&SystemClock::new(), 2).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        for name in ["memcpy", "sm4_gcm_open", "sm4_gcm_seal", "aes256_gcm_open", "aes256_gcm_seal"] {
            for size in ["4096", "65536", "1048576"] {
                let gbps = json[name][size].as_f64().unwrap();
                assert!(gbps > 0.001 && gbps < 1000.0, "{name} {size}: {gbps}");
            }
            assert!(report.to_string().contains(name));
        }
        assert!(json["memcpy"]["65536"].as_f64() > json["sm4_gcm_open"]["65536"].as_f64());
        assert!(json["kernels"]["sm4_gcm"].is_string() && json["kernels"]["aes256_gcm"].is_string());
        assert_eq!(json["cpu_features"], cpu_features().to_string());
    }
}
