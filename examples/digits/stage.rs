//! One use of the crate's layer, with the memory that it borrows.

use normdrop::{
    Activation, BackwardInPlace, Config, Dropout, Error, Eval, EvalInPlace, Layer, ParameterGradients, Parameters,
    Running, RunningMut, Saved, SavedMut, Shape, Statistics, Train,
};

use crate::linear::Parameter;

/// `y = dropout(act(batchnorm(x)))` on `[samples, channels]`, in which batch norm and dropout are both optional.
///
/// Without them it is still the same layer: statistics fixed at mean 0 and variance 1 with `eps = 0` and a weight of 1
/// that is not trained leave every value as it is, and a mask drawn with `p = 0` keeps every one.
pub(crate) struct Stage<A> {
    activation: A,
    config: Config,
    batch_norm: bool,
    weight: Parameter,
    bias: Parameter,
    running_mean: Vec<f32>,
    running_var: Vec<f32>,
    saved_mean: Vec<f32>,
    saved_mean_tail: Vec<f32>,
    saved_inv_std: Vec<f64>,
    mask: Vec<u8>,
    scratch: Vec<f64>,
}

impl<A: Activation> Stage<A> {
    /// A stage of this many channels that drops with probability `p`.
    pub(crate) fn new(channels: usize, activation: A, batch_norm: bool, p: f64) -> Self {
        let eps = if batch_norm { Config::DEFAULT.eps } else { 0.0 };
        Self {
            activation,
            config: Config { eps, p, ..Config::DEFAULT },
            batch_norm,
            weight: Parameter::new(vec![1.0; channels]),
            bias: Parameter::new(vec![0.0; channels]),
            running_mean: vec![0.0; channels],
            running_var: vec![1.0; channels],
            saved_mean: vec![0.0; channels],
            saved_mean_tail: vec![0.0; channels],
            saved_inv_std: vec![0.0; channels],
            mask: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The layer for a batch of `len` values, and room for its mask and scratch. It is a plan without data: making one
    /// per call costs nothing.
    fn plan(&mut self, len: usize) -> Result<Layer<A>, Error> {
        let channels = self.weight.value.len();
        let layer = Layer::new(Shape::nc(len / channels, channels)?, self.activation, self.config)?;
        self.mask.resize(layer.mask_len(), 0);
        self.scratch.resize(layer.scratch_len(), 0.0);
        Ok(layer)
    }

    /// The output in training. The seed alone decides which values are dropped.
    pub(crate) fn train(&mut self, input: &[f32], mask_seed: u64) -> Result<Vec<f32>, Error> {
        let layer = self.plan(input.len())?;
        layer.fill_mask(mask_seed, &mut self.mask)?;
        let mut output = vec![0.0; input.len()];
        let parameters = Parameters { weight: Some(&self.weight.value), bias: Some(&self.bias.value) };
        let dropout = Dropout::Mask(&self.mask);
        if self.batch_norm {
            layer.train(Train {
                parameters,
                running: Some(RunningMut::new(&mut self.running_mean, &mut self.running_var)),
                dropout,
                input,
                output: &mut output,
                saved: SavedMut {
                    mean: &mut self.saved_mean,
                    mean_tail: &mut self.saved_mean_tail,
                    inv_std: &mut self.saved_inv_std,
                },
                residual: None,
                scratch: &mut self.scratch,
            })?;
        } else {
            layer.eval(Eval {
                parameters,
                running: Running::new(&self.running_mean, &self.running_var),
                dropout,
                input,
                output: &mut output,
                residual: None,
                scratch: &mut self.scratch,
            })?;
        }
        Ok(output)
    }

    /// Turns the gradient of the output of [`Stage::train`] into the gradient of its `input`, and sets the gradients
    /// of weight and bias.
    pub(crate) fn backward(&mut self, input: &[f32], gradient: &mut [f32]) -> Result<(), Error> {
        let layer = self.plan(input.len())?;
        layer.backward_in_place(BackwardInPlace {
            parameters: Parameters { weight: Some(&self.weight.value), bias: Some(&self.bias.value) },
            statistics: if self.batch_norm {
                Statistics::Batch(Saved {
                    mean: &self.saved_mean,
                    mean_tail: &self.saved_mean_tail,
                    inv_std: &self.saved_inv_std,
                })
            } else {
                Statistics::Fixed(Running::new(&self.running_mean, &self.running_var))
            },
            dropout: Dropout::Mask(&self.mask),
            input,
            values: gradient,
            grad_parameters: ParameterGradients {
                weight: Some(&mut self.weight.gradient),
                bias: Some(&mut self.bias.gradient),
            },
            residual: None,
            grad_residual: None,
            scratch: &mut self.scratch,
        })
    }

    /// Overwrites the input with the output in use: running statistics, and nothing dropped unless there is a seed of a
    /// mask (Monte-Carlo dropout).
    pub(crate) fn infer(&mut self, values: &mut [f32], mask_seed: Option<u64>) -> Result<(), Error> {
        let layer = self.plan(values.len())?;
        let dropout = match mask_seed {
            Some(seed) => {
                layer.fill_mask(seed, &mut self.mask)?;
                Dropout::Mask(&self.mask)
            }
            None => Dropout::Off,
        };
        layer.eval_in_place(EvalInPlace {
            parameters: Parameters { weight: Some(&self.weight.value), bias: Some(&self.bias.value) },
            running: Running::new(&self.running_mean, &self.running_var),
            dropout,
            values,
            residual: None,
            scratch: &mut self.scratch,
        })
    }

    /// What a batch norm learns; a stage without one learns nothing.
    pub(crate) fn parameters(&mut self) -> impl Iterator<Item = &mut Parameter> {
        self.batch_norm.then_some([&mut self.weight, &mut self.bias]).into_iter().flatten()
    }

    /// What a batch norm has learned, read: weight, bias, running mean and running variance.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = &[f32]> {
        let learned = [&self.weight.value, &self.bias.value, &self.running_mean, &self.running_var];
        self.batch_norm.then_some(learned).into_iter().flatten().map(Vec::as_slice)
    }
}
