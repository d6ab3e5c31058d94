//! Learning on the device: the camera has been hung turned by 90 degrees, and the network learns to read what it sees then,
//! from half of the images. The other half shows whether it has.

use normdrop::{
    BackwardInPlace, Dropout, Error, Layer, ParameterGradients, Parameters, Relu, RunningMut, Saved, SavedMut,
    Statistics, Train,
};

use crate::classify::Buffers;
use crate::digits::{self, Camera, Digit};
use crate::linear::{Activation, Linear, add_scaled};
use crate::network::{BatchNorm, CLASSES, HIDDEN, Network, PIXELS, TRAINED, layer};
use crate::platform::Platform;
use crate::print::{Digest, Print};

/// The images of one step.
const BATCH: usize = 16;
/// The images that are learned from; the others are asked about.
const LEARNED: usize = 160;
/// The times that each of them is looked at.
const EPOCHS: u32 = 20;
/// The steps of a training.
pub const STEPS: u64 = EPOCHS as u64 * (LEARNED / BATCH) as u64;
/// The learning rate.
const RATE: f32 = 0.1;
/// The layer for the images of one step.
const LAYER: Layer<Relu> = layer(BATCH);

/// All memory of the program `learn`, which keeps its activations as `E`.
#[derive(Debug)]
pub struct Memory<E> {
    network: Network,
    gradients: Network,
    /// One image, to ask about.
    buffers: Buffers,
    step: Step<E>,
}

/// The images of a step, what the network makes of them, and the gradients of that.
#[derive(Debug)]
struct Step<E> {
    labels: [u8; BATCH],
    pixels: [[E; PIXELS]; BATCH],
    /// Before the layer.
    hidden: [[E; HIDDEN]; BATCH],
    /// After the layer.
    active: [[E; HIDDEN]; BATCH],
    outputs: [[f32; CLASSES]; BATCH],
    /// Of `active`, then of `hidden`.
    grad_hidden: [[E; HIDDEN]; BATCH],
    mask: [u8; LAYER.mask_len()],
    mean: [f32; HIDDEN],
    mean_tail: [f32; HIDDEN],
    inv_std: [f64; HIDDEN],
    scratch: [f64; LAYER.scratch_len()],
}

impl<E: Activation> Memory<E> {
    /// Memory, empty.
    pub const fn new() -> Self {
        Self {
            network: Network::zero(),
            gradients: Network::zero(),
            buffers: Buffers::new(),
            step: Step {
                labels: [0; BATCH],
                pixels: [[E::ZERO; PIXELS]; BATCH],
                hidden: [[E::ZERO; HIDDEN]; BATCH],
                active: [[E::ZERO; HIDDEN]; BATCH],
                outputs: [[0.0; CLASSES]; BATCH],
                grad_hidden: [[E::ZERO; HIDDEN]; BATCH],
                mask: [0; LAYER.mask_len()],
                mean: [0.0; HIDDEN],
                mean_tail: [0.0; HIDDEN],
                inv_std: [0.0; HIDDEN],
                scratch: [0.0; LAYER.scratch_len()],
            },
        }
    }
}

impl<E: Activation> Memory<E> {
    /// Trains the network of the desktop on turned images, and tells of each epoch and its mean loss. The mask of each step
    /// has a seed, from `seed` on.
    ///
    /// # Errors
    /// None: all lengths are right.
    pub fn learn(&mut self, mut seed: u64, mut tell: impl FnMut(u32, f32)) -> Result<(), Error> {
        let Self { network, gradients, step, .. } = self;
        network.copy_from(&TRAINED);
        for epoch in 1..=EPOCHS {
            let mut loss = 0.0;
            let mut digits = digits::all().take(LEARNED);
            for _ in 0..LEARNED / BATCH {
                step.look_at(digits.by_ref().take(BATCH));
                loss += step.gradients(network, gradients, seed)?;
                descend(network, gradients);
                seed = seed.wrapping_add(1);
            }
            tell(epoch, loss / (LEARNED / BATCH) as f32);
        }
        Ok(())
    }

    /// How many of the images that were not learned from the network gets right. One image takes no memory to speak of: its
    /// activations are f32.
    ///
    /// # Errors
    /// None: all lengths are right.
    pub fn right(&mut self) -> Result<u32, Error> {
        let mut right = 0;
        for digit in digits::all().skip(LEARNED) {
            digit.pixels(Camera::Turned, self.buffers.pixels());
            right += u32::from(self.buffers.unfolded(&self.network)? == digit.label);
        }
        Ok(right)
    }
}

impl<E: Activation> Default for Memory<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Activation> Step<E> {
    /// Takes images for the step.
    fn look_at(&mut self, digits: impl Iterator<Item = Digit>) {
        for ((digit, pixels), label) in digits.zip(&mut self.pixels).zip(&mut self.labels) {
            digit.pixels(Camera::Turned, pixels);
            *label = digit.label;
        }
    }

