//! Every operator of [`Kernels`](super::Kernels) composed of burn's tensor operations: the meaning of each, on any
//! backend. Backward passes are written out, because what they keep is the point of having them.

use burn_tensor::backend::Backend;
use burn_tensor::{Bool, DType, IndexingUpdateOp, Int, Tensor, activation};

use super::{
    AdamWState, AdamWUpdate, AffineGradients, AttentionShape, LAYER_NORM_EPSILON, NormGradients, Normalized,
};

/// `sqrt(2 / pi)` and the cubic coefficient of GELU's tanh form.
pub(crate) const GELU_SLOPE: f32 = 0.797_884_6;
pub(crate) const GELU_CUBIC: f32 = 0.044_715;

fn f32_of<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    x.cast(DType::F32)
}

pub(crate) fn affine<B: Backend>(
    x: &Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    bias: &Tensor<B, 2>,
) -> Tensor<B, 2> {
    let dtype = x.dtype();
    x.clone().matmul(weight.clone().cast(dtype)) + bias.clone().cast(dtype)
}

pub(crate) fn affine_backward<B: Backend>(
    x: &Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    grad: Tensor<B, 2>,
) -> AffineGradients<B> {
    AffineGradients {
        x: grad.clone().matmul(weight.clone().cast(x.dtype()).transpose()),
        weight: f32_of(x.clone().transpose().matmul(grad.clone())),
        bias: f32_of(grad).sum_dim(0),
    }
}

pub(crate) fn norm_rows<B: Backend>(
    x: &Tensor<B, 2>,
    scale: &Tensor<B, 2>,
    shift: &Tensor<B, 2>,
    out: DType,
) -> (Tensor<B, 2>, Normalized<B>) {
    let centred = x.clone() - x.clone().mean_dim(1);
    let variance = centred.clone().square().mean_dim(1);
    let inverse_deviation = (variance + LAYER_NORM_EPSILON).sqrt().recip();
    let unit = centred * inverse_deviation.clone();
    let y = (unit.clone() * scale.clone() + shift.clone()).cast(out);
    (y, Normalized { unit: unit.cast(out), inverse_deviation })
}

pub(crate) fn norm_rows_backward<B: Backend>(
    saved: &Normalized<B>,
    scale: &Tensor<B, 2>,
    grad: Tensor<B, 2>,
) -> NormGradients<B> {
    let unit = f32_of(saved.unit.clone());
    let grad = f32_of(grad);
    let to_unit = grad.clone() * scale.clone();
    let along_mean = to_unit.clone().mean_dim(1);
    let along_unit = (to_unit.clone() * unit.clone()).mean_dim(1);
    NormGradients {
        x: (to_unit - along_mean - unit.clone() * along_unit) * saved.inverse_deviation.clone(),
        scale: (grad.clone() * unit).sum_dim(0),
        shift: grad.sum_dim(0),
    }
}

/// Queries (already divided by the root of the head size), keys and values, each `[batch, heads, context, head]`.
fn split_heads<B: Backend>(qkv: &Tensor<B, 2>, shape: AttentionShape) -> [Tensor<B, 4>; 3] {
    let AttentionShape { batch, context, heads } = shape;
    let [_, width] = qkv.dims();
    let head = width / (3 * heads);
    let split = qkv.clone().reshape([batch, context, 3, heads, head]);
    let part =
        |index| split.clone().narrow(2, index, 1).reshape([batch, context, heads, head]).swap_dims(1, 2);
    [part(0), part(1), part(2)]
}

fn merge_heads<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 2> {
    let [batch, heads, context, head] = x.dims();
    x.swap_dims(1, 2).reshape([batch * context, heads * head])
}

/// One over the root of the head size.
pub(crate) fn attention_scale(head: usize) -> f32 {
    let head = u16::try_from(head).unwrap_or(u16::MAX);
    f32::from(head).sqrt().recip()
}

/// Softmax of the causal scores, F32.
fn probabilities<B: Backend>(query: &Tensor<B, 4>, key: &Tensor<B, 4>) -> Tensor<B, 4> {
    let [batch, heads, context, head] = query.dims();
    let scores = f32_of(query.clone().matmul(key.clone().swap_dims(2, 3))) * attention_scale(head);
    let future = Tensor::<B, 2, Bool>::tril_mask([context, context], 0, &query.device())
        .reshape([1, 1, context, context])
        .expand([batch, heads, context, context]);
    // A large finite number: -inf would turn into NaN in a row that is all masked.
    activation::softmax(scores.mask_fill(future, -1e30), 3)
}

