//! Training a zstd dictionary on pieces of the input, before the first block of a data set is compressed.

use tierstream_storage::codec::Dictionary;
use tierstream_storage::format::capacity;
use tierstream_storage::units::to_usize;
use tierstream_storage::{Error, ErrorKind, Result};

use super::{DictionarySize, Input, PackConfig};

/// The length of a dictionary that nobody chose: what zstd itself trains by default.
const AUTO_BYTES: u64 = 110 << 10;
/// Input per byte of dictionary to train on, as zstd's manual recommends.
const SAMPLE_RATIO: u64 = 100;
/// Longest piece: a dictionary helps at the start of a block, before the block itself has told zstd as much.
const PIECE_BYTES_MAX: u64 = 16 << 10;

/// Pieces that make a training: zstd sets a quarter of them aside to compare dictionaries by, and refuses a handful.
const PIECES_MIN: u64 = 64;

/// Trains the dictionary that `config` asks for. `None` when it asks for none, or leaves the choice and the input has
/// nothing to learn from.
pub(super) fn train(input: &Input, config: &PackConfig) -> Result<Option<Vec<u8>>> {
    let (bytes_max, must) = match config.dictionary {
        None => return Ok(None),
        // Trained on a hundredth of itself at least, and never much of a small data set.
        Some(DictionarySize::Auto) => (AUTO_BYTES.min(input.bytes() / SAMPLE_RATIO), false),
        Some(DictionarySize::Bytes(bytes)) => (bytes, true),
    };
    if !must && bytes_max < 4096 {
        return Ok(None);
    }
    let (samples, lens) = sample(input, bytes_max.saturating_mul(SAMPLE_RATIO), config.block_bytes)?;
    let trained = Dictionary::train(&samples, &lens, to_usize(bytes_max))?;
    if trained.is_none() && must {
        let why = format!("{} bytes of input are too few or too varied for a dictionary", samples.len());
        return Err(Error::new(ErrorKind::Misuse, "train dictionary", why)
            .at(input.root())
            .hint("use --dictionary auto, a smaller one, or none"));
    }
    Ok(trained)
}

/// About `bytes` of the input in pieces, spread evenly over all files laid end to end.
fn sample(input: &Input, bytes: u64, block_bytes: u32) -> Result<(Vec<u8>, Vec<usize>)> {
    let all = input.bytes();
    let piece_bytes = capacity(block_bytes).min(PIECE_BYTES_MAX).min((bytes.min(all) / PIECES_MIN).max(1));
    let pieces = (bytes.min(all) / piece_bytes).max(1);
    let (mut samples, mut lens) = (Vec::new(), Vec::new());
    let (mut file, mut file_start) = (0, 0);
    for piece in 0..pieces {
        // The product may pass 64 bits.
        let at =
            u64::try_from(u128::from(all) * u128::from(piece) / u128::from(pieces)).expect("below `all`");
        while file < input.files().len() && file_start + input.files()[file].bytes <= at {
            file_start += input.files()[file].bytes;
            file += 1;
        }
        let Some(from) = input.files().get(file) else { break };
        let len = to_usize(piece_bytes.min(file_start + from.bytes - at));
        let start = samples.len();
        samples.resize(start + len, 0);
        let mut reader = input.open(file, at - file_start)?;
        let mut filled = 0;
        while filled < len {
            filled += reader.read(&mut samples[start + filled..])?;
        }
        lens.push(len);
    }
    Ok((samples, lens))
}
