//! One training step, in an order that is a guarantee: forward and backward, unscale, finite check, clip, AdamW.
//!
//! Unscaling comes before clipping, since the limit is meant for the true gradient; the finite check comes before both
//! have an effect, so that a step that is skipped leaves weights, moments and schedule as they were. Unscaling and
//! clipping are two factors of one multiplication inside the optimizer. The host waits for the device once per step,
//! for one small vector: the loss and a sum of squares per parameter, in which NaN and infinity survive.
//!
//! Knows neither where tokens come from nor what time it is.

use burn_tensor::{DType, Tensor};

use crate::backend::TrainBackend;
use crate::batch::TokenBatch;
use crate::error::{Error, ErrorKind, Result};
use crate::model::TrainModel;
use crate::optimizer::AdamW;
use crate::precision::Precision;
use crate::scaler::GradScaler;
use crate::schedule::Schedule;

/// Limit of the gradients' norm over all parameters.
pub(crate) const CLIP_NORM: f64 = 1.0;
/// Weight decay of the matrices, as in GPT-3.
pub(crate) const WEIGHT_DECAY: f32 = 0.1;

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Mean loss over the batch before the update, in nats per token. Not finite only if `skipped`.
    pub loss: f32,
    /// Norm of the unscaled gradients over all parameters, before clipping. Not finite only if `skipped`.
    pub grad_norm: f32,
    /// Learning rate of this update, or the one it would have had.
    pub lr: f64,
    /// Loss scale that this step used.
    pub scale: f32,
    /// Whether the update was left out because a gradient overflowed. Happens in fp16 only.
    pub skipped: bool,
}

/// A model with its optimizer, schedule and loss scale.
#[derive(Debug)]
pub struct Trainer<B: TrainBackend, M> {
    model: M,
    precision: Precision,
    schedule: Schedule,
    optimizer: AdamW<B>,
    scaler: GradScaler,
    attempts: u64,
}

impl<B: TrainBackend, M: TrainModel<B>> Trainer<B, M> {
    /// A trainer at step 0.
    ///
    /// [`ErrorKind::Unsupported`] if the model's device cannot compute in `precision`.
    pub fn new(model: M, precision: Precision, schedule: Schedule) -> Result<Self> {
        let optimizer = AdamW::new(&model, WEIGHT_DECAY)?;
        if let Some(parameter) = model.parameters().first() {
            let device = parameter.value.device();
            if !B::supports_dtype(&device, precision.compute_dtype()) {
                let message = format!("device {device:?} cannot compute in {precision}");
                return Err(Error::new(ErrorKind::Unsupported, message).with_hint("use fp32"));
            }
        }
        let scaler =
            if precision.needs_loss_scale() { GradScaler::enabled() } else { GradScaler::disabled() };
        Ok(Self { model, precision, schedule, optimizer, scaler, attempts: 0 })
    }

    /// The same trainer with another loss scaler: to resume, or to start from a scale that is known to hold.
    #[must_use]
    pub fn with_scaler(self, scaler: GradScaler) -> Self {
        Self { scaler, ..self }
    }

    /// The model as it is now.
    #[must_use]
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The optimizer: its moments and how many updates were made.
    #[must_use]
    pub fn optimizer(&self) -> &AdamW<B> {
        &self.optimizer
    }

    /// The loss scale as it is now.
    #[must_use]
    pub fn scaler(&self) -> &GradScaler {
        &self.scaler
    }

