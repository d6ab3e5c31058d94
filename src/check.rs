//! The checks of every length and every range, before a call reads or writes anything. When one of
//! these functions returns an error, its call has touched nothing.

use crate::activation::Formula;
use crate::args::{
    Average, Dropout, Eval, Finish, Masked, ParameterGradients, Parameters, Prepare, Running, RunningMut, Saved,
    Statistics, Train, Validity,
};
use crate::channel::Normalisation;
use crate::config::{Granularity, RunningVariance};
use crate::error::{Buffer, Error, check_len};
use crate::mask::mask_len;
use crate::padding::{self, Positions};
use crate::parts::{moments_len, sums_len};
use crate::phase::{masked, prelu};
use crate::plan::{BackwardCall, ForwardCall, Gradients, MomentsCall, Phase, Plan, Target, TrainCall};
use crate::prepared::{self, prepared_len};
use crate::storage::{Singles, Storage};

/// Checks a training call.
pub(crate) fn train<T: Storage>(plan: &Plan, call: &TrainCall<'_, T>, has_gates: bool) -> Result<(), Error> {
    parameters(plan, call.parameters)?;
    running_mut(plan, call.running.as_ref())?;
    // The mask in gates is checked with the gates.
    if !has_gates || !matches!(call.dropout, Dropout::InGates) {
        said_dropout(plan, call.dropout)?;
    }
    elements(plan, Buffer::Input, T::len(call.input))?;
    optional_elements::<T>(plan, Buffer::Residual, call.residual)?;
    elements(plan, Buffer::Output, T::len_mut(&call.output))?;
    saved(plan, call.saved.as_saved())?;
    scratch(plan.train_scratch_len(), call.scratch.len())?;
    batch_statistics(plan)?;
    if plan.shape.is_empty() { Ok(()) } else { update(plan, call.running.as_ref(), &[plan.shape.samples() as f64]) }
}

/// Checks a training call over the valid positions of a padded batch.
pub(crate) fn train_masked(plan: &Plan, call: &Train<'_>, masked: &Masked<'_>, has_gates: bool) -> Result<(), Error> {
    parameters(plan, call.parameters)?;
    running_mut(plan, call.running.as_ref())?;
    // The mask in gates is checked with the gates.
    if !has_gates || !matches!(call.dropout, Dropout::InGates) {
        said_dropout(plan, call.dropout)?;
    }
    elements(plan, Buffer::Input, call.input.len())?;
    optional_elements::<Singles>(plan, Buffer::Residual, call.residual)?;
    elements(plan, Buffer::Output, call.output.len())?;
    saved(plan, call.saved.as_saved())?;
    let valid = valid_positions(plan, masked, call.scratch.len())?;
    batch_statistics_of(plan, valid)?;
    if valid == 0 { Ok(()) } else { update(plan, call.running.as_ref(), &[valid as f64]) }
}

/// Checks a forward call with fixed statistics over the valid positions of a padded batch.
pub(crate) fn eval_masked(plan: &Plan, call: &Eval<'_>, masked: &Masked<'_>, has_gates: bool) -> Result<(), Error> {
    parameters(plan, call.parameters)?;
    running(plan, call.running)?;
    // The mask in gates is checked with the gates.
    if !has_gates || !matches!(call.dropout, Dropout::InGates) {
        dropout(plan, call.dropout)?;
    }
    elements(plan, Buffer::Input, call.input.len())?;
    optional_elements::<Singles>(plan, Buffer::Residual, call.residual)?;
    elements(plan, Buffer::Output, call.output.len())?;
    let valid = valid_positions(plan, masked, call.scratch.len())?;
    if valid == 0 { Ok(()) } else { each_deviation(plan, call.running.var) }
}

