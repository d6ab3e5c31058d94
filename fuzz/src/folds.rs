//! The target of folding.

use normdrop::{
    Buffer as Name, Error, Fold, Parameters, Running, WeightOrder, WeightShape, fold_into_next, fold_into_previous,
};
use normdrop_reference::fold::{self as reference_fold, BatchNorm, Dimension, Folded};
use normdrop_reference::layer::{self as reference, joined, widened};

use crate::bounds::{self, Comparison};
use crate::buffer::{Buffer, Place, same_bits};
use crate::case::{class_values, tails};
use crate::input::FoldInput;

/// The buffers of a call, in the order of their numbers in the inputs.
const NAMES: [Name; 7] = [
    Name::Weight,
    Name::Bias,
    Name::RunningMean,
    Name::RunningVar,
    Name::FoldWeights,
    Name::FoldBias,
    Name::RunningMeanTail,
];

/// A call whose every argument is decided.
struct Case {
    into_next: bool,
    shape: WeightShape,
    eps: f32,
    /// The buffers of [`NAMES`] with the lengths that they should have, but for those that are not given.
    values: [Option<Vec<f32>>; 7],
}

impl Case {
    fn new(input: &FoldInput) -> Self {
        let [outputs, inputs, taps] = input.dims.map(|dimension| usize::from(dimension % 17));
        let groups = usize::from(input.groups % 6);
        let (order, _) = ORDERS[usize::from(input.order) % ORDERS.len()];
        let (outputs, inputs) = (outputs * groups.max(1) + usize::from(input.uneven), inputs * groups.max(1));
        let shape = WeightShape { order, outputs, inputs, taps, groups };
        let channels = if input.into_next { inputs } else { outputs };
        let len = outputs * (inputs / groups.max(1)) * taps;
        let lengths = [channels, channels, channels, channels, len, outputs];
        let given = [input.has[0], input.has[1], true, true, true, input.has[2]];
        let values: [Option<Vec<f32>>; 6] = std::array::from_fn(|buffer| {
            given[buffer].then(|| class_values(&input.values[buffer], 0, lengths[buffer]))
        });
        let [weight, bias, mean, var, weights, fold_bias] = values;
        let mean_tail = mean.as_deref().filter(|_| input.has[3]).map(tails);
        let mut values = [weight, bias, mean, var, weights, fold_bias, mean_tail];
        if !input.negative_var {
            values[3].iter_mut().flatten().for_each(|var| *var = var.abs());
        }
        for poke in &input.pokes {
            let buffer = values[usize::from(poke.tensor) % NAMES.len()].as_mut();
            if let Some(buffer) = buffer.filter(|buffer| !buffer.is_empty()) {
                let index = usize::from(poke.index) % buffer.len();
                buffer[index] = f32::from_bits(poke.bits);
            }
        }
        Self { into_next: input.into_next, shape, eps: f32::from_bits(input.eps), values }
    }

    /// The exact result, where a bias that is missing counts as zeros.
    fn exact(&self) -> Folded {
        let values = self.values.each_ref().map(|values| values.as_deref().map(widened));
        let [weight, bias, _, var, weights, fold_bias, _] = &values;
        let mean = joined(self.values[2].as_deref().expect("it is always given"), self.values[6].as_deref());
        let given = |values: &Option<Vec<f64>>| values.clone().expect("it is always given");
        let batch_norm = BatchNorm {
            parameters: reference::Parameters { weight: weight.as_deref(), bias: bias.as_deref(), residual: None },
            mean: &mean,
            var: &given(var),
            eps: self.eps,
        };
        let WeightShape { order, outputs, inputs, taps, groups } = self.shape;
        let (_, order) = *ORDERS.iter().find(|(of_crate, _)| *of_crate == order).expect("all orders are there");
        let shape = reference_fold::WeightShape { order, outputs, inputs, taps, groups };
        let fold = if self.into_next { BatchNorm::fold_into_next } else { BatchNorm::fold_into_previous };
        fold(&batch_norm, shape, &given(weights), fold_bias.as_ref().unwrap_or(&vec![0.0; outputs]))
    }

