//! Writing a data set sample by sample from Python.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tierstream_loader::pack::{Layout, PackConfig, Writer as LoaderWriter};
use tierstream_loader::{Field, Schema};
use tierstream_storage::io::ServiceConfig;
use tierstream_storage::keys::KeyProvider;
use tierstream_storage::{Error, ErrorKind};

use crate::error::{raise, raised};
use crate::key::{Key, ring};
use crate::process::InProcess;
use crate::wait::end;

/// A data set being written.
#[pyclass(frozen, module = "tierstream._tierstream")]
pub(crate) struct Writer(InProcess<Mutex<Option<LoaderWriter>>>);

#[pymethods]
impl Writer {
    /// Begins a data set at `output` whose samples have `fields`: name, element type and shape of each.
    #[new]
    #[pyo3(signature = (output, keys, fields, *, cipher, compressed, block_bytes, shard_bytes, overwrite))]
    #[expect(clippy::too_many_arguments, reason = "the settings of a data set, by name")]
    fn new(
        py: Python<'_>,
        output: PathBuf,
        keys: Vec<PyRef<'_, Key>>,
        fields: Vec<(String, String, Vec<i64>)>,
        cipher: &str,
        compressed: bool,
        block_bytes: u32,
        shard_bytes: u64,
        overwrite: bool,
    ) -> PyResult<Self> {
        let keys: Arc<dyn KeyProvider> = Arc::new(ring(&keys)?);
        let fields = fields
            .into_iter()
            .map(|(name, dtype, shape)| raised(dtype.parse()).map(|dtype| Field { name, dtype, shape }));
        let schema = raised(Schema::of(fields.collect::<PyResult<Vec<_>>>()?))?;
        let config = PackConfig {
            output,
            overwrite,
            cipher: raised(cipher.parse().map_err(Error::from))?,
            compressed,
            resume: false,
            dictionary: None,
            block_bytes,
            shard_bytes,
            layout: Layout::PerFile,
            threads: 1,
            io: ServiceConfig::default(),
        };
        let writer = raised(py.detach(|| LoaderWriter::create(config, schema, keys)))?;
        Ok(Self(InProcess::new(Mutex::new(Some(writer)))))
    }

    /// Appends a sample: the bytes of each field, in the schema's order.
    #[pyo3(signature = (values, name = None))]
    fn write(&self, py: Python<'_>, values: Vec<Bound<'_, PyBytes>>, name: Option<&str>) -> PyResult<()> {
        let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        self.with(py, |writer| match name {
            None => writer.write(&values),
            Some(name) => writer.write_named(name, &values),
        })
    }

    /// Appends `count` samples: of each field the bytes of all, end to end.
    fn write_many(&self, py: Python<'_>, values: Vec<Bound<'_, PyBytes>>, count: usize) -> PyResult<()> {
        let all: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        if count == 0 || all.iter().any(|bytes| !bytes.len().is_multiple_of(count)) {
            let why = format!("values that are no {count} samples");
            return Err(raise(Error::new(ErrorKind::Misuse, "write data set", why)));
        }
        self.with(py, |writer| {
            let mut sample = vec![&[][..]; all.len()];
            for number in 0..count {
                for (value, bytes) in sample.iter_mut().zip(&all) {
                    let len = bytes.len() / count;
                    *value = &bytes[number * len..(number + 1) * len];
                }
                writer.write(&sample)?;
            }
            Ok(())
        })
    }

    /// Ends the data set and gives it its name; returns the report as JSON.
    fn finish(&self, py: Python<'_>) -> PyResult<String> {
        let writer = self.0.get("writer")?;
        let writer = py.detach(|| lock(writer).take()).ok_or_else(|| raise(closed()))?;
        let report = raised(py.detach(|| writer.finish()))?;
        serde_json::to_string(&report)
            .map_err(|error| raise(Error::new(ErrorKind::Misuse, "write data set", error.to_string())))
    }

    /// Ends without a data set: nothing is left behind.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        let writer = self.0.get("writer")?;
        py.detach(|| drop(lock(writer).take()));
        Ok(())
    }
}

impl Writer {
    fn with(
        &self,
        py: Python<'_>,
        write: impl FnOnce(&mut LoaderWriter) -> Result<(), Error> + Send,
    ) -> PyResult<()> {
        let writer = self.0.get("writer")?;
        raised(py.detach(|| lock(writer).as_mut().ok_or_else(closed).and_then(write)))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(writer) = self.0.take() {
            end(writer);
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "write data set", "it was finished or dropped before")
}

fn lock(writer: &Mutex<Option<LoaderWriter>>) -> MutexGuard<'_, Option<LoaderWriter>> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}
