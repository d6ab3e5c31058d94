//! Synchronised batch norm: what is between one rank and all of them. This file is all that a program of your own needs.

use mpi::traits::{Communicator, CommunicatorCollectives};
use normdrop::{
    Activation, Apply, ApplyGradient, Dropout, Error, Finish, Layer, Moments, ParameterGradients, Parameters, Reduce,
    RunningMut, SavedMut, Statistics, merge_moments, merge_sums,
};

/// What the forward call of a batch leaves for its backward call, the same on every rank.
pub(crate) struct Kept {
    pub(crate) mean: Vec<f32>,
    pub(crate) mean_tail: Vec<f32>,
    pub(crate) inv_std: Vec<f64>,
    /// The values per channel of the whole batch.
    pub(crate) samples: f64,
}

impl Kept {
    fn saved(&mut self) -> SavedMut<'_> {
        SavedMut { mean: &mut self.mean, mean_tail: &mut self.mean_tail, inv_std: &mut self.inv_std }
    }
}

/// Turns the moments or sums of each rank's part into those of the whole batch, on every rank.
///
/// All parts come to all ranks, and each merges them in the order of ranks: so all get the same bits, in every run. That is
/// `MPI_Allgather` and not `MPI_Allreduce` for two reasons. Moments do not add up: the means of the parts have to be
/// weighted, and the distances between them are part of the variance. And the standard lets `MPI_SUM` add in any order, one
/// that may depend on the length of the message or on where the ranks run.
fn all_merge(
    world: &impl Communicator,
    part: &mut [f64],
    merge: fn(&mut [f64], &[f64]) -> Result<(), Error>,
) -> Result<(), Error> {
    let ranks = usize::try_from(world.size()).unwrap_or_default();
    let mut parts = vec![0.0; ranks * part.len()];
    world.all_gather_into(&*part, &mut parts);
    // Nothing changes by a merge into nothing.
    part.fill(0.0);
    parts.chunks_exact(part.len().max(1)).try_for_each(|from| merge(part, from))
}

/// A training forward call of this rank's part of a batch, with the statistics of the whole. A part may be empty.
///
/// Every rank has the same parameters and the same running statistics, and those stay the same.
pub(crate) fn forward<A: Activation>(
    world: &impl Communicator,
    layer: &Layer<A>,
    parameters: Parameters<'_>,
    running: [&mut [f32]; 2],
    mask: &[u8],
    input: &[f32],
    output: &mut [f32],
) -> Result<Kept, Error> {
    let scratch = &mut vec![0.0; layer.scratch_len()];
    let mut moments = vec![0.0; layer.moments_len()];
    layer.moments(Moments { input, moments: &mut moments, scratch })?;
    all_merge(world, &mut moments, merge_moments)?;

    let channels = layer.shape().channels();
    let mut kept = Kept {
        mean: vec![0.0; channels],
        mean_tail: vec![0.0; channels],
        inv_std: vec![0.0; channels],
        samples: moments.first().copied().unwrap_or_default(),
    };
    let [mean, var] = running;
    let running = Some(RunningMut::new(mean, var));
    layer.finish(Finish { moments: &moments, running, saved: kept.saved() })?;

    let (saved, dropout) = (kept.saved(), Dropout::Mask(mask));
    layer.apply(Apply { parameters, saved: saved.as_saved(), dropout, input, residual: None, output, scratch })?;
    Ok(kept)
}

/// The backward call of the same part: its own `grad_input`, and the gradients of weight and bias for the whole batch.
#[expect(clippy::too_many_arguments, reason = "one each: what the forward call had, what comes in, what goes out")]
pub(crate) fn backward<A: Activation>(
    world: &impl Communicator,
    layer: &Layer<A>,
    parameters: Parameters<'_>,
    kept: &mut Kept,
    mask: &[u8],
    input: &[f32],
    grad_output: &[f32],
    grad_input: &mut [f32],
    grad_parameters: ParameterGradients<'_>,
) -> Result<(), Error> {
    let scratch = &mut vec![0.0; layer.scratch_len()];
    let (samples, saved) = (kept.samples, kept.saved());
    let (saved, dropout) = (saved.as_saved(), Dropout::Mask(mask));
    let mut sums = vec![0.0; layer.sums_len()];
    layer.reduce(Reduce {
        parameters,
        statistics: Statistics::Batch(saved),
        dropout,
        input,
        residual: None,
        grad_output,
        sums: &mut sums,
        scratch,
    })?;
    all_merge(world, &mut sums, merge_sums)?;

    layer.finish_gradients(&sums, grad_parameters)?;
    layer.apply_gradient(ApplyGradient {
        parameters,
        saved,
        samples,
        sums: &sums,
        dropout,
        input,
        residual: None,
        grad_output,
        grad_input,
        grad_residual: None,
        scratch,
    })
}
