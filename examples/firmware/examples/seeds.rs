//! How well the network of the firmware learns with activations of f32 and of bf16, over many seeds of its masks, on the
//! desktop: one run is a matter of luck.

use std::error::Error;

use firmware::learn::{Memory, STEPS};
use firmware::linear::Activation;
use normdrop::Bf16;

const SEEDS: u64 = 100;

fn main() -> Result<(), Box<dyn Error>> {
    println!("{SEEDS} runs of {STEPS} steps, each with masks of its own; turned digits right, of 160");
    let (single, half) = (right::<f32>()?, right::<Bf16>()?);
    for (name, right) in [("f32", &single), ("bf16", &half)] {
        let (mean, spread) = mean_and_spread(right);
        println!("{name}: {mean:.1}, standard deviation {spread:.1}");
    }
    let differences: Vec<f64> = half.iter().zip(&single).map(|(half, single)| half - single).collect();
    let (mean, spread) = mean_and_spread(&differences);
    println!("bf16 less f32 with the same masks: {mean:.2}, standard error {:.2}", spread / (SEEDS as f64).sqrt());
    Ok(())
}

/// The right answers after each run.
fn right<E: Activation>() -> Result<Vec<f64>, normdrop::Error> {
    let mut memory = Memory::<E>::new();
    (0..SEEDS)
        .map(|run| {
            memory.learn(run * STEPS, |_, _| ())?;
            memory.right().map(f64::from)
        })
        .collect()
}

fn mean_and_spread(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, (squares / (count - 1.0)).sqrt())
}