    /// Sets the gradients of a network and returns its mean loss. The seed alone decides which hidden units are dropped.
    fn gradients(&mut self, network: &mut Network, gradients: &mut Network, seed: u64) -> Result<f32, Error> {
        // Forward.
        let mut sums = [0.0; HIDDEN];
        for (pixels, hidden) in self.pixels.iter().zip(&mut self.hidden) {
            network.hidden.forward(pixels, &mut sums);
            for (hidden, &sum) in hidden.iter_mut().zip(&sums) {
                *hidden = E::nearest(sum);
            }
        }
        LAYER.fill_mask(seed, &mut self.mask)?;
        let BatchNorm { weight, bias, mean, var } = &mut network.norm;
        LAYER.train(Train {
            parameters: Parameters { weight: Some(weight), bias: Some(bias) },
            running: Some(RunningMut::new(mean, var)),
            dropout: Dropout::Mask(&self.mask),
            input: self.hidden.as_flattened(),
            residual: None,
            output: self.active.as_flattened_mut(),
            saved: SavedMut { mean: &mut self.mean, mean_tail: &mut self.mean_tail, inv_std: &mut self.inv_std },
            scratch: &mut self.scratch,
        })?;
        for (active, outputs) in self.active.iter().zip(&mut self.outputs) {
            network.output.forward(active, outputs);
        }

        // The loss, whose gradient takes the place of the outputs.
        let mut loss = 0.0;
        for (outputs, &label) in self.outputs.iter_mut().zip(&self.labels) {
            loss += cross_entropy(outputs, label);
        }

        // Backward.
        gradients.hidden.clear();
        gradients.output.clear();
        for ((active, outputs), grad) in self.active.iter().zip(&self.outputs).zip(&mut self.grad_hidden) {
            Linear::add_gradient(active, outputs, &mut gradients.output);
            network.output.grad_input(outputs, grad);
        }
        LAYER.backward_in_place(BackwardInPlace {
            parameters: network.norm.parameters(),
            statistics: Statistics::Batch(Saved {
                mean: &self.mean,
                mean_tail: &self.mean_tail,
                inv_std: &self.inv_std,
            }),
            dropout: Dropout::Mask(&self.mask),
            input: self.hidden.as_flattened(),
            residual: None,
            values: self.grad_hidden.as_flattened_mut(),
            grad_residual: None,
            grad_parameters: ParameterGradients {
                weight: Some(&mut gradients.norm.weight),
                bias: Some(&mut gradients.norm.bias),
            },
            scratch: &mut self.scratch,
        })?;
        for (pixels, grad) in self.pixels.iter().zip(&self.grad_hidden) {
            Linear::add_gradient(pixels, grad, &mut gradients.hidden);
        }
        Ok(loss / BATCH as f32)
    }
}

/// Goes down the gradients of a network. Running statistics have none.
fn descend(network: &mut Network, gradients: &Network) {
    network.hidden.descend(RATE, &gradients.hidden);
    add_scaled(-RATE, &gradients.norm.weight, &mut network.norm.weight);
    add_scaled(-RATE, &gradients.norm.bias, &mut network.norm.bias);
    network.output.descend(RATE, &gradients.output);
}

/// `-ln(softmax(outputs)[label])`; the gradient of its mean over the batch replaces the outputs.
///
/// `exp` and `ln` come from `libm`, because those of C libraries differ.
fn cross_entropy(outputs: &mut [f32; CLASSES], label: u8) -> f32 {
    let mut largest = f32::NEG_INFINITY;
    for &output in &*outputs {
        if output > largest {
            largest = output;
        }
    }
    let (mut sum, mut of_label) = (0.0, 0.0);
    for (digit, output) in (0..).zip(&mut *outputs) {
        if digit == label {
            of_label = *output - largest;
        }
        *output = libm::expf(*output - largest);
        sum += *output;
    }
    for (digit, output) in (0..).zip(outputs) {
        let target = if digit == label { 1.0 } else { 0.0 };
        *output = (*output / sum - target) / BATCH as f32;
    }
    libm::logf(sum) - of_label
}

/// Learns, and prints how it goes.
///
/// # Errors
/// None: all lengths are right.
pub fn run(memory: &mut Memory<impl Activation>, platform: &mut impl Platform) -> Result<(), Error> {
    memory.network.copy_from(&TRAINED);
    print_right(platform, "before: ", memory.right()?);

    // The step is measured for what it takes, and made once more by the loop.
    let Memory { network, gradients, step, .. } = memory;
    step.look_at(digits::all());
    platform.measure("step", || step.gradients(network, gradients, 0))?;
    memory.learn(0, |epoch, loss| {
        platform.print("epoch ");
        platform.number(epoch);
        platform.print(": loss ");
        platform.decimal(loss);
        platform.print("\n");
    })?;

    print_right(platform, "after: ", memory.right()?);
    let mut digest = Digest::default();
    digest.add(memory.network.numbers());
    platform.print("digest of all that was learned ");
    platform.hex(digest.value());
    platform.print("\n");
    Ok(())
}

fn print_right(platform: &mut impl Print, when: &str, right: u32) {
    platform.print(when);
    platform.number(right);
    platform.print(" of ");
    platform.number((digits::all().len() - LEARNED) as u32);
    platform.print(" turned digits right\n");
}
