//! The network, in the variants that are compared.

use std::mem;

use normdrop::{Activation, Error, Identity, Noise, Relu};
use rand_xoshiro::Xoshiro128PlusPlus;

use crate::data::{CLASSES, PIXELS, Samples};
use crate::linear::{Linear, ParameterMut};
use crate::stage::Stage;

/// The hidden layers of the networks that are compared.
pub(crate) const HIDDEN: &[usize] = &[128, 128, 128];
/// The probability to drop a hidden unit, wherever there is dropout.
const P: f64 = 0.2;

/// The probability to drop where noise is compared with dropout, and the standard deviation of noise that is as strong.
pub(crate) const P_OF_NOISE: f64 = 0.5;

/// A kind of noise in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// None: batch norm and ReLU.
    None,
    /// Dropout.
    Bernoulli,
    /// Gaussian dropout with the variance of dropout.
    Gaussian,
    /// Uniform dropout with the variance of dropout.
    Uniform,
    /// Uniform dropout with the half width 0.1: "Uout", as its paper has it.
    Uout,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Bernoulli, Self::Gaussian, Self::Uniform, Self::Uout];

    fn stage<A: Activation>(self, width: usize, activation: A, batch_norm: bool) -> Result<Stage<A>, Error> {
        let p = if self == Self::Bernoulli { P_OF_NOISE } else { 0.0 };
        let stage = Stage::new(width, activation, batch_norm, p)?;
        // sqrt(3*p/(1 - p)) for p = 0.5.
        const HALF_WIDTH: f32 = 1.732_050_8;
        Ok(match self {
            Self::None | Self::Bernoulli => stage,
            Self::Gaussian => stage.with_noise(Noise::gaussian_dropout(P_OF_NOISE)?),
            Self::Uniform => stage.with_noise(Noise::uniform(HALF_WIDTH)?),
            Self::Uout => stage.with_noise(Noise::uniform(0.1)?),
        })
    }
}

/// Where noise is, in a network with a batch norm before every ReLU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Right before every batch norm.
    Before,
    /// Behind every ReLU, so that a weight layer and a batch norm follow.
    Behind,
    /// Behind the last ReLU alone, after the last batch norm.
    Last,
}

impl Place {
    pub(crate) const ALL: [Self; 3] = [Self::Before, Self::Behind, Self::Last];
}

/// What stands between one weight layer and the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// ReLU.
    Plain,
    /// Batch norm, ReLU.
    BatchNorm,
    /// ReLU, dropout.
    Dropout,
    /// Batch norm, ReLU, dropout: the usual order, and one call of the crate's layer.
    BatchNormDropout,
    /// ReLU, batch norm, dropout: batch norm and dropout form the "independent component" layer before the next
    /// weight layer (Chen et al. 2019, arXiv 1905.05928).
    IndependentComponent,
    /// Batch norm, ReLU, and noise somewhere.
    Noisy(Place, Kind),
}

impl Variant {
    pub(crate) const ALL: [Self; 5] =
        [Self::Plain, Self::BatchNorm, Self::Dropout, Self::BatchNormDropout, Self::IndependentComponent];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::BatchNorm => "batch norm",
            Self::Dropout => "dropout",
            Self::BatchNormDropout => "batch norm + dropout",
            Self::IndependentComponent => "independent component",
            Self::Noisy(_, Kind::None) => "no noise",
            Self::Noisy(_, Kind::Bernoulli) => "dropout",
            Self::Noisy(_, Kind::Gaussian) => "Gaussian",
            Self::Noisy(_, Kind::Uniform) => "uniform",
            Self::Noisy(_, Kind::Uout) => "Uout 0.1",
        }
    }

    /// The order of things between two weight layers.
    pub(crate) const fn order(self) -> &'static str {
        match self {
            Self::Plain => "ReLU",
            Self::BatchNorm => "BN, ReLU",
            Self::Dropout => "ReLU, dropout",
            Self::BatchNormDropout => "BN, ReLU, dropout",
            Self::IndependentComponent => "ReLU, BN, dropout",
            Self::Noisy(_, Kind::None) => "BN, ReLU",
            Self::Noisy(Place::Before, _) => "noise, BN, ReLU",
            Self::Noisy(Place::Behind, _) => "BN, ReLU, noise",
            Self::Noisy(Place::Last, _) => "noise behind last BN",
        }
    }
}

/// A weight layer and what follows it before the next one.
struct Block {
    linear: Linear,
    /// Noise before the batch norm.
    before: Option<Stage<Identity>>,
    relu: Stage<Relu>,
    component: Option<Stage<Identity>>,
}

