//! Tensors of an object: whole, by rows, by slices, in place, and as the safetensors file that they came from.

use std::ops::Range;

use super::handle::{Object, ObjectView};
use super::payload::Sink;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{TensorInfo, TensorTable, runs};
use crate::units::{to_u64, to_usize};

/// Bytes exported at a time.
const PIECE_BYTES: usize = 1 << 20;

/// One tensor of an object.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    object: &'a Object,
    info: &'a TensorInfo,
    place: Range<u64>,
}

impl Object {
    /// The tensors it is made of.
    ///
    /// # Errors
    /// `Misuse` when it is no set of tensors.
    pub fn tensors(&self) -> Result<&TensorTable> {
        self.opened().table.as_ref().ok_or_else(|| {
            let why = format!("`{}` is no set of tensors", self.opened().name.escape_debug());
            Error::new(ErrorKind::Misuse, "open", why)
                .hint("read it as it is, or import a safetensors file under this name")
        })
    }

    /// The tensor `name`.
    ///
    /// # Errors
    /// `Missing` when there is none, `Misuse` when the object is no set of tensors.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let table = self.tensors()?;
        let index = table.index_of(name).ok_or_else(|| {
            let why =
                format!("`{}` has no tensor `{}`", self.opened().name.escape_debug(), name.escape_debug());
            Error::new(ErrorKind::Missing, "open", why)
        })?;
        Ok(Tensor { object: self, info: &table.tensors()[index], place: self.opened().places[index].clone() })
    }

    /// Hands `sink` the safetensors file of its tensors, bit for bit as it was imported.
    ///
    /// # Errors
    /// Those of `sink`, `Misuse` when the object is no set of tensors, else as [`Object::read`].
    pub fn export_safetensors(&self, sink: &mut Sink<'_>) -> Result<()> {
        let table = self.tensors()?;
        sink(&table.file_prefix())?;
        let mut piece = vec![0; PIECE_BYTES.min(to_usize(table.data_bytes()))];
        for place in &self.opened().places {
            let mut at = place.start;
            while at < place.end {
                let now = piece.len().min(to_usize(place.end - at));
                self.read(at, &mut piece[..now])?;
                sink(&piece[..now])?;
                at += to_u64(now);
            }
        }
        Ok(())
    }
}

impl Tensor<'_> {
    /// Name, type and shape.
    #[must_use]
    pub fn info(&self) -> &TensorInfo {
        self.info
    }

    /// All of it, row major and little endian.
    ///
    /// # Errors
    /// As [`Object::read`].
    pub fn read(&self) -> Result<Vec<u8>> {
        self.slice(&[])
    }

    /// Rows of the leading axis.
    ///
    /// # Errors
    /// As [`Tensor::slice`].
    pub fn rows(&self, rows: Range<u64>) -> Result<Vec<u8>> {
        self.slice(&[rows])
    }

    /// A slice: one range for each of the first axes, the others whole. Reads only the blocks that hold it.
    ///
    /// # Errors
    /// `Misuse` for a range outside the tensor, else as [`Object::read`].
    pub fn slice(&self, ranges: &[Range<u64>]) -> Result<Vec<u8>> {
        let runs = runs(self.info.dtype, &self.info.shape, ranges)?;
        let mut bytes = vec![0; to_usize(runs.bytes())];
        let start = self.place.start;
        self.object.read_runs(runs.map(move |run| start + run.start..start + run.end), &mut bytes)?;
        Ok(bytes)
    }

    /// All of it where it lies in L1, if it lies in one block: a tensor of up to an eighth of a block always does. The
    /// address is a multiple of [`ALIGN`](crate::tensor::ALIGN).
    ///
    /// # Errors
    /// As [`Object::read`].
    pub fn view(&self) -> Result<Option<ObjectView>> {
        self.object.view(self.place.clone())
    }
}
