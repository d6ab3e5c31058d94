//! One call of a layer, from its structured input: the constants, the values, and the memory that a call is given.

use std::ops::Range;

use normdrop::{
    Apply, ApplyGradient, Average, Backward, BackwardInPlace, Bernoulli, Buffer as Name, Config, Dropout, Error, Eval,
    EvalInPlace, Finish, Layer, Masked, Moments, Parameters, Reduce, Running, RunningMut, RunningVariance, Saved,
    SavedMut, Shape, Statistics, Train, Validity,
};
use normdrop_reference::classes::CLASSES;
use normdrop_reference::layer as reference;
use normdrop_reference::mask::{self, keeps};
use normdrop_reference::random::SplitMix64;

use crate::buffer::{Bits, Buffer, Place};
use crate::input::{Activation, Eps, Fraction, Granularity, LayerInput, Mask, Size, Values, WrongLength};
use crate::padded::Padding;

/// The public entries that a [`Case`] can be called through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Train,
    Eval,
    EvalInPlace,
    Backward,
    BackwardInPlace,
    Moments,
    Finish,
    Apply,
    Reduce,
    FinishGradients,
    ApplyGradient,
}

/// Whether the buffers of a call have the lengths that the shape asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lengths {
    Right,
    AsGiven,
}

/// A call whose every argument is decided.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) shape: Shape,
    pub(crate) config: Config,
    pub(crate) activation: Activation,
    pub(crate) keep: Bernoulli,
    pub(crate) x: Vec<f32>,
    pub(crate) dy: Vec<f32>,
    pub(crate) weight: Option<Vec<f32>>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) residual: Option<Vec<f32>>,
    pub(crate) has_running: bool,
    pub(crate) running_mean: Vec<f32>,
    pub(crate) running_mean_tail: Option<Vec<f32>>,
    pub(crate) running_var: Vec<f32>,
    /// The batches so far, if the running statistics are the cumulative average.
    batches: Option<u64>,
    pub(crate) mask: Option<Vec<u8>>,
    /// The mask with a bit for every element.
    pub(crate) mask_of_elements: Option<Vec<u8>>,
    /// Whether a call without a mask does not say that dropout is off, as in C.
    pub(crate) unset: bool,
    pub(crate) fixed_statistics: bool,
    pub(crate) foreign_saved: bool,
    pub(crate) wants_input: bool,
    pub(crate) wants_weight: bool,
    pub(crate) wants_bias: bool,
    pub(crate) wants_residual: bool,
    mask_bits: usize,
    pub(crate) place: Place,
    scratch_extra: usize,
    wrong: [WrongLength; 2],
    /// Which positions are valid, if the call is one over valid positions.
    pub(crate) padding: Option<Padding>,
    /// What a forward call left for the backward call.
    pub(crate) forward: ForwardResult,
    /// What other parts of the batch left for a phase.
    pub(crate) merged: Merged,
}

/// What a phase needs of all parts of its batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Merged {
    pub(crate) moments: Vec<f64>,
    pub(crate) sums: Vec<f64>,
    /// The values per channel.
    pub(crate) samples: f64,
}

/// What a backward call needs of its forward call, and the `z` that tell on which side of a kink it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct ForwardResult {
    pub(crate) saved_mean: Vec<f32>,
    pub(crate) saved_mean_tail: Vec<f32>,
    pub(crate) saved_inv_std: Vec<f64>,
    /// The output of the same layer without an activation: `z`, times the dropout scale where that is folded into the
    /// normalisation, which is where 0 is the only kink.
    pub(crate) z: Vec<f32>,
}

