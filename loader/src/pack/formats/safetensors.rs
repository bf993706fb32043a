//! Tensors of a safetensors file as samples: row `i` of each.

use std::path::Path;

use tierstream_storage::tensor::{self, LEN_BYTES, TensorTable};
use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result};

use super::columns::{Column, Table};
use super::plain::PlainFile;
use crate::dtype::Dtype;

/// The table of the file at `path`.
pub(super) fn open(path: &Path) -> Result<Table> {
    let file = PlainFile::open(path)?;
    let prefix: [u8; LEN_BYTES] =
        file.read(0, to_u64(LEN_BYTES))?.try_into().map_err(|_| super::corrupt(path, (0, 8), "no header"))?;
    let len = TensorTable::header_bytes(prefix, file.bytes()).map_err(|error| error.at(path))?;
    let table =
        TensorTable::parse(file.read(to_u64(LEN_BYTES), to_u64(len))?).map_err(|error| error.at(path))?;
    let data = to_u64(LEN_BYTES + len);
    let room = file.bytes() - data;
    if table.data_bytes() != room {
        let why = format!("{room} bytes of tensors, expected {}", table.data_bytes());
        return Err(super::corrupt(path, (data, room), why));
    }
    let columns = table.tensors().iter().map(|tensor| {
        let dtype = dtype(tensor.dtype).ok_or_else(|| {
            let why =
                format!("tensor `{}` has the type {}, which samples cannot have", tensor.name, tensor.dtype);
            Error::new(ErrorKind::Unsupported, "read input", why).at(path).hint("choose others with --fields")
        })?;
        Ok(Column {
            name: tensor.name.clone(),
            dtype,
            shape: tensor.shape.clone(),
            offset: data + tensor.data.start,
        })
    });
    let columns = columns.collect::<Result<_>>()?;
    Ok(Table { file, columns })
}

/// Our name for a type of safetensors, where there is one. What has 8 bits and no name of ours is kept as bytes.
fn dtype(of: tensor::Dtype) -> Option<Dtype> {
    use tensor::Dtype as Of;
    Some(match of {
        Of::U8 | Of::BOOL | Of::F8_E4M3 | Of::F8_E5M2 | Of::F8_E8M0 => Dtype::U8,
        Of::I8 => Dtype::I8,
        Of::U16 => Dtype::U16,
        Of::I16 => Dtype::I16,
        Of::U32 => Dtype::U32,
        Of::I32 => Dtype::I32,
        Of::U64 => Dtype::U64,
        Of::I64 => Dtype::I64,
        Of::F16 => Dtype::F16,
        Of::BF16 => Dtype::Bf16,
        Of::F32 => Dtype::F32,
        Of::F64 => Dtype::F64,
        _ => return None,
    })
}
