//! Fields as arrays over all samples: npy files, or tensors of one safetensors file. Ragged fields are their values end
//! to end, and where each sample begins.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use tierstream_storage::tensor::{self, TensorTable};
use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result};

use super::{Batches, failed, len, new_file, samples_and_one};
use crate::dataset::Dataset;
use crate::dtype::Dtype;
use crate::pack::formats::npy_header;

/// An array being written.
struct Array {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    // The field it is of, and whether it is of its offsets.
    field: usize,
    of_offsets: bool,
}

/// The arrays of a data set's fields. Lengths of ragged fields are counted first: they stand before the values.
fn arrays(dataset: &Dataset, each: &impl Batches) -> Result<Vec<Array>> {
    let schema = dataset.schema();
    let mut steps = vec![0_u64; schema.fields().len()];
    if let ([_], true) = (schema.fields(), schema.is_ragged()) {
        // The index tells it without reading a sample.
        for index in 0..dataset.len() {
            let range = dataset.locate(dataset.selection().get(index))?.range;
            steps[0] += (range.end - range.start) / to_u64(schema.step_bytes(0));
        }
    } else if schema.is_ragged() {
        each(&mut |batch| {
            batch.fields().zip(&mut steps).for_each(|(field, steps)| *steps += to_u64(field.shape()[0]));
            Ok(())
        })?;
    }
    let mut arrays = Vec::new();
    for (number, (field, steps)) in schema.fields().iter().zip(steps).enumerate() {
        let rows = if field.is_ragged() { steps } else { dataset.len() };
        let known = field.shape.iter().filter_map(|length| u64::try_from(*length).ok());
        let shape = std::iter::once(rows).chain(known).collect();
        let (name, dtype) = (field.name.clone(), field.dtype);
        arrays.push(Array { name, dtype, shape, field: number, of_offsets: false });
        if field.is_ragged() {
            let (name, shape) = (format!("{}.offsets", field.name), vec![samples_and_one(dataset)]);
            arrays.push(Array { name, dtype: Dtype::I64, shape, field: number, of_offsets: true });
        }
    }
    Ok(arrays)
}

/// Writes each array to its file, which stands where its values begin.
fn fill(arrays: &[Array], files: &mut [BufWriter<File>], path: &Path, each: &impl Batches) -> Result<u64> {
    let mut before = vec![0_u64; arrays.len()];
    for (array, file) in arrays.iter().zip(&mut *files).filter(|(array, _)| array.of_offsets) {
        file.write_all(&0_i64.to_le_bytes()).map_err(failed(path))?;
        debug_assert_eq!(array.dtype, Dtype::I64);
    }
    let bytes = each(&mut |batch| {
        for ((array, file), before) in arrays.iter().zip(&mut *files).zip(&mut before) {
            let field = batch.field_at(array.field);
            if !array.of_offsets {
                file.write_all(field.bytes()).map_err(failed(path))?;
                continue;
            }
            for end in field.offsets().unwrap_or_default().iter().skip(1) {
                file.write_all(&(*before + end).to_le_bytes()).map_err(failed(path))?;
            }
            *before += to_u64(field.shape()[0]);
        }
        Ok(())
    })?;
    for file in files {
        file.flush().map_err(failed(path))?;
        file.get_ref().sync_all().map_err(failed(path))?;
    }
    Ok(bytes)
}

pub(super) fn npy(dataset: &Dataset, path: &Path, each: impl Batches) -> Result<u64> {
    let arrays = arrays(dataset, &each)?;
    if let Some(array) =
        arrays.iter().find(|array| array.name.contains(['/', '\0']) || array.name.starts_with('.'))
    {
        let why = format!("field `{}` is no name of a file", array.name);
        return Err(Error::new(ErrorKind::Unsupported, "export", why).hint("export as safetensors"));
    }
    std::fs::create_dir(path).map_err(failed(path))?;
    let mut files = Vec::new();
    for array in &arrays {
        let mut file = new_file(&path.join(format!("{}.npy", array.name)))?;
        file.write_all(&npy_header(array.dtype, &array.shape)).map_err(failed(path))?;
        files.push(file);
    }
    fill(&arrays, &mut files, path, &each)
}

pub(super) fn safetensors(dataset: &Dataset, path: &Path, each: impl Batches) -> Result<u64> {
    let arrays = arrays(dataset, &each)?;
    let of = |array: &Array| (array.name.clone(), tensor_type(array.dtype), array.shape.clone());
    let table = TensorTable::build(arrays.iter().map(of), BTreeMap::new())?;
    let prefix = table.file_prefix();
    let mut first = new_file(path)?;
    first.write_all(&prefix).and_then(|()| first.flush()).map_err(failed(path))?;
    let all = len(&prefix) + table.data_bytes();
    first.get_ref().set_len(all).map_err(failed(path))?;
    let mut files = Vec::new();
    for array in &arrays {
        let mut file = std::fs::OpenOptions::new().write(true).open(path).map_err(failed(path))?;
        let data = table.index_of(&array.name).map_or(0, |index| table.tensors()[index].data.start);
        file.seek(SeekFrom::Start(len(&prefix) + data)).map_err(failed(path))?;
        files.push(BufWriter::with_capacity(1 << 20, file));
    }
    fill(&arrays, &mut files, path, &each)
}

fn tensor_type(dtype: Dtype) -> tensor::Dtype {
    match dtype {
        Dtype::U8 => tensor::Dtype::U8,
        Dtype::I8 => tensor::Dtype::I8,
        Dtype::U16 => tensor::Dtype::U16,
        Dtype::I16 => tensor::Dtype::I16,
        Dtype::U32 => tensor::Dtype::U32,
        Dtype::I32 => tensor::Dtype::I32,
        Dtype::U64 => tensor::Dtype::U64,
        Dtype::I64 => tensor::Dtype::I64,
        Dtype::F16 => tensor::Dtype::F16,
        Dtype::Bf16 => tensor::Dtype::BF16,
        Dtype::F32 => tensor::Dtype::F32,
        Dtype::F64 => tensor::Dtype::F64,
    }
}
