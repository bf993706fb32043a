//! Token files as nanoGPT and llm.c write them: numbers one after the other, cut into samples of equal length.
//!
//! Each file is cut from its start; what is left at its end is shorter than a sample, is left out and counted.

use std::path::{Path, PathBuf};

use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result};

use super::plain::PlainFile;
use super::{Each, Format, PART_BYTES, SAMPLE_BYTES_MAX, Sample};
use crate::dtype::Dtype;
use crate::schema::{Field, Schema};

/// llm.c's files begin with 256 words: this, a version, the number of tokens. Version 1 has u16 tokens, 7 u32.
const LLM_C_MAGIC: [u32; 2] = [20_240_520, 20_240_801];
const LLM_C_HEADER_BYTES: u64 = 1024;

/// Token files.
#[derive(Debug)]
pub(super) struct Tokens {
    files: Vec<PlainFile>,
    // File and bytes of each part.
    pieces: Vec<(usize, std::ops::Range<u64>)>,
    parts: Vec<u64>,
    schema: Schema,
    sample_bytes: u64,
    left_over: u64,
}

impl Tokens {
    pub(super) fn open(paths: &[PathBuf], tokens: Option<u64>, dtype: Dtype) -> Result<Self> {
        let misuse = |path: &Path, why: String, hint: &str| {
            Err(Error::new(ErrorKind::Misuse, "read input", why).at(path).hint(hint))
        };
        let files = paths.iter().map(|path| PlainFile::open(path)).collect::<Result<Vec<_>>>()?;
        let Some(first) = files.first() else {
            return Err(Error::new(ErrorKind::Misuse, "read input", "no files"));
        };
        let Some(tokens) = tokens else {
            let hint = "use --sample-tokens N: the context length and one more, for inputs and targets";
            return misuse(first.path(), "how long a sample is must be said".to_owned(), hint);
        };
        let sample_bytes =
            tokens.checked_mul(to_u64(dtype.bytes())).filter(|b| *b > 0 && *b <= SAMPLE_BYTES_MAX);
        let Some(sample_bytes) = sample_bytes else {
            let why = format!("samples of {tokens} tokens");
            return misuse(first.path(), why, "use --sample-tokens with 1 to 2^28");
        };
        let length = i64::try_from(tokens).unwrap_or(i64::MAX);
        let schema = Schema::new(Field::fixed("tokens", dtype, &[length]))?;
        let (mut pieces, mut parts, mut left_over) = (Vec::new(), Vec::new(), 0);
        for (number, file) in files.iter().enumerate() {
            let start = start(file, dtype)?;
            let bytes = file.bytes() - start;
            if !bytes.is_multiple_of(to_u64(dtype.bytes())) {
                let why = format!("{bytes} bytes are no whole number of {dtype} tokens");
                return misuse(file.path(), why, "choose the type of the tokens with --dtype");
            }
            let whole = bytes - bytes % sample_bytes;
            left_over += bytes - whole;
            let step = (PART_BYTES / sample_bytes).max(1) * sample_bytes;
            for at in (0..whole).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
                let end = whole.min(at + step);
                pieces.push((number, start + at..start + end));
                parts.push(end - at);
            }
        }
        Ok(Self { files, pieces, parts, schema, sample_bytes, left_over })
    }
}

/// Where the tokens of a file begin.
fn start(file: &PlainFile, dtype: Dtype) -> Result<u64> {
    if file.bytes() < LLM_C_HEADER_BYTES {
        return Ok(0);
    }
    let head = file.read(0, 12)?;
    let word = |at: usize| head[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
    if !LLM_C_MAGIC.contains(&word(0)) {
        return Ok(0);
    }
    let (version, tokens) = (word(4), u64::from(word(8)));
    let bytes = if version == 7 { 4 } else { 2 };
    let found = file.bytes() - LLM_C_HEADER_BYTES;
    if bytes != to_u64(dtype.bytes()) || tokens * bytes != found {
        let why =
            format!("the header says {tokens} tokens of {bytes} bytes, found {found} bytes for {dtype}");
        return Err(
            super::corrupt(file.path(), (0, LLM_C_HEADER_BYTES), why).hint("choose --dtype u16 or u32")
        );
    }
    Ok(LLM_C_HEADER_BYTES)
}

impl Format for Tokens {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn parts(&self) -> &[u64] {
        &self.parts
    }

    fn read(&self, part: usize, each: Each<'_>) -> Result<()> {
        let (file, bytes) = &self.pieces[part];
        let mut stream = self.files[*file].stream(bytes.start, bytes.end);
        while stream.left() > 0 {
            let tokens = stream.take(self.sample_bytes)?;
            each(Sample { name: None, values: &[tokens], input_bytes: self.sample_bytes })?;
        }
        Ok(())
    }

    fn left_over_bytes(&self) -> u64 {
        self.left_over
    }
}
