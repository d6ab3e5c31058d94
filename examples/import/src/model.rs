//! What every format is read into: batch norms, weight layers, and which of them stand side by side.

use normdrop::{Fold, FoldPadding, Parameters, Running, WeightOrder, WeightShape, first_min_pooled};

/// What goes wrong, in words for the one who called the program.
pub type Fault = String;

/// A batch norm with fixed statistics.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    /// Its name in the file.
    pub name: String,
    /// Weight per channel, if the layer has one.
    pub weight: Option<Vec<f32>>,
    /// Bias per channel, if the layer has one.
    pub bias: Option<Vec<f32>>,
    /// Running mean per channel.
    pub mean: Vec<f32>,
    /// Running variance per channel.
    pub var: Vec<f32>,
    /// Added to the variance under the root.
    pub eps: f32,
}

/// A linear layer or a convolution.
#[derive(Debug, Clone)]
pub struct WeightLayer {
    /// Its name in the file.
    pub name: String,
    /// The dimensions of the weights in memory.
    pub dims: Vec<usize>,
    /// What the dimensions are.
    pub shape: WeightShape,
    /// The weights in memory order.
    pub weights: Vec<f32>,
    /// The bias, if the layer has one.
    pub bias: Option<Vec<f32>>,
}

/// A batch norm beside a weight layer.
#[derive(Debug, Clone)]
pub struct Neighbours {
    /// The index of the batch norm.
    pub batch_norm: usize,
    /// The index of the weight layer.
    pub layer: usize,
    /// Where the weight layer is.
    pub side: Side,
}

/// The side of a batch norm on which the weight layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The weight layer is directly before it.
    Previous,
    /// The weight layer is after it, and what else is between the two.
    Next {
        /// Max-pooling.
        max_pooling: bool,
        /// Zero padding, of its own or of the weight layer.
        padding: bool,
    },
}

/// A model file.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// The batch norms in the order of the file.
    pub batch_norms: Vec<BatchNorm>,
    /// The weight layers in the order of the file.
    pub layers: Vec<WeightLayer>,
    /// Each batch norm that can be folded, at most once.
    pub neighbours: Vec<Neighbours>,
    /// What is worth knowing about the file.
    pub remarks: Vec<String>,
}

/// What takes the place of a batch norm that was folded into the layer after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Between {
    /// The name of the weight layer.
    pub layer: String,
    /// The value with which each channel is padded instead of 0, if there is padding.
    pub padding: Option<Vec<f32>>,
    /// Whether each channel is min-pooled instead of max-pooled, if there is max-pooling.
    pub min_pooled: Option<Vec<bool>>,
}

impl WeightLayer {
    /// Checks that the weights are as many as the shape says, and the bias as many as the outputs.
    ///
    /// # Errors
    /// Says what the file has instead.
    pub fn check(&self) -> Result<(), Fault> {
        let WeightShape { outputs, inputs, taps, groups, .. } = self.shape;
        let divided = groups > 0 && outputs % groups == 0 && inputs % groups == 0;
        let len = inputs.checked_div(groups).and_then(|inputs| outputs.checked_mul(inputs)?.checked_mul(taps));
        if !divided || len != Some(self.weights.len()) {
            let count = self.weights.len();
            return Err(format!(
                "{}: {count} weights are not {outputs} outputs of {inputs} inputs in {groups} groups and {taps} taps",
                self.name
            ));
        }
        match &self.bias {
            Some(bias) if bias.len() != outputs => {
                Err(format!("{}: a bias of {} values, and {outputs} outputs", self.name, bias.len()))
            }
            _ => Ok(()),
        }
    }

    /// The output that a weight belongs to, if [`check`](Self::check) has no fault to find.
    #[must_use]
    pub fn output_of(&self, index: usize) -> usize {
        let WeightShape { order, outputs, inputs, taps, groups } = self.shape;
        let (o, i) = (outputs / groups, inputs / groups);
        match order {
            WeightOrder::OutInTaps | WeightOrder::OutTapsIn => index / (i * taps),
            WeightOrder::InOutTaps => index / (i * o * taps) * o + index / taps % o,
            WeightOrder::InTapsOut => index / (i * taps * o) * o + index % o,
            WeightOrder::TapsInOut => index % outputs,
            WeightOrder::TapsOutIn => index % inputs / i * o + index / inputs % o,
        }
    }
}