impl Case {
    pub(crate) fn new(input: &LayerInput) -> Self {
        let shape = shape(input);
        let eps = match input.eps {
            Eps::Usual => 1e-5,
            Eps::Zero => 0.0,
            Eps::Smallest => f32::from_bits(1),
            // Without the sign, and without the exponent of NaN and infinities.
            Eps::Bits => f32::from_bits(input.eps_bits % 0x7F80_0000),
        };
        let p = fraction(input.p, input.p_bits);
        let (granularity, reference_granularity) = match input.granularity {
            Granularity::Element => (normdrop::Granularity::Element, mask::Granularity::Element),
            Granularity::Channel => (normdrop::Granularity::Channel, mask::Granularity::Channel),
            Granularity::Sample => (normdrop::Granularity::Sample, mask::Granularity::Sample),
        };
        let momentum = fraction(input.momentum, input.momentum_bits);
        let running_var = if input.biased { RunningVariance::Biased } else { RunningVariance::Unbiased };
        let config = Config { eps, momentum, running_var, p, granularity };
        let keep = Bernoulli::new(p).expect("a fraction is a probability");
        let seed = input.mask_seed;
        let layer = Layer::new(shape, normdrop::Identity, config).expect("the constants are valid");
        let mask = drawn_mask(input.mask, seed, keep, layer.mask_bits());
        let mask_of_elements = mask.as_ref().map(|mask| {
            let dimensions = [shape.channels(), shape.inner(), shape.positions()];
            mask::expanded(mask, shape.len(), dimensions, reference_granularity)
        });
        let mut x = tensor(shape, &input.x);
        let mut dy = tensor(shape, &input.dy);
        let [mut weight, mut bias, mut running_mean, mut running_var] =
            [&input.weight, &input.bias, &input.running_mean, &input.running_var]
                .map(|values| class_values(values, 0, shape.channels()));
        if !input.negative_var {
            running_var.iter_mut().for_each(|var| *var = var.abs());
        }
        if input.nan_under_dropped {
            for element in
                (0..shape.len()).filter(|&element| mask_of_elements.as_ref().is_some_and(|mask| !keeps(mask, element)))
            {
                dy[element] = f32::NAN;
                if input.fixed_statistics {
                    x[element] = f32::NAN;
                }
            }
        }
        let mut residual = tensor(shape, &input.residual);
        for poke in &input.pokes {
            let tensors = [&mut x, &mut dy, &mut weight, &mut bias, &mut running_mean, &mut running_var, &mut residual];
            let number = usize::from(poke.tensor) % tensors.len();
            for tensor in tensors.into_iter().skip(number).take(1).filter(|tensor| !tensor.is_empty()) {
                let index = usize::from(poke.index) % tensor.len();
                tensor[index] = f32::from_bits(poke.bits);
            }
        }
        if matches!(
            input.activation,
            Activation::HardSwish
                | Activation::Silu
                | Activation::GeluTanh
                | Activation::Gelu
                | Activation::Selu
                | Activation::Mish
        ) {
            // Derivatives are up to 1.8, and a product with one has to fit an f32.
            dy.iter_mut().for_each(|dy| *dy *= 0.5);
        }
        Self {
            shape,
            config,
            activation: input.activation,
            keep,
            x,
            dy,
            weight: input.has_weight.then_some(weight),
            bias: input.has_bias.then_some(bias),
            residual: input.has_residual.then_some(residual),
            has_running: input.has_running,
            running_mean_tail: input.has_mean_tail.then(|| tails(&running_mean)),
            running_mean,
            running_var,
            batches: input.cumulative.then_some(input.momentum_bits.into()),
            mask,
            mask_of_elements,
            unset: false,
            fixed_statistics: input.fixed_statistics,
            foreign_saved: input.foreign_saved,
            wants_input: input.wants_input,
            wants_weight: input.wants_weight,
            wants_bias: input.wants_bias,
            wants_residual: input.wants_residual,
            mask_bits: layer.mask_bits(),
            place: Place::new(input.guard, input.misalign, 17),
            scratch_extra: usize::from(input.scratch_extra),
            wrong: input.wrong.clone(),
            padding: None,
            forward: ForwardResult::default(),
            merged: Merged::default(),
        }
    }

    /// The layer under test.
    pub(crate) fn layer<A: normdrop::Activation>(&self, activation: A) -> Layer<A> {
        Layer::new(self.shape, activation, self.config).expect("the constants are valid")
    }

    /// Some samples of the batch as a batch of their own, with their part of every tensor and of the mask.
    pub(crate) fn part(&self, samples: Range<usize>) -> Self {
        let (positions, channels, inner) = (self.shape.positions(), self.shape.channels(), self.shape.inner());
        let of_sample = positions * channels * inner;
        let elements = |tensor: &[f32]| tensor[samples.start * of_sample..samples.end * of_sample].to_vec();
        let bits_of_sample = self.mask_bits.checked_div(self.samples()).unwrap_or(0);
        let bits = |mask: &[u8], of_sample: usize| {
            let bits = samples.start * of_sample..samples.end * of_sample;
            mask::packed(&bits.map(|bit| keeps(mask, bit)).collect::<Vec<bool>>())
        };
        let shape = if positions == 1 {
            Shape::new(samples.len(), channels, inner)
        } else {
            Shape::nlc(samples.len(), positions, channels)
        };
        Self {
            shape: shape.expect("the dimensions are small"),
            x: elements(&self.x),
            dy: elements(&self.dy),
            residual: self.residual.as_deref().map(elements),
            mask: self.mask.as_deref().map(|mask| bits(mask, bits_of_sample)),
            mask_of_elements: self.mask_of_elements.as_deref().map(|mask| bits(mask, of_sample)),
            mask_bits: samples.len() * bits_of_sample,
            ..self.clone()
        }
    }

    /// How many samples there are to cut between.
    pub(crate) fn samples(&self) -> usize {
        self.shape.outer().checked_div(self.shape.positions()).unwrap_or(0)
    }

    /// The layer that it is compared with.
    pub(crate) fn reference(&self) -> reference::Layer {
        reference::Layer {
            shape: reference::Shape {
                outer: self.shape.outer(),
                channels: self.shape.channels(),
                inner: self.shape.inner(),
            },
            eps: self.config.eps,
            momentum: self.config.momentum,
            running_var: match self.config.running_var {
                RunningVariance::Unbiased => reference::RunningVariance::Unbiased,
                RunningVariance::Biased => reference::RunningVariance::Biased,
            },
            threshold: self.keep.threshold(),
            activation: self.reference_activation(),
        }
    }

