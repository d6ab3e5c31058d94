//! A framework's own batch norm, ReLU and dropout beside normdrop's layer in it: the network of examples/digits trained with
//! either, and the layer alone. Time and memory are measured in turns.

use std::error::Error;
use std::time::Instant;

use lexopt::{Arg, Parser, ValueExt};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::data::{CLASSES, MOST_TRAIN_SAMPLES, PIXELS, Samples, shuffled};
use crate::memory;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The widths of the network's layers, those of examples/digits.
const WIDTHS: [usize; 5] = [PIXELS, 128, 128, 128, CLASSES];
/// The probability to drop a hidden unit.
pub(crate) const P: f64 = 0.2;
/// The learning rate of Adam.
pub(crate) const RATE: f64 = 1e-3;
const BATCH: usize = 20;
const TRAIN_SAMPLES: usize = 200;

/// A linear layer as it starts: `y = x*Wᵀ + b`, the weight `[outputs, inputs]`, the bias 0.
pub(crate) struct Start {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) weight: Vec<f32>,
}

/// What stands between two linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The framework's batch norm, ReLU and dropout.
    Own,
    /// One layer of normdrop.
    Normdrop,
}

const KINDS: [Kind; 2] = [Kind::Own, Kind::Normdrop];

/// A network in training.
pub(crate) trait Network: Sized {
    /// A network that starts with these linear layers, a batch norm between each two. Dropout takes its seeds from `seed` where it
    /// takes any.
    fn new(kind: Kind, linears: &[Start], seed: u64) -> Result<Self>;

    /// One step of Adam on the mean cross entropy of a batch.
    fn step(&mut self, pixels: &[f32], labels: &[usize]) -> Result<()>;

    /// The outputs for images in use, `[samples, CLASSES]`.
    fn logits(&self, pixels: &[f32]) -> Result<Vec<f32>>;
}

/// Forward and backward of the layer alone.
pub(crate) trait Layer: Sized {
    /// What a forward call leaves for the backward call.
    type Graph;

    /// A layer for input `[n, c, h, w]`, or `[n, c]` if the last two are 1, with dropout of probability 0.1. In
    /// [`Order::Last`] the input is a view of memory `[n, h, w, c]`.
    fn new(kind: Kind, dims: [usize; 4], order: Order, number: Number, x: &[f32]) -> Result<Self>;

    fn forward(&mut self) -> Result<Self::Graph>;

    /// The gradients of input, weight and bias for a gradient of the output of all ones.
    fn backward(&mut self, graph: Self::Graph) -> Result<()>;

    /// An evaluation without a graph; of normdrop's layer with statistics that are prepared, or not.
    fn evaluate(&self, prepared: bool) -> Result<()>;
}

/// How an input is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    First,
    Last,
}

/// The type of the input, the output and their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    F32,
    Bf16,
    F16,
}

const NUMBERS: [(Number, &str); 3] = [(Number::F32, ""), (Number::Bf16, ", bf16"), (Number::F16, ", f16")];

/// Shapes of the layer alone; the letters are those of the crate's README.
const SHAPES: [(&str, [usize; 4], Order, usize); 5] = [
    ("G NC 32x64", [32, 64, 1, 1], Order::First, 200),
    ("A NC 256x1024", [256, 1024, 1, 1], Order::First, 60),
    ("D NCHW 32x256x14x14", [32, 256, 14, 14], Order::First, 20),
    ("C NCHW 32x64x56x56", [32, 64, 56, 56], Order::First, 10),
    ("E NHWC 32x56x56x64", [32, 64, 56, 56], Order::Last, 10),
];

/// Shapes of an evaluation, small ones, in which the coefficients take a good part of the time.
const EVALUATED: [(&str, [usize; 4]); 4] = [
    ("NC 1x64", [1, 64, 1, 1]),
    ("NC 1x1024", [1, 1024, 1, 1]),
    ("NC 32x1024", [32, 1024, 1, 1]),
    ("NCHW 1x256x14x14", [1, 256, 14, 14]),
];

const HELP: &str = "\
usage: cargo run --release --example digits -- [options]
  --epochs N    passes over the training images (60)
  --seeds N     runs of each network (10)
  --check       one run of 15 epochs and no large tensors; fails if a network learns too little or the layer needs more memory
  --help
