//! One use of the crate's layer, with the memory that Adam needs for it.

use normdrop::{Activation, BackwardStep, BatchNormDropout, Config, Error, ForwardStep, Noise, Shape};

use crate::linear::{Averages, ParameterMut};

/// `y = dropout(act(batchnorm(x)))` on `[samples, channels]`, in which batch norm and dropout are both optional.
///
/// Without them it is still the same layer: statistics fixed at mean 0 and variance 1 with `eps = 0` and a weight of 1
/// that is not trained leave every value as it is.
pub(crate) struct Stage<A> {
    layer: BatchNormDropout<A>,
    batch_norm: bool,
    averages: [Averages; 2],
}

impl<A: Activation> Stage<A> {
    /// A stage of this many channels that drops with probability `p`.
    pub(crate) fn new(channels: usize, activation: A, batch_norm: bool, p: f64) -> Result<Self, Error> {
        let eps = if batch_norm { Config::DEFAULT.eps } else { 0.0 };
        let mut layer = BatchNormDropout::new(channels, activation, Config { eps, p, ..Config::DEFAULT })?;
        // The running mean is one f32, because the firmware that reads it has no more.
        layer.state.running_mean_tail.clear();
        Ok(Self { layer, batch_norm, averages: [Averages::new(channels), Averages::new(channels)] })
    }

    /// The same stage, whose outputs are multiplied by noise in training.
    pub(crate) fn with_noise(self, noise: Noise) -> Self {
        Self { layer: self.layer.with_noise(noise), ..self }
    }

    /// The sums over all channels of the running variances and of the variances of this input; none without a batch norm.
    pub(crate) fn variances(&self, input: &[f32]) -> Option<[f64; 2]> {
        let (channels, sum) = (self.layer.channels(), |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>());
        let variance = |channel: usize| {
            let values = || input.iter().skip(channel).step_by(channels).map(|&value| f64::from(value));
            let count = (input.len() / channels) as f64;
            let mean = sum(&mut values()) / count;
            sum(&mut values().map(|value| (value - mean) * (value - mean))) / (count - 1.0)
        };
        let running = sum(&mut self.layer.state.running_var.iter().map(|&var| f64::from(var)));
        self.batch_norm.then(|| [running, sum(&mut (0..channels).map(variance))])
    }

    fn shape(&self, len: usize) -> Result<Shape, Error> {
        Shape::nc(len / self.layer.channels(), self.layer.channels())
    }

    /// The output in training. The seed alone decides which values are dropped.
    pub(crate) fn train(&mut self, input: &[f32], mask_seed: u64) -> Result<Vec<f32>, Error> {
        let mut output = vec![0.0; input.len()];
        let step = ForwardStep::new(self.shape(input.len())?, mask_seed, input, &mut output);
        if self.batch_norm { self.layer.train_step(step) } else { self.layer.train_frozen_step(step) }?;
        Ok(output)
    }

    /// Turns the gradient of the output of [`Stage::train`] into the gradient of its `input`, and sets the gradients
    /// of weight and bias.
    pub(crate) fn backward(&mut self, input: &[f32], gradient: &mut Vec<f32>) -> Result<(), Error> {
        let mut grad_input = vec![0.0; input.len()];
        let step = BackwardStep { grad_input: Some(&mut grad_input), ..BackwardStep::new(input, gradient) };
        self.layer.backward_step(step)?;
        *gradient = grad_input;
        Ok(())
    }

    /// Overwrites the input with the output in use: running statistics, and nothing dropped unless there is a seed of a
    /// mask (Monte-Carlo dropout).
    pub(crate) fn infer(&mut self, values: &mut [f32], mask_seed: Option<u64>) -> Result<(), Error> {
        let shape = self.shape(values.len())?;
        match mask_seed {
            Some(seed) => self.layer.monte_carlo_in_place(shape, seed, values),
            None => self.layer.eval_in_place(shape, values),
        }
    }

    /// What a batch norm learns; a stage without one learns nothing.
    pub(crate) fn parameters(&mut self) -> impl Iterator<Item = ParameterMut<'_>> {
        let learned = self.layer.parameters_mut().into_iter().zip(&mut self.averages);
        learned
            .map(|((value, gradient), averages)| ParameterMut { value, gradient, averages })
            .take(if self.batch_norm { 2 } else { 0 })
    }

    /// What a batch norm has learned, read: weight, bias, running mean and running variance.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = &[f32]> {
        let state = &self.layer.state;
        let learned = [&state.weight, &state.bias, &state.running_mean, &state.running_var];
        self.batch_norm.then_some(learned).into_iter().flatten().map(Vec::as_slice)
    }
}
