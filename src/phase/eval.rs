//! Forward with given statistics, top to bottom. For each group of channels: its coefficients, then
//! its output.

use crate::activation::Formula;
use crate::pass::apply::{self, Apply, GroupCoefficients, folded_scale};
use crate::pass::channelwise::{Channel, channels, copy};
use crate::pass::table;
use crate::plan::{ForwardCall, Plan};
use crate::simd::CHANNELWISE;

/// Runs a forward call with given statistics whose arguments have been checked. It is not inlined
/// into the function that sets the floating-point environment.
#[inline(never)]
pub(crate) fn run(plan: &Plan, formula: &Formula, call: &mut ForwardCall<'_>) {
    let ForwardCall { normalisation, dropout, residual, input, output, scratch } = call;
    let (residual, input) = (*residual, *input);
    let gates = plan.gates_of(*dropout);
    let Some((gates, scale)) = &gates else {
        output.fill(0.0);
        return;
    };
    let keep = gates.keep(*scale);
    normalisation.scale = folded_scale(formula, residual, keep.scale);
    let normalisation = &*normalisation;
    let apply = Apply { formula, normalisation, residual, keep };
    if CHANNELWISE {
        copy(input, output);
        for channel in channels(plan.shape) {
            Channel::new(&apply, channel).forward(plan.shape, output);
        }
        return;
    }
    let (tasks, walk) = (plan.tasks(), &plan.walk());
    for group in walk.groups(usize::MAX, tasks.count) {
        let table = table(&mut &mut **scratch, group.tiles());
        tasks.run(GroupCoefficients { normalisation, group, table });
        apply::elements(tasks, walk, group, &apply, table, input, output);
    }
}
