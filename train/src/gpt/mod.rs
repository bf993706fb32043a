//! A byte-level GPT: learned positions, pre-LN blocks, causal attention, a four-fold GELU MLP, an untied head.
//!
//! Master weights are FP32. The residual stream is FP32 too, but nothing keeps it: LayerNorm reads it and hands the
//! compute dtype on, and everything that the backward pass needs is in the compute dtype. Initial weights depend on the
//! seed alone, so runs in different precisions start from the same point.
//!
//! Knows neither the optimizer nor where the bytes come from.

mod config;

use burn_tensor::{DType, Int, Tensor, TensorData};

pub use config::{GptConfig, VOCABULARY};

use crate::backend::TrainBackend;
use crate::batch::TokenBatch;
use crate::error::{Error, ErrorKind, Result};
use crate::init::NormalSource;
use crate::kernels::AttentionShape;
use crate::model::{Parameter, TrainModel};
use crate::precision::Precision;

/// Standard deviation of the embeddings and of the head. The first loss stays close to `ln 256`; GPT-2's 0.02 trained the
/// demonstration run 0.2 nats worse, because the first updates are then as large as the weights themselves.
const EMBEDDING_DEVIATION: f64 = 0.05;

/// Parameters outside the blocks that come first: token and position embeddings.
const EMBEDDINGS: usize = 2;
/// Parameters of one block, in the order of [`Gpt::block`].
const BLOCK: usize = 12;

/// The model. Build it with [`Gpt::new`].
#[derive(Clone, Debug)]
pub struct Gpt<B: TrainBackend> {
    config: GptConfig,
    parameters: Vec<Parameter<B>>,
}

impl<B: TrainBackend> Gpt<B> {
    /// A model with weights drawn from `seed`, on `device`.
    ///
    /// [`ErrorKind::Misuse`] if the configuration is not valid.
    pub fn new(config: GptConfig, seed: u64, device: &B::Device) -> Result<Self> {
        config.validate()?;
        let mut builder = Builder { source: NormalSource::new(seed), device, parameters: Vec::new() };
        builder.embedding("token_embedding", VOCABULARY, config.d_model);
        builder.embedding("position_embedding", config.context, config.d_model);
        for layer in 0..config.layers {
            builder.block(&format!("layer.{layer}"), config);
        }
        builder.norm("final_norm", config.d_model);
        builder.linear("head", config.d_model, VOCABULARY, EMBEDDING_DEVIATION);
        Ok(Self { config, parameters: builder.parameters })
    }

    /// The shape it was built with.
    #[must_use]
    pub fn config(&self) -> GptConfig {
        self.config
    }

    /// Unnormalised log-probabilities of the next byte, `[rows * context, 256]` in the compute dtype.
    fn logits(
        &self,
        inputs: Tensor<B, 1, Int>,
        rows: usize,
        context: usize,
        precision: Precision,
    ) -> Tensor<B, 2> {
        let dtype = precision.compute_dtype();
        let device = inputs.device();
        let shape = AttentionShape { batch: rows, context, heads: self.config.heads };
        let mut stream =
            self.value(0).select(0, inputs) + self.value(1).select(0, positions(rows, context, &device));
        for layer in 0..self.config.layers {
            stream = self.block(EMBEDDINGS + layer * BLOCK, stream, shape, dtype);
        }
        let last = EMBEDDINGS + self.config.layers * BLOCK;
        let normal = B::norm_rows(stream, self.value(last), self.value(last + 1), dtype);
        B::affine(normal, self.value(last + 2), self.value(last + 3))
    }

    /// One block on the FP32 residual stream; `first` is the index of its first parameter.
    fn block(&self, first: usize, stream: Tensor<B, 2>, shape: AttentionShape, dtype: DType) -> Tensor<B, 2> {
        let value = |offset| self.value(first + offset);
        let normal = B::norm_rows(stream.clone(), value(0), value(1), dtype);
        let qkv = B::affine(normal, value(2), value(3));
        let branch = B::affine(B::causal_attention(qkv, shape), value(4), value(5));
        let stream = B::residual(stream, branch);
        let normal = B::norm_rows(stream.clone(), value(6), value(7), dtype);
        let hidden = B::tanh_gelu(B::affine(normal, value(8), value(9)));
        let branch = B::affine(hidden, value(10), value(11));
        B::residual(stream, branch)
    }

