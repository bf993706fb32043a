//! A batch of tokens as it leaves the loader: bytes, and how many rows they are.

use burn_tensor::backend::Backend;
use burn_tensor::{DType, Int, Tensor, TensorData};

use crate::error::{Error, ErrorKind, Result};

/// `rows` sequences of `context + 1` byte tokens, one after the other.
///
/// The first `context` bytes of a row are the input and the last `context` the targets, so that each byte but the
/// first is predicted from those before it.
#[derive(Clone, Copy, Debug)]
pub struct TokenBatch<'a> {
    tokens: &'a [u8],
    rows: usize,
    row_tokens: usize,
}

impl<'a> TokenBatch<'a> {
    /// A view of `tokens` as `rows` rows of `row_tokens` bytes.
    ///
    /// [`ErrorKind::Misuse`] if there are no rows, if a row is shorter than 2, or if the length is not the product.
    pub fn new(tokens: &'a [u8], rows: usize, row_tokens: usize) -> Result<Self> {
        if rows == 0 || row_tokens < 2 {
            let found = format!("batch of {rows} rows of {row_tokens} tokens");
            return Err(Error::new(ErrorKind::Misuse, found)
                .with_hint("a batch needs at least 1 row, and a row context + 1 >= 2 tokens"));
        }
        if rows.checked_mul(row_tokens) != Some(tokens.len()) {
            let found = tokens.len();
            let message = format!("batch of {rows} rows of {row_tokens} tokens has {found} bytes");
            return Err(Error::new(ErrorKind::Misuse, message));
        }
        Ok(Self { tokens, rows, row_tokens })
    }

    /// Sequences in the batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens per sequence that are read, which is as many as are predicted.
    #[must_use]
    pub fn context(&self) -> usize {
        self.row_tokens - 1
    }

    /// The input tokens, `[rows * context]`, I32.
    pub(crate) fn inputs<B: Backend>(&self, device: &B::Device) -> Tensor<B, 1, Int> {
        self.column_range(0, device)
    }

    /// The tokens to predict, `[rows * context]`, I32.
    pub(crate) fn targets<B: Backend>(&self, device: &B::Device) -> Tensor<B, 1, Int> {
        self.column_range(1, device)
    }

    /// `context` columns from `first` on, row after row.
    fn column_range<B: Backend>(&self, first: usize, device: &B::Device) -> Tensor<B, 1, Int> {
        let rows = self.tokens.chunks_exact(self.row_tokens);
        let ids: Vec<i32> =
            rows.flat_map(|row| row[first..first + self.context()].iter().copied()).map(i32::from).collect();
        let length = ids.len();
        Tensor::from_data(TensorData::new(ids, [length]), (device, DType::I32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::{Flex, FlexDevice};

    #[test]
    fn targets_are_the_inputs_one_later() {
        let batch = TokenBatch::new(b"abcdvwxy", 2, 4).unwrap();
        let bytes = |ids: Tensor<Flex, 1, Int>| ids.into_data().to_vec::<i32>().unwrap();
        assert_eq!(bytes(batch.inputs(&FlexDevice)), b"abcvwx".map(i32::from));
        assert_eq!(bytes(batch.targets(&FlexDevice)), b"bcdwxy".map(i32::from));
        assert_eq!((batch.rows(), batch.context()), (2, 3));
    }

    #[test]
    fn a_wrong_length_is_refused() {
        for (bytes, rows, row_tokens) in [(8, 0, 8), (8, 8, 1), (8, 3, 3), (0, usize::MAX, 2)] {
            let error = TokenBatch::new(&vec![0; bytes], rows, row_tokens).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse, "{rows} x {row_tokens} of {bytes}");
        }
    }
}