impl BatchNorm {
    fn parameters(&self) -> Parameters<'_> {
        Parameters { weight: self.weight.as_deref(), bias: self.bias.as_deref() }
    }

    fn running(&self) -> Running<'_> {
        Running::new(&self.mean, &self.var)
    }

    /// Checks that there is one value of each kind per channel.
    ///
    /// # Errors
    /// Says how many there are.
    pub fn check(&self) -> Result<(), Fault> {
        let channels = self.mean.len();
        let len = |values: &Option<Vec<f32>>| values.as_ref().map_or(channels, Vec::len);
        let lengths = [self.var.len(), len(&self.weight), len(&self.bias)];
        if lengths == [channels; 3] {
            return Ok(());
        }
        let [vars, weights, biases] = lengths;
        Err(format!("{}: {channels} means, {vars} variances, {weights} weights and {biases} biases", self.name))
    }

    /// What is unusual about the numbers, a line for each kind.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |what: &str, values: &[f32], unusual: &dyn Fn(f32) -> bool| {
            let found: Vec<usize> = (0..values.len()).filter(|&channel| unusual(values[channel])).collect();
            if let Some(first) = found.first() {
                let count = found.len();
                warnings.push(format!(
                    "{}: {what} in {count} channels, the first is {first} ({:?})",
                    self.name, values[*first]
                ));
            }
        };
        let not_finite: &dyn Fn(f32) -> bool = &|value| !value.is_finite();
        warn("negative variance", &self.var, &|var| var < 0.0);
        warn("variance of 0: a channel that never varied", &self.var, &|var| var == 0.0);
        warn("variance far below eps: its scale is that of eps", &self.var, &|var| var > 0.0 && var < self.eps * 0.01);
        warn("variance that is not finite", &self.var, not_finite);
        warn("mean that is not finite", &self.mean, not_finite);
        if let Some(weight) = &self.weight {
            warn("dead weight, the channel is its bias", weight, &|weight| weight == 0.0);
            warn("subnormal weight, slow on many CPUs", weight, &f32::is_subnormal);
            warn("weight that is not finite", weight, not_finite);
        }
        let far = |channel: usize| self.mean[channel].abs() > 1e3 * (self.var[channel].max(0.0) + self.eps).sqrt();
        if let Some(first) = (0..self.mean.len()).find(|&channel| far(channel)) {
            warnings.push(format!(
                "{}: the mean of channel {first} is over 1000 standard deviations from 0; many frameworks store a wrong variance there",
                self.name
            ));
        }
        warnings
    }
}

impl Model {
    /// Folds every batch norm that has a neighbour, and returns what has to change between a batch norm and the layer
    /// after it. With `min_pooling` the caller promises to do the min-pooling that is asked for.
    ///
    /// # Errors
    /// Names the batch norm that cannot be folded, and why. The model is as it was then.
    pub fn fold(&mut self, min_pooling: bool) -> Result<Vec<Between>, Fault> {
        let mut layers = self.layers.clone();
        let mut changes = Vec::new();
        for &Neighbours { batch_norm, layer, side } in &self.neighbours {
            let (bn, layer) = (&self.batch_norms[batch_norm], &mut layers[layer]);
            let fault = |error: &dyn std::fmt::Display| format!("{} beside {}: {error}", bn.name, layer.name);
            if let Side::Next { max_pooling, padding } = side {
                let mut between = Between { layer: layer.name.clone(), padding: None, min_pooled: None };
                if max_pooling {
                    let first = first_min_pooled(bn.parameters());
                    if let (Some(channel), false) = (first, min_pooling) {
                        return Err(fault(&format!(
                            "max-pooling between the two, and the weight of channel {channel} is negative: its largest \
                             value becomes the smallest. Fold with --min-pooling if your program can min-pool those channels"
                        )));
                    }
                    let negative = |weight: &Vec<f32>| weight.iter().map(|&weight| weight < 0.0).collect();
                    between.min_pooled = first.and(bn.weight.as_ref().map(negative));
                }
                if padding {
                    let mut values = vec![0.0; bn.mean.len()];
                    let (parameters, running) = (bn.parameters(), bn.running());
                    normdrop::fold_padding(FoldPadding { parameters, running, eps: bn.eps, padding: &mut values })
                        .map_err(|error| fault(&error))?;
                    between.padding = values.iter().any(|&value| value != 0.0).then_some(values);
                }
                if between.padding.is_some() || between.min_pooled.is_some() {
                    changes.push(between);
                }
            }
            let mut bias = layer.bias.clone().unwrap_or_else(|| vec![0.0; layer.shape.outputs]);
            let mut weights = layer.weights.clone();
            let call = Fold {
                parameters: bn.parameters(),
                running: bn.running(),
                eps: bn.eps,
                shape: layer.shape,
                weights: &mut weights,
                bias: Some(&mut bias),
            };
            let folded = match side {
                Side::Previous => normdrop::fold_into_previous(call),
                Side::Next { .. } => normdrop::fold_into_next(call),
            };
            folded.map_err(|error| fault(&error))?;
            (layer.weights, layer.bias) = (weights, Some(bias));
        }
        self.layers = layers;
        Ok(changes)
    }