/// Checks a backward call over the valid positions of a padded batch.
pub(crate) fn backward_masked(
    plan: &Plan,
    formula: &Formula,
    call: &BackwardCall<'_, Singles>,
    masked: &Masked<'_>,
) -> Result<(), Error> {
    gradients(plan, &call.gradients)?;
    prepared(plan, call.normalisation.statistics)?;
    parameters(plan, call.normalisation.parameters)?;
    match call.normalisation.statistics {
        Statistics::Batch(batch) => saved(plan, batch)?,
        Statistics::Fixed(fixed) => running(plan, fixed)?,
        Statistics::Prepared(_) => {}
    }
    backward_dropout(plan, formula, call)?;
    elements(plan, Buffer::Input, call.input.len())?;
    optional_elements::<Singles>(plan, Buffer::Residual, call.residual)?;
    parameter_gradients(plan, &call.grad_parameters)?;
    let valid = valid_positions(plan, masked, call.scratch.len())?;
    match call.normalisation.statistics {
        Statistics::Batch(_) => batch_statistics_of(plan, valid),
        Statistics::Fixed(fixed) if valid != 0 => each_deviation(plan, fixed.var),
        Statistics::Fixed(_) | Statistics::Prepared(_) => Ok(()),
    }
}

/// Checks which positions are valid, and the memory that a call over them needs; returns their
/// number.
fn valid_positions(plan: &Plan, masked: &Masked<'_>, scratch_len: usize) -> Result<usize, Error> {
    match (masked.validity, padding::sequences(plan.shape)) {
        (Validity::Lengths(lengths), _) => sequences(plan, lengths)?,
        (Validity::Bitmap(bits), Some(_)) => {
            check_len(Buffer::Validity, mask_len(plan.shape.samples()), bits.len())?;
        }
        (Validity::Bitmap(_), None) => {}
    }
    scratch(masked::scratch_len(plan), scratch_len)?;
    let (expected, actual) = (masked::workspace_len(plan.shape), masked.workspace.len());
    if actual < expected {
        return Err(Error::Length { buffer: Buffer::Workspace, expected, actual });
    }
    Ok(Positions::valid(plan.shape, masked.validity).count())
}

/// Checks the statistics of a call, if they are prepared.
pub(crate) fn prepared(plan: &Plan, statistics: Statistics<'_>) -> Result<(), Error> {
    match statistics {
        Statistics::Prepared(values) => prepared::check(plan.shape.channels(), values),
        Statistics::Batch(_) | Statistics::Fixed(_) => Ok(()),
    }
}

/// Checks a call that prepares fixed statistics.
pub(crate) fn prepare(plan: &Plan, call: &Prepare<'_>) -> Result<(), Error> {
    parameters(plan, call.parameters)?;
    running(plan, call.running)?;
    check_len(Buffer::Prepared, prepared_len(plan.shape.channels()), call.prepared.len())?;
    each_deviation(plan, call.running.var)
}

/// Checks a forward call with given statistics.
#[inline(always)]
pub(crate) fn forward<T: Storage, const GATES: bool>(plan: &Plan, call: &ForwardCall<'_, T>) -> Result<(), Error> {
    normalisation(plan, &call.normalisation)?;
    // The mask in gates is checked with the gates.
    if !GATES || !matches!(call.dropout, Dropout::InGates) {
        dropout_with(plan, call.dropout, call.normalisation.statistics)?;
    }
    optional_elements::<T>(plan, Buffer::Input, call.input)?;
    optional_elements::<T>(plan, Buffer::Residual, call.residual)?;
    let output = if call.input.is_some() { Buffer::Output } else { Buffer::Values };
    elements(plan, output, T::len_mut(&call.output))?;
    scratch(plan.eval_scratch_len(), call.scratch.len())
}

/// [`forward`] in a function of its own, so that its stack is free again when the call itself needs
/// stack.
#[inline(never)]
pub(crate) fn forward_apart<T: Storage>(plan: &Plan, call: &ForwardCall<'_, T>) -> Result<(), Error> {
    forward::<T, false>(plan, call)
}

