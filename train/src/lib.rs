//! A mixed-precision training loop that consumes batches.
//!
//! Bytes in, losses out: [`Trainer::step`] takes a batch as the loader hands it over (rows of bytes) and does one step of
//! a byte-level [`Gpt`] or of any [`TrainModel`], in fp32, bf16 or fp16, on the CPU or on a GPU. The caller owns the
//! loop, the clock and the data; [`StepRecord`] and [`Summary`] turn what it measured into the report.
//!
//! Guarantees: master weights, gradients and moments are FP32 in every precision; the same seed and the same batches give
//! the same bits on the CPU; a parameter without a gradient, a loss that is not finite, and a batch of the wrong length
//! are errors, never silence.
//!
//! Only [`job`] knows the loader; nothing here knows a file, a flag or an environment variable.

pub mod backend;
mod batch;
mod device;
mod error;
mod gpt;
mod init;
pub mod job;
mod kernels;
mod memory;
mod model;
mod optimizer;
mod precision;
mod recipe;
mod record;
mod report;
mod scaler;
mod schedule;
mod step;
#[cfg(test)]
mod testing;

pub use batch::TokenBatch;
pub use device::{CudaPresent, Device};
pub use error::{Error, ErrorKind, Result};
pub use gpt::{Gpt, GptConfig, VOCABULARY};
pub use memory::MemoryMeter;
pub use model::{Parameter, TrainModel, parameter_count};
pub use optimizer::AdamW;
pub use precision::Precision;
pub use recipe::Recipe;
pub use record::StepRecord;
pub use report::Summary;
pub use scaler::GradScaler;
pub use schedule::Schedule;
pub use step::{StepOutcome, Trainer};