    /// The activation of the reference.
    pub(crate) fn reference_activation(&self) -> reference::Activation {
        match self.activation {
            Activation::Identity => reference::Activation::Identity,
            Activation::Relu => reference::Activation::Relu,
            Activation::Relu6 => reference::Activation::Relu6,
            Activation::LeakyRelu => {
                reference::Activation::LeakyRelu(f64::from(normdrop::LeakyRelu::default().slope()))
            }
            Activation::HardSwish => reference::Activation::HardSwish,
            Activation::Sigmoid => reference::Activation::Sigmoid,
            Activation::Tanh => reference::Activation::Tanh,
            Activation::Silu => reference::Activation::Silu,
            Activation::GeluTanh => reference::Activation::GeluTanh,
            Activation::Gelu => reference::Activation::Gelu,
            Activation::Elu => reference::Activation::Elu(f64::from(normdrop::Elu::default().alpha())),
            Activation::Selu => reference::Activation::Selu,
            Activation::Mish => reference::Activation::Mish,
            Activation::Softplus => reference::Activation::Softplus,
        }
    }

    /// The average that the call adds its batch to.
    pub(crate) fn average(&self) -> reference::Average {
        self.batches.map_or(reference::Average::Exponential, |batches| reference::Average::Cumulative(batches + 1))
    }

    /// Why a call with fixed statistics is refused beside its lengths: the first running variance
    /// that eps does not lift above 0. Those of nothing are not looked at.
    pub(crate) fn variance_without_deviation(&self) -> Option<Error> {
        let lacks = |&(_, &var): &(usize, &f32)| f64::from(var) + f64::from(self.config.eps) <= 0.0;
        let (channel, &var) = self.running_var.iter().enumerate().find(lacks)?;
        (!self.is_empty()).then_some(Error::Variance { channel, var })
    }

    /// Whether a batch moves the running variance towards its unbiased variance.
    fn takes_unbiased(&self) -> bool {
        let moves = self.batches.is_some() || self.config.momentum != 0.0;
        self.has_running && moves && self.config.running_var == RunningVariance::Unbiased
    }

    /// The values per channel that count.
    pub(crate) fn values(&self) -> usize {
        self.padding.as_ref().map_or(self.shape.samples(), Padding::valid)
    }

    /// Whether there is nothing to normalise.
    pub(crate) fn is_empty(&self) -> bool {
        self.shape.is_empty() || self.values() == 0
    }

    /// The call on the valid values alone, channels last, which has the results of the call over valid positions.
    pub(crate) fn dense(&self, padding: &Padding) -> Self {
        let (channels, values) = (self.shape.channels(), padding.valid());
        let mask = self.mask_of_elements.as_deref().map(|mask| {
            let all: Vec<bool> = (0..self.shape.len()).map(|element| keeps(mask, element)).collect();
            mask::packed(&padding.take(&all))
        });
        let mut forward = self.forward.clone();
        if !forward.z.is_empty() {
            forward.z = padding.take(&forward.z);
        }
        Self {
            shape: Shape::nc(values, channels).expect("the dimensions are small"),
            config: Config { granularity: normdrop::Granularity::Element, ..self.config },
            x: padding.take(&self.x),
            dy: padding.take(&self.dy),
            residual: self.residual.as_deref().map(|residual| padding.take(residual)),
            mask: mask.clone(),
            mask_of_elements: mask,
            mask_bits: values * channels,
            padding: None,
            forward,
            ..self.clone()
        }
    }

    /// The running mean with its tail.
    pub(crate) fn joined_mean(&self) -> Vec<f64> {
        reference::joined(&self.running_mean, self.running_mean_tail.as_deref())
    }

    /// Whether an element is kept.
    pub(crate) fn keeps(&self, element: usize) -> bool {
        self.mask_of_elements.as_ref().is_none_or(|mask| self.keep.threshold() != 0 && keeps(mask, element))
    }

    /// Whether the derivative of the activation is 0 or 1.
    pub(crate) fn has_gates(&self) -> bool {
        matches!(self.activation, Activation::Identity | Activation::Relu)
    }

    /// Whether the call is given those of the batch, or saves them.
    pub(crate) fn is_batch(&self, entry: Entry) -> bool {
        match entry {
            Entry::Train | Entry::Finish | Entry::Apply | Entry::ApplyGradient => true,
            Entry::Eval | Entry::EvalInPlace | Entry::Moments | Entry::FinishGradients => false,
            Entry::Backward | Entry::BackwardInPlace | Entry::Reduce => !self.fixed_statistics,
        }
    }

    /// The length that a buffer is given.
    pub(crate) fn len(&self, lengths: Lengths, name: Name, right: usize) -> usize {
        if lengths == Lengths::Right {
            return right;
        }
        let number = NAMES.iter().position(|&other| other == name).expect("every buffer has a number");
        let mut len = right;
        for wrong in self.wrong.iter().filter(|wrong| usize::from(wrong.buffer) % NAMES.len() == number) {
            len = match wrong.by {
                i8::MAX => 2 * len,
                i8::MIN => 0,
                by => len.saturating_add_signed(isize::from(by)),
            };
        }
        len
    }
}

