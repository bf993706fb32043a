//! The CPU kernels against the reference, on shapes that are no multiple of any block, in each compute dtype.

use burn_flex::{Flex, FlexDevice};
use burn_tensor::{DType, Int, Tensor, TensorData};

use super::{AdamWState, AdamWUpdate, AttentionShape, Kernels, reference};
use crate::init::NormalSource;
use crate::testing::values;

type Matrix = Tensor<Flex, 2>;

/// Compute dtypes and how far two correct results may be apart, relative to the norm: a few roundings.
const DTYPES: [(DType, f32); 3] = [(DType::F32, 1e-5), (DType::BF16, 1.2e-2), (DType::F16, 1.5e-3)];

fn random(seed: u64, dims: [usize; 2], dtype: DType) -> Matrix {
    let data = TensorData::new(NormalSource::new(seed).take(dims[0] * dims[1], 1.0), dims);
    Matrix::from_data(data, (&FlexDevice, DType::F32)).cast(dtype)
}

#[track_caller]
fn close(name: &str, fast: &Matrix, reference: &Matrix, allowed: f32) {
    assert_eq!(fast.dims(), reference.dims(), "{name}");
    assert_eq!(fast.dtype(), reference.dtype(), "{name}");
    let (x, y) = (values(fast), values(reference));
    let norm = y.iter().map(|y| y * y).sum::<f32>().sqrt();
    let error = x.iter().zip(&y).map(|(x, y)| (x - y) * (x - y)).sum::<f32>().sqrt();
    let dtype = fast.dtype();
    assert!(
        error <= allowed * norm,
        "{name} {dtype:?}: off by {} of the norm {norm}, allowed {allowed}",
        error / norm
    );
}

#[test]
fn affine() {
    for (dtype, allowed) in DTYPES {
        let (x, weight, bias) =
            (random(1, [1030, 24], dtype), random(2, [24, 40], DType::F32), random(3, [1, 40], DType::F32));
        close("affine", &Flex::affine(&x, &weight, &bias), &reference::affine(&x, &weight, &bias), allowed);
        let grad = random(4, [1030, 40], dtype);
        let (fast, slow) =
            (Flex::affine_backward(&x, &weight, grad.clone()), reference::affine_backward(&x, &weight, grad));
        close("affine x", &fast.x, &slow.x, allowed);
        close("affine weight", &fast.weight, &slow.weight, allowed);
        close("affine bias", &fast.bias, &slow.bias, allowed);
    }
}

#[test]
fn norm_rows() {
    for (dtype, allowed) in DTYPES {
        let x = random(1, [131, 48], DType::F32) * 3.0 + 5.0;
        let (scale, shift) = (random(2, [1, 48], DType::F32), random(3, [1, 48], DType::F32));
        let (fast, saved) = Flex::norm_rows(&x, &scale, &shift, dtype);
        let (slow, slow_saved) = reference::norm_rows(&x, &scale, &shift, dtype);
        close("norm", &fast, &slow, allowed);
        close("unit", &saved.unit, &slow_saved.unit, allowed);
        close("deviation", &saved.inverse_deviation, &slow_saved.inverse_deviation, 1e-5);
        let grad = random(4, [131, 48], dtype);
        let fast = Flex::norm_rows_backward(&saved, &scale, grad.clone());
        let slow = reference::norm_rows_backward(&saved, &scale, grad);
        close("norm x", &fast.x, &slow.x, 1e-5);
        close("norm scale", &fast.scale, &slow.scale, 1e-5);
        close("norm shift", &fast.shift, &slow.shift, 1e-5);
    }
}

#[test]
fn causal_attention() {
    for (dtype, allowed) in DTYPES {
        for (batch, context, heads) in [(3, 150, 3), (1, 1, 1), (2, 64, 2)] {
            let shape = AttentionShape { batch, context, heads };
            let qkv = random(1, [batch * context, 3 * 12 * heads], dtype);
            close(
                "attention",
                &Flex::causal_attention(&qkv, shape),
                &reference::causal_attention(&qkv, shape),
                allowed,
            );
            let grad = random(2, [batch * context, 12 * heads], dtype);
            let fast = Flex::causal_attention_backward(&qkv, shape, grad.clone());
            let slow = reference::causal_attention_backward(&qkv, shape, grad);
            close("attention qkv", &fast, &slow, 2.0 * allowed);
        }
    }
}

