//! What is done to a field of a batch before it is used: pixels to normalised floating point, tokens to wider integers.
//!
//! On a GPU a kernel does it after the copy, so that the narrow form crosses the link; without one, the same arithmetic
//! is done here, to the last bit.

mod half;

use tierstream_loader::{Dtype, Field};
use tierstream_storage::{Error, ErrorKind, Result};

/// A floating point format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatFormat {
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    Fp16,
    /// IEEE single precision.
    Fp32,
}

/// Where a pixel's channels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// `[..., height, width, channels]`: the last dimension.
    Last,
    /// `[channels, height, width]`: the first dimension of a sample.
    First,
}

/// A conversion of one field.
#[derive(Clone, Debug, PartialEq)]
pub enum Conversion {
    /// Pixels of 8 bits to `(pixel / 255 - mean) / std`, by channel.
    Normalize {
        /// What they become.
        to: FloatFormat,
        /// Mean of each channel, as a part of 1.
        mean: Vec<f32>,
        /// Standard deviation of each channel, as a part of 1.
        std: Vec<f32>,
        /// Where the channels are.
        channels: Channels,
    },
    /// Unsigned integers of 16 bits to signed ones of 32.
    WidenToI32,
    /// Unsigned integers of 16 bits to signed ones of 64.
    WidenToI64,
}

/// A conversion that was checked against a field, with its numbers worked out.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) kind: Kind,
    pub(crate) dtype: Dtype,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// `x * scale + shift`, where element `i` has channel `i / inner % channels`.
    Normalize {
        scale: Vec<f32>,
        shift: Vec<f32>,
        inner: u32,
        format: u32,
    },
    Widen {
        wide: bool,
    },
}

impl Conversion {
    /// Checks the conversion against the field it is for.
    pub(crate) fn prepare(&self, field: &Field) -> Result<Prepared> {
        let misuse = |why: String| {
            Error::new(ErrorKind::Misuse, "convert", format!("field `{}`: {why}", field.name))
                .hint("`tierstream inspect` shows the fields of a data set")
        };
        let needs = |dtype: Dtype| {
            let found = field.dtype;
            if found == dtype {
                Ok(())
            } else {
                Err(misuse(format!("elements are {found}, expected {dtype}")))
            }
        };
        match self {
            Self::WidenToI32 | Self::WidenToI64 => {
                needs(Dtype::U16)?;
                let wide = *self == Self::WidenToI64;
                Ok(Prepared { kind: Kind::Widen { wide }, dtype: if wide { Dtype::I64 } else { Dtype::I32 } })
            }
            Self::Normalize { to, mean, std, channels } => {
                needs(Dtype::U8)?;
                if mean.is_empty() || mean.len() != std.len() {
                    return Err(misuse(format!("{} means and {} deviations", mean.len(), std.len())));
                }
                if let Some(bad) = std.iter().find(|std| !std.is_finite() || **std <= 0.0) {
                    return Err(misuse(format!("standard deviation {bad}, expected more than 0")));
                }
                let count = mean.len();
                let (found, inner) = match channels {
                    _ if count == 1 => (Some(1), 1),
                    Channels::Last => (field.shape.last().copied(), 1),
                    Channels::First => (field.shape.first().copied(), field.shape.iter().skip(1).product()),
                };
                if found != i64::try_from(count).ok() || inner < 1 {
                    return Err(misuse(format!(
                        "{count} channels, but samples have shape {:?}",
                        field.shape
                    )));
                }
                let inner =
                    u32::try_from(inner).map_err(|_| misuse(format!("planes of {inner} elements")))?;
                let (format, dtype) = match to {
                    FloatFormat::Bf16 => (0, Dtype::Bf16),
                    FloatFormat::Fp16 => (1, Dtype::F16),
                    FloatFormat::Fp32 => (2, Dtype::F32),
                };
                let scale = std.iter().map(|std| 1.0 / (255.0 * std)).collect();
                let shift = mean.iter().zip(std).map(|(mean, std)| -mean / std).collect();
                Ok(Prepared { kind: Kind::Normalize { scale, shift, inner, format }, dtype })
            }
        }
    }
}

impl Prepared {
    /// Bytes that `bytes` of the field become.
    pub(crate) fn bytes_of(&self, bytes: usize) -> usize {
        let narrow = match self.kind {
            Kind::Normalize { .. } => 1,
            Kind::Widen { .. } => 2,
        };
        bytes / narrow * self.dtype.bytes()
    }