/// Every buffer, in the order of its number in the inputs.
pub(crate) const NAMES: [Name; 22] = [
    Name::Input,
    Name::Output,
    Name::Values,
    Name::GradOutput,
    Name::GradInput,
    Name::Residual,
    Name::GradResidual,
    Name::Weight,
    Name::Bias,
    Name::GradWeight,
    Name::GradBias,
    Name::RunningMean,
    Name::RunningVar,
    Name::SavedMean,
    Name::SavedMeanTail,
    Name::SavedInvStd,
    Name::Mask,
    Name::Scratch,
    Name::Moments,
    Name::Sums,
    Name::RunningMeanTail,
    Name::Gates,
];

/// Where a call takes the kept elements from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The mask, if there is one.
    Mask,
    /// The mask in the gates, which a forward call writes over it.
    InGates,
    /// The gates of a forward call.
    Gates,
}

fn shape(input: &LayerInput) -> Shape {
    let limit = match input.size {
        Size::Tiny => 32,
        Size::Small => 128,
        Size::Medium => 1024,
        Size::Large => 16384,
    };
    // Each dimension up to what the others leave; a dimension of 0 leaves everything.
    let outer = usize::from(input.outer) % (limit + 1);
    let rest = limit / outer.max(1);
    let channels = usize::from(input.channels) % (rest + 1);
    let inner = usize::from(input.inner) % (rest / channels.max(1) + 1);
    let shape = match usize::from(input.positions) {
        positions @ 2.. if inner == 1 => Shape::nlc(outer / positions, positions, channels),
        _ => Shape::new(outer, channels, inner),
    };
    shape.expect("the dimensions are small")
}

fn fraction(choice: Fraction, bits: u32) -> f64 {
    const UNIT: f64 = 1.0 / (1u64 << 32) as f64;
    match choice {
        Fraction::Usual => 0.1,
        Fraction::Zero => 0.0,
        Fraction::One => 1.0,
        Fraction::Half => 0.5,
        Fraction::AlmostOne => 1.0 - UNIT,
        Fraction::Bits => f64::from(bits) * UNIT,
    }
}

fn drawn_mask(choice: Mask, seed: u64, keep: Bernoulli, elements: usize) -> Option<Vec<u8>> {
    let mut mask = vec![0; normdrop::mask_len(elements)];
    match choice {
        Mask::Off => return None,
        Mask::Drawn => keep.fill(seed, 0, elements, &mut mask).expect("the mask has its length"),
        Mask::Random => {
            let mut random = SplitMix64::new(seed);
            mask.iter_mut().for_each(|byte| *byte = random.next_u64().to_le_bytes()[0]);
        }
        Mask::AllKept => mask.fill(0xFF),
        Mask::AllDropped => mask.fill(0),
    }
    Some(mask)
}

/// Values of a tensor, channel by channel.
fn tensor(shape: Shape, values: &Values) -> Vec<f32> {
    let (outer, channels, inner) = (shape.outer(), shape.channels(), shape.inner());
    reference::Shape { outer, channels, inner }.tensor(|channel| class_values(values, channel, shape.samples()))
}

/// Values of one of the reference's classes, or any bits at all.
pub(crate) fn class_values(values: &Values, channel: usize, count: usize) -> Vec<f32> {
    if count == 0 {
        return Vec::new();
    }
    let seed = u64::from(values.seed) + channel as u64;
    let number = usize::from(values.class) + if values.mixed { channel } else { 0 };
    let Some(class) = CLASSES.get(number % (CLASSES.len() + 1)) else {
        let mut random = SplitMix64::new(seed);
        return (0..count).map(|_| f32::from_bits((random.next_u64() >> 32) as u32)).collect();
    };
    let mut made = class.values(seed, count);
    if values.exponent != 0 {
        let factor = f64::from(values.exponent).exp2();
        for value in made.iter_mut().filter(|value| value.is_finite()) {
            #[expect(clippy::cast_possible_truncation, reason = "rounded, and held within the finite numbers")]
            let scaled = (f64::from(*value) * factor).clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
            *value = scaled;
        }
    }
    made
}

/// Tails of running means, as updates leave them: at most half a unit in the last place of each,
/// and 0 where that is not finite.
pub(crate) fn tails(means: &[f32]) -> Vec<f32> {
    const MOST: f32 = 1.0 / (1 << 25) as f32;
    let factors = [1.0, -0.75, 0.0, 0.3, -1.0].into_iter().cycle();
    means.iter().zip(factors).map(|(mean, factor)| if mean.is_finite() { mean * MOST * factor } else { 0.0 }).collect()
}

