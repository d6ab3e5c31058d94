//! Synchronised batch norm: a batch in parts on several ranks of MPI, with the statistics and the gradients of the whole.
//!
//! ```sh
//! cargo build --release
//! mpirun -n 4 target/release/sync-batch-norm
//! ```
//!
//! `sync` is the part to take home. The rest makes a batch, gives each rank its part of it, and checks what comes back.

mod batch;
mod check;
mod sync;

use std::error::Error;

use mpi::datatype::PartitionMut;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use normdrop::{ParameterGradients, Parameters};
use normdrop_reference::case::Case;

use crate::batch::{Batch, CHANNELS, MASK_SEED};
use crate::check::{Results, Shared};

/// Rows of the whole batch, and values per channel of a row: NC, and NCHW with images of 5x7 and of 14x14.
const SHAPES: [(usize, usize); 3] = [(11, 1), (23, 35), (150, 196)];

fn main() {
    let universe = mpi::initialize().expect("nobody has started MPI before");
    let world = universe.world();
    if let Err(error) = run(&world) {
        eprintln!("rank {}: error: {error}", world.rank());
        // All ranks: the others may wait for this one.
        world.abort(1);
    }
}

fn run(world: &impl Communicator) -> Result<(), Box<dyn Error>> {
    let (rank, ranks) = (usize::try_from(world.rank())?, usize::try_from(world.size())?);
    if rank == 0 {
        println!("{ranks} ranks. Rows per rank, values per channel of a row, largest errors in units u = 2^-24:");
    }
    let cases = [false, true].map(|empty_part| SHAPES.map(|(rows, inner)| Batch::new(rows, inner, empty_part)));
    for batch in cases.as_flattened().iter().filter(|batch| ranks > 1 || !batch.empty_part) {
        let results = step(world, batch)?;
        if rank > 0 {
            continue;
        }
        let parts: Vec<_> = (0..ranks).map(|rank| batch.part(rank, ranks).len().to_string()).collect();
        println!("{:<22}  {:>3}  {}", parts.join(" + "), batch.inner, results.errors(batch)?);
        let alone = Results::alone(batch)?;
        let (bits, of_one) = (results.bits(), alone.bits());
        let same = bits.iter().zip(&of_one).filter(|(ours, theirs)| ours == theirs).count();
        if ranks == 1 && same < bits.len() {
            return Err("one rank does not have the bits of the plain calls".into());
        }
        let percent = 100.0 * same as f64 / bits.len() as f64;
        println!(
            "    digest {:016x}, {percent:.1} % of all results have the bits of the plain calls",
            results.digest()
        );
    }
    Ok(())
}

/// A training step of this rank's part; on rank 0 the results of the whole batch.
fn step(world: &impl Communicator, batch: &Batch) -> Result<Results, Box<dyn Error>> {
    let (rank, ranks) = (usize::try_from(world.rank())?, usize::try_from(world.size())?);
    let rows = batch.part(rank, ranks);
    let elements = rows.start * batch.row()..rows.end * batch.row();
    let Case { weight, bias, x, dy, .. } = &batch.case;
    let (input, grad_output) = (&x[elements.clone()], &dy[elements.clone()]);
    let parameters = Parameters { weight: Some(weight), bias: Some(bias) };

    // The rank's part of the one mask of the batch: any part can be made alone.
    let layer = batch.layer(rows.len())?;
    let mut mask = vec![0; layer.mask_len()];
    layer.keep().fill(MASK_SEED, elements.start as u64, elements.len(), &mut mask)?;

    let (mut y, mut dx) = (vec![0.0; input.len()], vec![0.0; input.len()]);
    let zeros = vec![0.0; CHANNELS];
    let mut shared = Shared { mean: zeros.clone(), var: zeros.clone(), grad_weight: zeros.clone(), grad_bias: zeros };
    let running = [&mut shared.mean[..], &mut shared.var[..]];
    let mut kept = sync::forward(world, &layer, parameters, running, &mask, input, &mut y)?;
    let gradients = ParameterGradients { weight: Some(&mut shared.grad_weight), bias: Some(&mut shared.grad_bias) };
    sync::backward(world, &layer, parameters, &mut kept, &mask, input, grad_output, &mut dx, gradients)?;

    let statistics = kept.inv_std.iter().map(|value| value.to_bits());
    let bits: Vec<u64> = shared.bits().into_iter().map(u64::from).chain(statistics).collect();
    let mut of_all = vec![0; ranks * bits.len()];
    world.all_gather_into(&bits[..], &mut of_all[..]);
    if of_all.chunks_exact(bits.len()).any(|other| other != bits) {
        return Err("the ranks do not have the same statistics and gradients".into());
    }
    let gather = |part: &[f32]| gathered(world, batch, part);
    Ok(Results { y: gather(&y)?, dx: gather(&dx)?, shared })
}

/// On rank 0 the parts of all ranks, one after the other.
fn gathered(world: &impl Communicator, batch: &Batch, part: &[f32]) -> Result<Vec<f32>, Box<dyn Error>> {
    let ranks = usize::try_from(world.size())?;
    let root = world.process_at_rank(0);
    if world.rank() > 0 {
        root.gather_varcount_into(part);
        return Ok(Vec::new());
    }
    let elements = |rows: usize| i32::try_from(rows * batch.row());
    let parts = || (0..ranks).map(|rank| batch.part(rank, ranks));
    let counts = parts().map(|rows| elements(rows.len())).collect::<Result<Vec<_>, _>>()?;
    let starts = parts().map(|rows| elements(rows.start)).collect::<Result<Vec<_>, _>>()?;
    let mut whole = vec![0.0; batch.case.x.len()];
    root.gather_varcount_into_root(part, &mut PartitionMut::new(&mut whole[..], counts, starts));
    Ok(whole)
}