    /// One step on `batch` rows of `context_plus_one` byte tokens.
    ///
    /// - [`ErrorKind::Misuse`]: the tokens are not that many, the batch does not fit the model, or a parameter got no
    ///   gradient (the model's graph does not reach it; training would go on without it and look well).
    /// - [`ErrorKind::Diverged`]: the loss or a gradient is not finite in fp32 or bf16, or too often in fp16.
    /// - [`ErrorKind::Unsupported`]: the device failed.
    ///
    /// After an error the weights are those of the last good step.
    pub fn step(&mut self, tokens: &[u8], batch: usize, context_plus_one: usize) -> Result<StepOutcome> {
        self.attempts += 1;
        let batch = TokenBatch::new(tokens, batch, context_plus_one)?;
        let scale = self.scaler.scale();
        let loss = self.model.loss(&batch, self.precision)?;
        let gradients = self.gradients(loss.clone(), scale)?;
        let (loss, grad_norm) = read_back(loss.inner(), &gradients, scale)?;
        let lr = self.schedule.learning_rate(self.optimizer.updates());
        let skipped = !(loss.is_finite() && grad_norm.is_finite());
        if skipped {
            if !self.scaler.is_enabled() {
                return Err(self.diverged(loss, grad_norm));
            }
            self.scaler.record_overflow()?;
        } else {
            let factor = clip_factor(grad_norm) / f64::from(scale);
            self.optimizer.update(self.model.parameters_mut(), gradients, narrow(factor), lr);
            self.scaler.record_good_step();
        }
        Ok(StepOutcome { loss, grad_norm: narrow(grad_norm), lr, scale, skipped })
    }

    /// Mean loss of `batch` rows of `context_plus_one` byte tokens, without gradients and without a change.
    ///
    /// Errors as [`Trainer::step`], but a loss that is not finite is returned as it is.
    pub fn evaluate(&self, tokens: &[u8], batch: usize, context_plus_one: usize) -> Result<f32> {
        let batch = TokenBatch::new(tokens, batch, context_plus_one)?;
        let loss = self.model.frozen().loss(&batch, self.precision)?.inner();
        Ok(read_back(loss, &[], 1.0)?.0)
    }

    /// Gradients of the scaled loss, in the model's order.
    fn gradients(&self, loss: Tensor<B, 2>, scale: f32) -> Result<Vec<Tensor<B::InnerBackend, 2>>> {
        let loss = if self.scaler.is_enabled() { loss * scale } else { loss };
        let mut gradients = loss.backward();
        let take = |parameter: &crate::model::Parameter<B>| {
            let gradient = parameter.value.grad_remove(&mut gradients).ok_or_else(|| {
                let message =
                    format!("parameter `{}` received no gradient in step {}", parameter.name, self.attempts);
                Error::new(ErrorKind::Misuse, message)
                    .with_hint("the loss does not depend on it: check that the model uses every parameter")
            })?;
            assert!(
                gradient.dtype() == DType::F32,
                "gradient of {} is {:?}",
                parameter.name,
                gradient.dtype()
            );
            Ok(gradient)
        };
        self.model.parameters().iter().map(take).collect()
    }

    fn diverged(&self, loss: f32, grad_norm: f64) -> Error {
        let (step, precision) = (self.attempts, self.precision);
        let message = format!("loss {loss} and gradient norm {grad_norm} in step {step} ({precision})");
        Error::new(ErrorKind::Diverged, message).with_hint("lower the learning rate or lengthen the warm-up")
    }
}

/// The loss, and the norm of the gradients divided by the loss scale: the one wait for the device.
fn read_back<B: burn_tensor::backend::Backend>(
    loss: Tensor<B, 2>,
    gradients: &[Tensor<B, 2>],
    scale: f32,
) -> Result<(f32, f64)> {
    let mut values = vec![loss.reshape([1])];
    values.extend(gradients.iter().map(|gradient| gradient.clone().square().sum()));
    let data = Tensor::cat(values, 0).try_into_data();
    let failed = |error: String| Error::new(ErrorKind::Unsupported, format!("device failed: {error}"));
    let data = data.map_err(|error| failed(error.to_string()))?;
    let values = data.as_slice::<f32>().map_err(|error| failed(format!("{error:?}")))?;
    let squares: f64 = values[1..].iter().copied().map(f64::from).sum();
    Ok((values[0], squares.sqrt() / f64::from(scale)))
}

/// What the gradients are multiplied by so that their norm is at most [`CLIP_NORM`].
fn clip_factor(grad_norm: f64) -> f64 {
    // The small number is PyTorch's: it keeps the clipped norm from rounding to just above the limit.
    (CLIP_NORM / (grad_norm + 1e-6)).min(1.0)
}

#[expect(clippy::cast_possible_truncation, reason = "rounds to the FP32 that gradients are kept in")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests;
