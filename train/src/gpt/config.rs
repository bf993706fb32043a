//! The shape of a [`Gpt`](super::Gpt) and the rules it has to keep.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

/// Number of byte values: the vocabulary.
pub const VOCABULARY: usize = 256;

/// Deeper than any model that this crate will train; keeps products of the fields far from overflow.
const LAYERS_MAX: usize = 1_000;
/// The CPU kernels count the features of a row in 16 bits, and the MLP is four times as wide.
const D_MODEL_MAX: usize = 16_383;
/// Positions are learned one by one: a longer context would be mostly untrained.
const CONTEXT_MAX: usize = 65_536;

/// Shape of a byte-level GPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GptConfig {
    /// Transformer blocks.
    pub layers: usize,
    /// Features per token.
    pub d_model: usize,
    /// Attention heads; divides `d_model`.
    pub heads: usize,
    /// Longest sequence in tokens.
    pub context: usize,
}

impl GptConfig {
    /// The model of the demonstration run, [`Recipe::DEMO`](crate::Recipe::DEMO): 875,520 parameters.
    #[must_use]
    pub const fn demo() -> Self {
        Self { layers: 4, d_model: 128, heads: 4, context: 128 }
    }

    /// Checks the rules of the fields. [`ErrorKind::Misuse`] names the field, what was found and what would fit.
    pub fn validate(&self) -> Result<()> {
        let Self { layers, d_model, heads, context } = *self;
        let fields = [
            ("layers", layers, LAYERS_MAX),
            ("d_model", d_model, D_MODEL_MAX),
            ("heads", heads, D_MODEL_MAX),
            ("context", context, CONTEXT_MAX),
        ];
        for (field, value, max) in fields {
            if value == 0 || value > max {
                return Err(misuse(format!("{field} is {value}"))
                    .with_hint(format!("{field} must be between 1 and {max}")));
            }
        }
        if d_model % heads != 0 {
            let below = d_model - d_model % heads;
            let nearest = if below == 0 { heads } else { below };
            return Err(misuse(format!("d_model {d_model} is not a multiple of heads {heads}"))
                .with_hint(format!("d_model {nearest} with heads {heads} would fit")));
        }
        Ok(())
    }

    /// Number of trained values of a model of this shape, which must be valid.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        let Self { layers, d_model: d, context, .. } = *self;
        let block = 12 * d * d + 13 * d;
        layers * block + (VOCABULARY + context) * d + 2 * d + VOCABULARY * (d + 1)
    }
}

fn misuse(message: String) -> Error {
    Error::new(ErrorKind::Misuse, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: GptConfig = GptConfig { layers: 2, d_model: 32, heads: 4, context: 16 };

    #[test]
    fn every_rule_has_an_error_that_says_what_to_do() {
        assert_eq!(GOOD.validate(), Ok(()));
        let cases = [
            (GptConfig { layers: 0, ..GOOD }, "layers is 0"),
            (GptConfig { d_model: 0, ..GOOD }, "d_model is 0"),
            (GptConfig { heads: 0, ..GOOD }, "heads is 0"),
            (GptConfig { context: 0, ..GOOD }, "context is 0"),
            (GptConfig { heads: 5, ..GOOD }, "d_model 32 is not a multiple of heads 5"),
            (GptConfig { heads: 64, ..GOOD }, "d_model 32 is not a multiple of heads 64"),
            (GptConfig { layers: usize::MAX, ..GOOD }, "layers is 18446744073709551615"),
            (GptConfig { context: 65_537, ..GOOD }, "context is 65537"),
            (GptConfig { d_model: 1 << 20, ..GOOD }, "d_model is 1048576"),
        ];
        for (config, message) in cases {
            let error = config.validate().unwrap_err();
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::Misuse, message.to_owned()));
            assert!(error.hint().is_some(), "{message}");
        }
        let hint = GptConfig { heads: 5, ..GOOD }.validate().unwrap_err();
        assert_eq!(hint.hint(), Some("d_model 30 with heads 5 would fit"));
    }
}