/// Checks a backward call.
pub(crate) fn backward<T: Storage>(plan: &Plan, formula: &Formula, call: &BackwardCall<'_, T>) -> Result<(), Error> {
    gradients(plan, &call.gradients)?;
    match &call.phase {
        Phase::Whole => {}
        Phase::Reduce(sums) => check_len(Buffer::Sums, sums_len(plan.shape.channels()), sums.len())?,
        Phase::Apply { sums, .. } => check_len(Buffer::Sums, sums_len(plan.shape.channels()), sums.len())?,
    }
    prepared(plan, call.normalisation.statistics)?;
    normalisation(plan, &call.normalisation)?;
    backward_dropout(plan, formula, call)?;
    elements(plan, Buffer::Input, T::len(call.input))?;
    optional_elements::<T>(plan, Buffer::Residual, call.residual)?;
    parameter_gradients(plan, &call.grad_parameters)?;
    scratch(plan.backward_scratch_len(), call.scratch.len())?;
    match call.normalisation.statistics {
        Statistics::Batch(_) => batch_statistics(plan)?,
        Statistics::Fixed(_) | Statistics::Prepared(_) => {}
    }
    match call.phase {
        Phase::Apply { samples, .. } if !plan.shape.is_empty() => count(0, samples),
        _ => Ok(()),
    }
}

/// The tensors of a backward call under the names that its caller knows.
fn gradients<T: Storage>(plan: &Plan, gradients: &Gradients<'_, T>) -> Result<(), Error> {
    optional_elements::<T>(plan, Buffer::GradOutput, gradients.grad_output)?;
    match (gradients.target, gradients.grad_output) {
        (Target::Nothing, _) => {}
        (Target::Input, Some(_)) => elements(plan, Buffer::GradInput, T::len_mut(&gradients.output))?,
        (Target::Input, None) => elements(plan, Buffer::Values, T::len_mut(&gradients.output))?,
        (Target::Residual, _) => elements(plan, Buffer::GradResidual, T::len_mut(&gradients.output))?,
    }
    match &gradients.grad_residual {
        Some(tensor) => elements(plan, Buffer::GradResidual, T::len_mut(tensor)),
        None => Ok(()),
    }
}

/// Checks a call that computes the moments of a part of a batch.
pub(crate) fn moments<T: Storage>(plan: &Plan, call: &MomentsCall<'_, T>) -> Result<(), Error> {
    elements(plan, Buffer::Input, T::len(call.input))?;
    check_len(Buffer::Moments, moments_len(plan.shape.channels()), call.moments.len())?;
    scratch(plan.train_scratch_len(), call.scratch.len())
}

/// Checks a call that finishes the moments of a batch.
pub(crate) fn finish(plan: &Plan, call: &Finish<'_>) -> Result<(), Error> {
    check_len(Buffer::Moments, moments_len(plan.shape.channels()), call.moments.len())?;
    running_mut(plan, call.running.as_ref())?;
    saved(plan, call.saved.as_saved())?;
    let counts = call.moments.get(..plan.shape.channels()).unwrap_or_default();
    if counts.iter().all(|&count| count == 0.0) {
        return Ok(());
    }
    if plan.config.eps == 0.0 {
        return Err(Error::Eps { eps: plan.config.eps });
    }
    each_count(counts)?;
    update(plan, call.running.as_ref(), counts)
}

/// Checks that the mean and the variance of every channel that has values fit an f32.
pub(crate) fn finite_moments(plan: &Plan, moments: &[f64]) -> Result<(), Error> {
    let channels = plan.shape.channels();
    check_len(Buffer::Moments, moments_len(channels), moments.len())?;
    let (counts, rest) = moments.split_at_checked(channels).unwrap_or_default();
    let (means, m2s) = rest.split_at_checked(channels).unwrap_or_default();
    each_count(counts)?;
    let unbiased = plan.config.running_var == RunningVariance::Unbiased;
    let fits = |value: f64| value.abs() <= f64::from(f32::MAX);
    for (index, ((&count, &mean), &m2)) in counts.iter().zip(means).zip(m2s).enumerate() {
        let divisor = if unbiased && count > 1.0 { count - 1.0 } else { count };
        if count != 0.0 && !fits(mean) {
            return Err(Error::NotFinite { buffer: Buffer::RunningMean, index });
        }
        if count != 0.0 && !fits(m2 / divisor) {
            return Err(Error::NotFinite { buffer: Buffer::RunningVar, index });
        }
    }
    Ok(())
}

