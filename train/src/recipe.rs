//! The demonstration run: numbers that were tried together.

use crate::gpt::GptConfig;

/// How long and how fast to train a configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Shape of the model.
    pub model: GptConfig,
    /// Sequences per step.
    pub batch: usize,
    /// Tokens per sequence that are predicted; a sample in the data set is one byte longer.
    pub context: usize,
    /// Updates.
    pub steps: u64,
    /// Peak of the learning rate.
    pub learning_rate: f64,
    /// Updates until the peak.
    pub warmup_steps: u64,
}

impl Recipe {
    /// A minute of training on two cores that learns to write something like Rust.
    ///
    /// RESULTS
    pub const DEMO: Self = Self {
        model: GptConfig::demo(),
        batch: 16,
        context: 128,
        steps: 500,
        learning_rate: 4e-3,
        warmup_steps: 125,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Cpu, cpu_device};
    use crate::gpt::Gpt;
    use crate::{Schedule, parameter_count};

    #[test]
    fn the_demonstration_is_one_that_can_be_run() {
        let Recipe { model, context, steps, learning_rate, warmup_steps, .. } = Recipe::DEMO;
        assert!(context <= model.context);
        assert!(Schedule::new(learning_rate, warmup_steps, steps).is_ok());
        assert_eq!(parameter_count(&Gpt::<Cpu>::new(model, 1, &cpu_device()).unwrap()), 875_520);
    }
}
