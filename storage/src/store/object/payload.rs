//! What can be put: bytes, tensors in memory, a safetensors file, a stream. A payload can be written more than once, because a
//! write that failed is begun anew, under a new key and perhaps on another tier.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use crate::device::PlainFile;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{ALIGN, Dtype, LEN_BYTES, TensorTable};
use crate::units::{to_u64, to_usize};

/// Where a payload goes, piece by piece.
pub type Sink<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// Bytes read from a file at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Something to put. Every call of [`Payload::write`] gives the same bytes, or an error where it can be read but once.
pub trait Payload: Sync {
    /// Its length, in blocks that hold `block_capacity` bytes. None for a stream whose end nobody knows yet: it is written
    /// once, to L3, since nobody can say whether L2 has room for it.
    fn payload_bytes(&self, block_capacity: u64) -> Option<u64>;

    /// Hands all of it to `sink`, in order.
    ///
    /// # Errors
    /// Those of `sink`, and of where it comes from.
    fn write(&self, block_capacity: u64, sink: &mut Sink<'_>) -> Result<()>;

    /// The tensors it holds, laid out by [`TensorTable::places`].
    fn tensors(&self) -> Option<&TensorTable> {
        None
    }
}

impl Payload for &[u8] {
    fn payload_bytes(&self, _: u64) -> Option<u64> {
        Some(to_u64(self.len()))
    }

    fn write(&self, _: u64, sink: &mut Sink<'_>) -> Result<()> {
        sink(self)
    }
}

impl Payload for Vec<u8> {
    fn payload_bytes(&self, block_capacity: u64) -> Option<u64> {
        self.as_slice().payload_bytes(block_capacity)
    }

    fn write(&self, block_capacity: u64, sink: &mut Sink<'_>) -> Result<()> {
        self.as_slice().write(block_capacity, sink)
    }
}

impl Payload for PlainFile {
    fn payload_bytes(&self, _: u64) -> Option<u64> {
        Some(self.size_bytes())
    }

    fn write(&self, _: u64, sink: &mut Sink<'_>) -> Result<()> {
        copy_range(self, 0..self.size_bytes(), sink)
    }
}

/// Tensors in memory.
#[derive(Debug)]
pub struct TensorPayload<'a> {
    table: TensorTable,
    // In the order of the table.
    data: Vec<&'a [u8]>,
}

impl<'a> TensorPayload<'a> {
    /// The tensors `(name, dtype, shape, data)` with `metadata`, in any order.
    ///
    /// # Errors
    /// `Misuse` when the data's length is not the shape's, or as [`TensorTable::build`].
    pub fn new(
        tensors: &[(&str, Dtype, &[u64], &'a [u8])],
        metadata: BTreeMap<String, String>,
    ) -> Result<Self> {
        let described =
            tensors.iter().map(|(name, dtype, shape, _)| ((*name).to_owned(), *dtype, shape.to_vec()));
        let table = TensorTable::build(described, metadata)?;
        let by_name: BTreeMap<&str, &[u8]> = tensors.iter().map(|(name, .., data)| (*name, *data)).collect();
        let data: Vec<&[u8]> = table.tensors().iter().map(|tensor| by_name[&tensor.name[..]]).collect();
        for (tensor, data) in table.tensors().iter().zip(&data) {
            if to_u64(data.len()) != tensor.bytes() {
                let why = format!(
                    "tensor `{}` has {} bytes, its shape says {}",
                    tensor.name.escape_debug(),
                    data.len(),
                    tensor.bytes()
                );
                return Err(Error::new(ErrorKind::Misuse, "put", why));
            }
        }
        Ok(Self { table, data })
    }
}

impl Payload for TensorPayload<'_> {
    fn payload_bytes(&self, block_capacity: u64) -> Option<u64> {
        Some(end_of(&self.table.places(block_capacity)))
    }

    fn write(&self, block_capacity: u64, sink: &mut Sink<'_>) -> Result<()> {
        write_placed(&self.table, block_capacity, sink, |index, sink| sink(self.data[index]))
    }

    fn tensors(&self) -> Option<&TensorTable> {
        Some(&self.table)
    }
}

/// A safetensors file to import. Its header is kept as it is, so that the export has the same bits.
#[derive(Debug)]
pub struct SafetensorsFile {
    file: PlainFile,
    table: TensorTable,
    data_start: u64,
}

impl SafetensorsFile {
    /// Opens the file at `path` and checks its header.
    ///
    /// # Errors
    /// `Corrupt` when it is no safetensors file or a damaged one, `Unsupported` for a type of elements that is unknown,
    /// else as the file system says.
    pub fn open(path: &Path) -> Result<Self> {
        let file = PlainFile::open(path)?;
        Self::of(file).map_err(|error| error.at(path))
    }

