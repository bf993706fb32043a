use super::*;
use crate::backend::{Cpu, cpu_device};
use crate::testing::{small_gpt, text_batch, values};
use burn_tensor::TensorData;

const SEED: u64 = 20_240_601;

fn loss_of(model: &Gpt<Cpu>, tokens: &[u8], rows: usize, row_tokens: usize) -> f64 {
    let batch = TokenBatch::new(tokens, rows, row_tokens).unwrap();
    f64::from(values(&model.frozen().loss(&batch, Precision::Fp32).unwrap())[0])
}

/// The model with parameter `index` moved by `step` along `direction`.
fn moved(model: &Gpt<Cpu>, index: usize, direction: &[f32], step: f32) -> Gpt<Cpu> {
    let mut model = model.clone();
    let parameter = &mut model.parameters_mut()[index];
    let shape = parameter.value.dims();
    let delta = TensorData::new(direction.iter().map(|x| x * step).collect::<Vec<f32>>(), shape);
    let delta = Tensor::<Cpu, 2>::from_data(delta, &cpu_device());
    parameter.value = Tensor::from_inner((parameter.value.clone() + delta).inner()).require_grad();
    model
}

fn unit(direction: &[f32]) -> Vec<f32> {
    let norm = direction.iter().map(|x| x * x).sum::<f32>().sqrt();
    direction.iter().map(|x| x / norm).collect()
}

#[test]
fn gradients_match_finite_differences() {
    println!("seed {SEED}");
    let config = GptConfig { layers: 2, d_model: 16, heads: 2, context: 12 };
    let model = Gpt::<Cpu>::new(config, SEED, &cpu_device()).unwrap();
    // The weights of a new model are so small that many gradients drown in the rounding of the loss.
    let model = (0..model.parameters().len()).fold(model, |model, index| {
        let length = model.parameters()[index].value.shape().num_elements();
        moved(&model, index, &NormalSource::new(SEED + index as u64).take(length, 0.2), 1.0)
    });
    let (rows, row_tokens) = (3, 13);
    let tokens = NormalSource::new(SEED).bytes(rows * row_tokens);
    let batch = TokenBatch::new(&tokens, rows, row_tokens).unwrap();
    let mut gradients = model.loss(&batch, Precision::Fp32).unwrap().backward();
    for (index, parameter) in model.parameters().iter().enumerate() {
        let gradient = values(&parameter.value.grad_remove(&mut gradients).unwrap());
        let norm = gradient.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        // Along itself the slope is its norm; along random directions a part that is missing shows.
        let random = (0..4).map(|k| NormalSource::new(SEED ^ (k + 1)).take(gradient.len(), 1.0));
        for direction in std::iter::once(gradient.clone()).chain(random) {
            let direction = unit(&direction);
            let expected: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
            let step = 5e-3f32;
            let ends = [step, -step]
                .map(|s| loss_of(&moved(&model, index, &direction, s), &tokens, rows, row_tokens));
            let found = (ends[0] - ends[1]) / f64::from(2.0 * step);
            let allowed = 0.003 * norm + 2e-4;
            assert!(
                (found - expected).abs() < allowed,
                "{}: {found} v {expected}, norm {norm}",
                parameter.name
            );
        }
    }
}

#[test]
fn every_parameter_gets_a_finite_f32_gradient_in_every_precision() {
    let tokens = text_batch(SEED, 2, 33);
    let batch = TokenBatch::new(&tokens, 2, 33).unwrap();
    for precision in Precision::ALL {
        let model = small_gpt(SEED);
        let mut gradients = (model.loss(&batch, precision).unwrap() * 1024.0).backward();
        for parameter in model.parameters() {
            let name = &parameter.name;
            let gradient = parameter.value.grad_remove(&mut gradients);
            let gradient = gradient.unwrap_or_else(|| panic!("{precision}: no gradient for {name}"));
            assert_eq!(gradient.dtype(), DType::F32, "{precision}: {name}");
            assert_eq!(gradient.dims(), parameter.value.dims(), "{precision}: {name}");
            let sum: f32 = values(&gradient).iter().map(|x| x.abs()).sum();
            assert!(sum.is_finite() && sum > 0.0, "{precision}: {name} has sum {sum}");
        }
    }
}