    fn value(&self, index: usize) -> Tensor<B, 2> {
        self.parameters[index].value.clone()
    }
}

impl<B: TrainBackend> TrainModel<B> for Gpt<B> {
    fn loss(&self, batch: &TokenBatch<'_>, precision: Precision) -> Result<Tensor<B, 2>> {
        let (rows, context) = (batch.rows(), batch.context());
        if context > self.config.context {
            let message = format!("batch context {context} exceeds the model's {}", self.config.context);
            return Err(Error::new(ErrorKind::Misuse, message)
                .with_hint("pack shorter samples or build the model with a longer context"));
        }
        let device = self.parameters[0].value.device();
        let logits = self.logits(batch.inputs(&device), rows, context, precision);
        Ok(B::cross_entropy(logits, batch.targets(&device)))
    }

    fn parameters(&self) -> &[Parameter<B>] {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut [Parameter<B>] {
        &mut self.parameters
    }

    fn frozen(&self) -> Self {
        let freeze = |parameter: &Parameter<B>| Parameter {
            value: Tensor::from_inner(parameter.value.clone().inner()),
            ..parameter.clone()
        };
        Self { config: self.config, parameters: self.parameters.iter().map(freeze).collect() }
    }
}

/// `0, 1, .. context - 1` for each row, I32.
fn positions<B: TrainBackend>(rows: usize, context: usize, device: &B::Device) -> Tensor<B, 1, Int> {
    let ids: Vec<i32> = (0..rows).flat_map(|_| (0i32..).take(context)).collect();
    Tensor::from_data(TensorData::new(ids, [rows * context]), (device, DType::I32))
}

/// Draws parameters in the order in which [`Gpt::logits`] reads them.
struct Builder<'a, B: TrainBackend> {
    source: NormalSource,
    device: &'a B::Device,
    parameters: Vec<Parameter<B>>,
}

impl<B: TrainBackend> Builder<'_, B> {
    fn push(&mut self, name: String, decays: bool, values: Vec<f32>, rows: usize) {
        let columns = values.len() / rows;
        let data = TensorData::new(values, [rows, columns]);
        let value = Tensor::from_data(data, (self.device, DType::F32)).require_grad();
        self.parameters.push(Parameter { name, decays, value });
    }

    fn embedding(&mut self, name: &str, rows: usize, columns: usize) {
        let values = self.source.take(rows * columns, EMBEDDING_DEVIATION);
        self.push(format!("{name}.weight"), false, values, rows);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.push(format!("{name}.scale"), false, vec![1.0; width], 1);
        self.push(format!("{name}.shift"), false, vec![0.0; width], 1);
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize, deviation: f64) {
        let values = self.source.take(inputs * outputs, deviation);
        self.push(format!("{name}.weight"), true, values, inputs);
        self.push(format!("{name}.bias"), false, vec![0.0; outputs], 1);
    }

    /// Products that write to the residual stream start smaller by the root of how many there are, as in GPT-2, so that
    /// the stream's variance does not grow with depth.
    fn block(&mut self, name: &str, config: GptConfig) {
        let width = config.d_model;
        let deviation = |inputs: usize| u32::try_from(inputs).map_or(0.0, |n| f64::from(n).sqrt().recip());
        let writers = deviation(2 * config.layers);
        self.norm(&format!("{name}.attention_norm"), width);
        self.linear(&format!("{name}.attention.qkv"), width, 3 * width, deviation(width));
        self.linear(&format!("{name}.attention.out"), width, width, deviation(width) * writers);
        self.norm(&format!("{name}.mlp_norm"), width);
        self.linear(&format!("{name}.mlp.up"), width, 4 * width, deviation(width));
        self.linear(&format!("{name}.mlp.down"), 4 * width, width, deviation(4 * width) * writers);
    }
}

#[cfg(test)]
mod tests;
