//! Forward with given statistics, top to bottom: for each group of channels its coefficients, then its output.

use crate::activation::Activation;
use crate::args::Dropout;
use crate::channel::Normalisation;
use crate::layer::Layer;
use crate::pass::apply::{self, Apply, GroupCoefficients, folded_scale};
use crate::pass::channelwise::{CHANNELWISE, Channel, channels, copy};
use crate::pass::table;

/// The fields per column of this call's table.
pub(crate) const FIELDS: usize = apply::FIELDS;

/// A forward call with given statistics.
pub(crate) struct EvalCall<'a> {
    /// With any scale.
    pub(crate) normalisation: Normalisation<'a>,
    pub(crate) dropout: Dropout<'a>,
    pub(crate) residual: Option<&'a [f32]>,
    /// Nothing where the output overwrites its input.
    pub(crate) input: Option<&'a [f32]>,
    pub(crate) output: &'a mut [f32],
    pub(crate) scratch: &'a mut [f64],
}

/// Runs an evaluation call whose arguments have been checked.
pub(crate) fn run<A: Activation>(layer: &Layer<A>, call: &mut EvalCall<'_>) {
    let EvalCall { normalisation, dropout, residual, input, output, scratch } = call;
    let (residual, input) = (*residual, *input);
    let gates = layer.gates_of(*dropout);
    let Some((gates, scale)) = &gates else {
        output.fill(0.0);
        return;
    };
    let keep = gates.keep(*scale);
    normalisation.scale = folded_scale::<A>(residual, keep.scale);
    let normalisation = &*normalisation;
    let apply = Apply { activation: layer.activation(), normalisation, residual, keep };
    if CHANNELWISE {
        copy(input, output);
        for channel in channels(layer.shape()) {
            Channel::new(&apply, channel).forward(layer.shape(), output);
        }
        return;
    }
    let (tasks, walk) = (layer.tasks(), &layer.walk());
    for group in walk.groups(usize::MAX, tasks.count) {
        let table = table(&mut &mut **scratch, group.tiles());
        tasks.run(GroupCoefficients { normalisation, group, table });
        apply::elements(tasks, walk, group, &apply, table, input, output);
    }
}
