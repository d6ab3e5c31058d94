//! What many runs say together.

use std::fmt::Write;

use crate::network::Variant;
use crate::training::Run;

/// The distribution of a number over the seeds.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    /// The standard deviation of the seeds; 0 for a single one.
    pub(crate) deviation: f64,
    /// The standard error of the mean.
    pub(crate) error: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    fn of(numbers: impl Iterator<Item = f64>) -> Self {
        let numbers: Vec<f64> = numbers.collect();
        let count = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / count;
        let squares: f64 = numbers.iter().map(|number| (number - mean) * (number - mean)).sum();
        let variance = squares / (count - 1.0).max(1.0);
        Self {
            mean,
            deviation: variance.sqrt(),
            error: (variance / count).sqrt(),
            least: numbers.iter().copied().fold(f64::INFINITY, f64::min),
            most: numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

/// A variant's results: one spread over the seeds per epoch, and how the end compares.
pub(crate) struct Outcome {
    pub(crate) variant: Variant,
    pub(crate) loss: Vec<Spread>,
    pub(crate) accuracy: Vec<Spread>,
    /// The final accuracy minus that of the first variant with the same seed, which had the same images.
    difference: Spread,
}

/// The results of runs that are sorted by variant, each with this many seeds.
pub(crate) fn summarise(runs: &[Run], seeds: usize) -> Vec<Outcome> {
    let final_accuracy = |run: &Run| run.accuracy.last().copied().unwrap_or(f64::NAN);
    let over_seeds = |runs: &[Run], curve: fn(&Run) -> &[f64]| {
        let epochs = 0..curve(&runs[0]).len();
        epochs.map(|epoch| Spread::of(runs.iter().map(|run| curve(run)[epoch]))).collect()
    };
    let variants = Variant::ALL.into_iter().zip(runs.chunks_exact(seeds));
    variants
        .map(|(variant, of_variant)| Outcome {
            variant,
            loss: over_seeds(of_variant, |run| &run.loss),
            accuracy: over_seeds(of_variant, |run| &run.accuracy),
            difference: Spread::of(
                of_variant.iter().zip(runs).map(|(run, first)| final_accuracy(run) - final_accuracy(first)),
            ),
        })
        .collect()
}

/// The last epoch of each variant. Not the best epoch: to choose it is to look at the test images.
pub(crate) fn table(results: &[Outcome]) -> String {
    let mut table = format!(
        "{:<21}  {:<17}  {:>15}  {:>11}  {:>15}  {:>13}\n",
        "variant", "between weights", "test accuracy %", "min to max", "minus plain *", "training loss"
    );
    for Outcome { variant, loss, accuracy, difference } in results {
        let (Some(loss), Some(accuracy)) = (loss.last(), accuracy.last()) else { continue };
        writeln!(
            table,
            "{:<21}  {:<17}  {:>7.2} +- {:>4.2}  {:>4.1} - {:>4.1}  {:>+7.2} +- {:>4.2}  {:>13.4}",
            variant.name(),
            variant.order(),
            100.0 * accuracy.mean,
            100.0 * accuracy.deviation,
            100.0 * accuracy.least,
            100.0 * accuracy.most,
            100.0 * difference.mean,
            100.0 * difference.error,
            loss.mean
        )
        .expect("a string takes every write");
    }
    table + "+- is the standard deviation over the seeds; * compares equal seeds, +- the standard error of the mean.\n"
}

/// The last epoch of each variant with noise: the first one has none, and then come, for each place, so many kinds, of
/// which the first is dropout.
pub(crate) fn noise_table(variants: &[Variant], kinds: usize, runs: &[Run], seeds: usize) -> String {
    let accuracy = |run: &Run| 100.0 * run.accuracy.last().copied().unwrap_or(f64::NAN);
    let minus = |of: &[Run], other: &[Run]| {
        Spread::of(of.iter().zip(other).map(|(run, other)| accuracy(run) - accuracy(other)))
    };
    let mut table = format!(
        "{:<9}  {:<20}  {:>15}  {:>16}  {:>15}  {:>14}  {:>13}\n",
        "noise", "where", "test accuracy %", "minus no noise *", "minus dropout *", "variance shift", "training loss"
    );
    let of_variants: Vec<&[Run]> = runs.chunks_exact(seeds).collect();
    for (number, (variant, of)) in variants.iter().zip(&of_variants).enumerate() {
        let dropout = number.checked_sub(1).map_or(0, |number| 1 + number / kinds * kinds);
        let test = Spread::of(of.iter().map(accuracy));
        let (plain, dropout) = (minus(of, of_variants[0]), minus(of, of_variants[dropout]));
        let shift = Spread::of(of.iter().map(|run| run.variance_shift));
        let loss = Spread::of(of.iter().map(|run| run.loss.last().copied().unwrap_or(f64::NAN)));
        writeln!(
            table,
            "{:<9}  {:<20}  {:>7.2} +- {:>4.2}  {:>+8.2} +- {:>4.2}  {:>+7.2} +- {:>4.2}  {:>6.3} +- {:>4.3}  {:>13.4}",
            variant.name(),
            variant.order(),
            test.mean,
            test.deviation,
            plain.mean,
            plain.error,
            dropout.mean,
            dropout.error,
            shift.mean,
            shift.deviation,
            loss.mean
        )
        .expect("a string takes every write");
    }
    table
        + "+- is the standard deviation over the seeds; * compares equal seeds, +- the standard error of the mean.\n\
           variance shift: the running variances of the batch norms, over the variances of their inputs in evaluation.\n"
}

/// The FNV-1a hash of the bits of all numbers: the same on every machine.
pub(crate) fn digest<'a>(numbers: impl IntoIterator<Item = &'a f32>) -> u64 {
    let bytes = numbers.into_iter().flat_map(|number| number.to_bits().to_le_bytes());
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}
