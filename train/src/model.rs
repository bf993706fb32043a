//! What the training step needs of a model, and nothing about what is inside.

use burn_tensor::Tensor;

use crate::backend::TrainBackend;
use crate::batch::TokenBatch;
use crate::error::Result;
use crate::precision::Precision;

/// A trained tensor: a leaf of the autodiff graph, F32 in every precision.
#[derive(Clone, Debug)]
pub struct Parameter<B: TrainBackend> {
    /// Dotted path from the model's root, unique within it: `layer.0.attention.qkv.weight`.
    pub name: String,
    /// Whether weight decay applies: yes for matrices of products; no for biases, LayerNorm and embeddings.
    pub decays: bool,
    /// The master values, with `require_grad`. A vector is a matrix of one row.
    pub value: Tensor<B, 2>,
}

/// A model that can be trained.
pub trait TrainModel<B: TrainBackend> {
    /// Mean loss over the batch, `[1, 1]`, F32, on the autodiff graph. Natural logarithm.
    ///
    /// Matrix products and kept activations use `precision`. [`Misuse`](crate::ErrorKind::Misuse) if the batch does not
    /// fit the model.
    fn loss(&self, batch: &TokenBatch<'_>, precision: Precision) -> Result<Tensor<B, 2>>;

    /// All parameters, in an order that never changes.
    fn parameters(&self) -> &[Parameter<B>];

    /// The same parameters, to be replaced by their updates.
    fn parameters_mut(&mut self) -> &mut [Parameter<B>];

    /// The same model off the autodiff graph: it shares the values, and its [`TrainModel::loss`] keeps nothing.
    #[must_use]
    fn frozen(&self) -> Self
    where
        Self: Sized;
}

/// Number of trained values.
pub fn parameter_count<B: TrainBackend>(model: &impl TrainModel<B>) -> usize {
    model.parameters().iter().map(|parameter| parameter.value.shape().num_elements()).sum()
}
