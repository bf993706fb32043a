//! Packing files from Python: what `tierstream pack` does.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use tierstream_loader::pack::{Input, Layout, PackConfig, PackProgress};
use tierstream_storage::io::ServiceConfig;
use tierstream_storage::keys::KeyProvider;
use tierstream_storage::{Error, ErrorKind};

use crate::error::{raise, raised};
use crate::key::{Key, ring};

/// Packs the files below `input` into a data set at `output`; returns the report as JSON.
#[pyfunction]
#[pyo3(signature = (input, output, keys, *, sample_bytes, dtype, cipher, compressed, block_bytes, shard_bytes, overwrite, threads))]
#[expect(clippy::too_many_arguments, reason = "the settings of a pack, by name")]
pub(crate) fn pack(
    py: Python<'_>,
    input: PathBuf,
    output: PathBuf,
    keys: Vec<PyRef<'_, Key>>,
    sample_bytes: Option<u64>,
    dtype: &str,
    cipher: &str,
    compressed: bool,
    block_bytes: u32,
    shard_bytes: u64,
    overwrite: bool,
    threads: usize,
) -> PyResult<String> {
    let keys: Arc<dyn KeyProvider> = Arc::new(ring(&keys)?);
    let dtype = raised(dtype.parse())?;
    let config = PackConfig {
        output,
        overwrite,
        cipher: raised(cipher.parse().map_err(Error::from))?,
        compressed,
        resume: false,
        dictionary: None,
        block_bytes,
        shard_bytes,
        layout: sample_bytes.map_or(Layout::PerFile, |sample_bytes| Layout::Cut { sample_bytes, dtype }),
        threads,
        io: ServiceConfig::default(),
    };
    let progress = PackProgress::default();
    let report = raised(
        py.detach(|| tierstream_loader::pack::pack(&Input::scan(&input)?, &config, &keys, &progress)),
    )?;
    serde_json::to_string(&report)
        .map_err(|error| raise(Error::new(ErrorKind::Misuse, "pack", error.to_string())))
}
