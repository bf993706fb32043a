//! The data set of a workload: random samples of the asked sizes, sealed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tierstream_crypto::{KeyProvider, RootKey};
use tierstream_loader::pack::{Input, Layout, PackConfig, PackProgress, pack};
use tierstream_storage::io::ServiceConfig;
use tierstream_storage::keys::{Cipher, read_key_file, write_key_file};

use super::profile::Profile;
use crate::io::job::Job;
use crate::random::Random;
use crate::{Error, ErrorKind, Result, to_usize};

const SHARD_BYTES: u64 = 256 << 20;
const CHUNK_BYTES: usize = 1 << 20;

/// A data set that is there.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) directory: PathBuf,
    pub(super) keys: Arc<dyn KeyProvider>,
    keep: bool,
    root: PathBuf,
}

impl Drop for Data {
    fn drop(&mut self) {
        if !self.keep {
            let _already_gone = std::fs::remove_dir_all(&self.root);
        }
    }
}

/// The cipher of a job.
///
/// # Errors
/// `Misuse` for a name that is none.
pub(super) fn cipher_of(job: &Job) -> Result<Cipher> {
    job.tiers.cipher.parse().map_err(|error: tierstream_crypto::Error| {
        Error::new(ErrorKind::Misuse, "parse", format!("cipher={}: {error}", job.tiers.cipher))
    })
}

/// Makes the data set of `job` below `place`, or finds the one that an earlier run kept.
///
/// # Errors
/// As the file system and the packing say.
pub(super) fn make(job: &Job, profile: &Profile, place: &Path) -> Result<Data> {
    let tiers = &job.tiers;
    let words = format!(
        "{}-{}x{}-{}-{}-{}{}",
        profile.kind.word(),
        profile.samples,
        profile.sample_bytes,
        profile.sample_stdev,
        tiers.cipher,
        tiers.block_bytes,
        if tiers.zstd { "-zstd" } else { "" }
    );
    let root = place.join(format!("tierstream-bench-{words}"));
    let directory = root.join("set");
    let key_path = root.join("bench.key");
    if directory.join("manifest.tsm").exists() && key_path.exists() {
        let keys: Arc<dyn KeyProvider> = Arc::new(read_key_file(&key_path)?);
        return Ok(Data { directory, keys, keep: true, root });
    }
    let _none_of_ours = std::fs::remove_dir_all(&root);
    let input = root.join("input");
    std::fs::create_dir_all(&input).map_err(|error| {
        Error::io("make directory", &input, error)
            .hint("l3 is an existing directory with room for the data set twice")
    })?;
    let key = RootKey::random("bench").map_err(Error::from)?;
    write_key_file(&key_path, &key)?;
    let data = Data { directory: directory.clone(), keys: Arc::new(key), keep: tiers.keep, root };
    write_samples(profile, &input, job)?;
    let config = PackConfig {
        output: directory,
        overwrite: false,
        cipher: cipher_of(job)?,
        compressed: tiers.zstd,
        resume: false,
        dictionary: None,
        block_bytes: u32::try_from(tiers.block_bytes).unwrap_or(u32::MAX),
        shard_bytes: SHARD_BYTES.max(profile.sample_bytes * 2),
        layout: Layout::PerFile,
        threads: std::thread::available_parallelism().map_or(2, |cores| cores.get().min(4)),
        io: ServiceConfig::default(),
    };
    pack(&Input::scan(&input)?, &config, &data.keys, &PackProgress::default())?;
    std::fs::remove_dir_all(&input).map_err(|error| Error::io("remove", &input, error))?;
    Ok(data)
}

/// Bytes of each sample: normally distributed around the mean, never less than a hundredth of it.
fn sizes(profile: &Profile, seed: u64) -> impl Iterator<Item = u64> {
    let mut random = Random::new(seed ^ 0x5a_3e);
    let (mean, deviation) = (profile.sample_bytes as f64, profile.sample_stdev as f64);
    let least = (mean / 100.0).max(1.0);
    (0..profile.samples).map(move |_| crate::number::whole((mean + random.normal() * deviation).max(least)))
}

fn write_samples(profile: &Profile, input: &Path, job: &Job) -> Result<()> {
    let seed = job.pattern.seed;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut random = Random::new(seed ^ 0xda7a);
    random.fill(&mut chunk);
    // As compressible as the job says, for the codec.
    if let crate::io::job::Fill::Compressible { percent, chunk: part } = job.buffer.fill {
        for part in chunk.chunks_mut(part) {
            let noise = part.len() - part.len() * to_usize(percent) / 100;
            part[noise..].fill(0);
        }
    }
    for (number, bytes) in sizes(profile, seed).enumerate() {
        let path = input.join(format!("{number:08}"));
        let failed = |error| Error::io("write", &path, error);
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).map_err(failed)?);
        let mut left = to_usize(bytes);
        while left > 0 {
            // A number in front, so that no two pieces are alike.
            chunk[..8].copy_from_slice(&random.next_u64().to_le_bytes());
            let piece = left.min(CHUNK_BYTES);
            file.write_all(&chunk[..piece]).map_err(failed)?;
            left -= piece;
        }
        file.flush().map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::job::Workload;

    #[test]
    fn samples_are_as_long_as_the_workload_says() {
        let profile = Profile {
            kind: Workload::Unet3d,
            samples: 20_000,
            sample_bytes: 1_000_000,
            sample_stdev: 300_000,
            batch_size: 1,
            compute_nanos: 0,
            au_target: 90.0,
            skewed: false,
        };
        let all: Vec<f64> = sizes(&profile, 3).map(|bytes| bytes as f64).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let deviation =
            (all.iter().map(|bytes| (bytes - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
        assert!(
            (mean / 1e6 - 1.0).abs() < 0.02 && (deviation / 3e5 - 1.0).abs() < 0.05,
            "{mean} {deviation}"
        );
        assert!(all.iter().all(|bytes| *bytes >= 10_000.0));
    }
}