#[test]
fn pointwise() {
    for (dtype, allowed) in DTYPES {
        // More elements than one chunk of the parallel loop.
        let (x, grad) = (random(1, [131, 257], dtype) * 3.0, random(2, [131, 257], dtype));
        close("gelu", &Flex::tanh_gelu(&x), &reference::tanh_gelu(&x), allowed);
        let fast = Flex::tanh_gelu_backward(&x, grad.clone());
        close("gelu x", &fast, &reference::tanh_gelu_backward(&x, grad.clone()), allowed);
        let stream = random(3, [131, 257], DType::F32);
        close(
            "residual",
            &Flex::residual(stream.clone(), &x),
            &reference::residual(stream.clone(), &x),
            1e-6,
        );
        close("convert", &Flex::convert(&stream, dtype), &stream.clone().cast(dtype), 0.0);
    }
}

#[test]
fn gelu_is_the_published_one() {
    let x = Matrix::from_data([[-2.0f32, -0.5, 0.0, 0.5, 2.0]], &FlexDevice);
    // x * Phi(x); the tanh form is within 5e-4 of it.
    let expected = [-0.0455, -0.1543, 0.0, 0.3457, 1.9545];
    for (found, expected) in values(&Flex::tanh_gelu(&x)).into_iter().zip(expected) {
        assert!((found - expected).abs() < 5e-4, "{found} v {expected}");
    }
}

#[test]
fn cross_entropy() {
    for (dtype, allowed) in DTYPES {
        let logits = random(1, [131, 37], dtype) * 4.0;
        let classes: Vec<i32> = (0..131).map(|row| row * 7 % 37).collect();
        let targets =
            Tensor::<Flex, 1, Int>::from_data(TensorData::new(classes, [131]), (&FlexDevice, DType::I32));
        let (fast, slow) =
            (Flex::cross_entropy(&logits, &targets), reference::cross_entropy(&logits, &targets));
        close("loss", &fast, &slow, 1e-5);
        let grad = Matrix::full([1, 1], 512.0, &FlexDevice);
        let fast = Flex::cross_entropy_backward(&logits, &targets, grad.clone());
        close("loss logits", &fast, &reference::cross_entropy_backward(&logits, &targets, grad), allowed);
    }
}

#[test]
fn adamw() {
    let state = || AdamWState {
        parameter: random(1, [130, 257], DType::F32),
        moment1: random(2, [130, 257], DType::F32),
        moment2: random(3, [130, 257], DType::F32).abs(),
    };
    let update = AdamWUpdate {
        gradient_factor: 0.3,
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.95,
        correction1: 0.4,
        correction2: 0.2,
        epsilon: 1e-8,
        weight_decay: 0.1,
    };
    let gradient = random(4, [130, 257], DType::F32);
    let kept = state().parameter;
    let shared = AdamWState { parameter: kept.clone(), ..state() };
    let fast = Flex::adamw(shared, gradient.clone(), update);
    let slow = reference::adamw(state(), gradient, update);
    close("parameter", &fast.parameter, &slow.parameter, 1e-6);
    close("moment 1", &fast.moment1, &slow.moment1, 1e-6);
    close("moment 2", &fast.moment2, &slow.moment2, 1e-6);
    assert_eq!(
        values(&kept),
        values(&state().parameter),
        "a parameter that is shared must not change under its owner"
    );
}

#[test]
fn infinity_and_nan_are_not_lost() {
    let shape = AttentionShape { batch: 1, context: 4, heads: 1 };
    for bad in [f32::NAN, f32::INFINITY] {
        let mut numbers = vec![0.5f32; 4 * 12];
        numbers[0] = bad;
        let qkv = Matrix::from_data(TensorData::new(numbers, [4, 12]), &FlexDevice);
        assert!(
            values(&Flex::causal_attention(&qkv, shape)).iter().any(|x| x.is_nan()),
            "attention loses {bad}"
        );
        let logits = Matrix::from_data([[bad, 1.0, 2.0]], &FlexDevice);
        let targets = Tensor::<Flex, 1, Int>::from_data([1], (&FlexDevice, DType::I32));
        assert!(values(&Flex::cross_entropy(&logits, &targets))[0].is_nan(), "cross-entropy loses {bad}");
    }
}