    /// The shift of each channel and the sum of the magnitudes that it is the sum of.
    fn shifts(&self) -> Vec<(f64, f64)> {
        let shape = WeightShape { outputs: self.channels(), inputs: 0, taps: 0, groups: 1, ..self.shape };
        let mut zeros = Self { into_next: false, shape, eps: self.eps, values: self.values.clone() };
        (zeros.values[4], zeros.values[5]) = (Some(vec![]), None);
        let exact = zeros.exact();
        exact.bias.into_iter().zip(exact.bias_size).collect()
    }

    /// The channels of the batch norm.
    fn channels(&self) -> usize {
        if self.into_next { self.shape.inputs } else { self.shape.outputs }
    }

    fn groups_are_right(&self) -> bool {
        let WeightShape { outputs, inputs, groups, .. } = self.shape;
        groups > 0 && outputs % groups == 0 && inputs % groups == 0
    }

    /// Whether a channel has a standard deviation to divide by.
    fn has_deviation(&self, channel: usize) -> bool {
        let var = self.values[3].as_ref().expect("it is always given")[channel];
        f64::from(var) + f64::from(self.eps) > 0.0
    }

    /// Whether weight, bias and mean of a channel are finite.
    fn is_finite(&self, channel: usize) -> bool {
        self.values[..3].iter().chain(&self.values[6..]).flatten().all(|values| values[channel].is_finite())
    }
}

/// The orders, by their numbers in the inputs.
const ORDERS: [(WeightOrder, [Dimension; 3]); 6] = [
    (WeightOrder::OutInTaps, [Dimension::Out, Dimension::In, Dimension::Tap]),
    (WeightOrder::OutTapsIn, [Dimension::Out, Dimension::Tap, Dimension::In]),
    (WeightOrder::InOutTaps, [Dimension::In, Dimension::Out, Dimension::Tap]),
    (WeightOrder::InTapsOut, [Dimension::In, Dimension::Tap, Dimension::Out]),
    (WeightOrder::TapsInOut, [Dimension::Tap, Dimension::In, Dimension::Out]),
    (WeightOrder::TapsOutIn, [Dimension::Tap, Dimension::Out, Dimension::In]),
];

/// Whether a number may become infinite where it is rounded to an f32; the exact one and that of the crate may differ by
/// roundings of f64.
fn does_not_fit(exact: f64) -> bool {
    exact.abs() * (1.0 + 1e-12) >= f64::from(f32::MAX)
}

