//! What is written.

use super::super::options::OptionSet;
use super::super::options::value;
use crate::Result;

/// What buffers are filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Random,
    Zeros,
    Pattern(Vec<u8>),
    /// So many percent of each chunk are zeros, the rest is random.
    Compressible {
        percent: u64,
        chunk: usize,
    },
}

/// The bytes of writes.
#[derive(Clone, Debug)]
pub(crate) struct BufferOptions {
    pub(crate) fill: Fill,
    pub(crate) refill: bool,
    pub(crate) scramble: bool,
    pub(crate) dedupe_percentage: u64,
}

impl BufferOptions {
    pub(super) fn new(set: &OptionSet) -> Result<Self> {
        let pattern = set.parsed("buffer_pattern", |text| pattern("buffer_pattern", text))?;
        let zeros = set.switch("zero_buffers")?.unwrap_or(false);
        let percent = set.number("buffer_compress_percentage")?;
        let chunk = set.bytes("buffer_compress_chunk")?.unwrap_or(512).clamp(64, 1 << 20);
        let dedupe_percentage = set.number("dedupe_percentage")?.unwrap_or(0);
        let refill = set.switch("refill_buffers")?;
        let scramble = set.switch("scramble_buffers")?.unwrap_or(true);
        let fill = match (pattern, zeros, percent) {
            (Some(bytes), ..) => Fill::Pattern(bytes),
            (_, true, _) | (_, _, Some(100)) => Fill::Zeros,
            (_, _, Some(percent)) if percent > 0 => {
                Fill::Compressible { percent, chunk: crate::to_usize(chunk) }
            }
            _ => Fill::Random,
        };
        // As fio: shares of duplicates or of compressible bytes only hold when each write is made anew.
        let shares = percent.is_some() || dedupe_percentage > 0;
        let varies = matches!(fill, Fill::Random | Fill::Compressible { .. });
        Ok(Self {
            refill: refill.unwrap_or(shares) && varies,
            scramble: scramble && matches!(fill, Fill::Random) && !shares,
            fill,
            dedupe_percentage,
        })
    }
}

/// Bytes of `"text"`, `'text'`, `0xhex` or a number, as fio reads patterns.
pub(crate) fn pattern(key: &str, text: &str) -> Result<Vec<u8>> {
    let bad =
        || value::bad(key, text, "\"text\", 0x with an even number of hex digits, or a number from 0 to 255");
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            let inner = rest.strip_suffix(quote).filter(|inner| !inner.is_empty()).ok_or_else(bad)?;
            return Ok(inner.as_bytes().to_vec());
        }
    }
    if let Some(hex) = text.strip_prefix("0x") {
        let digits = if hex.len() % 2 == 1 { format!("0{hex}") } else { hex.to_owned() };
        let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
        return bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(bad);
    }
    text.parse::<u8>().map(|byte| vec![byte]).map_err(|_| bad())
}
