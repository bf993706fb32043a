//! Puts the operators on burn's autodiff graph.
//!
//! One node type serves all of them: a node keeps what its operator saved and the function that turns the gradient of
//! its output into the gradients of its inputs. When no input needs a gradient nothing is kept, so the same calls serve
//! evaluation.

use std::fmt::Debug;

use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_tensor::backend::{AutodiffBackend, Backend};
use burn_tensor::{DType, Int, Tensor, TensorPrimitive};

use super::{AttentionShape, Kernels};

/// A backend that can train: burn's autodiff over a backend that has [`Kernels`].
///
/// The methods are those of [`Kernels`] with gradients; look there for shapes and dtypes.
pub trait TrainBackend: AutodiffBackend<InnerBackend: Kernels> {
    /// See [`Kernels::affine`].
    fn affine(x: Tensor<Self, 2>, weight: Tensor<Self, 2>, bias: Tensor<Self, 2>) -> Tensor<Self, 2>;
    /// See [`Kernels::norm_rows`].
    fn norm_rows(
        x: Tensor<Self, 2>,
        scale: Tensor<Self, 2>,
        shift: Tensor<Self, 2>,
        out: DType,
    ) -> Tensor<Self, 2>;
    /// See [`Kernels::causal_attention`].
    fn causal_attention(qkv: Tensor<Self, 2>, shape: AttentionShape) -> Tensor<Self, 2>;
    /// See [`Kernels::tanh_gelu`].
    fn tanh_gelu(x: Tensor<Self, 2>) -> Tensor<Self, 2>;
    /// See [`Kernels::residual`].
    fn residual(stream: Tensor<Self, 2>, branch: Tensor<Self, 2>) -> Tensor<Self, 2>;
    /// See [`Kernels::cross_entropy`].
    fn cross_entropy(logits: Tensor<Self, 2>, targets: Tensor<Self, 1, Int>) -> Tensor<Self, 2>;
}

/// An operator with `N` inputs: from what it saved and its output's gradient to its inputs' gradients.
#[derive(Debug)]
struct Operator<B: Backend, S, const N: usize> {
    backward: fn(S, Tensor<B, 2>) -> [Tensor<B, 2>; N],
}

impl<B: Backend, S, const N: usize> Backward<B, N> for Operator<B, S, N>
where
    S: Clone + Send + Debug + 'static,
{
    type State = S;

    fn backward(self, ops: Ops<S, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = Tensor::from_primitive(TensorPrimitive::Float(grads.consume::<B>(&ops.node)));
        let inputs = (self.backward)(ops.state, grad);
        for (parent, grad) in ops.parents.into_iter().zip(inputs) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, grad.into_primitive().tensor());
            }
        }
    }
}

/// The output as a node of the graph, with `saved` kept for `backward` if any input needs a gradient.
fn record<B: Kernels, S, const N: usize>(
    inputs: [Tensor<Autodiff<B>, 2>; N],
    output: Tensor<B, 2>,
    saved: S,
    backward: fn(S, Tensor<B, 2>) -> [Tensor<B, 2>; N],
) -> Tensor<Autodiff<B>, 2>
where
    S: Clone + Send + Debug + 'static,
{
    let nodes = inputs.map(|input| input.into_primitive().tensor().node);
    let output = output.into_primitive().tensor();
    let node = match (Operator { backward }).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(saved, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    Tensor::from_primitive(TensorPrimitive::Float(node))
}

impl<B: Kernels> TrainBackend for Autodiff<B> {
    fn affine(x: Tensor<Self, 2>, weight: Tensor<Self, 2>, bias: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let saved = (x.clone().inner(), weight.clone().inner());
        let y = B::affine(&saved.0, &saved.1, &bias.clone().inner());
        record([x, weight, bias], y, saved, |(x, weight), grad| {
            let grads = B::affine_backward(&x, &weight, grad);
            [grads.x, grads.weight, grads.bias]
        })
    }

    fn norm_rows(
        x: Tensor<Self, 2>,
        scale: Tensor<Self, 2>,
        shift: Tensor<Self, 2>,
        out: DType,
    ) -> Tensor<Self, 2> {
        let inner_scale = scale.clone().inner();
        let (y, saved) = B::norm_rows(&x.clone().inner(), &inner_scale, &shift.clone().inner(), out);
        record([x, scale, shift], y, (saved, inner_scale), |(saved, scale), grad| {
            let grads = B::norm_rows_backward(&saved, &scale, grad);
            [grads.x, grads.scale, grads.shift]
        })
    }

    fn causal_attention(qkv: Tensor<Self, 2>, shape: AttentionShape) -> Tensor<Self, 2> {
        let saved = (qkv.clone().inner(), shape);
        let y = B::causal_attention(&saved.0, shape);
        record([qkv], y, saved, |(qkv, shape), grad| [B::causal_attention_backward(&qkv, shape, grad)])
    }

    fn tanh_gelu(x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let saved = x.clone().inner();
        let y = B::tanh_gelu(&saved);
        record([x], y, saved, |x, grad| [B::tanh_gelu_backward(&x, grad)])
    }

    fn residual(stream: Tensor<Self, 2>, branch: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let y = B::residual(stream.clone().inner(), &branch.clone().inner());
        let dtype = branch.dtype();
        record([stream, branch], y, dtype, |dtype, grad| {
            let branch = B::convert(&grad, dtype);
            [grad, branch]
        })
    }

    fn cross_entropy(logits: Tensor<Self, 2>, targets: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        let saved = (logits.clone().inner(), targets.inner());
        let loss = B::cross_entropy(&saved.0, &saved.1);
        record([logits], loss, saved, |(logits, targets), grad| {
            [B::cross_entropy_backward(&logits, &targets, grad)]
        })
    }
}