    /// The index of a batch norm.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn batch_norm(&self, name: &str) -> Result<usize, Fault> {
        let found = self.batch_norms.iter().position(|bn| bn.name == name);
        found.ok_or_else(|| format!("there is no batch norm named {name}"))
    }

    /// The index of a weight layer.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn layer(&self, name: &str) -> Result<usize, Fault> {
        let found = self.layers.iter().position(|layer| layer.name == name);
        found.ok_or_else(|| format!("there is no weight layer named {name}"))
    }

    /// Pairs a batch norm with a weight layer, in the place of any pair that the batch norm has.
    ///
    /// # Errors
    /// If the names are unknown or the channels do not fit.
    pub fn pair(&mut self, batch_norm: &str, layer: &str, side: Side) -> Result<(), Fault> {
        let (batch_norm, layer) = (self.batch_norm(batch_norm)?, self.layer(layer)?);
        let (bn, weights) = (&self.batch_norms[batch_norm], &mut self.layers[layer]);
        let channels = bn.mean.len();
        if side != Side::Previous && weights.shape.inputs != channels {
            // A linear layer behind a flattened image: in the order of its file, channels are outside the pixels in PyTorch
            // and ONNX and inside them in Keras and flax.
            let pixels = weights.shape.inputs.checked_div(channels).unwrap_or(0);
            if weights.shape.taps == 1 && pixels * channels == weights.shape.inputs {
                weights.shape = WeightShape { inputs: channels, taps: pixels, ..weights.shape };
            }
        }
        let there = if side == Side::Previous { weights.shape.outputs } else { weights.shape.inputs };
        if there != channels {
            return Err(format!("{} has {channels} channels, and {} has {there} beside it", bn.name, weights.name));
        }
        self.neighbours.retain(|neighbours| neighbours.batch_norm != batch_norm);
        self.neighbours.push(Neighbours { batch_norm, layer, side });
        Ok(())
    }

    /// Says that a linear layer of `[out, in]` is behind a flattening of channels-last images: the channels are within the
    /// pixels.
    ///
    /// # Errors
    /// If there is no layer of this name, or if it is no such layer.
    pub fn channels_last(&mut self, layer: &str) -> Result<(), Fault> {
        let layer = self.layer(layer)?;
        let WeightLayer { name, dims, shape, .. } = &mut self.layers[layer];
        if dims.len() != 2 || shape.order != WeightOrder::OutInTaps {
            return Err(format!("{name} is no linear layer of [out, in]"));
        }
        shape.order = WeightOrder::OutTapsIn;
        Ok(())
    }

    /// Pairs by name what a file without a graph leaves open: `bn1` with `conv1`, `features.1` with `features.0`.
    pub fn guess(&mut self) {
        self.guess_from(previous_names, "because of the names");
    }

    /// Pairs each batch norm with the first layer of those that `names` has for it, and says why.
    pub(crate) fn guess_from(&mut self, names: impl Fn(&str) -> Vec<String>, why: &str) {
        for batch_norm in 0..self.batch_norms.len() {
            let name = self.batch_norms[batch_norm].name.clone();
            let names = names(&name);
            let channels = self.batch_norms[batch_norm].mean.len();
            let fits = |layer: &&WeightLayer| names.contains(&layer.name) && layer.shape.outputs == channels;
            let Some(layer) = self.layers.iter().find(fits).map(|layer| layer.name.clone()) else {
                self.remarks.push(format!("{name}: no neighbour known; say --previous or --next"));
                continue;
            };
            if self.pair(&name, &layer, Side::Previous).is_ok() {
                self.remarks.push(format!("{name}: taken for the batch norm directly after {layer}, {why}"));
            }
        }
    }
}

/// The names that the weight layer before a batch norm might have.
fn previous_names(batch_norm: &str) -> Vec<String> {
    let mut names = Vec::new();
    for of_norm in ["batch_normalization", "batchnorm", "batch_norm", "norm", "bn", "BatchNorm"] {
        for of_layer in ["conv", "conv2d", "fc", "linear", "dense", "Conv", "Dense"] {
            if batch_norm.contains(of_norm) {
                names.push(batch_norm.replace(of_norm, of_layer));
            }
        }
    }
    // `Sequential` counts its layers.
    let (prefix, number) = batch_norm.rsplit_once('.').map_or(("", batch_norm), |(prefix, number)| (prefix, number));
    if let Some(before) = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1)) {
        names.push(if prefix.is_empty() { before.to_string() } else { format!("{prefix}.{before}") });
    }
    names
}
