//! PReLU after the phases of a layer without an activation, top to bottom.
//!
//! Dropout may come before PReLU as well as after it: `act(s*z) = s*act(z)` for a scale `s` above 0, and
//! `act(0) = 0`. So the forward call is that of a layer without an activation, dropout included, whose
//! output `y` is then changed in place. The backward call computes `y` again, into the place of `dx`, and
//! makes there of `y` and `dy` the gradient by which a layer without an activation is differentiated.
//!
//! Where tensors may be halves, `y` is f32 in scratch, so that only results are rounded.

use core::marker::PhantomData;

use crate::activation::Formula;
use crate::args::{Dropout, ParameterGradients, Parameters, Running, Statistics};
use crate::channel::Normalisation;
use crate::parts::sums_len;
use crate::pass::prelu::{self, Forward, Gradient, Prelu, Put, Slopes, WithoutInfinity};
use crate::phase::Phases;
use crate::plan::{BackwardCall, ForwardCall, Gradients, Phase, Plan, TrainCall};
use crate::simd::{LANES, singles_mut};
use crate::slices::take_front;
#[cfg(feature = "half-precision")]
use crate::storage::Mixed;
use crate::storage::{Singles, Storage};

/// The number of f64 values of scratch of a backward call: the sums and three f32 constants for each
/// channel, and the scratch of the phases.
pub(crate) const fn scratch_len(plan: &Plan) -> usize {
    let (eval, backward) = (plan.eval_scratch_len(), plan.backward_scratch_len());
    let channels = plan.shape.channels();
    let own = sums_len(channels).saturating_add(constants_len(channels));
    own.saturating_add(if eval > backward { eval } else { backward })
}

/// The number of f64 values that have room for three f32 for each channel.
const fn constants_len(channels: usize) -> usize {
    channels.saturating_mul(2)
}

/// The number of f64 values that have room for all elements as f32.
pub(crate) const fn room_len(plan: &Plan) -> usize {
    plan.shape.len().div_ceil(2)
}

