//! The seven operators that a transformer's training step spends its time in.
//!
//! Why not burn's own operators: burn-flex 0.21 runs elementwise work on one core, copies transposed operands, and its
//! autodiff keeps every FP32 intermediate of a composed LayerNorm or softmax. An operator here keeps what its backward
//! pass needs, in the compute precision, and nothing else: that is where mixed precision saves memory.
//!
//! Every operator has one meaning, written twice: [`reference`] composes burn's tensor operations and runs on every
//! backend (it is what CUDA uses); [`cpu`] is the fast one for burn-flex. Tests hold the two against each other.
//! [`tape`] makes them differentiable.
//!
//! Common rules. All tensors are matrices; a row is a token, a vector is a matrix of one row. "Compute dtype" is F32,
//! BF16 or F16, the same for all activations of a call. Parameters and their gradients are F32. Sums are F32.
//! A wrong shape or dtype is a bug of the caller in this crate and panics.

pub(crate) mod cpu;
pub(crate) mod reference;
pub(crate) mod tape;
#[cfg(test)]
mod tests;

use burn_tensor::backend::Backend;
use burn_tensor::{DType, Int, Tensor};

/// Added to the variance in LayerNorm, so that a constant row does not divide by zero. PyTorch's default.
pub(crate) const LAYER_NORM_EPSILON: f32 = 1e-5;

/// How the rows of a matrix are grouped for attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Sequences in the batch; the matrix has `batch * context` rows.
    pub batch: usize,
    /// Tokens per sequence.
    pub context: usize,
    /// Heads that the features are split into.
    pub heads: usize,
}

/// Gradients of [`Kernels::affine`].
#[derive(Debug)]
pub struct AffineGradients<B: Backend> {
    /// `[n, in]`, compute dtype.
    pub x: Tensor<B, 2>,
    /// `[in, out]`, F32.
    pub weight: Tensor<B, 2>,
    /// `[1, out]`, F32.
    pub bias: Tensor<B, 2>,
}

/// What [`Kernels::norm_rows`] keeps for its backward pass.
#[derive(Clone, Debug)]
pub struct Normalized<B: Backend> {
    /// The rows with mean 0 and variance 1, before scale and shift: `[n, d]`, compute dtype.
    pub unit: Tensor<B, 2>,
    /// One over each row's standard deviation: `[n, 1]`, F32.
    pub inverse_deviation: Tensor<B, 2>,
}

/// Gradients of [`Kernels::norm_rows`].
#[derive(Debug)]
pub struct NormGradients<B: Backend> {
    /// `[n, d]`, F32.
    pub x: Tensor<B, 2>,
    /// `[1, d]`, F32.
    pub scale: Tensor<B, 2>,
    /// `[1, d]`, F32.
    pub shift: Tensor<B, 2>,
}

/// The numbers of one AdamW update, the same for all parameters but for the decay.
#[derive(Clone, Copy, Debug)]
pub struct AdamWUpdate {
    /// Multiplies the gradient first: clipping and the loss scale in one factor.
    pub gradient_factor: f32,
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// `1 - beta1^t`.
    pub correction1: f32,
    /// `1 - beta2^t`.
    pub correction2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay, 0 for parameters that do not decay.
    pub weight_decay: f32,
}

/// A parameter with its two moments, all F32 and of one shape.
#[derive(Debug)]
pub struct AdamWState<B: Backend> {
    /// The master weights.
    pub parameter: Tensor<B, 2>,
    /// Running mean of the gradient.
    pub moment1: Tensor<B, 2>,
    /// Running mean of the squared gradient.
    pub moment2: Tensor<B, 2>,
}

/// A burn backend with these operators. The provided methods are the reference.
pub trait Kernels: Backend {
    /// `x weight + bias`: `x` is `[n, in]` in the compute dtype, `weight` `[in, out]` and `bias` `[1, out]` are F32.
    /// The product reads `weight` rounded to the compute dtype. Returns `[n, out]` in the compute dtype.
    fn affine(x: &Tensor<Self, 2>, weight: &Tensor<Self, 2>, bias: &Tensor<Self, 2>) -> Tensor<Self, 2> {
        reference::affine(x, weight, bias)
    }