";

/// The whole program: what is measured, as a table.
pub(crate) fn main<N: Network, L: Layer>(framework: &str) -> Result<()> {
    let (mut epochs, mut seeds, mut check) = (60, 10, false);
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("epochs") => epochs = parser.value()?.parse()?,
            Arg::Long("seeds") => seeds = parser.value()?.parse()?,
            Arg::Long("check") => (epochs, seeds, check) = (15, 1, true),
            Arg::Long("help") => {
                print!("{HELP}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }

    println!("| the network of digits, {seeds} seeds | right answers, % | a step, µs | peak memory of a step, KiB |");
    println!("|---|---|---|---|");
    let outcomes = digits::<N>(epochs, seeds)?;
    for (name, outcome) in [framework, "normdrop"].iter().zip(&outcomes) {
        let (mean, spread) = mean_and_spread(&outcome.accuracy);
        let time = median(&outcome.microseconds);
        println!("| {name} | {mean:.1} ± {spread:.1} | {time:.0} | {:.0} |", median(&outcome.kibibytes));
        if check && mean < 80.0 {
            return Err(format!("with {name}, {mean:.1} % right answers are fewer than 80 %").into());
        }
    }

    println!("\n| layer alone | | forward, ms | backward, ms | held between them, MiB | peak, MiB |");
    println!("|---|---|---|---|---|---|");
    for (shape, dims, order, turns) in SHAPES.into_iter().take(if check { 2 } else { SHAPES.len() }) {
        // The check computes in halves on the smallest tensor only.
        let numbers = if check && dims != SHAPES[0].1 { &NUMBERS[..1] } else { &NUMBERS };
        let measured = layer::<L>(dims, order, numbers, if check { 3 } else { turns })?;
        for (pair, (_, label)) in measured.chunks_exact(2).zip(numbers) {
            for (name, values) in [framework, "normdrop"].iter().zip(pair) {
                let [forward, backward, held, peak] = values.each_ref().map(|values| median(values));
                println!("| {shape}{label} | {name} | {forward:.3} | {backward:.3} | {held:.3} | {peak:.3} |");
            }
            if check && median(&pair[1][2]) >= median(&pair[0][2]) {
                return Err(format!("{shape}{label}: normdrop's layer needs more memory than {framework}'s").into());
            }
        }
    }

    println!("\n| evaluation | {framework}, µs | normdrop, µs | normdrop prepared, µs |");
    println!("|---|---|---|---|");
    for (shape, dims) in EVALUATED {
        let [own, normdrop, prepared] = evaluation::<L>(dims, if check { 3 } else { 2000 })?;
        println!("| {shape} | {own:.1} | {normdrop:.1} | {prepared:.1} |");
    }
    Ok(())
}

#[derive(Default)]
struct Outcome {
    accuracy: Vec<f64>,
    microseconds: Vec<f64>,
    kibibytes: Vec<f64>,
}

/// Trains both networks side by side, a step of one and the same step of the other.
fn digits<N: Network>(epochs: usize, seeds: u64) -> Result<[Outcome; 2]> {
    let images = Samples::all();
    let mut outcomes = [Outcome::default(), Outcome::default()];
    for seed in 0..seeds {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
        let (train, test) = images.split(&mut rng, TRAIN_SAMPLES.min(MOST_TRAIN_SAMPLES));
        let starts: Vec<Start> = WIDTHS.windows(2).map(|widths| start(widths[0], widths[1], &mut rng)).collect();
        let [own, normdrop] = KINDS.map(|kind| N::new(kind, &starts, seed));
        let mut networks = [own?, normdrop?];
        for _ in 0..epochs {
            let order = shuffled(&mut rng, train.len());
            for (turn, batch) in order.chunks_exact(BATCH).enumerate() {
                let batch = train.pick(batch);
                // Who is first changes, so that a warm cache favours neither.
                for which in [turn % 2, 1 - turn % 2] {
                    let (before, start) = (memory::restart(), Instant::now());
                    networks[which].step(&batch.pixels, &batch.labels)?;
                    let outcome = &mut outcomes[which];
                    outcome.microseconds.push(start.elapsed().as_secs_f64() * 1e6);
                    outcome.kibibytes.push((memory::peak() - before) as f64 / 1024.0);
                }
            }
        }
        for (network, outcome) in networks.iter().zip(&mut outcomes) {
            outcome.accuracy.push(accuracy(&network.logits(&test.pixels)?, &test.labels));
        }
    }
    Ok(outcomes)
}

/// What is measured of a layer: the times of forward and backward in ms, the MiB held between the calls, and the most MiB at once.
type Costs = [Vec<f64>; 4];

/// Forward and backward in turns, of both layers for each type.
fn layer<L: Layer>(dims: [usize; 4], order: Order, numbers: &[(Number, &str)], turns: usize) -> Result<Vec<Costs>> {
    const MIB: f64 = 1024.0 * 1024.0;
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
    let x: Vec<f32> = (0..dims.iter().product()).map(|_| 2.0 * uniform(&mut rng) - 1.0).collect();
    let mut layers = Vec::new();
    for &(number, _) in numbers {
        for kind in KINDS {
            layers.push(L::new(kind, dims, order, number, &x)?);
        }
    }
    let mut measured = vec![Costs::default(); layers.len()];
    // The first turn only warms up.
    for turn in 0..=turns {
        for which in 0..layers.len() {
            // Who of a pair is first changes, so that a warm cache favours neither.
            let which = which ^ (turn % 2);
            let (before, start) = (memory::restart(), Instant::now());
            let graph = layers[which].forward()?;
            let (forward, held) = (start.elapsed(), memory::now() - before);
            let start = Instant::now();
            layers[which].backward(graph)?;
            let backward = start.elapsed();
            let peak = memory::peak() - before;
            if turn > 0 {
                let values =
                    [forward.as_secs_f64() * 1e3, backward.as_secs_f64() * 1e3, held as f64 / MIB, peak as f64 / MIB];
                measured[which].iter_mut().zip(values).for_each(|(all, value)| all.push(value));
            }
        }
    }
    Ok(measured)
}

/// The median microseconds of an evaluation by the framework, by normdrop, and by normdrop with prepared statistics, in turns.
fn evaluation<L: Layer>(dims: [usize; 4], turns: usize) -> Result<[f64; 3]> {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
    let x: Vec<f32> = (0..dims.iter().product()).map(|_| 2.0 * uniform(&mut rng) - 1.0).collect();
    let [own, normdrop] = KINDS.map(|kind| L::new(kind, dims, Order::First, Number::F32, &x));
    let (own, normdrop) = (own?, normdrop?);
    let mut measured: [Vec<f64>; 3] = Default::default();
    for turn in 0..=turns {
        for which in 0..3 {
            let which = (which + turn) % 3;
            let start = Instant::now();
            match which {
                0 => own.evaluate(false)?,
                _ => normdrop.evaluate(which == 2)?,
            }
            let elapsed = start.elapsed();
            // The first turn only warms up.
            if turn > 0 {
                measured[which].push(elapsed.as_secs_f64() * 1e6);
            }
        }
    }
    Ok(measured.map(|times| median(&times)))
}

/// Uniform weights of variance `2 / inputs` (He et al. 2015).
fn start(inputs: usize, outputs: usize, rng: &mut Xoshiro128PlusPlus) -> Start {
    let bound = (6.0 / inputs as f32).sqrt();
    let weight = (0..inputs * outputs).map(|_| bound * (2.0 * uniform(rng) - 1.0)).collect();
    Start { inputs, outputs, weight }
}

/// A number in `[0, 1)` from 24 random bits.
fn uniform(rng: &mut Xoshiro128PlusPlus) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 24) as f32
}

/// The share of images whose digit has the largest output, in percent.
fn accuracy(logits: &[f32], labels: &[usize]) -> f64 {
    let right = logits
        .chunks_exact(CLASSES)
        .zip(labels)
        .filter(|&(row, &label)| row.iter().enumerate().all(|(digit, &logit)| digit == label || logit < row[label]));
    100.0 * right.count() as f64 / labels.len() as f64
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The mean, and the standard deviation of one value.
fn mean_and_spread(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}
