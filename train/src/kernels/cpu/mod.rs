//! The operators for burn-flex: all cores, FP32 inside, compute dtype at the edges.
//!
//! A half-precision operand is widened once into an FP32 scratch matrix, multiplied by burn-flex's FP32 gemm through
//! strided views (nothing is transposed in memory), and the result is rounded once. That is what a tensor core does,
//! and several times faster than burn-flex's own half-precision product.
//!
//! Deterministic: work is cut into chunks of a fixed size and partial sums are added in chunk order, so that the same
//! input gives the same bits on any number of cores.

mod adamw;
mod affine;
mod attention;
mod lane;
mod loss;
mod norm;
mod pointwise;

use burn_flex::{Flex, FlexTensor};
use burn_tensor::{DType, Int, Tensor, TensorPrimitive};

use super::{AdamWState, AdamWUpdate, AffineGradients, AttentionShape, Kernels, NormGradients, Normalized};
use lane::by_dtype;

/// The tensor's storage as one contiguous block in row order.
fn open(x: &Tensor<Flex, 2>) -> FlexTensor {
    x.clone().into_primitive().tensor().to_contiguous()
}

fn close(x: FlexTensor) -> Tensor<Flex, 2> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

impl Kernels for Flex {
    fn affine(x: &Tensor<Self, 2>, weight: &Tensor<Self, 2>, bias: &Tensor<Self, 2>) -> Tensor<Self, 2> {
        let (x, weight, bias) = (open(x), open(weight), open(bias));
        close(by_dtype!(x, E => affine::forward::<E>(&x, &weight, &bias)))
    }

    fn affine_backward(
        x: &Tensor<Self, 2>,
        weight: &Tensor<Self, 2>,
        grad: Tensor<Self, 2>,
    ) -> AffineGradients<Self> {
        let (x, weight, grad) = (open(x), open(weight), open(&grad));
        let [x, weight, bias] = by_dtype!(x, E => affine::backward::<E>(&x, &weight, &grad));
        AffineGradients { x: close(x), weight: close(weight), bias: close(bias) }
    }

    fn norm_rows(
        x: &Tensor<Self, 2>,
        scale: &Tensor<Self, 2>,
        shift: &Tensor<Self, 2>,
        out: DType,
    ) -> (Tensor<Self, 2>, Normalized<Self>) {
        let (x, scale, shift) = (open(x), open(scale), open(shift));
        let [y, unit, inverse_deviation] = by_dtype!(out => out, E => norm::forward::<E>(&x, &scale, &shift));
        (close(y), Normalized { unit: close(unit), inverse_deviation: close(inverse_deviation) })
    }

    fn norm_rows_backward(
        saved: &Normalized<Self>,
        scale: &Tensor<Self, 2>,
        grad: Tensor<Self, 2>,
    ) -> NormGradients<Self> {
        let (unit, inverse_deviation) = (open(&saved.unit), open(&saved.inverse_deviation));
        let (scale, grad) = (open(scale), open(&grad));
        let [x, scale, shift] =
            by_dtype!(unit, E => norm::backward::<E>(&unit, &inverse_deviation, &scale, &grad));
        NormGradients { x: close(x), scale: close(scale), shift: close(shift) }
    }

    fn causal_attention(qkv: &Tensor<Self, 2>, shape: AttentionShape) -> Tensor<Self, 2> {
        let qkv = open(qkv);
        close(by_dtype!(qkv, E => attention::forward::<E>(&qkv, shape)))
    }

    fn causal_attention_backward(
        qkv: &Tensor<Self, 2>,
        shape: AttentionShape,
        grad: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        let (qkv, grad) = (open(qkv), open(&grad));
        close(by_dtype!(qkv, E => attention::backward::<E>(&qkv, shape, &grad)))
    }

    fn tanh_gelu(x: &Tensor<Self, 2>) -> Tensor<Self, 2> {
        let x = open(x);
        close(by_dtype!(x, E => pointwise::gelu::<E>(&x)))
    }

    fn tanh_gelu_backward(x: &Tensor<Self, 2>, grad: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let (x, grad) = (open(x), open(&grad));
        close(by_dtype!(x, E => pointwise::gelu_backward::<E>(&x, &grad)))
    }

    fn residual(stream: Tensor<Self, 2>, branch: &Tensor<Self, 2>) -> Tensor<Self, 2> {
        let (stream, branch) = (open(&stream), open(branch));
        close(by_dtype!(branch, E => pointwise::residual::<E>(&stream, &branch)))
    }

    fn convert(x: &Tensor<Self, 2>, to: DType) -> Tensor<Self, 2> {
        let x = open(x);
        close(by_dtype!(x, E => by_dtype!(to => to, F => pointwise::convert::<E, F>(&x))))
    }

    fn cross_entropy(logits: &Tensor<Self, 2>, targets: &Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        let (logits, targets) = (open(logits), targets.clone().into_primitive().to_contiguous());
        close(by_dtype!(logits, E => loss::forward::<E>(&logits, &targets)))
    }

    fn cross_entropy_backward(
        logits: &Tensor<Self, 2>,
        targets: &Tensor<Self, 1, Int>,
        grad: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        let (logits, targets) = (open(logits), targets.clone().into_primitive().to_contiguous());
        let grad = open(&grad);
        close(by_dtype!(logits, E => loss::backward::<E>(&logits, &targets, &grad)))
    }

    fn adamw(state: AdamWState<Self>, gradient: Tensor<Self, 2>, update: AdamWUpdate) -> AdamWState<Self> {
        let AdamWState { parameter, moment1, moment2 } = state;
        // Opened by value: a tensor that nobody else holds is updated in place.
        let own = |x: Tensor<Self, 2>| x.into_primitive().tensor();
        let [parameter, moment1, moment2] =
            adamw::update([own(parameter), own(moment1), own(moment2)], &open(&gradient), update);
        AdamWState { parameter: close(parameter), moment1: close(moment1), moment2: close(moment2) }
    }
}