pub(crate) fn causal_attention<B: Backend>(qkv: &Tensor<B, 2>, shape: AttentionShape) -> Tensor<B, 2> {
    let [query, key, value] = split_heads(qkv, shape);
    merge_heads(probabilities(&query, &key).cast(qkv.dtype()).matmul(value))
}

pub(crate) fn causal_attention_backward<B: Backend>(
    qkv: &Tensor<B, 2>,
    shape: AttentionShape,
    grad: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let AttentionShape { batch, context, heads } = shape;
    let dtype = qkv.dtype();
    let [query, key, value] = split_heads(qkv, shape);
    let [_, _, _, head] = query.dims();
    let grad = grad.reshape([batch, context, heads, head]).swap_dims(1, 2);
    let probability = probabilities(&query, &key);
    let grad_value = probability.clone().cast(dtype).swap_dims(2, 3).matmul(grad.clone());
    let grad_probability = f32_of(grad.matmul(value.swap_dims(2, 3)));
    let along = (grad_probability.clone() * probability.clone()).sum_dim(3);
    let grad_score = ((grad_probability - along) * probability * attention_scale(head)).cast(dtype);
    let grad_query = grad_score.clone().matmul(key);
    let grad_key = grad_score.swap_dims(2, 3).matmul(query);
    Tensor::cat([grad_query, grad_key, grad_value].map(merge_heads).to_vec(), 1)
}

/// `tanh` form: `x * sigmoid(2 u)` with `u = slope (x + cubic x^3)`.
fn gelu_gate<B: Backend>(x: &Tensor<B, 2>) -> Tensor<B, 2> {
    let cubed = x.clone().powi_scalar(3);
    activation::sigmoid((x.clone() + cubed * GELU_CUBIC) * (2.0 * GELU_SLOPE))
}

pub(crate) fn tanh_gelu<B: Backend>(x: &Tensor<B, 2>) -> Tensor<B, 2> {
    let wide = f32_of(x.clone());
    let gate = gelu_gate(&wide);
    (wide * gate).cast(x.dtype())
}

pub(crate) fn tanh_gelu_backward<B: Backend>(x: &Tensor<B, 2>, grad: Tensor<B, 2>) -> Tensor<B, 2> {
    let wide = f32_of(x.clone());
    let gate = gelu_gate(&wide);
    let inner = (wide.clone().square() * (3.0 * GELU_CUBIC) + 1.0) * (2.0 * GELU_SLOPE);
    let slope = gate.clone() + wide * gate.clone() * (gate.neg() + 1.0) * inner;
    (f32_of(grad) * slope).cast(x.dtype())
}

pub(crate) fn residual<B: Backend>(stream: Tensor<B, 2>, branch: &Tensor<B, 2>) -> Tensor<B, 2> {
    stream + f32_of(branch.clone())
}

pub(crate) fn cross_entropy<B: Backend>(logits: &Tensor<B, 2>, targets: &Tensor<B, 1, Int>) -> Tensor<B, 2> {
    let [rows, _] = logits.dims();
    let log_probability = activation::log_softmax(f32_of(logits.clone()), 1);
    log_probability.gather(1, targets.clone().reshape([rows, 1])).mean().neg().reshape([1, 1])
}

pub(crate) fn cross_entropy_backward<B: Backend>(
    logits: &Tensor<B, 2>,
    targets: &Tensor<B, 1, Int>,
    grad: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let [rows, _] = logits.dims();
    let probability = activation::softmax(f32_of(logits.clone()), 1);
    let hit = Tensor::full([rows, 1], -1.0, (&logits.device(), DType::F32));
    let error = probability.scatter(1, targets.clone().reshape([rows, 1]), hit, IndexingUpdateOp::Add);
    // Divided before it is multiplied by the (scaled) gradient: fp16 has to hold the result only.
    let share = u32::try_from(rows).map_or(0.0, |rows| 1.0 / f64::from(rows));
    (error * (grad * share)).cast(logits.dtype())
}

pub(crate) fn adamw<B: Backend>(
    state: AdamWState<B>,
    gradient: Tensor<B, 2>,
    update: AdamWUpdate,
) -> AdamWState<B> {
    let gradient = gradient * update.gradient_factor;
    let moment1 = state.moment1 * update.beta1 + gradient.clone() * (1.0 - update.beta1);
    let moment2 = state.moment2 * update.beta2 + gradient.square() * (1.0 - update.beta2);
    let root = (moment2.clone() / update.correction2).sqrt() + update.epsilon;
    let direction = moment1.clone() / update.correction1 / root;
    let kept = state.parameter * (1.0 - update.learning_rate * update.weight_decay);
    AdamWState { parameter: kept - direction * update.learning_rate, moment1, moment2 }
}