/// The phases of calls with PReLU, with tensors of one family and arguments that have been checked. As
/// in [`Phases`], no function is generic.
pub(crate) trait PreluPhases: Phases {
    fn train_prelu(plan: &Plan, call: TrainCall<'_, Self>, slopes: &[f32]);
    /// With given statistics.
    fn forward_prelu(plan: &Plan, call: ForwardCall<'_, Self>, slopes: &[f32]);
    /// With a tensor for `dx`.
    fn backward_prelu(plan: &Plan, call: BackwardCall<'_, Self>, slopes: &[f32], grad_slope: Option<&mut [f32]>);
}

macro_rules! phases {
    ($storage:ty) => {
        impl PreluPhases for $storage {
            fn train_prelu(plan: &Plan, call: TrainCall<'_, Self>, slopes: &[f32]) {
                train(plan, call, slopes);
            }

            fn forward_prelu(plan: &Plan, call: ForwardCall<'_, Self>, slopes: &[f32]) {
                forward(plan, call, slopes);
            }

            fn backward_prelu(
                plan: &Plan,
                call: BackwardCall<'_, Self>,
                slopes: &[f32],
                grad_slope: Option<&mut [f32]>,
            ) {
                backward(plan, call, slopes, grad_slope);
            }
        }
    };
}
phases!(Singles);
#[cfg(feature = "half-precision")]
phases!(Mixed);

/// The room for `y` before PReLU at the front of scratch, empty unless the tensors may be halves, and the
/// rest of scratch.
fn room<'a, T: Storage>(plan: &Plan, mut scratch: &'a mut [f64]) -> (&'a mut [f32], &'a mut [f64]) {
    let len = if T::DIRECT { 0 } else { plan.shape.len() };
    let room = singles_mut(take_front(&mut scratch, len.div_ceil(2)));
    (room.get_mut(..len).unwrap_or_default(), scratch)
}

#[inline(always)]
fn train<T: Phases>(plan: &Plan, call: TrainCall<'_, T>, slopes: &[f32]) {
    let TrainCall { parameters, running, dropout, input, residual, mut output, saved, scratch } = call;
    let (room, scratch) = room::<T>(plan, scratch);
    let values = match T::singles(&mut output) {
        Some(values) => values,
        None => &mut *room,
    };
    let linear = TrainCall::<T> {
        parameters,
        running,
        dropout,
        input: T::shorter(input),
        residual: residual.map(|residual| T::shorter(residual)),
        output: T::of_mut(&mut *values),
        saved,
        scratch,
    };
    T::train(plan, &Formula::OPEN, linear);
    activate(plan, slopes, values);
    if !T::DIRECT {
        put::<T>(plan, room, output);
    }
}

#[inline(always)]
fn forward<T: Phases>(plan: &Plan, call: ForwardCall<'_, T>, slopes: &[f32]) {
    let ForwardCall { normalisation, dropout, residual, input, mut output, scratch } = call;
    let (room, scratch) = room::<T>(plan, scratch);
    if let Some(values) = T::singles(&mut output) {
        linear::<T>(plan, &normalisation, dropout, residual, input, values, scratch);
        return activate(plan, slopes, values);
    }
    // In a call in place the halves of `output` are the input: they stay until `y` is put there.
    let input = Some(input.map_or(T::as_ref(&output), |input| T::shorter(input)));
    linear::<T>(plan, &normalisation, dropout, residual, input, room, scratch);
    activate(plan, slopes, room);
    put::<T>(plan, room, output);
}

/// Writes `y` before PReLU, as f32, to `values`.
#[inline(always)]
fn linear<T: Phases>(
    plan: &Plan,
    normalisation: &Normalisation<'_>,
    dropout: Dropout<'_>,
    residual: Option<T::Ref<'_>>,
    input: Option<T::Ref<'_>>,
    values: &mut [f32],
    scratch: &mut [f64],
) {
    let mut call = ForwardCall::<T> {
        normalisation: *normalisation,
        dropout,
        residual: residual.map(|residual| T::shorter(residual)),
        input: input.map(|input| T::shorter(input)),
        output: T::of_mut(values),
        scratch,
    };
    match normalisation.statistics {
        Statistics::Prepared(_) => T::forward_prepared(plan, &Formula::OPEN, &mut call),
        Statistics::Batch(_) | Statistics::Fixed(_) => T::forward(plan, &Formula::OPEN, &mut call),
    }
}

/// PReLU of a tensor, in place.
pub(crate) fn activate(plan: &Plan, slopes: &[f32], values: &mut [f32]) {
    elementwise::<Singles, Forward>(plan, slopes, &[], values);
}

/// Turns `values`, which are `y` before PReLU, into the gradient of `y`, and writes the gradient of the
/// slopes. `grad_output` is `dy`.
pub(crate) fn differentiate<T: Phases>(
    plan: &Plan,
    slopes: &[f32],
    grad_output: T::Ref<'_>,
    values: &mut [f32],
    grad_slope: Option<&mut [f32]>,
    scratch: &mut [f64],
) {
    if let Some(grad_slope) = grad_slope {
        sum::<T>(plan, grad_output, values, grad_slope, scratch);
    }
    elementwise::<T, Gradient>(plan, slopes, grad_output, values);
}

/// The sums of `y*dy` where `y` is below 0. They are the gradient of the weight of a layer with ReLU that
/// normalises `y` with the mean 0, the variance 1 and the weight -1. So they are summed like all sums of
/// gradients.
fn sum<T: Phases>(
    plan: &Plan,
    grad_output: T::Ref<'_>,
    values: &mut [f32],
    grad_slope: &mut [f32],
    mut scratch: &mut [f64],
) {
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
        let mut call = BackwardCall::<T> {
            normalisation,
            dropout: Dropout::Off,
            phase: Phase::Reduce(sums),
            input: T::of(values),
            residual: None,
            gradients: Gradients::new(Some(T::shorter(grad_output)), None, None),
            grad_parameters: ParameterGradients::default(),
            scratch: &mut *scratch,
        };
        T::backward(plan, &Formula::RELU, &mut call);
    };
    reduce(values, sums);
    put_sums(channels, sums, grad_slope, |_| true);
    if grad_slope.iter().any(|gradient| gradient.is_nan()) {
        // `y` may be infinite although the numbers that it was made of are finite. The product of such a
        // `y` with 0 is NaN, and so is the sum of two infinite products of different signs.
        elementwise::<Singles, WithoutInfinity>(plan, &[0.0], &[], values);
        reduce(values, sums);
        put_sums(channels, sums, grad_slope, f32::is_nan);
    }
}

/// Writes the second of the two sums of each channel into its gradient, where `replaces` is true of the
/// gradient.
#[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
fn put_sums(channels: usize, sums: &[f64], grad_slope: &mut [f32], replaces: impl Fn(f32) -> bool) {
    let sums = sums.get(channels..).unwrap_or_default();
    match grad_slope {
        [one] if replaces(*one) => *one = sums.iter().sum::<f64>() as f32,
        [_] => {}
        grad_slope => {
            for (gradient, &sum) in grad_slope.iter_mut().zip(sums).filter(|(gradient, _)| replaces(**gradient)) {
                *gradient = sum as f32;
            }
        }
    }
}

#[inline(always)]
fn backward<T: Phases>(plan: &Plan, call: BackwardCall<'_, T>, slopes: &[f32], grad_slope: Option<&mut [f32]>) {
    let BackwardCall { normalisation, dropout, phase, input, residual, gradients, grad_parameters, scratch } = call;
    let Gradients { target, grad_output, mut output, mut grad_residual } = gradients;
    let (room, scratch) = room::<T>(plan, scratch);
    let values = match T::singles(&mut output) {
        Some(values) => values,
        None => &mut *room,
    };
    linear::<T>(plan, &normalisation, dropout, residual, Some(input), values, &mut *scratch);
    let grad_output = grad_output.unwrap_or(T::of::<f32>(&[]));
    differentiate::<T>(plan, slopes, grad_output, values, grad_slope, &mut *scratch);
    let mut call = BackwardCall::<T> {
        normalisation,
        dropout,
        phase,
        input: T::shorter(input),
        // Without an activation no gradient depends on the residual.
        residual: None,
        gradients: Gradients {
            target,
            grad_output: if T::DIRECT { None } else { Some(T::of(&*room)) },
            output: T::reborrow(&mut output),
            grad_residual: grad_residual.as_mut().map(|gradient| T::reborrow(gradient)),
        },
        grad_parameters,
        scratch,
    };
    T::backward(plan, &Formula::OPEN, &mut call);
}

/// Changes all values, in tasks. `other` is a whole tensor, if it is read.
fn elementwise<T: Storage, F: prelu::Formula>(plan: &Plan, slopes: &[f32], other: T::Ref<'_>, values: &mut [f32]) {
    let (tasks, slopes) = (plan.tasks(), Slopes::new(plan.shape, slopes));
    let step = step(plan, slopes.unit().max(1));
    tasks.each(values.chunks_mut(step).enumerate(), |(number, values)| {
        let first = number * step;
        tasks.run(Prelu::<T, F> { formula: PhantomData, slopes, first, other: T::shorter(other), values });
    });
}

/// Rounds all values to the elements of a tensor, in tasks.
fn put<'a, T: Storage>(plan: &Plan, values: &'a [f32], mut to: T::Mut<'a>) {
    let tasks = plan.tasks();
    let each =
        values.chunks(step(plan, LANES)).map(|values| Put::<T> { values, to: T::take_front(&mut to, values.len()) });
    tasks.each(each, |put| tasks.run(put));
}

/// The elements of a task, a multiple of `unit`. Inlined, so that it is seen not to be 0.
#[inline(always)]
fn step(plan: &Plan, unit: usize) -> usize {
    let len = plan.shape.len();
    let units = len.div_ceil(unit);
    (units.div_ceil(plan.tasks().for_elements(len)) * unit).max(1)
}