#[test]
fn half_precision_gradients_point_the_same_way() {
    let tokens = text_batch(SEED, 4, 33);
    let batch = TokenBatch::new(&tokens, 4, 33).unwrap();
    let gradients = |precision| {
        let model = small_gpt(SEED);
        let mut gradients = (model.loss(&batch, precision).unwrap() * 1024.0).backward();
        let take =
            |p: &Parameter<Cpu>| (p.name.clone(), values(&p.value.grad_remove(&mut gradients).unwrap()));
        model.parameters().iter().map(take).collect::<Vec<_>>()
    };
    let exact = gradients(Precision::Fp32);
    for (precision, allowed) in [(Precision::Bf16, 0.05), (Precision::Fp16, 0.01)] {
        for ((name, exact), (_, rounded)) in exact.iter().zip(gradients(precision)) {
            let norm = exact.iter().map(|x| x * x).sum::<f32>().sqrt();
            let error = exact.iter().zip(&rounded).map(|(x, y)| (x - y) * (x - y)).sum::<f32>().sqrt();
            assert!(error < allowed * norm, "{precision}: {name} is off by {} of its norm", error / norm);
        }
    }
}

#[test]
fn a_future_byte_changes_no_earlier_logit() {
    const CHANGED: usize = 20;
    for precision in Precision::ALL {
        let model = small_gpt(SEED).frozen();
        let logits = |tokens: &[u8]| {
            let batch = TokenBatch::new(tokens, 1, 33).unwrap();
            let logits = model.logits(batch.inputs(&cpu_device()), 1, 32, precision);
            assert_eq!(logits.dtype(), precision.compute_dtype());
            values(&logits)
        };
        let mut tokens = text_batch(SEED, 1, 33);
        let before = logits(&tokens);
        tokens[CHANGED] ^= 0x55;
        let after = logits(&tokens);
        let (past, present) = (CHANGED * VOCABULARY, (CHANGED + 1) * VOCABULARY);
        assert_eq!(before[..past], after[..past], "{precision}");
        assert_ne!(before[past..present], after[past..present], "{precision}: the byte itself must matter");
        assert_ne!(before[present..], after[present..], "{precision}: later tokens must see it");
    }
}

#[test]
fn the_seed_decides_the_weights_and_the_first_loss_is_that_of_guessing() {
    let weights =
        |seed| small_gpt(seed).parameters().iter().flat_map(|p| values(&p.value)).collect::<Vec<_>>();
    assert_eq!(weights(1), weights(1));
    assert_ne!(weights(1), weights(2));
    let model = small_gpt(SEED);
    assert_eq!(crate::parameter_count(&model), model.config().parameter_count());
    let loss = loss_of(&model, &text_batch(SEED, 8, 33), 8, 33);
    assert!((loss - 256f64.ln()).abs() < 0.15, "first loss {loss}");
}

#[test]
fn a_frozen_model_is_off_the_graph_and_has_the_same_loss() {
    let model = small_gpt(SEED);
    assert!(model.parameters().iter().all(|p| p.value.is_require_grad()));
    assert!(model.frozen().parameters().iter().all(|p| !p.value.is_require_grad()));
    let tokens = text_batch(SEED, 2, 33);
    let batch = TokenBatch::new(&tokens, 2, 33).unwrap();
    let tracked = values(&model.loss(&batch, Precision::Bf16).unwrap());
    assert_eq!(tracked, values(&model.frozen().loss(&batch, Precision::Bf16).unwrap()));
}

#[test]
fn decay_is_for_the_matrices_of_products() {
    let decays: Vec<_> =
        small_gpt(1).parameters().iter().filter(|p| p.decays).map(|p| p.name.clone()).collect();
    let layer = ["attention.qkv", "attention.out", "mlp.up", "mlp.down"];
    let names = (0..2).flat_map(|n| layer.map(|part| format!("layer.{n}.{part}.weight")));
    assert_eq!(decays, names.chain(["head.weight".to_owned()]).collect::<Vec<_>>());
}

#[test]
fn a_longer_context_is_refused_and_a_shorter_one_is_read() {
    let model = small_gpt(1);
    let tokens = vec![7; 34];
    let error = model.loss(&TokenBatch::new(&tokens, 1, 34).unwrap(), Precision::Fp32).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert_eq!(error.to_string(), "batch context 33 exceeds the model's 32");
    assert!(model.loss(&TokenBatch::new(&tokens[..17], 1, 17).unwrap(), Precision::Fp32).is_ok());
    let bad = GptConfig { heads: 3, ..model.config() };
    assert_eq!(Gpt::<Cpu>::new(bad, 1, &cpu_device()).unwrap_err().kind(), ErrorKind::Misuse);
}
