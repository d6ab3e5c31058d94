//! The layer that owns its memory, on `Float32Array`s.

use normdrop::{BatchNormDropout as Owned, Config, Relu, Shape};
use wasm_bindgen::prelude::*;

/// Batch norm, ReLU and dropout as one layer: `y = dropout(relu(batchnorm(x)))`.
///
/// A tensor is a `Float32Array` of `[outer, channels, inner]` in row-major order: NCHW is `[n, c, h*w]`, NHWC is
/// `[n*h*w, c, 1]`.
#[wasm_bindgen]
pub struct BatchNormDropout {
    layer: Owned<Relu>,
    channels: usize,
}

#[wasm_bindgen]
impl BatchNormDropout {
    /// A layer for this many channels: weight 1, bias 0, running mean 0 and running variance 1. `p` is the probability to
    /// drop an element, `eps` (1e-5 if it is left out) is added to the variance, and `momentum` (0.1) is the share of a
    /// batch in the running statistics, as in PyTorch.
    ///
    /// # Errors
    /// If a number is outside its range.
    #[wasm_bindgen(constructor)]
    pub fn new(channels: u32, p: f64, eps: Option<f32>, momentum: Option<f64>) -> Result<Self, JsError> {
        let defaults = Config::DEFAULT;
        let config =
            Config { p, eps: eps.unwrap_or(defaults.eps), momentum: momentum.unwrap_or(defaults.momentum), ..defaults };
        let channels = channels as usize;
        Ok(Self { layer: Owned::new(channels, Relu, config)?, channels })
    }

    /// A training step: statistics of the batch, and the mask of `seed`, which is the same on every machine. `inner` is
    /// the length of a row of one channel: 1 for NC and NHWC, `h*w` for NCHW.
    ///
    /// # Errors
    /// If `input` is no whole number of samples.
    pub fn train(&mut self, inner: u32, seed: u64, input: &[f32]) -> Result<Vec<f32>, JsError> {
        let shape = self.shape(inner, input)?;
        let mut output = vec![0.0; input.len()];
        self.layer.train(shape, seed, input, &mut output)?;
        Ok(output)
    }

    /// The gradient of the input of the last training step, from that of its output. The gradients of weight and bias are
    /// `gradWeight` and `gradBias` afterwards.
    ///
    /// # Errors
    /// If there was no training step, or it had another length.
    pub fn backward(&mut self, #[wasm_bindgen(js_name = gradOutput)] grad_output: &[f32]) -> Result<Vec<f32>, JsError> {
        let mut grad_input = vec![0.0; grad_output.len()];
        self.layer.backward(grad_output, &mut grad_input)?;
        Ok(grad_input)
    }

    /// The layer in use: running statistics, no dropout. `inner` is as in `train`.
    ///
    /// # Errors
    /// If `input` is no whole number of samples.
    pub fn evaluate(&mut self, inner: u32, input: &[f32]) -> Result<Vec<f32>, JsError> {
        let shape = self.shape(inner, input)?;
        let mut output = vec![0.0; input.len()];
        self.layer.eval(shape, input, &mut output)?;
        Ok(output)
    }

    /// A copy of the weight of each channel.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn weight(&mut self) -> Vec<f32> {
        self.layer.parameters_mut()[0].0.to_vec()
    }

    /// Sets the weight of each channel.
    ///
    /// # Errors
    /// If there is not one number a channel.
    #[wasm_bindgen(js_name = setWeight)]
    pub fn set_weight(&mut self, weight: &[f32]) -> Result<(), JsError> {
        self.set(0, "weight", weight)
    }

    /// A copy of the bias of each channel.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn bias(&mut self) -> Vec<f32> {
        self.layer.parameters_mut()[1].0.to_vec()
    }

    /// Sets the bias of each channel.
    ///
    /// # Errors
    /// If there is not one number a channel.
    #[wasm_bindgen(js_name = setBias)]
    pub fn set_bias(&mut self, bias: &[f32]) -> Result<(), JsError> {
        self.set(1, "bias", bias)
    }

    /// The gradient of the weight, from the last call of `backward`.
    #[wasm_bindgen(getter, js_name = gradWeight)]
    #[must_use]
    pub fn grad_weight(&mut self) -> Vec<f32> {
        self.layer.parameters_mut()[0].1.to_vec()
    }

    /// The gradient of the bias, from the last call of `backward`.
    #[wasm_bindgen(getter, js_name = gradBias)]
    #[must_use]
    pub fn grad_bias(&mut self) -> Vec<f32> {
        self.layer.parameters_mut()[1].1.to_vec()
    }

    /// The running mean of each channel.
    #[wasm_bindgen(getter, js_name = runningMean)]
    #[must_use]
    pub fn running_mean(&self) -> Vec<f32> {
        self.layer.state.running_mean.clone()
    }

    /// The running variance of each channel.
    #[wasm_bindgen(getter, js_name = runningVar)]
    #[must_use]
    pub fn running_var(&self) -> Vec<f32> {
        self.layer.state.running_var.clone()
    }
}

impl BatchNormDropout {
    /// The shape of `input`, of which only the number of samples is not given.
    fn shape(&self, inner: u32, input: &[f32]) -> Result<Shape, JsError> {
        let inner = inner as usize;
        let sample = self.channels.checked_mul(inner).filter(|&sample| sample > 0);
        match sample {
            Some(sample) if input.len().is_multiple_of(sample) => {
                Ok(Shape::new(input.len() / sample, self.channels, inner)?)
            }
            _ => Err(JsError::new(&format!(
                "input has {} elements, which is no multiple of {} channels times inner = {inner}",
                input.len(),
                self.channels
            ))),
        }
    }

    fn set(&mut self, index: usize, name: &str, values: &[f32]) -> Result<(), JsError> {
        if values.len() != self.channels {
            let message = format!("{name} has {} elements, expected {}", values.len(), self.channels);
            return Err(JsError::new(&message));
        }
        self.layer.parameters_mut()[index].0.copy_from_slice(values);
        Ok(())
    }
}