/// Folding in either direction.
pub(crate) fn fold(input: &FoldInput) {
    let case = Case::new(input);
    let len = |number: usize, right: usize| match input.wrong.by {
        by if usize::from(input.wrong.buffer) % NAMES.len() == number => right.saturating_add_signed(by.into()),
        _ => right,
    };
    let mut number = 0;
    let memory = case.values.each_ref().map(|values| {
        number += 1;
        let values = values.as_ref()?;
        let (right, place) = (values.len(), Place::new(input.guard, input.misalign, 17));
        Some((Buffer::new(values, len(number - 1, right), 0.5, place), right))
    });
    let before = memory.clone();
    let buffers = memory.map(|memory| memory.map(|(buffer, _)| buffer));
    let [weight, bias, mean, var, mut weights, mut fold_bias, mean_tail] = buffers;
    let call = Fold {
        parameters: Parameters { weight: weight.as_deref(), bias: bias.as_deref() },
        running: Running {
            mean: mean.as_deref().unwrap_or_default(),
            mean_tail: mean_tail.as_deref(),
            var: var.as_deref().unwrap_or_default(),
        },
        eps: case.eps,
        shape: case.shape,
        weights: weights.as_deref_mut().unwrap_or_default(),
        bias: fold_bias.as_deref_mut(),
    };
    let result = if case.into_next { fold_into_next(call) } else { fold_into_previous(call) };

    let wrong_length = |name: Name, expected: usize, actual: usize| {
        let number = NAMES.iter().position(|&other| other == name);
        number
            .and_then(|number| before[number].as_ref())
            .is_some_and(|(buffer, right)| (buffer.len(), *right) == (actual, expected) && actual != expected)
    };
    let right_lengths = before.iter().flatten().all(|(buffer, right)| buffer.len() == *right);
    match result {
        Ok(()) => {
            let eps_is_right = case.eps.is_finite() && case.eps >= 0.0;
            let mut channels = 0..case.channels();
            let right = right_lengths && eps_is_right && case.groups_are_right();
            assert!(
                right && channels.all(|channel| case.has_deviation(channel) && case.is_finite(channel)),
                "wrong arguments were accepted"
            );
        }
        Err(error) => {
            let refused = match error {
                Error::Length { buffer, expected, actual } => wrong_length(buffer, expected, actual),
                Error::Eps { eps } => eps.to_bits() == case.eps.to_bits() && !(case.eps.is_finite() && case.eps >= 0.0),
                Error::MissingBias { channel } => fold_bias.is_none() && case.shifts()[channel].0 != 0.0,
                Error::Groups { groups } => groups == case.shape.groups && !case.groups_are_right(),
                Error::NotFinite { buffer: Name::FoldWeights, index } => does_not_fit(case.exact().weights[index]),
                Error::NotFinite { buffer: Name::FoldBias, index } => does_not_fit(case.exact().bias[index]),
                Error::Variance { channel, .. } => !case.has_deviation(channel),
                Error::NotFinite {
                    buffer: Name::Weight | Name::Bias | Name::RunningMean | Name::RunningMeanTail,
                    index,
                } => !case.is_finite(index),
                _ => false,
            };
            assert!(refused, "{error:?}");
            for (buffer, number) in [(&weights, 4), (&fold_bias, 5)] {
                let before = before[number].as_ref().map(|(buffer, _)| &**buffer).unwrap_or_default();
                assert!(same_bits(buffer.as_deref().unwrap_or_default(), before), "a refused call wrote");
            }
            return;
        }
    }
    let has_weights = weights.as_ref().is_some_and(|weights| !weights.is_empty());
    if fold_bias.is_none() && (!case.into_next || has_weights) {
        // A shift that f64 cannot tell from 0 is none.
        for (channel, (shift, size)) in case.shifts().into_iter().enumerate() {
            assert!(shift.abs() <= 4.0 * f64::EPSILON * size, "the shift of channel {channel} is lost");
        }
    }

    for (after, number) in [(&weights, 4), (&fold_bias, 5)] {
        let before = before[number].iter().flat_map(|(buffer, _)| buffer.iter());
        let mut pairs = before.zip(after.iter().flat_map(|after| after.iter()));
        let spoilt = |(before, after): (&f32, &f32)| before.is_finite() && !after.is_finite();
        // The weights of an output reach its bias, finite or not.
        let of_weights =
            number == 5 && case.into_next && !case.values[4].iter().flatten().all(|value| value.is_finite());
        assert!(of_weights || !pairs.any(spoilt), "a finite value became infinite");
    }

    let exact = case.exact();
    let mut comparison = Comparison::new("fold weight", bounds::ROUNDED_ONCE);
    for (index, (&actual, expected)) in weights.iter().flat_map(|weights| weights.iter()).zip(exact.weights).enumerate()
    {
        comparison.add(index, actual.into(), expected, expected.abs(), 0.0);
    }
    let mut comparison = Comparison::new("fold bias", bounds::ROUNDED_ONCE);
    let roundings = f64::EPSILON * (4 + case.shape.inputs * case.shape.taps) as f64;
    for (index, &actual) in fold_bias.iter().flat_map(|bias| bias.iter()).enumerate() {
        let expected = exact.bias[index];
        comparison.add(index, actual.into(), expected, expected.abs(), roundings * exact.bias_size[index]);
    }
}
