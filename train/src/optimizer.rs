//! AdamW on FP32 master weights, with decoupled decay and bias correction.

use burn_tensor::Tensor;

use crate::backend::TrainBackend;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{AdamWState, AdamWUpdate, Kernels};
use crate::model::{Parameter, TrainModel};

/// Decay of the first moment.
pub(crate) const BETA1: f32 = 0.9;
/// Decay of the second moment: 0.95 as in GPT-3, because 0.999 remembers longer than a short run lasts.
pub(crate) const BETA2: f32 = 0.95;
/// Added to the root of the second moment.
pub(crate) const EPSILON: f32 = 1e-8;

/// The moments of every parameter, in the model's order, and the number of updates made.
#[derive(Debug)]
pub struct AdamW<B: TrainBackend> {
    weight_decay: f32,
    updates: u64,
    moments: Vec<[Tensor<B::InnerBackend, 2>; 2]>,
}

impl<B: TrainBackend> AdamW<B> {
    /// An optimizer for `model` with zero moments. `weight_decay` applies to the parameters that say so.
    ///
    /// [`ErrorKind::Misuse`] if the decay is negative or not a number.
    pub fn new(model: &impl TrainModel<B>, weight_decay: f32) -> Result<Self> {
        if !(weight_decay.is_finite() && weight_decay >= 0.0) {
            return Err(Error::new(ErrorKind::Misuse, format!("weight decay is {weight_decay}")));
        }
        let zeros = |parameter: &Parameter<B>| {
            let value = parameter.value.clone().inner();
            [value.zeros_like(), value.zeros_like()]
        };
        Ok(Self { weight_decay, updates: 0, moments: model.parameters().iter().map(zeros).collect() })
    }

    /// Updates made so far.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// First and second moment of each parameter, in the model's order.
    pub fn moments(&self) -> impl Iterator<Item = [&Tensor<B::InnerBackend, 2>; 2]> {
        self.moments.iter().map(|[first, second]| [first, second])
    }

    /// One update of every parameter by its gradient times `gradient_factor`.
    pub(crate) fn update(
        &mut self,
        parameters: &mut [Parameter<B>],
        gradients: Vec<Tensor<B::InnerBackend, 2>>,
        gradient_factor: f32,
        learning_rate: f64,
    ) {
        assert!(
            parameters.len() == self.moments.len() && gradients.len() == self.moments.len(),
            "{} parameters and {} gradients for {} moments",
            parameters.len(),
            gradients.len(),
            self.moments.len()
        );
        self.updates += 1;
        let update = AdamWUpdate {
            gradient_factor,
            learning_rate: nearest(learning_rate),
            beta1: BETA1,
            beta2: BETA2,
            correction1: correction(BETA1, self.updates),
            correction2: correction(BETA2, self.updates),
            epsilon: EPSILON,
            weight_decay: 0.0,
        };
        let moments = std::mem::take(&mut self.moments);
        let parts = parameters.iter_mut().zip(moments).zip(gradients);
        let updated = parts.map(|((parameter, [moment1, moment2]), gradient)| {
            let weight_decay = if parameter.decays { self.weight_decay } else { 0.0 };
            // The gradient stands in for the weights meanwhile, so that the state is their only owner and the kernel can
            // update them in place.
            let value = std::mem::replace(&mut parameter.value, Tensor::from_inner(gradient.clone())).inner();
            let state = AdamWState { parameter: value, moment1, moment2 };
            let state = B::InnerBackend::adamw(state, gradient, AdamWUpdate { weight_decay, ..update });
            parameter.value = Tensor::from_inner(state.parameter).require_grad();
            [state.moment1, state.moment2]
        });
        self.moments = updated.collect();
    }
}

/// `1 - beta^updates`: how much of a running mean that started at 0 has been filled.
fn correction(beta: f32, updates: u64) -> f32 {
    let updates = i32::try_from(updates).unwrap_or(i32::MAX);
    nearest(1.0 - f64::from(beta).powi(updates))
}

#[expect(clippy::cast_possible_truncation, reason = "the kernels compute in FP32")]
fn nearest(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Slopes, values};

    /// AdamW as in Loshchilov and Hutter, algorithm 2, in FP64.
    fn reference(mut p: f64, gradients: &[f64], lr: f64, decay: f64) -> f64 {
        let (mut m, mut v) = (0.0, 0.0);
        for (t, g) in (1..).zip(gradients) {
            m = 0.9 * m + 0.1 * g;
            v = 0.95 * v + 0.05 * g * g;
            let (m, v) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.95f64.powi(t)));
            p = p - lr * decay * p - lr * m / (v.sqrt() + 1e-8);
        }
        p
    }

    #[test]
    fn updates_match_the_published_algorithm() {
        let mut model = Slopes::new(&[(&[2.0, -1.0, 0.5], true, None), (&[2.0, -1.0], false, None)]);
        let mut adamw = AdamW::new(&model, 0.1).unwrap();
        let gradients = [0.5, -0.25, 0.125, 3.0];
        for g in gradients {
            // Given as twice the gradient with factor one half, which is how clipping comes in.
            let all =
                model.parameters().iter().map(|p| p.value.clone().inner().ones_like() * (2.0 * g)).collect();
            adamw.update(model.parameters_mut(), all, 0.5, 0.01);
        }
        assert_eq!(adamw.updates(), 4);
        let starts = [[2.0, -1.0, 0.5].as_slice(), [2.0, -1.0].as_slice()];
        for ((parameter, starts), decay) in model.parameters().iter().zip(starts).zip([0.1, 0.0]) {
            for (found, start) in values(&parameter.value).into_iter().zip(starts) {
                let expected = reference(*start, &gradients, 0.01, decay);
                assert!(
                    (f64::from(found) - expected).abs() < 1e-6,
                    "{}: {found} v {expected}",
                    parameter.name
                );
            }
            assert!(parameter.value.is_require_grad(), "{} must stay a leaf", parameter.name);
        }
    }

    #[test]
    fn a_negative_decay_is_refused() {
        let model = Slopes::new(&[(&[1.0], true, None)]);
        assert_eq!(AdamW::new(&model, -0.1).unwrap_err().kind(), ErrorKind::Misuse);
        assert_eq!(AdamW::new(&model, f32::NAN).unwrap_err().kind(), ErrorKind::Misuse);
    }
}
