//! PReLU after the phases of a layer without an activation, top to bottom.
//!
//! Dropout may come before PReLU as well as after it: `act(s*z) = s*act(z)` for a scale `s` above 0, and
//! `act(0) = 0`. So the forward call is that of a layer without an activation, dropout included, whose
//! output `y` is then changed in place. The backward call computes `y` again, into the place of `dx`, and
//! makes there of `y` and `dy` the gradient by which a layer without an activation is differentiated.

use core::marker::PhantomData;

use crate::activation::Formula;
use crate::args::{Dropout, ParameterGradients, Parameters, Running, Statistics};
use crate::channel::Normalisation;
use crate::parts::sums_len;
use crate::pass::prelu::{self, Forward, Gradient, Prelu, Slopes, WithoutInfinity};
use crate::phase::Phases;
use crate::plan::{BackwardCall, ForwardCall, Gradients, Phase, Plan};
use crate::simd::singles_mut;
use crate::slices::take_front;
use crate::storage::Singles;

/// The number of f64 values of scratch of a backward call: the sums and three f32 constants for each
/// channel, and what the phases need.
pub(crate) const fn scratch_len(plan: &Plan) -> usize {
    let (eval, backward) = (plan.eval_scratch_len(), plan.backward_scratch_len());
    let channels = plan.shape.channels();
    let own = sums_len(channels).saturating_add(constants_len(channels));
    own.saturating_add(if eval > backward { eval } else { backward })
}

/// The f64 values that have room for three f32 for each channel.
const fn constants_len(channels: usize) -> usize {
    channels.saturating_mul(2)
}

/// A forward call with given statistics whose arguments have been checked.
pub(crate) fn forward(plan: &Plan, call: ForwardCall<'_, Singles>, slopes: &[f32]) {
    let ForwardCall { normalisation, dropout, residual, input, output, scratch } = call;
    let mut linear = ForwardCall { normalisation, dropout, residual, input, output: &mut *output, scratch };
    Singles::forward(plan, &Formula::OPEN, &mut linear);
    activate(plan, slopes, output);
}

/// PReLU of a tensor, in place.
pub(crate) fn activate(plan: &Plan, slopes: &[f32], values: &mut [f32]) {
    elementwise::<Forward>(plan, slopes, &[], values);
}

/// From `y` before PReLU and `dy` to the gradient of `y`, in its place, and the gradient of the slopes.
pub(crate) fn differentiate(
    plan: &Plan,
    slopes: &[f32],
    grad_output: &[f32],
    values: &mut [f32],
    grad_slope: Option<&mut [f32]>,
    scratch: &mut [f64],
) {
    if let Some(grad_slope) = grad_slope {
        sum(plan, grad_output, values, grad_slope, scratch);
    }
    elementwise::<Gradient>(plan, slopes, grad_output, values);
}

/// The sums of `y*dy` where `y` is below 0: what the gradient of the weight is to a layer with ReLU that
/// normalises `y` with the mean 0, the variance 1 and the weight -1. So they are summed as all sums of
/// gradients are.
#[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
fn sum(plan: &Plan, grad_output: &[f32], values: &mut [f32], grad_slope: &mut [f32], mut scratch: &mut [f64]) {
    let channels = plan.shape.channels();
    let sums = take_front(&mut scratch, sums_len(channels));
    let constants = singles_mut(take_front(&mut scratch, constants_len(channels)));
    let mut constants = constants.chunks_exact_mut(channels.max(1));
    let [weight, mean, var] = [-1.0, 0.0, 1.0].map(|value| {
        let constants = constants.next().unwrap_or_default();
        constants.fill(value);
        &*constants
    });
    let normalisation = Normalisation {
        parameters: Parameters { weight: Some(weight), bias: None },
        statistics: Statistics::Fixed(Running::new(mean, var)),
        eps: 0.0,
        scale: 1.0,
    };
    let mut reduce = |values: &[f32], sums: &mut [f64]| {
        let mut call = BackwardCall::<Singles> {
            normalisation,
            dropout: Dropout::Off,
            phase: Phase::Reduce(sums),
            input: values,
            residual: None,
            gradients: Gradients::new(Some(grad_output), None, None),
            grad_parameters: ParameterGradients::default(),
            scratch: &mut *scratch,
        };
        Singles::backward(plan, &Formula::RELU, &mut call);
    };
    reduce(values, sums);
    if sums.iter().skip(channels).any(|sum| !sum.is_finite()) {
        // An infinite `y` is not below 0, but its product with 0 is NaN, and there may be one although all
        // that it was made of is finite.
        elementwise::<WithoutInfinity>(plan, &[0.0], &[], values);
        reduce(values, sums);
    }
    let sums = sums.get(channels..).unwrap_or_default();
    match grad_slope {
        [one] => *one = sums.iter().sum::<f64>() as f32,
        grad_slope => {
            for (gradient, &sum) in grad_slope.iter_mut().zip(sums) {
                *gradient = sum as f32;
            }
        }
    }
}

/// A backward call whose arguments have been checked, with a tensor for `dx`.
pub(crate) fn backward(plan: &Plan, call: BackwardCall<'_, Singles>, slopes: &[f32], grad_slope: Option<&mut [f32]>) {
    let BackwardCall { normalisation, dropout, phase, input, residual, gradients, grad_parameters, scratch } = call;
    let Gradients { target, grad_output, output, grad_residual } = gradients;
    let mut forward = ForwardCall::<Singles> {
        normalisation,
        dropout,
        residual,
        input: Some(input),
        output: &mut *output,
        scratch: &mut *scratch,
    };
    match normalisation.statistics {
        Statistics::Prepared(_) => Singles::forward_prepared(plan, &Formula::OPEN, &mut forward),
        Statistics::Batch(_) | Statistics::Fixed(_) => Singles::forward(plan, &Formula::OPEN, &mut forward),
    }
    differentiate(plan, slopes, grad_output.unwrap_or_default(), output, grad_slope, scratch);
    let gradients = Gradients { target, grad_output: None, output, grad_residual };
    // Without an activation no gradient depends on the residual.
    let residual = None;
    let mut linear =
        BackwardCall { normalisation, dropout, phase, input, residual, gradients, grad_parameters, scratch };
    Singles::backward(plan, &Formula::OPEN, &mut linear);
}

/// Changes all values, in tasks.
fn elementwise<F: prelu::Formula>(plan: &Plan, slopes: &[f32], other: &[f32], values: &mut [f32]) {
    if values.is_empty() {
        return;
    }
    let (tasks, slopes) = (plan.tasks(), Slopes::new(plan.shape, slopes));
    let unit = slopes.unit().max(1);
    let units = values.len().div_ceil(unit);
    let step = units.div_ceil(tasks.for_elements(values.len())) * unit;
    tasks.each(values.chunks_mut(step.max(1)).enumerate(), |(number, values)| {
        let first = number * step;
        tasks.run(Prelu::<F> { formula: PhantomData, slopes, first, other: prelu::from(other, first), values });
    });
}
