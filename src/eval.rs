//! Forward with given statistics, top to bottom: for each group of channels its coefficients, then its output.

use crate::activation::Activation;
use crate::args::{Dropout, Parameters, Statistics};
use crate::channel::Normalisation;
use crate::layer::Layer;
use crate::pass::apply::{self, Apply, GroupCoefficients, folded_scale};
use crate::pass::table;

/// The fields per column of this call's table.
pub(crate) const FIELDS: usize = apply::FIELDS;

/// A forward call with given statistics.
pub(crate) struct EvalCall<'a> {
    pub(crate) parameters: Parameters<'a>,
    pub(crate) statistics: Statistics<'a>,
    pub(crate) dropout: Dropout<'a>,
    pub(crate) residual: Option<&'a [f32]>,
    /// Nothing where the output overwrites its input.
    pub(crate) input: Option<&'a [f32]>,
    pub(crate) output: &'a mut [f32],
    pub(crate) scratch: &'a mut [f64],
}

/// Runs an evaluation call whose arguments have been checked.
pub(crate) fn run<A: Activation>(layer: &Layer<A>, call: EvalCall<'_>) {
    let EvalCall { parameters, statistics, dropout, residual, input, output, scratch } = call;
    let Some((gates, scale)) = layer.gates_of(dropout) else {
        output.fill(0.0);
        return;
    };
    let keep = gates.keep(scale);
    let (tasks, walk) = (layer.tasks(), &layer.walk());
    let scale = folded_scale::<A>(residual, keep.scale);
    let normalisation = Normalisation { parameters, statistics, eps: layer.config().eps, scale };
    let apply = Apply { activation: layer.activation(), normalisation, residual, keep };
    for group in walk.groups(usize::MAX) {
        let table = table(&mut &mut *scratch, group.tiles());
        tasks.run(GroupCoefficients { normalisation, group, table });
        apply::elements(tasks, walk, group, &apply, table, input, output);
    }
}
