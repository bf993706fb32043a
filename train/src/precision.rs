//! The number format that matrix products read and that activations are kept in.
//!
//! Whatever it is, the weights, their gradients and the optimizer's moments are FP32, and LayerNorm, softmax,
//! cross-entropy and every sum inside a matrix product are computed in FP32.

use std::fmt;
use std::str::FromStr;

use burn_tensor::DType;
use serde::Serialize;

use crate::error::{Error, ErrorKind};

/// Compute precision of a training run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout: the reference that the others are judged by.
    Fp32,
    /// bfloat16: FP32's range with 8 significant bits. Needs no loss scale.
    Bf16,
    /// IEEE half: 11 significant bits, but overflows at 65504. Needs a loss scale.
    Fp16,
}

impl Precision {
    /// All of them, in the order people list them.
    pub const ALL: [Self; 3] = [Self::Fp32, Self::Bf16, Self::Fp16];

    /// The name used in options, logs and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
        }
    }

    /// The element type of activations and of what matrix products read.
    #[must_use]
    pub fn compute_dtype(self) -> DType {
        match self {
            Self::Fp32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::Fp16 => DType::F16,
        }
    }

    /// Whether gradients would underflow without a scaled loss.
    #[must_use]
    pub fn needs_loss_scale(self) -> bool {
        self == Self::Fp16
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// Reads a [`Precision::name`]; anything else is [`ErrorKind::Misuse`].
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|precision| precision.name() == text).ok_or_else(|| {
            Error::new(ErrorKind::Misuse, format!("unknown precision `{text}`"))
                .with_hint("use fp32, bf16 or fp16")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        let error = "float32".parse::<Precision>().unwrap_err();
        assert_eq!(error.to_string(), "unknown precision `float32`");
        assert_eq!(error.hint(), Some("use fp32, bf16 or fp16"));
    }

    #[test]
    fn each_computes_in_its_own_type_and_only_fp16_scales() {
        assert_eq!(Precision::ALL.map(Precision::compute_dtype), [DType::F32, DType::BF16, DType::F16]);
        assert_eq!(Precision::ALL.map(Precision::needs_loss_scale), [false, false, true]);
    }
}