    fn of(file: PlainFile) -> Result<Self> {
        let corrupt = |why: String| Error::new(ErrorKind::Corrupt, "import", why);
        let mut prefix = [0; LEN_BYTES];
        if file.size_bytes() < to_u64(LEN_BYTES) {
            return Err(corrupt(format!("{} bytes are no safetensors file", file.size_bytes())));
        }
        file.read_exact_at(&mut prefix, 0)?;
        let mut header = vec![0; TensorTable::header_bytes(prefix, file.size_bytes())?];
        file.read_exact_at(&mut header, to_u64(LEN_BYTES))?;
        let data_start = to_u64(LEN_BYTES + header.len());
        let table = TensorTable::parse(header)?;
        let expected = data_start.saturating_add(table.data_bytes());
        if file.size_bytes() != expected {
            let why = format!("the file has {} bytes, its header says {expected}", file.size_bytes());
            return Err(corrupt(why).hint("copy the file again from its source"));
        }
        Ok(Self { file, table, data_start })
    }

    /// Its tensors.
    #[must_use]
    pub fn table(&self) -> &TensorTable {
        &self.table
    }
}

impl Payload for SafetensorsFile {
    fn payload_bytes(&self, block_capacity: u64) -> Option<u64> {
        Some(end_of(&self.table.places(block_capacity)))
    }

    fn write(&self, block_capacity: u64, sink: &mut Sink<'_>) -> Result<()> {
        write_placed(&self.table, block_capacity, sink, |index, sink| {
            let data = &self.table.tensors()[index].data;
            copy_range(&self.file, self.data_start + data.start..self.data_start + data.end, sink)
        })
    }

    fn tensors(&self) -> Option<&TensorTable> {
        Some(&self.table)
    }
}

fn end_of(places: &[Range<u64>]) -> u64 {
    places.last().map_or(0, |place| place.end)
}

/// Writes each tensor at its place, with zeros between.
fn write_placed(
    table: &TensorTable,
    block_capacity: u64,
    sink: &mut Sink<'_>,
    mut write: impl FnMut(usize, &mut Sink<'_>) -> Result<()>,
) -> Result<()> {
    let zeros = [0; 4096];
    let mut at = 0;
    for (index, place) in table.places(block_capacity).iter().enumerate() {
        debug_assert!(place.start >= at && place.start.is_multiple_of(ALIGN));
        while at < place.start {
            let now = to_usize(place.start - at).min(zeros.len());
            sink(&zeros[..now])?;
            at += to_u64(now);
        }
        write(index, sink)?;
        at = place.end;
    }
    Ok(())
}

fn copy_range(file: &PlainFile, range: Range<u64>, sink: &mut Sink<'_>) -> Result<()> {
    let mut piece = vec![0; PIECE_BYTES.min(to_usize(range.end - range.start))];
    let mut at = range.start;
    while at < range.end {
        let now = piece.len().min(to_usize(range.end - at));
        file.read_exact_at(&mut piece[..now], at)?;
        sink(&piece[..now])?;
        at += to_u64(now);
    }
    Ok(())
}