/// Checks a call that makes the gradients of the parameters from sums.
pub(crate) fn finish_gradients(plan: &Plan, sums: &[f64], gradients: &ParameterGradients<'_>) -> Result<(), Error> {
    check_len(Buffer::Sums, sums_len(plan.shape.channels()), sums.len())?;
    parameter_gradients(plan, gradients)
}

/// Checks a call that drops the padding of sequences from a mask.
pub(crate) fn drop_padding(plan: &Plan, lengths: &[usize], mask: &[u8]) -> Result<(), Error> {
    dropout(plan, Dropout::Mask(mask))?;
    match plan.config.granularity {
        Granularity::Element => sequences(plan, lengths),
        Granularity::Channel | Granularity::Sample => Err(Error::NotAnElementMask),
    }
}

/// Checks a call that multiplies a tensor by noise.
pub(crate) fn noise(plan: &Plan, values: &[f32]) -> Result<(), Error> {
    elements(plan, Buffer::Values, values.len())
}

/// Checks a call of alpha dropout, forward or backward.
pub(crate) fn alpha(plan: &Plan, mask: &[u8], values: &[f32]) -> Result<(), Error> {
    dropout(plan, Dropout::Mask(mask))?;
    elements(plan, Buffer::Values, values.len())
}

/// Checks the slopes of PReLU: one for each channel, or one for all.
pub(crate) fn slope(plan: &Plan, slope: &[f32]) -> Result<(), Error> {
    if slope.len() == 1 { Ok(()) } else { channels(plan, Buffer::Slope, slope.len()) }
}

/// Checks a call of PReLU in place.
pub(crate) fn prelu(plan: &Plan, slopes: &[f32], values: &[f32]) -> Result<(), Error> {
    slope(plan, slopes)?;
    elements(plan, Buffer::Values, values.len())
}

/// Checks the slopes of a backward call of PReLU, their gradient, if it is wanted, and scratch.
pub(crate) fn grad_slope(
    plan: &Plan,
    slopes: &[f32],
    grad_slope: Option<&[f32]>,
    scratch_len: usize,
) -> Result<(), Error> {
    slope(plan, slopes)?;
    if let Some(gradient) = grad_slope {
        check_len(Buffer::GradSlope, slopes.len(), gradient.len())?;
    }
    scratch(prelu::scratch_len(plan), scratch_len)
}

/// Checks that the scratch of a call with PReLU has room for `y` behind its first `needed` values, if
/// tensors may be halves.
pub(crate) fn prelu_room<T: Storage>(plan: &Plan, needed: usize, actual: usize) -> Result<(), Error> {
    if T::DIRECT { Ok(()) } else { scratch(needed.saturating_add(prelu::room_len(plan)), actual) }
}

/// Checks a call of the gradient of PReLU in place.
pub(crate) fn prelu_gradient(plan: &Plan, grad_output: &[f32], values: &[f32]) -> Result<(), Error> {
    elements(plan, Buffer::GradOutput, grad_output.len())?;
    elements(plan, Buffer::Values, values.len())
}

/// Checks a backward call of a layer with PReLU, which needs the place of `dx` for `z`, and no gates.
pub(crate) fn backward_prelu<T: Storage>(plan: &Plan, call: &BackwardCall<'_, T>) -> Result<(), Error> {
    if call.dropout.is_gates() {
        return Err(Error::GatesActivation);
    }
    backward(plan, &Formula::OPEN, call)?;
    match call.gradients.target {
        Target::Input => Ok(()),
        Target::Residual | Target::Nothing => elements(plan, Buffer::GradInput, 0),
    }
}

/// Checks a call that clears the padding of sequences in a tensor.
pub(crate) fn clear_padding(plan: &Plan, lengths: &[usize], values: usize) -> Result<(), Error> {
    elements(plan, Buffer::Values, values)?;
    sequences(plan, lengths)
}