/// The memory of one call, every buffer in memory of its own that ends with it.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    pub(crate) input: Buffer<f32>,
    pub(crate) output: Buffer<f32>,
    pub(crate) values: Buffer<f32>,
    pub(crate) grad_output: Buffer<f32>,
    pub(crate) grad_input: Option<Buffer<f32>>,
    pub(crate) residual: Option<Buffer<f32>>,
    pub(crate) grad_residual: Option<Buffer<f32>>,
    pub(crate) weight: Option<Buffer<f32>>,
    pub(crate) bias: Option<Buffer<f32>>,
    pub(crate) grad_weight: Option<Buffer<f32>>,
    pub(crate) grad_bias: Option<Buffer<f32>>,
    pub(crate) running_mean: Buffer<f32>,
    pub(crate) running_mean_tail: Option<Buffer<f32>>,
    pub(crate) running_var: Buffer<f32>,
    pub(crate) batches: Option<u64>,
    pub(crate) saved_mean: Buffer<f32>,
    pub(crate) saved_mean_tail: Buffer<f32>,
    pub(crate) saved_inv_std: Buffer<f64>,
    pub(crate) mask: Option<Buffer<u8>>,
    /// The gates that a forward call writes or a backward call is given.
    pub(crate) gates: Option<Buffer<u8>>,
    pub(crate) kept: Kept,
    pub(crate) scratch: Buffer<f64>,
    /// The workspace of a call over valid positions.
    pub(crate) workspace: Buffer<f32>,
    pub(crate) moments: Buffer<f64>,
    pub(crate) sums: Buffer<f64>,
}

impl Memory {
    /// The memory for a call of an entry. `run` chooses what is in it where no content may matter: in outputs, in
    /// scratch, and in the unused bits of the mask.
    pub(crate) fn new(case: &Case, entry: Entry, lengths: Lengths, scratch_len: usize, run: usize) -> Self {
        const GARBAGE: [f64; 4] = [f64::NAN, -3.0, f64::INFINITY, 1e-40];
        let garbage = GARBAGE[run % GARBAGE.len()];
        #[expect(clippy::cast_possible_truncation, reason = "any f32 will do")]
        let garbage32 = garbage as f32;
        let (elements, channels) = (case.shape.len(), case.shape.channels());
        let buffer =
            |name, values: &[f32], right| Buffer::new(values, case.len(lengths, name, right), garbage32, case.place);
        // What is in the padding does not matter.
        let padded =
            |values: &Vec<f32>| case.padding.as_ref().map_or(values.clone(), |it| it.filled(values, garbage32));
        // What a training call does not write keeps its content: that of the saved statistics is known.
        let forward = &case.forward;
        let values: &[f32] = match entry {
            Entry::EvalInPlace => &case.x,
            Entry::BackwardInPlace => &case.dy,
            _ => &[],
        };
        let merged =
            |name, values: &[f64], right| Buffer::new(values, case.len(lengths, name, right), garbage, case.place);
        Self {
            input: buffer(Name::Input, &padded(&case.x), elements),
            output: buffer(Name::Output, &[], elements),
            values: buffer(Name::Values, values, elements),
            grad_output: buffer(Name::GradOutput, &padded(&case.dy), elements),
            grad_input: case.wants_input.then(|| buffer(Name::GradInput, &[], elements)),
            residual: case.residual.as_ref().map(|residual| buffer(Name::Residual, &padded(residual), elements)),
            grad_residual: case.wants_residual.then(|| buffer(Name::GradResidual, &[], elements)),
            weight: case.weight.as_ref().map(|weight| buffer(Name::Weight, weight, channels)),
            bias: case.bias.as_ref().map(|bias| buffer(Name::Bias, bias, channels)),
            grad_weight: case.wants_weight.then(|| buffer(Name::GradWeight, &[], channels)),
            grad_bias: case.wants_bias.then(|| buffer(Name::GradBias, &[], channels)),
            running_mean: buffer(Name::RunningMean, &case.running_mean, channels),
            running_mean_tail: case
                .running_mean_tail
                .as_ref()
                .map(|tail| buffer(Name::RunningMeanTail, tail, channels)),
            running_var: buffer(Name::RunningVar, &case.running_var, channels),
            batches: case.batches,
            saved_mean: buffer(Name::SavedMean, &forward.saved_mean, channels),
            saved_mean_tail: buffer(Name::SavedMeanTail, &forward.saved_mean_tail, channels),
            saved_inv_std: Buffer::new(
                &forward.saved_inv_std,
                case.len(lengths, Name::SavedInvStd, channels),
                garbage,
                case.place,
            ),
            mask: case.mask.as_ref().map(|mask| {
                let mut bytes = mask.clone();
                if let (used @ 1.., Some(last)) = (case.mask_bits % 8, bytes.last_mut()) {
                    let unused = !0 << used;
                    *last = *last & !unused | [0, 0xFF, 0x55, 0xAA][run % 4] & unused;
                }
                Buffer::new(&bytes, case.len(lengths, Name::Mask, mask.len()), 0xFF, case.place)
            }),
            gates: None,
            kept: Kept::Mask,
            scratch: Buffer::new(
                &[],
                case.len(lengths, Name::Scratch, scratch_len + case.scratch_extra),
                garbage,
                case.place,
            ),
            workspace: Buffer::new(&[], case.padding.as_ref().map_or(0, Padding::workspace_len), garbage32, case.place),
            moments: merged(Name::Moments, &case.merged.moments, 3 * channels),
            sums: merged(Name::Sums, &case.merged.sums, 2 * channels),
        }
    }