    /// Converts `from` to `to`, which has [`Prepared::bytes_of`] its length.
    pub(crate) fn on_host(&self, from: &[u8], to: &mut [u8]) {
        match &self.kind {
            Kind::Widen { .. } => {
                let width = self.dtype.bytes();
                for (wide, token) in to.chunks_exact_mut(width).zip(from.chunks_exact(2)) {
                    wide.fill(0);
                    wide[..2].copy_from_slice(token);
                }
            }
            Kind::Normalize { scale, shift, inner, format } => {
                // 256 values for each channel, since there are no more.
                let tables: Vec<Vec<[u8; 4]>> = scale
                    .iter()
                    .zip(shift)
                    .map(|(scale, shift)| {
                        let value = |pixel: u8| f32::from(pixel).mul_add(*scale, *shift);
                        (0..=255).map(|pixel| encode(value(pixel), *format)).collect()
                    })
                    .collect();
                let width = self.dtype.bytes();
                let inner = tierstream_storage::units::to_usize(u64::from(*inner));
                for (plane, (to, from)) in to.chunks_mut(inner * width).zip(from.chunks(inner)).enumerate() {
                    let table = &tables[plane % tables.len()];
                    for (value, pixel) in to.chunks_exact_mut(width).zip(from) {
                        value.copy_from_slice(&table[usize::from(*pixel)][..width]);
                    }
                }
            }
        }
    }
}

fn encode(value: f32, format: u32) -> [u8; 4] {
    let half = match format {
        0 => half::to_bf16(value),
        1 => half::to_fp16(value),
        _ => return value.to_le_bytes(),
    };
    let [low, high] = half.to_le_bytes();
    [low, high, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalize(channels: Channels) -> Conversion {
        let (mean, std) = (vec![0.5, 0.25, 0.0], vec![0.5, 0.5, 1.0]);
        Conversion::Normalize { to: FloatFormat::Fp32, mean, std, channels }
    }

    #[test]
    fn conversions_know_which_fields_they_fit() {
        let image = Field::fixed("image", Dtype::U8, &[2, 2, 3]);
        assert_eq!(normalize(Channels::Last).prepare(&image).unwrap().dtype, Dtype::F32);
        let refused = |conversion: Conversion, field: &Field, words: &str| {
            let error = conversion.prepare(field).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(&field.name), "{error}");
        };
        refused(normalize(Channels::First), &image, "3 channels, but samples have shape [2, 2, 3]");
        refused(Conversion::WidenToI32, &image, "elements are u8, expected u16");
        refused(
            normalize(Channels::Last),
            &Field::fixed("x", Dtype::U16, &[3]),
            "elements are u16, expected u8",
        );
        let flat = Conversion::Normalize {
            to: FloatFormat::Bf16,
            mean: vec![0.0],
            std: vec![0.0],
            channels: Channels::Last,
        };
        refused(flat, &image, "standard deviation 0");
    }

    #[test]
    fn channels_first_and_last_give_the_same_pixels() {
        let last = normalize(Channels::Last).prepare(&Field::fixed("image", Dtype::U8, &[2, 2, 3])).unwrap();
        let first =
            normalize(Channels::First).prepare(&Field::fixed("image", Dtype::U8, &[3, 2, 2])).unwrap();
        let pixels: Vec<u8> = (0..24).map(|n| n * 10).collect();
        let mut to_last = vec![0; last.bytes_of(24)];
        last.on_host(&pixels, &mut to_last);
        // The same two images by planes.
        let planes: Vec<u8> =
            (0..24).map(|at: usize| pixels[at / 12 * 12 + at % 4 * 3 + at % 12 / 4]).collect();
        let mut to_first = vec![0; first.bytes_of(24)];
        first.on_host(&planes, &mut to_first);
        let value =
            |bytes: &[u8], at: usize| f32::from_le_bytes(bytes[4 * at..4 * at + 4].try_into().unwrap());
        for at in 0..24 {
            assert_eq!(value(&to_first, at), value(&to_last, at / 12 * 12 + at % 4 * 3 + at % 12 / 4));
        }
        assert!((value(&to_last, 5) - (50.0 / 255.0)).abs() < 1e-6, "channel 2: mean 0, deviation 1");
    }

    #[test]
    fn tokens_widen_without_sign() {
        let wide = Conversion::WidenToI64.prepare(&Field::ragged("tokens", Dtype::U16)).unwrap();
        let mut to = vec![9; wide.bytes_of(4)];
        wide.on_host(&[0xff, 0xff, 1, 0], &mut to);
        assert_eq!(to, [0xff, 0xff, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }
}