/// Checks the lengths of sequences: one for each sequence, and none above the number of positions.
/// An empty tensor has no padding, so any lengths will do.
fn sequences(plan: &Plan, lengths: &[usize]) -> Result<(), Error> {
    let Some((samples, positions)) = padding::sequences(plan.shape) else { return Ok(()) };
    check_len(Buffer::Lengths, samples, lengths.len())?;
    match lengths.iter().enumerate().find(|&(_, &length)| length > positions) {
        Some((sample, &length)) => Err(Error::SequenceLength { sample, positions, length }),
        None => Ok(()),
    }
}

fn parameter_gradients(plan: &Plan, gradients: &ParameterGradients<'_>) -> Result<(), Error> {
    if let Some(weight) = &gradients.weight {
        channels(plan, Buffer::GradWeight, weight.len())?;
    }
    if let Some(bias) = &gradients.bias {
        channels(plan, Buffer::GradBias, bias.len())?;
    }
    Ok(())
}

fn parameters(plan: &Plan, parameters: Parameters<'_>) -> Result<(), Error> {
    parameters.check(plan.shape.channels())
}

fn running(plan: &Plan, running: Running<'_>) -> Result<(), Error> {
    running.check(plan.shape.channels())
}

fn running_mut(plan: &Plan, statistics: Option<&RunningMut<'_>>) -> Result<(), Error> {
    match statistics {
        Some(statistics) => running(plan, statistics.as_running()),
        None => Ok(()),
    }
}

fn normalisation(plan: &Plan, normalisation: &Normalisation<'_>) -> Result<(), Error> {
    parameters(plan, normalisation.parameters)?;
    match normalisation.statistics {
        Statistics::Batch(batch) => saved(plan, batch),
        Statistics::Fixed(fixed) => {
            running(plan, fixed)?;
            deviations(plan, fixed.var)
        }
        // The calls that take prepared statistics check them with `prepared`.
        Statistics::Prepared(_) => Ok(()),
    }
}

/// Checks that every running variance has a standard deviation, or is NaN. An empty tensor needs no
/// standard deviation.
fn deviations(plan: &Plan, running_var: &[f32]) -> Result<(), Error> {
    if plan.shape.is_empty() { Ok(()) } else { each_deviation(plan, running_var) }
}

/// [`deviations`], whether the tensor is empty or not.
fn each_deviation(plan: &Plan, running_var: &[f32]) -> Result<(), Error> {
    // `var + eps <= 0` without an addition, which could round or be flushed to 0.
    let lacks = |&(_, &var): &(usize, &f32)| var <= -plan.config.eps;
    match running_var.iter().enumerate().find(lacks) {
        Some((channel, &var)) => Err(Error::Variance { channel, var }),
        None => Ok(()),
    }
}

/// Checks the requirements of an update of the running statistics, except for lengths. An
/// exponential average needs a valid momentum. An average of the unbiased variance needs more than
/// one value in every channel that has values.
fn update(plan: &Plan, running: Option<&RunningMut<'_>>, counts: &[f64]) -> Result<(), Error> {
    let Some(running) = running else { return Ok(()) };
    let exponential = matches!(running.average, Average::Exponential);
    if exponential {
        plan.config.check_momentum()?;
    }
    let moves = !exponential || plan.config.momentum != 0.0;
    let unbiased = plan.config.running_var == RunningVariance::Unbiased;
    if moves && unbiased && counts.iter().any(|&count| count != 0.0 && count <= 1.0) {
        return Err(Error::SingleSample);
    }
    Ok(())
}

/// Checks the number of values in a channel.
fn count(channel: usize, count: f64) -> Result<(), Error> {
    if count > 0.0 && count < f64::INFINITY { Ok(()) } else { Err(Error::Count { channel, count }) }
}

/// Checks the counts of moments. A count may be 0.
fn each_count(counts: &[f64]) -> Result<(), Error> {
    let mut given = counts.iter().enumerate().filter(|&(_, &count)| count != 0.0);
    given.try_for_each(|(channel, &of_channel)| count(channel, of_channel))
}

fn saved(plan: &Plan, saved: Saved<'_>) -> Result<(), Error> {
    channels(plan, Buffer::SavedMean, saved.mean.len())?;
    channels(plan, Buffer::SavedMeanTail, saved.mean_tail.len())?;
    channels(plan, Buffer::SavedInvStd, saved.inv_std.len())
}

