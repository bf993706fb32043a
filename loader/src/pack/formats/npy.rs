//! NumPy's npy and npz files: arrays as samples, one a row.

use std::path::Path;

use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result};

use super::columns::{Column, Table};
use super::plain::PlainFile;
use super::{corrupt, zip};
use crate::dtype::Dtype;

/// Longer headers are of structured arrays, which are no samples of ours.
const HEADER_BYTES_MAX: u64 = 64 << 10;

/// The one array of an npy file, or all of an npz file.
pub(super) fn open(path: &Path) -> Result<Table> {
    let file = PlainFile::open(path)?;
    if path.extension().is_some_and(|extension| extension == "npz") {
        let members = zip::members(&file)?;
        let arrays = members.iter().filter_map(|member| Some((member.name.strip_suffix(".npy")?, member)));
        let columns = arrays
            .map(|(name, member)| array(&file, name, member.offset, member.bytes))
            .collect::<Result<Vec<Column>>>()?;
        return Ok(Table { file, columns });
    }
    let column = array(&file, "data", 0, file.bytes())?;
    Ok(Table { columns: vec![column], file })
}

/// The array whose npy file lies at `offset`.
fn array(file: &PlainFile, name: &str, offset: u64, bytes: u64) -> Result<Column> {
    let bad = |why: String| corrupt(file.path(), (offset, bytes), format!("array `{name}`: {why}"));
    if bytes < 10 {
        return Err(bad(format!("{bytes} bytes are no npy file")));
    }
    let start = file.read(offset, bytes.min(12))?;
    if start[..6] != *b"\x93NUMPY" {
        return Err(bad("it does not begin as npy files do".to_owned()));
    }
    let (len, before) = match start[6] {
        1 => (u64::from(u16::from_le_bytes([start[8], start[9]])), 10),
        2 | 3 if start.len() == 12 => {
            (u64::from(u32::from_le_bytes([start[8], start[9], start[10], start[11]])), 12)
        }
        version => return Err(bad(format!("npy version {version}, expected 1, 2 or 3"))),
    };
    if len > HEADER_BYTES_MAX || before + len > bytes {
        return Err(bad(format!("a header of {len} bytes")));
    }
    let header = file.read(offset + before, len)?;
    let header = std::str::from_utf8(&header).map_err(|_| bad("its header is no text".to_owned()))?;
    let (dtype, fortran, shape) =
        parse_header(header).ok_or_else(|| bad(format!("its header is `{header}`")))?;
    let unsupported = |why: String, hint: &str| {
        Err(Error::new(ErrorKind::Unsupported, "read input", format!("array `{name}`: {why}"))
            .at(file.path())
            .hint(hint))
    };
    let Some(of) = element(&dtype) else {
        return unsupported(
            format!("elements `{dtype}`"),
            "save plain little-endian numbers: array.astype('<f4'), say",
        );
    };
    if fortran && shape.len() > 1 {
        return unsupported("columns come first".to_owned(), "save np.ascontiguousarray(array)");
    }
    let count = shape.iter().try_fold(to_u64(of.bytes()), |bytes, length| bytes.checked_mul(*length));
    if count != Some(bytes - before - len) {
        let why =
            format!("shape {shape:?} of {of} does not take the {} bytes there are", bytes - before - len);
        return Err(bad(why));
    }
    if shape.is_empty() || shape.iter().skip(1).any(|length| *length == 0) {
        return unsupported(
            format!("shape {shape:?} has no samples"),
            "the first dimension is that of samples",
        );
    }
    Ok(Column { name: name.to_owned(), dtype: of, shape, offset: offset + before + len })
}

/// `{'descr': '<u2', 'fortran_order': False, 'shape': (3, 4), }`: what Python's repr of such a dict looks like.
pub(super) fn parse_header(header: &str) -> Option<(String, bool, Vec<u64>)> {
    let after = |key: &str| {
        let rest = &header[header.find(&format!("'{key}'"))? + key.len() + 2..];
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let descr = after("descr")?.strip_prefix('\'')?;
    let descr = descr[..descr.find('\'')?].to_owned();
    let fortran = after("fortran_order")?;
    let fortran =
        if fortran.starts_with("True") { true } else { fortran.starts_with("False").then_some(false)? };
    let shape = after("shape")?.strip_prefix('(')?;
    let shape = shape[..shape.find(')')?].split(',').map(str::trim).filter(|length| !length.is_empty());
    let shape =
        shape.map(|length| length.trim_end_matches('L').parse().ok()).collect::<Option<Vec<u64>>>()?;
    (shape.len() <= 32).then_some((descr, fortran, shape))
}

fn element(descr: &str) -> Option<Dtype> {
    let of = match descr.split_at_checked(1)? {
        ("<" | "|", of) => of,
        // Of one byte, the order of bytes means nothing.
        (_, of) if of.ends_with('1') => of,
        _ => return None,
    };
    Some(match of {
        "u1" | "b1" => Dtype::U8,
        "i1" => Dtype::I8,
        "u2" => Dtype::U16,
        "i2" => Dtype::I16,
        "u4" => Dtype::U32,
        "i4" => Dtype::I32,
        "u8" => Dtype::U64,
        "i8" => Dtype::I64,
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        _ => return None,
    })
}

/// NumPy's name of a type; brain floats, which NumPy has no name for, are kept as their 16 bits.
fn descr(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::U8 => "|u1",
        Dtype::I8 => "|i1",
        Dtype::U16 | Dtype::Bf16 => "<u2",
        Dtype::I16 => "<i2",
        Dtype::U32 => "<u4",
        Dtype::I32 => "<i4",
        Dtype::U64 => "<u8",
        Dtype::I64 => "<i8",
        Dtype::F16 => "<f2",
        Dtype::F32 => "<f4",
        Dtype::F64 => "<f8",
    }
}

/// The start of an npy file, as `numpy.save` writes it.
pub(crate) fn header(dtype: Dtype, shape: &[u64]) -> Vec<u8> {
    let lengths: Vec<String> = shape.iter().map(u64::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let dict = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': ({}{comma}), }}",
        descr(dtype),
        lengths.join(", ")
    );
    // Room for a first dimension that grows, then a multiple of 64 with the newline, as NumPy has it.
    let first = shape.first().map_or(0, |length| 21_usize.saturating_sub(length.to_string().len()));
    let dict = format!("{dict}{}", " ".repeat(first));
    let padding = (64 - (10 + dict.len() + 1) % 64) % 64;
    let text = format!("{dict}{}\n", " ".repeat(padding));
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&b"\x93NUMPY\x01\x00"[..], &len.to_le_bytes(), text.as_bytes()].concat()
}