impl Block {
    fn new(
        inputs: usize,
        width: usize,
        is_last: bool,
        variant: Variant,
        rng: &mut Xoshiro128PlusPlus,
    ) -> Result<Self, Error> {
        if let Variant::Noisy(place, kind) = variant {
            let linear = Linear::new(inputs, width, rng);
            let before = if place == Place::Before { Some(kind.stage(width, Identity, false)?) } else { None };
            let is_behind = place == Place::Behind || place == Place::Last && is_last;
            let relu = if is_behind { kind } else { Kind::None }.stage(width, Relu, true)?;
            return Ok(Self { linear, before, relu, component: None });
        }
        let (batch_norm, p, component) = match variant {
            Variant::Plain => (false, 0.0, None),
            Variant::BatchNorm => (true, 0.0, None),
            Variant::Dropout => (false, P, None),
            Variant::BatchNormDropout => (true, P, None),
            Variant::IndependentComponent => (false, 0.0, Some(Stage::new(width, Identity, true, P)?)),
            Variant::Noisy(..) => unreachable!("made above"),
        };
        let relu = Stage::new(width, Relu, batch_norm, p)?;
        Ok(Self { linear: Linear::new(inputs, width, rng), before: None, relu, component })
    }
}

/// The inputs of a block's parts in a forward pass, which its backward pass needs.
struct Trace {
    linear: Vec<f32>,
    before: Vec<f32>,
    relu: Vec<f32>,
    component: Vec<f32>,
}

/// A classifier of digits: hidden blocks, then a weight layer with one output per digit.
pub(crate) struct Network {
    blocks: Vec<Block>,
    output: Linear,
}

impl Network {
    /// A network with hidden layers of these widths. The weights depend on them and `rng` only: all variants start from
    /// the same ones.
    pub(crate) fn new(variant: Variant, hidden: &[usize], rng: &mut Xoshiro128PlusPlus) -> Result<Self, Error> {
        let mut inputs = PIXELS;
        let mut block = |(index, &width): (usize, &usize)| {
            Block::new(mem::replace(&mut inputs, width), width, index + 1 == hidden.len(), variant, rng)
        };
        let blocks = hidden.iter().enumerate().map(&mut block).collect::<Result<_, _>>()?;
        Ok(Self { blocks, output: Linear::new(inputs, CLASSES, rng) })
    }

    /// Sets all gradients and returns the mean loss of a batch. Block `i` draws its mask with seed `mask_seed + i`.
    pub(crate) fn gradients(&mut self, batch: Samples, mask_seed: u64) -> Result<f64, Error> {
        let mut traces = Vec::with_capacity(self.blocks.len());
        let mut values = batch.pixels;
        for (block, mask_seed) in self.blocks.iter_mut().zip(mask_seed..) {
            let linear = values;
            let before = block.linear.forward(&linear);
            let relu = match &mut block.before {
                Some(stage) => stage.train(&before, mask_seed)?,
                None => before.clone(),
            };
            let component = block.relu.train(&relu, mask_seed)?;
            values = match &mut block.component {
                Some(stage) => stage.train(&component, mask_seed)?,
                None => component.clone(),
            };
            traces.push(Trace { linear, before, relu, component });
        }

        let mut logits = self.output.forward(&values);
        let loss = cross_entropy(&mut logits, &batch.labels);

        self.output.backward(&values, &logits);
        let mut gradient = self.output.grad_input(&logits);
        for (index, (block, trace)) in self.blocks.iter_mut().zip(&traces).enumerate().rev() {
            if let Some(stage) = &mut block.component {
                stage.backward(&trace.component, &mut gradient)?;
            }
            block.relu.backward(&trace.relu, &mut gradient)?;
            if let Some(stage) = &mut block.before {
                stage.backward(&trace.before, &mut gradient)?;
            }
            block.linear.backward(&trace.linear, &gradient);
            if index > 0 {
                gradient = block.linear.grad_input(&gradient);
            }
        }
        Ok(loss)
    }

    /// The outputs for images in use rather than in training: running statistics, and dropout only if there is a seed of
    /// masks, of which block `i` takes `mask_seed + i`.
    pub(crate) fn logits(&mut self, pixels: &[f32], mask_seed: Option<u64>) -> Result<Vec<f32>, Error> {
        let mut values = pixels.to_vec();
        for (block, index) in self.blocks.iter_mut().zip(0..) {
            let mask_seed = mask_seed.map(|seed| seed + index);
            values = block.linear.forward(&values);
            if let Some(stage) = &mut block.before {
                stage.infer(&mut values, mask_seed)?;
            }
            block.relu.infer(&mut values, mask_seed)?;
            if let Some(stage) = &mut block.component {
                stage.infer(&mut values, mask_seed)?;
            }
        }
        Ok(self.output.forward(&values))
    }

    /// The share of samples whose digit gets the largest output.
    pub(crate) fn accuracy(&mut self, samples: &Samples) -> Result<f64, Error> {
        let logits = self.logits(&samples.pixels, None)?;
        let right = logits.chunks_exact(CLASSES).zip(&samples.labels).filter(|&(row, &label)| {
            row.iter().enumerate().all(|(digit, &logit)| digit == label || logit < row[label])
        });
        Ok(right.count() as f64 / samples.len() as f64)
    }

