//! Prints the digests of the weights that the page must reach, as `desktop.txt` has them: a line for each variant and
//! seed, with the digest, the test accuracy in percent and the variant.

use std::error::Error;

use normdrop_browser::DigitsTraining;

/// The runs that the page offers.
const SEEDS: u32 = 3;
const EPOCHS: u32 = 60;
const TRAIN_SAMPLES: u32 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    for variant in DigitsTraining::variants() {
        for seed in 0..SEEDS {
            let mut training = DigitsTraining::begin(&variant, seed, TRAIN_SAMPLES)?;
            for _ in 0..EPOCHS {
                training.epoch().map_err(|_| "a network that was made must learn")?;
            }
            println!("{seed} {} {:.1} {variant}", training.digest(), 100.0 * training.accuracy());
        }
    }
    Ok(())
}