/// Checks the dropout of a call with `statistics`. A call with fixed or prepared statistics is an
/// evaluation, which drops nothing unless it is asked to.
fn dropout_with(plan: &Plan, call: Dropout<'_>, statistics: Statistics<'_>) -> Result<(), Error> {
    match statistics {
        Statistics::Batch(_) => said_dropout(plan, call),
        Statistics::Fixed(_) | Statistics::Prepared(_) => dropout(plan, call),
    }
}

/// Checks that a layer which is made to drop elements is told which elements to drop, or to drop none.
fn said_dropout(plan: &Plan, call: Dropout<'_>) -> Result<(), Error> {
    let p = plan.config.p;
    if matches!(call, Dropout::Unset) && p > 0.0 { Err(Error::DropoutUnset { p }) } else { dropout(plan, call) }
}

fn dropout(plan: &Plan, dropout: Dropout<'_>) -> Result<(), Error> {
    match dropout {
        Dropout::Unset | Dropout::Off => Ok(()),
        Dropout::Mask(mask) => check_len(Buffer::Mask, mask_len(plan.mask_bits()), mask.len()),
        Dropout::InGates | Dropout::Gates(_) | Dropout::UnscaledGates(_) => Err(Error::GatesDirection),
    }
}

/// Checks the dropout of a forward call that writes gates, and the activation's `formula`.
pub(crate) fn written_gates(plan: &Plan, formula: &Formula, call: Dropout<'_>, gates: &[u8]) -> Result<(), Error> {
    element_bits(plan, gates)?;
    match call {
        _ if formula.curve.is_some() => Err(Error::GatesActivation),
        Dropout::InGates if plan.mask_bits() != plan.shape.len() => Err(Error::GatesDirection),
        _ => Ok(()),
    }
}

/// Checks the dropout of a backward call whose activation has the formula `formula`.
fn backward_dropout<T: Storage>(plan: &Plan, formula: &Formula, call: &BackwardCall<'_, T>) -> Result<(), Error> {
    match call.dropout {
        Dropout::Gates(_) | Dropout::UnscaledGates(_) if formula.curve.is_some() => Err(Error::GatesActivation),
        Dropout::Gates(gates) | Dropout::UnscaledGates(gates) => element_bits(plan, gates),
        dropout => dropout_with(plan, dropout, call.normalisation.statistics),
    }
}

/// Checks the length of gates: a bit for each element.
fn element_bits(plan: &Plan, gates: &[u8]) -> Result<(), Error> {
    check_len(Buffer::Gates, mask_len(plan.shape.len()), gates.len())
}

/// Checks the requirements of batch statistics, except for lengths. An empty tensor has no
/// statistics and no requirements.
fn batch_statistics(plan: &Plan) -> Result<(), Error> {
    batch_statistics_of(plan, plan.shape.len())
}

/// [`batch_statistics`] of `values` values.
fn batch_statistics_of(plan: &Plan, values: usize) -> Result<(), Error> {
    if plan.config.eps == 0.0 && values != 0 {
        return Err(Error::Eps { eps: plan.config.eps });
    }
    Ok(())
}

fn elements(plan: &Plan, buffer: Buffer, actual: usize) -> Result<(), Error> {
    check_len(buffer, plan.shape.len(), actual)
}

fn optional_elements<T: Storage>(plan: &Plan, buffer: Buffer, tensor: Option<T::Ref<'_>>) -> Result<(), Error> {
    match tensor {
        Some(tensor) => elements(plan, buffer, T::len(tensor)),
        None => Ok(()),
    }
}

fn channels(plan: &Plan, buffer: Buffer, actual: usize) -> Result<(), Error> {
    check_len(buffer, plan.shape.channels(), actual)
}

const fn scratch(expected: usize, actual: usize) -> Result<(), Error> {
    if actual >= expected { Ok(()) } else { Err(Error::Length { buffer: Buffer::Scratch, expected, actual }) }
}
