//! One thing done to messages of one length, and the least time it took.

use std::hint::black_box;
use std::time::Duration;

use tierstream_crypto::raw::{KeyStream, sm4_ctr};
use tierstream_crypto::{Aead, Cipher, Kernel, Nonce, Tag, aead_with};
use tierstream_storage::clock::Clock;

use crate::Result;
use crate::random::Random;

/// Bytes of one sample at least: long beside a look at the clock (25 ns), short beside a time slice.
const SAMPLE_BYTES: usize = 64 << 10;
/// How long a case is sampled in its turn.
const TURN: Duration = Duration::from_millis(2);
/// As long as the associated data of a block (docs/specs/format.md).
const AAD: [u8; 48] = [0; 48];

/// What a kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Open,
    Seal,
    Ctr,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Seal => "seal",
            Self::Ctr => "ctr",
        }
    }

    /// Those of a kernel of `cipher`: its counter mode alone is there for SM4.
    pub(super) fn all(cipher: Cipher) -> &'static [Self] {
        match cipher {
            Cipher::Sm4Gcm => &[Self::Open, Self::Seal, Self::Ctr],
            Cipher::Aes256Gcm | Cipher::AuthOnly => &[Self::Open, Self::Seal],
        }
    }
}

#[derive(Debug)]
enum Work {
    Copy,
    Open(Box<dyn Aead>, Tag),
    Seal(Box<dyn Aead>),
    Ctr(Box<dyn KeyStream>),
}

fn random(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    Random::new(1).fill(&mut bytes);
    bytes
}

/// Work from one buffer to another, as the store does it.
#[derive(Debug)]
pub(super) struct Case {
    work: Work,
    from: Vec<u8>,
    to: Vec<u8>,
    best: Duration,
}

impl Case {
    /// memcpy of `size` bytes.
    pub(super) fn copy(size: usize) -> Self {
        // Written, or all its pages would be the one page of zeros that the kernel shares.
        Self::new(Work::Copy, random(size))
    }

    /// `mode` of `kernel` on `size` bytes.
    ///
    /// # Errors
    /// `Unsupported` when this CPU does not run the kernel.
    pub(super) fn kernel(kernel: &Kernel, mode: Mode, size: usize) -> Result<Self> {
        let mut from = random(size);
        let key = vec![7; kernel.cipher.key_bytes()];
        let aead = || aead_with(kernel.name, kernel.cipher, &key);
        let work = match mode {
            Mode::Open => {
                let aead = aead()?;
                let tag = aead.seal_in_place(&Nonce::block(0, 0), &AAD, &mut from);
                Work::Open(aead, tag)
            }
            Mode::Seal => Work::Seal(aead()?),
            Mode::Ctr => Work::Ctr(sm4_ctr(kernel.name, &[7; 16])?),
        };
        Ok(Self::new(work, from))
    }

    fn new(work: Work, from: Vec<u8>) -> Self {
        let to = vec![0; from.len()];
        Self { work, from, to, best: Duration::MAX }
    }

    /// Samples until its turn is over, once at least.
    pub(super) fn turn(&mut self, clock: &dyn Clock) -> Result<()> {
        let started = clock.now();
        let mut now = started;
        while now == started || now - started < TURN {
            let before = now;
            for _ in 0..self.messages() {
                self.once()?;
            }
            now = clock.now();
            self.best = self.best.min(now - before);
        }
        Ok(())
    }

    fn once(&mut self) -> Result<()> {
        let nonce = Nonce::block(0, 0);
        let (from, to) = (black_box(&self.from[..]), black_box(&mut self.to[..]));
        match &self.work {
            Work::Copy => to.copy_from_slice(from),
            Work::Open(aead, tag) => aead.open_into(&nonce, &AAD, from, to, tag)?,
            // One nonce for all: nobody will see these messages.
            Work::Seal(aead) => {
                black_box(aead.seal_into(&nonce, &AAD, from, to));
            }
            Work::Ctr(stream) => stream.apply(&[1; 16], from, to),
        }
        black_box(&mut self.to);
        Ok(())
    }

    /// Messages of one sample.
    fn messages(&self) -> usize {
        SAMPLE_BYTES.div_ceil(self.from.len())
    }

    /// The best sample's speed.
    pub(super) fn gbps(&self) -> f64 {
        let bytes = self.messages() * self.from.len();
        bytes as f64 / 1e9 / self.best.as_secs_f64().max(1e-9)
    }
}