    /// The variance that each batch norm has averaged in training, divided by that of its input in evaluation: the mean
    /// over the batch norms. 1 is no shift.
    pub(crate) fn variance_shift(&mut self, pixels: &[f32]) -> Result<f64, Error> {
        let (mut values, mut ratios) = (pixels.to_vec(), Vec::new());
        for block in &mut self.blocks {
            values = block.linear.forward(&values);
            ratios.extend(block.relu.variances(&values).map(|[running, of_input]| running / of_input));
            block.relu.infer(&mut values, None)?;
            if let Some(stage) = &mut block.component {
                ratios.extend(stage.variances(&values).map(|[running, of_input]| running / of_input));
                stage.infer(&mut values, None)?;
            }
        }
        Ok(ratios.iter().sum::<f64>() / ratios.len() as f64)
    }

    /// Everything that is learned, in a fixed order.
    pub(crate) fn parameters(&mut self) -> impl Iterator<Item = ParameterMut<'_>> {
        let blocks = self.blocks.iter_mut().flat_map(|block| {
            let component = block.component.iter_mut().flat_map(Stage::parameters);
            block.linear.parameters().into_iter().chain(block.relu.parameters()).chain(component)
        });
        blocks.chain(self.output.parameters())
    }

    /// Everything that the network is in use: of each block the weights `[inputs, outputs]` and the bias of its weight layer
    /// and, of every batch norm, weight, bias, running mean and running variance; then weights and bias of the output.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = &[f32]> {
        let blocks = self.blocks.iter().flat_map(|block| {
            let component = block.component.iter().flat_map(Stage::in_use);
            block.linear.in_use().into_iter().chain(block.relu.in_use()).chain(component)
        });
        blocks.chain(self.output.in_use())
    }
}

/// What the outputs for one image were divided by: `exp(largest + log_sum)`.
pub(crate) struct Softmax {
    largest: f32,
    log_sum: f32,
}

/// Turns the outputs for one image into probabilities.
///
/// `exp` and `ln` come from `libm`, because those of the standard library differ between platforms.
pub(crate) fn softmax(row: &mut [f32]) -> Softmax {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for logit in row.iter_mut() {
        *logit = libm::expf(*logit - largest);
        sum += *logit;
    }
    for value in row {
        *value /= sum;
    }
    Softmax { largest, log_sum: libm::logf(sum) }
}

/// The mean of `-ln(softmax(logits)[label])`; its gradient replaces the logits.
fn cross_entropy(logits: &mut [f32], labels: &[usize]) -> f64 {
    let mut loss = 0.0;
    for (row, &label) in logits.chunks_exact_mut(CLASSES).zip(labels) {
        let of_label = row[label];
        let Softmax { largest, log_sum } = softmax(row);
        loss += f64::from(log_sum - (of_label - largest));
        for (digit, value) in row.iter_mut().enumerate() {
            let target = if digit == label { 1.0 } else { 0.0 };
            *value = (*value - target) / labels.len() as f32;
        }
    }
    loss / labels.len() as f64
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::rand_core::SeedableRng;

    use super::*;

    /// Along the gradient of each parameter, the loss rises as fast as that gradient is long.
    #[test]
    fn gradients_agree_with_finite_differences() -> Result<(), Error> {
        const STEP: f32 = 1e-4;
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
        let (batch, _) = Samples::all().split(&mut rng, 32);
        let places = Place::ALL.into_iter().flat_map(|place| Kind::ALL.map(|kind| Variant::Noisy(place, kind)));
        for variant in Variant::ALL.into_iter().chain(places) {
            let mut network = Network::new(variant, HIDDEN, &mut rng)?;
            network.gradients(batch.clone(), 1)?;
            let gradients: Vec<Vec<f32>> = network.parameters().map(|parameter| parameter.gradient.to_vec()).collect();
            for (index, gradient) in gradients.iter().enumerate() {
                let length = gradient.iter().map(|value| value * value).sum::<f32>().sqrt();
                let mut loss_at = |distance: f32| {
                    let start = network.parameters().nth(index).expect("one gradient per parameter").value.to_vec();
                    let scale = distance / length.max(1e-6);
                    let parameter = network.parameters().nth(index).expect("as above");
                    for ((value, start), gradient) in parameter.value.iter_mut().zip(&start).zip(gradient) {
                        *value = start + scale * gradient;
                    }
                    let loss = network.gradients(batch.clone(), 1);
                    network.parameters().nth(index).expect("as above").value.copy_from_slice(&start);
                    loss
                };
                let slope = (loss_at(STEP)? - loss_at(-STEP)?) / f64::from(2.0 * STEP);
                let error = (slope - f64::from(length)).abs();
                assert!(error <= 2e-3 + 0.01 * f64::from(length), "{variant:?} {index}: {slope} is not {length}");
            }
        }
        Ok(())
    }
}