    /// Gradients of [`Kernels::affine`] for `grad` of its output.
    fn affine_backward(
        x: &Tensor<Self, 2>,
        weight: &Tensor<Self, 2>,
        grad: Tensor<Self, 2>,
    ) -> AffineGradients<Self> {
        reference::affine_backward(x, weight, grad)
    }

    /// Normalises each row of `x` (`[n, d]`, F32), then multiplies by `scale` and adds `shift` (`[1, d]`, F32).
    /// Returns `[n, d]` in dtype `out` and what the backward pass needs.
    fn norm_rows(
        x: &Tensor<Self, 2>,
        scale: &Tensor<Self, 2>,
        shift: &Tensor<Self, 2>,
        out: DType,
    ) -> (Tensor<Self, 2>, Normalized<Self>) {
        reference::norm_rows(x, scale, shift, out)
    }

    /// Gradients of [`Kernels::norm_rows`] for `grad` of its output.
    fn norm_rows_backward(
        saved: &Normalized<Self>,
        scale: &Tensor<Self, 2>,
        grad: Tensor<Self, 2>,
    ) -> NormGradients<Self> {
        reference::norm_rows_backward(saved, scale, grad)
    }

    /// Causal multi-head attention. `qkv` is `[batch * context, 3 d]` in the compute dtype: queries, keys and values
    /// side by side, each with its heads side by side. Returns `[batch * context, d]`.
    fn causal_attention(qkv: &Tensor<Self, 2>, shape: AttentionShape) -> Tensor<Self, 2> {
        reference::causal_attention(qkv, shape)
    }

    /// Gradient of [`Kernels::causal_attention`]: `[batch * context, 3 d]`. Computes the scores again, since keeping them
    /// would cost `heads * context` numbers per token.
    fn causal_attention_backward(
        qkv: &Tensor<Self, 2>,
        shape: AttentionShape,
        grad: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        reference::causal_attention_backward(qkv, shape, grad)
    }

    /// GELU, in the tanh form that has no `erf`. Any shape, compute dtype.
    fn tanh_gelu(x: &Tensor<Self, 2>) -> Tensor<Self, 2> {
        reference::tanh_gelu(x)
    }

    /// Gradient of [`Kernels::tanh_gelu`] at its input `x`.
    fn tanh_gelu_backward(x: &Tensor<Self, 2>, grad: Tensor<Self, 2>) -> Tensor<Self, 2> {
        reference::tanh_gelu_backward(x, grad)
    }

    /// `stream + branch`: `stream` is F32, `branch` has the compute dtype. Returns F32.
    fn residual(stream: Tensor<Self, 2>, branch: &Tensor<Self, 2>) -> Tensor<Self, 2> {
        reference::residual(stream, branch)
    }

    /// `x` in another float dtype, rounded to nearest even.
    fn convert(x: &Tensor<Self, 2>, to: DType) -> Tensor<Self, 2> {
        x.clone().cast(to)
    }

    /// Mean of `-ln softmax(logits)[target]` over the rows: `logits` is `[n, classes]` in the compute dtype, `targets`
    /// `[n]` holds I32 class numbers. Returns `[1, 1]`, F32.
    fn cross_entropy(logits: &Tensor<Self, 2>, targets: &Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        reference::cross_entropy(logits, targets)
    }

    /// Gradient of [`Kernels::cross_entropy`] for `grad` `[1, 1]` of its output: `[n, classes]`, compute dtype.
    fn cross_entropy_backward(
        logits: &Tensor<Self, 2>,
        targets: &Tensor<Self, 1, Int>,
        grad: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        reference::cross_entropy_backward(logits, targets, grad)
    }

    /// One AdamW update of one parameter with its F32 gradient.
    fn adamw(state: AdamWState<Self>, gradient: Tensor<Self, 2>, update: AdamWUpdate) -> AdamWState<Self> {
        reference::adamw(state, gradient, update)
    }
}

/// CUDA has fast operators of its own; the reference composes them.
impl Kernels for burn_cuda::Cuda {}
