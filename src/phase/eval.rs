//! Forward with given statistics, top to bottom. For each group of channels: its coefficients, then
//! its output.

use crate::activation::Formula;
use crate::args::Dropout;
use crate::bits::WrittenGates;
use crate::pass::apply::{self, Apply, GroupCoefficients, folded_scale};
use crate::pass::channelwise::{Channel, channels};
use crate::pass::keep::Gates;
use crate::pass::table;
use crate::plan::{ForwardCall, Plan};
use crate::simd::CHANNELWISE;
use crate::storage::Storage;

/// Runs a forward call with prepared statistics whose arguments have been checked.
#[inline(always)]
pub(crate) fn run_prepared<T: Storage>(plan: &Plan, formula: &Formula, call: &mut ForwardCall<'_, T>) {
    if CHANNELWISE { channelwise_prepared(plan, formula, call) } else { run::<T, false>(plan, formula, call, None) }
}

/// [`run`] of prepared statistics, channel by channel. It is a function of its own, so that a program
/// without prepared statistics has no code for them.
#[inline(never)]
fn channelwise_prepared<T: Storage>(plan: &Plan, formula: &Formula, call: &mut ForwardCall<'_, T>) {
    let ForwardCall { normalisation, dropout, residual, input, output, .. } = call;
    let gates = plan.gates_of(*dropout);
    let Some((gates, scale)) = &gates else {
        T::clear(output);
        return;
    };
    T::begin(*input, output);
    let input = T::left(*input);
    normalisation.scale = folded_scale(formula, residual.is_some(), *scale);
    let Some(scaled) = normalisation.scaled() else { return };
    if let (Gates::Open, None, None, Some(prepared)) = (gates, *residual, &formula.curve, scaled.only_in_f32())
        && let Some(output) = T::singles(output)
    {
        return apply::plain(prepared, plan.shape, formula.lower, output);
    }
    let apply = Apply::<T> {
        formula,
        normalisation,
        residual: residual.map(|residual| T::shorter(residual)),
        keep: gates.keep(*scale),
    };
    for channel in channels(plan.shape) {
        Channel::with(&apply, channel, scaled.of_channel(channel)).forward(plan.shape, input, output);
    }
}

/// Runs a forward call with given statistics whose arguments have been checked. It is not inlined
/// into the function that sets the floating-point environment. Without `GATES` there is no code for
/// gates on small targets.
#[inline(never)]
pub(crate) fn run<T: Storage, const GATES: bool>(
    plan: &Plan,
    formula: &Formula,
    call: &mut ForwardCall<'_, T>,
    written_to: Option<&mut [u8]>,
) {
    let ForwardCall { normalisation, dropout, residual, input, output, scratch } = call;
    let (residual, input) = (*residual, *input);
    let gates = plan.gates_of(*dropout);
    let Some((gates, scale)) = &gates else {
        T::clear(output);
        if GATES {
            close(written_to);
        }
        return;
    };
    let mut written = if GATES { written_gates(plan, *dropout, written_to) } else { None };
    let keep = gates.keep(*scale);
    normalisation.scale = folded_scale(formula, residual.is_some(), keep.scale);
    let normalisation = &*normalisation;
    let apply = Apply::<T> { formula, normalisation, residual: residual.map(|residual| T::shorter(residual)), keep };
    if CHANNELWISE {
        T::begin(input, output);
        let input = T::left(input);
        for channel in channels(plan.shape) {
            let channel = Channel::new(&apply, channel);
            match &mut written {
                Some(gates) if GATES => channel.forward_with_gates(plan.shape, input, output, gates),
                _ => channel.forward(plan.shape, input, output),
            }
        }
        return;
    }
    let (tasks, walk) = (plan.tasks(), &plan.walk());
    for group in walk.groups(usize::MAX, tasks.count) {
        let table = match apply::prepared_table(normalisation, group) {
            Some(table) => table,
            None => {
                let table = table(&mut &mut **scratch, group.tiles());
                tasks.run(GroupCoefficients { normalisation, group, table });
                table
            }
        };
        let gates = written.as_mut().map(WrittenGates::reborrow);
        apply::elements(tasks, walk, group, &apply, table, input, (T::reborrow(output), gates));
    }
}

/// Clears the gates of a call that drops every element, if it writes gates.
pub(crate) fn close(gates: Option<&mut [u8]>) {
    gates.unwrap_or_default().fill(0);
}

/// The gates that a forward call writes, or `None` if it writes none. Its tensor is not empty.
pub(crate) fn written_gates<'a>(
    plan: &Plan,
    dropout: Dropout<'_>,
    gates: Option<&'a mut [u8]>,
) -> Option<WrittenGates<'a>> {
    let bytes = gates?;
    // The last byte may have bits that belong to no element.
    if let (Some(last), used @ 1..) = (bytes.last_mut(), plan.shape.len() % 8) {
        *last &= u8::MAX >> (8 - used);
    }
    Some(WrittenGates { bytes, base: 0, has_mask: matches!(dropout, Dropout::InGates) })
}