    /// Adds gates of these bytes.
    pub(crate) fn add_gates(&mut self, case: &Case, lengths: Lengths, kept: Kept, bytes: &[u8]) {
        let len = case.len(lengths, Name::Gates, normdrop::mask_len(case.shape.len()));
        self.gates = Some(Buffer::new(bytes, len, 0xA5, case.place));
        self.kept = kept;
    }

    /// Calls the layer.
    pub(crate) fn call<A: normdrop::Activation>(
        &mut self,
        case: &Case,
        entry: Entry,
        layer: &Layer<A>,
    ) -> Result<(), Error> {
        let parameters = Parameters { weight: self.weight.as_deref(), bias: self.bias.as_deref() };
        let without = if case.unset { Dropout::Unset } else { Dropout::Off };
        let (mask, mut written) = (self.mask.as_deref(), None);
        let dropout = match (self.kept, self.gates.as_deref_mut()) {
            (Kept::Gates, gates) if mask.is_some() || case.unset => Dropout::Gates(gates.map_or(&[], |gates| &*gates)),
            (Kept::Gates, gates) => Dropout::UnscaledGates(gates.map_or(&[], |gates| &*gates)),
            (Kept::InGates, gates) => {
                written = gates;
                Dropout::InGates
            }
            (Kept::Mask, gates) => {
                written = gates;
                mask.map_or(without, Dropout::Mask)
            }
        };
        let running =
            Running { mean: &self.running_mean, mean_tail: self.running_mean_tail.as_deref(), var: &self.running_var };
        let saved = Saved { mean: &self.saved_mean, mean_tail: &self.saved_mean_tail, inv_std: &self.saved_inv_std };
        let statistics = if case.fixed_statistics { Statistics::Fixed(running) } else { Statistics::Batch(saved) };
        let (input, residual, scratch) = (&*self.input, self.residual.as_deref(), &mut *self.scratch);
        let grad_parameters = normdrop::ParameterGradients {
            weight: self.grad_weight.as_deref_mut(),
            bias: self.grad_bias.as_deref_mut(),
        };
        let masked =
            |workspace| Masked::new(case.padding.as_ref().map_or(Validity::Bitmap(&[]), Padding::validity), workspace);
        let workspace = case.padding.is_some().then_some(&mut *self.workspace);
        match entry {
            Entry::Train => {
                let train = Train {
                    parameters,
                    running: case.has_running.then_some(RunningMut {
                        mean: &mut self.running_mean,
                        mean_tail: self.running_mean_tail.as_deref_mut(),
                        var: &mut self.running_var,
                        average: average(&mut self.batches),
                    }),
                    dropout,
                    input,
                    residual,
                    output: &mut self.output,
                    saved: SavedMut {
                        mean: &mut self.saved_mean,
                        mean_tail: &mut self.saved_mean_tail,
                        inv_std: &mut self.saved_inv_std,
                    },
                    scratch,
                };
                match (workspace.map(masked), written) {
                    (None, Some(gates)) => layer.train_with_gates(train, gates),
                    (None, None) => layer.train(train),
                    (Some(masked), Some(gates)) => layer.train_masked_with_gates(train, masked, gates),
                    (Some(masked), None) => layer.train_masked(train, masked),
                }
            }
            Entry::Eval => {
                let output = &mut self.output;
                let eval = Eval { parameters, running, dropout, input, residual, output, scratch };
                match (workspace.map(masked), written) {
                    (None, Some(gates)) => layer.eval_with_gates(eval, gates),
                    (None, None) => layer.eval(eval),
                    (Some(masked), Some(gates)) => layer.eval_masked_with_gates(eval, masked, gates),
                    (Some(masked), None) => layer.eval_masked(eval, masked),
                }
            }
            Entry::EvalInPlace => layer.eval_in_place(EvalInPlace {
                parameters,
                running,
                dropout,
                values: &mut self.values,
                residual,
                scratch,
            }),
            Entry::Backward => {
                let backward = Backward {
                    parameters,
                    statistics,
                    dropout,
                    input,
                    residual,
                    grad_output: &self.grad_output,
                    grad_input: self.grad_input.as_deref_mut(),
                    grad_residual: self.grad_residual.as_deref_mut(),
                    grad_parameters,
                    scratch,
                };
                match workspace.map(masked) {
                    None => layer.backward(backward),
                    Some(masked) => layer.backward_masked(backward, masked),
                }
            }
            Entry::BackwardInPlace => layer.backward_in_place(BackwardInPlace {
                parameters,
                statistics,
                dropout,
                input,
                residual,
                values: &mut self.values,
                grad_residual: self.grad_residual.as_deref_mut(),
                grad_parameters,
                scratch,
            }),
            Entry::Moments => layer.moments(Moments { input, moments: &mut self.moments, scratch }),
            Entry::Finish => layer.finish(Finish {
                moments: &self.moments,
                running: case.has_running.then_some(RunningMut {
                    mean: &mut self.running_mean,
                    mean_tail: self.running_mean_tail.as_deref_mut(),
                    var: &mut self.running_var,
                    average: average(&mut self.batches),
                }),
                saved: SavedMut {
                    mean: &mut self.saved_mean,
                    mean_tail: &mut self.saved_mean_tail,
                    inv_std: &mut self.saved_inv_std,
                },
            }),
            Entry::Apply => {
                let output = &mut self.output;
                let apply = Apply { parameters, saved, dropout, input, residual, output, scratch };
                match written {
                    Some(gates) => layer.apply_with_gates(apply, gates),
                    None => layer.apply(apply),
                }
            }
            Entry::Reduce => layer.reduce(Reduce {
                parameters,
                statistics,
                dropout,
                input,
                residual,
                grad_output: &self.grad_output,
                sums: &mut self.sums,
                scratch,
            }),
            Entry::FinishGradients => layer.finish_gradients(&self.sums, grad_parameters),
            Entry::ApplyGradient => layer.apply_gradient(ApplyGradient {
                parameters,
                saved,
                samples: case.merged.samples,
                sums: &self.sums,
                dropout,
                input,
                residual,
                grad_output: &self.grad_output,
                grad_input: self.grad_input.as_deref_mut().unwrap_or_default(),
                grad_residual: self.grad_residual.as_deref_mut(),
                scratch,
            }),
        }
    }

