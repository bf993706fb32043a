//! A measurement after dudect (Reparaz, Balasch, Verbauwhede, DATE 2017): does the time of an operation differ between
//! one fixed secret and random ones?
//!
//! Both classes are timed in turns of random order, the slowest fifth of all is left out as the machine's, and
//! Welch's t tells whether the means differ; from 4.5 on, dudect calls it a leak. Only the number is given: on a
//! shared machine a neighbour can move it. That the method sees leaks at all is checked on a gross one.

use std::hint::black_box;
use std::time::Instant;

use tierstream_crypto::raw::sm4_ctr;

use crate::say;

const SAMPLES: usize = 20_000;
const SECRET_BYTES: usize = 16;

/// Prints the t of each operation.
///
/// # Panics
/// When a branch that doubles the work goes unseen.
pub(crate) fn report() {
    let leaky = |secret: &[u8; SECRET_BYTES]| {
        // For the fixed secret of zeroes only: a thousand steps instead of about 3000.
        let steps = if secret[0] & 0x81 == 0 { 1000_u32 } else { 3000 };
        (0..steps).fold(0_u32, |sum, step| black_box(sum.wrapping_mul(31).wrapping_add(step)));
    };
    let t = welch(leaky);
    say(&format!("measured: t = {t:.1} of a leaky branch"));
    assert!(t.abs() > 4.5, "the measurement sees no leak where there is one: t = {t}");

    let t = welch(|secret| drop(black_box(sm4_ctr("sm4-portable", secret))));
    say(&format!("measured: t = {t:.1} of the key schedule (a leak would be above 4.5 in run after run)"));
    let stream = sm4_ctr("sm4-portable", b"one key for all.").expect("a kernel of every CPU");
    let t = welch(|secret| {
        let mut block = [0; 16];
        stream.apply(secret, &[0; 16], &mut block);
        black_box(block);
    });
    say(&format!("measured: t = {t:.1} of one block of the portable kernel"));
}

/// Welch's t between the times for the secret of zeroes and for random ones.
#[expect(clippy::disallowed_methods, reason = "the time is what is measured")]
fn welch(mut operation: impl FnMut(&[u8; SECRET_BYTES])) -> f64 {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let mut times = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let mut secret = [0; SECRET_BYTES];
        let fixed = random.next() & 1 == 1;
        let noise = [random.next(), random.next()];
        // Both classes write the secret from the same words, so that making it takes the same time.
        let mask = if fixed { 0 } else { u64::MAX };
        for (bytes, word) in secret.chunks_exact_mut(8).zip(noise) {
            bytes.copy_from_slice(&(word & black_box(mask)).to_le_bytes());
        }
        let started = Instant::now();
        operation(black_box(&secret));
        times.push((started.elapsed().as_nanos(), fixed));
    }
    let mut sorted: Vec<u128> = times.iter().map(|(time, _)| *time).collect();
    sorted.sort_unstable();
    let limit = sorted[SAMPLES * 4 / 5];
    let class = |wanted: bool| {
        let kept: Vec<f64> = times
            .iter()
            .filter(|(time, fixed)| *fixed == wanted && *time <= limit)
            .map(|(time, _)| *time as f64)
            .collect();
        let mean = kept.iter().sum::<f64>() / kept.len() as f64;
        let squares: f64 = kept.iter().map(|time| (time - mean).powi(2)).sum();
        (mean, squares / (kept.len() as f64 - 1.0) / kept.len() as f64)
    };
    let ((fixed, fixed_error), (random, random_error)) = (class(true), class(false));
    (fixed - random) / (fixed_error + random_error).sqrt()
}

/// Marsaglia's generator: which class comes next is no secret.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
