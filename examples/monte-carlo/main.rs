//! Monte-Carlo dropout: how far a network disagrees with itself about an image, over many dropout masks.
//!
//! ```sh
//! cargo run --release -p monte-carlo
//! ```
//!
//! The network of the example `digits` is trained on handwritten digits, all of them upright. In use its running
//! statistics stay fixed, dropout stays on, and each mask gives another answer: their mean is the prediction, and their
//! standard deviation says how much it depends on which units were there (Gal and Ghahramani, *Dropout as a Bayesian
//! approximation*, 2016). Images that the network has not seen are turned further and further, and the spread grows.
//!
//! It is a warning and no proof: a 6 that is turned far enough is a 4 to any network that only knows upright digits, and
//! all masks agree on it. Over many images wrong answers have a larger spread than right ones, which the second table
//! shows.
//!
//! All masks of an image are one call: the batch is that image many times over, and a mask has a bit of its own for every
//! row. Same seeds, same table, on every machine.

#[path = "../digits/data.rs"]
#[expect(dead_code, reason = "the limit of an option is for the example `digits`")]
mod data;
#[path = "../digits/linear.rs"]
mod linear;
#[path = "../digits/network.rs"]
#[expect(dead_code, reason = "the names of the variants are for the table of the example `digits`")]
mod network;
mod predictive;
mod rotation;
#[path = "../digits/stage.rs"]
mod stage;
#[path = "../digits/training.rs"]
#[expect(dead_code, reason = "many runs side by side are for the example `digits`")]
mod training;

use std::process::ExitCode;

use normdrop::Error;

use crate::data::{CLASSES, PIXELS, Samples};
use crate::network::{HIDDEN, Network, Variant, softmax};
use crate::predictive::Predictive;
use crate::rotation::rotated;
use crate::training::Plan;

/// The masks that an image is looked at with.
const MASKS: usize = 100;
/// The images that are shown one by one, and those that the last table averages over.
const SHOWN: usize = 3;
const AVERAGED: usize = 200;
/// Degrees.
const ANGLES: [f32; 6] = [0.0, 15.0, 30.0, 45.0, 60.0, 90.0];
/// What the training depends on. The masks that come after it have the upper bits that no step of it has.
const PLAN: Plan = Plan { variant: Variant::BatchNormDropout, hidden: HIDDEN, seed: 0, epochs: 30, train_samples: 500 };
const FIRST_MASK_SEED: u64 = 1 << 63;

fn main() -> ExitCode {
    match explore() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn explore() -> Result<(), Error> {
    let (mut network, run, unseen) = PLAN.train(&Samples::all(), || {})?;
    let accuracy = run.accuracy.last().copied().unwrap_or(f64::NAN);
    println!(
        "Trained on {} upright digits, {:.1} % right on {} others without dropout. {MASKS} masks an image:\n",
        PLAN.train_samples,
        100.0 * accuracy,
        unseen.len()
    );

    println!("probability of each digit in %, mean +- standard deviation over the masks (. below 0.5 +- 0.5)\n");
    print!("digit turned");
    (0..CLASSES).for_each(|digit| print!("{digit:>7}"));
    println!("   spread");
    for image in 0..SHOWN {
        for angle in ANGLES {
            let prediction = predict(&mut network, &rotated(pixels(&unseen, image), angle), image)?;
            let columns: String = prediction.mean.iter().zip(&prediction.deviation).map(column).collect();
            println!("{:>5} {angle:>5}° {columns} {:>8.1}", unseen.labels[image], 100.0 * prediction.spread());
        }
        println!();
    }

    println!(
        "means over {AVERAGED} images: the spread, the share of right answers, and the spread of those and of others\n"
    );
    println!("turned   spread   right %   spread if right   spread if wrong");
    for angle in ANGLES {
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        for image in 0..AVERAGED {
            let prediction = predict(&mut network, &rotated(pixels(&unseen, image), angle), image)?;
            let of_kind = if prediction.digit() == unseen.labels[image] { &mut right } else { &mut wrong };
            of_kind.push(100.0 * prediction.spread());
        }
        let mean = |spreads: &[f32]| spreads.iter().sum::<f32>() / spreads.len() as f32;
        println!(
            "{angle:>5}° {:>8.1} {:>9.1} {:>17.1} {:>17.1}",
            mean(&[&right[..], &wrong].concat()),
            100.0 * right.len() as f32 / AVERAGED as f32,
            mean(&right),
            mean(&wrong),
        );
    }
    Ok(())
}

fn pixels(samples: &Samples, image: usize) -> &[f32] {
    &samples.pixels[image * PIXELS..][..PIXELS]
}

/// What the network says about one image, with masks of its own.
fn predict(network: &mut Network, pixels: &[f32], image: usize) -> Result<Predictive, Error> {
    let mask_seed = FIRST_MASK_SEED | (image as u64) << 8;
    let mut rows = network.logits(&pixels.repeat(MASKS), Some(mask_seed))?;
    for row in rows.chunks_exact_mut(CLASSES) {
        softmax(row);
    }
    Ok(Predictive::of(&rows))
}

/// A probability and its deviation as a column of the table.
fn column((mean, deviation): (&f32, &f32)) -> String {
    if *mean < 0.005 && *deviation < 0.005 {
        return format!("{:>7}", ".");
    }
    format!("{:>4.0}±{:<2.0}", 100.0 * mean, 100.0 * deviation)
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::Xoshiro128PlusPlus;
    use rand_xoshiro::rand_core::SeedableRng;

    use super::*;

    /// An untrained network will do: its outputs depend on the mask, the seed of the masks decides, and their mean is
    /// near what it says without dropout.
    #[test]
    fn a_seed_decides_the_masks_and_every_mask_gives_another_answer() -> Result<(), Error> {
        let mut network = Network::new(Variant::BatchNormDropout, HIDDEN, &mut Xoshiro128PlusPlus::seed_from_u64(1))?;
        let images = Samples::all();
        let first = predict(&mut network, pixels(&images, 0), 0)?;
        assert!(first.deviation.iter().all(|&deviation| deviation > 0.0));
        assert_eq!(predict(&mut network, pixels(&images, 0), 0)?, first);
        assert_ne!(predict(&mut network, pixels(&images, 0), 1)?, first);

        let mut certain = network.logits(pixels(&images, 0), None)?;
        softmax(&mut certain);
        for ((mean, deviation), certain) in first.mean.iter().zip(&first.deviation).zip(certain) {
            assert!((mean - certain).abs() < *deviation, "{mean} +- {deviation} against {certain}");
        }
        Ok(())
    }

    #[test]
    fn without_dropout_there_is_no_spread() -> Result<(), Error> {
        let mut network = Network::new(Variant::BatchNorm, HIDDEN, &mut Xoshiro128PlusPlus::seed_from_u64(1))?;
        assert!(predict(&mut network, pixels(&Samples::all(), 0), 0)?.spread() < 1e-6);
        Ok(())
    }
}