    /// Every error that a call of the entry may return; none means that it must succeed.
    pub(crate) fn refusals(&self, case: &Case, entry: Entry, scratch_len: usize) -> Vec<Error> {
        use Entry::{
            Apply, ApplyGradient, Backward, BackwardInPlace, Eval, EvalInPlace, Finish, FinishGradients, Moments,
            Reduce, Train,
        };

        let (elements, channels) = (case.shape.len(), case.shape.channels());
        let mut refusals = Vec::new();
        let mut check = |buffer, expected, actual| {
            let right = if buffer == Name::Scratch { actual >= expected } else { actual == expected };
            if !right {
                refusals.push(Error::Length { buffer, expected, actual });
            }
        };
        let is = |entries: &[Entry]| entries.contains(&entry);
        let walks = !is(&[Finish, FinishGradients]);
        if walks {
            check(Name::Scratch, scratch_len, self.scratch.len());
        }
        if walks && entry != Moments {
            for (name, buffer) in [(Name::Weight, &self.weight), (Name::Bias, &self.bias)] {
                buffer.iter().for_each(|buffer| check(name, channels, buffer.len()));
            }
            let mask = self.mask.iter().filter(|_| self.kept == Kept::Mask);
            mask.for_each(|mask| check(Name::Mask, normdrop::mask_len(case.mask_bits), mask.len()));
            self.gates.iter().for_each(|gates| check(Name::Gates, normdrop::mask_len(elements), gates.len()));
            self.residual.iter().for_each(|buffer| check(Name::Residual, elements, buffer.len()));
        }
        for (name, right, len, entries) in [
            (Name::Input, elements, self.input.len(), &[Train, Eval, Backward, BackwardInPlace][..]),
            (Name::Input, elements, self.input.len(), &[Moments, Apply, Reduce, ApplyGradient]),
            (Name::Output, elements, self.output.len(), &[Train, Eval, Apply]),
            (Name::Values, elements, self.values.len(), &[EvalInPlace, BackwardInPlace]),
            (Name::GradOutput, elements, self.grad_output.len(), &[Backward, Reduce, ApplyGradient]),
            (Name::Moments, 3 * channels, self.moments.len(), &[Moments, Finish]),
            (Name::Sums, 2 * channels, self.sums.len(), &[Reduce, FinishGradients, ApplyGradient]),
        ] {
            if is(entries) {
                check(name, right, len);
            }
        }
        for (name, right, buffer, entries) in [
            (Name::GradInput, elements, &self.grad_input, &[Backward, ApplyGradient][..]),
            (Name::GradResidual, elements, &self.grad_residual, &[Backward, BackwardInPlace, ApplyGradient]),
            (Name::GradWeight, channels, &self.grad_weight, &[Backward, BackwardInPlace, FinishGradients]),
            (Name::GradBias, channels, &self.grad_bias, &[Backward, BackwardInPlace, FinishGradients]),
        ] {
            buffer.iter().filter(|_| is(entries)).for_each(|buffer| check(name, right, buffer.len()));
        }
        let fixed = case.fixed_statistics && is(&[Backward, BackwardInPlace, Reduce]);
        if fixed || is(&[Eval, EvalInPlace]) || (is(&[Train, Finish]) && case.has_running) {
            check(Name::RunningMean, channels, self.running_mean.len());
            self.running_mean_tail.iter().for_each(|tail| check(Name::RunningMeanTail, channels, tail.len()));
            check(Name::RunningVar, channels, self.running_var.len());
        }
        if case.is_batch(entry) {
            check(Name::SavedMean, channels, self.saved_mean.len());
            check(Name::SavedMeanTail, channels, self.saved_mean_tail.len());
            check(Name::SavedInvStd, channels, self.saved_inv_std.len());
        }
        if self.gates.is_some() && !case.has_gates() {
            refusals.push(Error::GatesActivation);
        }
        if self.kept == Kept::InGates && (self.gates.is_none() || case.mask_bits != elements) {
            refusals.push(Error::GatesDirection);
        }
        let given = (fixed || is(&[Eval, EvalInPlace])) && self.running_var.len() == channels;
        refusals.extend(case.variance_without_deviation().filter(|_| given));
        let samples = if is(&[Finish, ApplyGradient]) { case.merged.samples } else { case.values() as f64 };
        // What is empty has no statistics and needs none; to apply them nothing but they themselves is needed.
        let empty = if entry == Finish { channels == 0 || samples == 0.0 } else { case.is_empty() };
        if case.is_batch(entry) && entry != Apply && !empty {
            if case.config.eps == 0.0 {
                refusals.push(Error::Eps { eps: 0.0 });
            }
            if samples == 1.0 && is(&[Train, Finish]) && case.takes_unbiased() {
                refusals.push(Error::SingleSample);
            }
        }
        refusals
    }

