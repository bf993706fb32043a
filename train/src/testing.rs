//! What the tests share: a text to learn and a model whose gradient is known.

use burn_tensor::{DType, Tensor, TensorData};

use crate::backend::{Cpu, cpu_device};
use crate::batch::TokenBatch;
use crate::error::Result;
use crate::gpt::{Gpt, GptConfig};
use crate::init::NormalSource;
use crate::model::{Parameter, TrainModel};
use crate::precision::Precision;

/// `rows` rows of `row_tokens` bytes from a short text that repeats, starting at places drawn from `seed`.
pub(crate) fn text_batch(seed: u64, rows: usize, row_tokens: usize) -> Vec<u8> {
    const TEXT: &[u8] =
        b"bytes come up, plans go down; use only what lies below you. one file holds one idea. ";
    let row = |start: u8| TEXT.iter().copied().cycle().skip(usize::from(start)).take(row_tokens);
    NormalSource::new(seed).bytes(rows).into_iter().flat_map(row).collect()
}

/// A GPT that trains in a second.
pub(crate) fn small_gpt(seed: u64) -> Gpt<Cpu> {
    let config = GptConfig { layers: 2, d_model: 32, heads: 2, context: 32 };
    Gpt::new(config, seed, &cpu_device()).unwrap()
}

/// The elements of a matrix.
pub(crate) fn values<B: burn_tensor::backend::Backend>(x: &Tensor<B, 2>) -> Vec<f32> {
    x.clone().cast(DType::F32).into_data().to_vec().unwrap()
}

/// `loss = sum over parameters of slope * sum of elements`: the gradient of each element is its parameter's slope.
#[derive(Clone, Debug)]
pub(crate) struct Slopes {
    parameters: Vec<Parameter<Cpu>>,
    /// `None` leaves the parameter out of the loss.
    slopes: Vec<Option<f32>>,
}

impl Slopes {
    /// One parameter per entry: its starting values, whether it decays, and its slope.
    pub(crate) fn new(entries: &[(&[f32], bool, Option<f32>)]) -> Self {
        let parameter = |(index, &(values, decays, _)): (usize, &(&[f32], bool, Option<f32>))| {
            let data = TensorData::new(values.to_vec(), [1, values.len()]);
            let value = Tensor::from_data(data, &cpu_device()).require_grad();
            Parameter { name: format!("p{index}"), decays, value }
        };
        Self {
            parameters: entries.iter().enumerate().map(parameter).collect(),
            slopes: entries.iter().map(|entry| entry.2).collect(),
        }
    }
}

impl TrainModel<Cpu> for Slopes {
    fn loss(&self, _: &TokenBatch<'_>, _: Precision) -> Result<Tensor<Cpu, 2>> {
        let terms = self.parameters.iter().zip(&self.slopes);
        let terms = terms.filter_map(|(p, slope)| Some(p.value.clone().sum().reshape([1, 1]) * (*slope)?));
        Ok(terms.reduce(|sum, term| sum + term).unwrap())
    }

    fn parameters(&self) -> &[Parameter<Cpu>] {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut [Parameter<Cpu>] {
        &mut self.parameters
    }

    fn frozen(&self) -> Self {
        self.clone()
    }
}
