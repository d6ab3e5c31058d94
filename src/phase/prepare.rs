//! Preparation of fixed statistics, one channel after another.

use crate::args::{Prepare, Statistics};
use crate::plan::Plan;
use crate::prepared::PreparedMut;

/// Runs a call that prepares fixed statistics and whose arguments have been checked.
pub(crate) fn run(plan: &Plan, call: Prepare<'_>) {
    let Prepare { parameters, running, prepared } = call;
    let normalisation = plan.normalisation(parameters, Statistics::Fixed(running));
    let channels = plan.shape.channels();
    let mut prepared = PreparedMut::new(prepared, channels);
    for channel in 0..channels {
        normalisation.prepare(channel, &mut prepared);
    }
    prepared.finish();
}