    /// The bits of every buffer that a call could write, but scratch.
    pub(crate) fn contents(&self) -> Vec<(Name, Vec<u64>)> {
        fn bits<T: Bits>(buffer: &[T]) -> Vec<u64> {
            buffer.iter().map(|value| value.bits()).collect()
        }
        let option = |buffer: &Option<Buffer<f32>>| bits(buffer.as_deref().unwrap_or_default());
        vec![
            (Name::Output, bits(&self.output)),
            (Name::Values, bits(&self.values)),
            (Name::GradInput, option(&self.grad_input)),
            (Name::GradResidual, option(&self.grad_residual)),
            (Name::GradWeight, option(&self.grad_weight)),
            (Name::GradBias, option(&self.grad_bias)),
            (Name::RunningMean, bits(&self.running_mean)),
            (Name::RunningMeanTail, option(&self.running_mean_tail)),
            // The count of the batches is written where the running statistics are.
            (Name::RunningVar, bits(&self.running_var).into_iter().chain(self.batches).collect()),
            (Name::SavedMean, bits(&self.saved_mean)),
            (Name::SavedMeanTail, bits(&self.saved_mean_tail)),
            (Name::SavedInvStd, bits(&self.saved_inv_std)),
            (Name::Moments, bits(&self.moments)),
            (Name::Sums, bits(&self.sums)),
            (Name::Gates, bits(self.gates.as_deref().unwrap_or_default())),
        ]
    }

    /// The bits of scratch.
    pub(crate) fn scratch_contents(&self) -> Vec<u64> {
        self.scratch.iter().map(|value| value.bits()).collect()
    }
}

fn average(batches: &mut Option<u64>) -> Average<'_> {
    batches.as_mut().map_or(Average::Exponential, |batches| Average::Cumulative { batches })
}

/// The buffers that a successful call of an entry writes.
pub(crate) fn written(case: &Case, entry: Entry) -> &'static [Name] {
    use Name::{
        GradBias, GradInput, GradResidual, GradWeight, Moments, Output, RunningMean, RunningMeanTail, RunningVar,
        SavedInvStd, SavedMean, SavedMeanTail, Sums, Values,
    };
    match entry {
        // An empty batch has no statistics, and what is saved of it is 0.
        Entry::Train if case.is_empty() => &[Output, SavedMean, SavedMeanTail, SavedInvStd],
        Entry::Train if case.has_running => {
            &[Output, RunningMean, RunningMeanTail, RunningVar, SavedMean, SavedMeanTail, SavedInvStd]
        }
        Entry::Train => &[Output, SavedMean, SavedMeanTail, SavedInvStd],
        Entry::Eval => &[Output],
        Entry::EvalInPlace => &[Values],
        Entry::Backward => &[GradInput, GradResidual, GradWeight, GradBias],
        Entry::BackwardInPlace => &[Values, GradResidual, GradWeight, GradBias],
        Entry::Moments => &[Moments],
        Entry::Finish if case.shape.is_empty() => &[SavedMean, SavedMeanTail, SavedInvStd],
        Entry::Finish if case.has_running => {
            &[RunningMean, RunningMeanTail, RunningVar, SavedMean, SavedMeanTail, SavedInvStd]
        }
        Entry::Finish => &[SavedMean, SavedMeanTail, SavedInvStd],
        Entry::Apply => &[Output],
        Entry::Reduce => &[Sums],
        Entry::FinishGradients => &[GradWeight, GradBias],
        Entry::ApplyGradient => &[GradInput, GradResidual],
    }
}
