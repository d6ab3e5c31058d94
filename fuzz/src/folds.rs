//! The target of folding.

use normdrop::{
    Buffer as Name, Error, Fold, FoldPadding, Parameters, Running, Stored, WeightOrder, WeightShape, first_min_pooled,
    fold_into_next, fold_into_previous, fold_padding,
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

/// The values with which a folded network pads, and the channels that it min-pools.
fn padding(case: &Case, input: &FoldInput) {
    let of = |buffer: usize| case.values[buffer].as_deref();
    let parameters = Parameters { weight: of(0), bias: of(1) };
    let (mean, var) = (of(2).unwrap_or_default(), of(3).unwrap_or_default());
    let negative = |weight: &f32| weight.to_bits() >> 31 == 1 && !weight.is_nan() && weight.to_bits() << 1 != 0;
    assert_eq!(first_min_pooled(parameters), of(0).and_then(|weight| weight.iter().position(negative)));

    // The length of the weights is wrong in the fold, and that of the padding here.
    let wrong = if usize::from(input.wrong.buffer) % NAMES.len() == 4 { input.wrong.by.into() } else { 0 };
    let before = vec![0.5; case.channels().saturating_add_signed(wrong)];
    let mut padding = Buffer::new(&before, before.len(), 0.5, Place::new(input.guard, input.misalign, 17));
    let running = Running { mean, mean_tail: of(6), var };
    let result = fold_padding(FoldPadding { parameters, running, eps: case.eps, padding: &mut padding });
    let means = joined(mean, of(6));
    // `-c/a`, the sizes of its terms, and the shift `c` with the sizes of its.
    let exact = |channel: usize| {
        let [weight, bias] = [(0, 1.0), (1, 0.0)].map(|(buffer, missing)| of(buffer).map_or(missing, |of| of[channel]));
        let slope = f64::from(weight) / (f64::from(var[channel]) + f64::from(case.eps)).sqrt();
        let (mean, bias) = (means[channel], f64::from(bias));
        (mean - bias / slope, mean.abs() + (bias / slope).abs(), bias - mean * slope, bias.abs() + (mean * slope).abs())
    };
    let eps_is_right = case.eps.is_finite() && case.eps >= 0.0;
    let Err(error) = result else {
        assert!(eps_is_right && padding.len() == case.channels(), "wrong arguments were accepted");
        for (channel, &actual) in padding.iter().enumerate() {
            assert!(case.has_deviation(channel) && case.is_finite(channel) && actual.is_finite(), "channel {channel}");
            let (expected, size, shift, shift_size) = exact(channel);
            let allowed = 2.0_f64.powi(-24) * expected.abs() + 8.0 * f64::EPSILON * size + 2.0_f64.powi(-150);
            let no_shift = actual == 0.0 && shift.abs() <= 8.0 * f64::EPSILON * shift_size;
            let near = (f64::from(actual) - expected).abs() <= allowed * (1.0 + 1e-9);
            assert!(no_shift || near, "channel {channel} is padded with {actual} instead of {expected}");
        }
        return;
    };
    let refused = match error {
        Error::Length { .. } => padding.len() != case.channels(),
        Error::Eps { .. } => !eps_is_right,
        Error::Variance { channel, .. } => !case.has_deviation(channel),
        // The division by a slope of 0 is no number, either.
        Error::NotFinite { buffer: Name::FoldPadding, index } => {
            !exact(index).0.is_finite() || does_not_fit(exact(index).0)
        }
        Error::NotFinite { index, .. } => !case.is_finite(index),
        _ => false,
    };
    assert!(refused, "{error:?}");
    assert!(same_bits(&padding, &before), "a refused call wrote");
}

/// Statistics in the forms of other programs: the mean and the variance of the case, whatever they are.
fn stored(case: &Case) {
    let (means, spreads) =
        (case.values[2].as_deref().unwrap_or_default(), case.values[3].as_deref().unwrap_or_default());
    let factor = case.values[0].iter().flatten().next().copied().unwrap_or(3.0);
    let eps = case.eps;
    let wide = f64::from;
    for stored in
        [Stored::EpsOutside { eps }, Stored::Deviation, Stored::InverseDeviation, Stored::Sums { factor, eps }]
    {
        let sums = matches!(stored, Stored::Sums { .. });
        let divided = |value: f32| match factor {
            0.0 => 0.0,
            _ => wide(value) / wide(factor),
        };
        // The exact variance, and whether the form allows the stored number.
        let exact = |spread: f32| match stored {
            Stored::EpsOutside { eps } => {
                ((wide(spread).sqrt() + wide(eps)).powi(2), spread > 0.0 || spread == 0.0 && eps > 0.0)
            }
            Stored::Deviation => (wide(spread).powi(2), spread > 0.0),
            Stored::InverseDeviation => (wide(spread).powi(-2), spread >= 0.0),
            _ => (divided(spread), true),
        };
        let lost = |exact: f64| !sums && exact.abs() <= 2.0_f64.powi(-150) * (1.0 + 1e-9);
        let (mut mean, mut var) = (means.to_vec(), spreads.to_vec());
        match stored.into_running(&mut mean, &mut var) {
            Ok(returned) => {
                assert_eq!(returned.to_bits(), if sums { eps.to_bits() } else { 0 });
                for (channel, (&actual, &spread)) in var.iter().zip(spreads).enumerate() {
                    let (expected, allowed) = exact(spread);
                    let expected_mean = if sums { divided(means[channel]) } else { wide(means[channel]) };
                    assert!(allowed || spread.is_nan(), "{stored:?} took {spread}");
                    for (actual, expected) in [(actual, expected), (mean[channel], expected_mean)] {
                        let bound = 2.0_f64.powi(-24) * expected.abs() * (1.0 + 1e-6) + 2.0_f64.powi(-150);
                        let same = actual.is_nan() && expected.is_nan() || wide(actual) == expected;
                        assert!(
                            same || (wide(actual) - expected).abs() <= bound,
                            "{stored:?}, channel {channel}: {actual} instead of {expected}"
                        );
                    }
                }
            }
            Err(error) => {
                let refused = match error {
                    Error::Eps { .. } => !(eps.is_finite() && eps >= 0.0),
                    Error::Variance { channel, .. } => !exact(spreads[channel]).1,
                    Error::NotFinite { buffer: Name::RunningVar, index } => {
                        let (exact, _) = exact(spreads[index]);
                        sums && !factor.is_finite() || does_not_fit(exact) || lost(exact)
                    }
                    Error::NotFinite { buffer: Name::RunningMean, index } => {
                        sums && does_not_fit(divided(means[index]))
                    }
                    _ => false,
                };
                assert!(refused, "{stored:?}: {error:?}");
                assert!(same_bits(&mean, means) && same_bits(&var, spreads), "a refused call wrote");
            }
        }
    }
}

/// Folding in either direction, and what belongs to it.
pub(crate) fn fold(input: &FoldInput) {
    let case = Case::new(input);
    padding(&case, input);
    stored(&case);
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
