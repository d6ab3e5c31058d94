//! Trains a small network on handwritten digits, on nothing but normdrop's layer and plain matrix products, and
//! compares what batch norm and dropout do for it, separately and together.
//!
//! ```sh
//! cargo run --release -p digits
//! cargo run --release -p digits -- --help
//! ```
//!
//! Same arguments, same table, down to the digest of all weights: the layer gives the same bits on every target, and
//! everything around it keeps to additions, multiplications, divisions and square roots in a fixed order, with `exp`
//! and `ln` from `libm`.
//!
//! All variants share the optimiser, its learning rate and the probability to drop; none was tuned by itself. With so
//! few images, the usual order (batch norm, ReLU, dropout) comes out ahead and the independent component layer
//! behind: its batch norm sees what ReLU lets through, and brings a unit that almost never fires to the same size as
//! all others. Chen et al. report gains from it in deep convolutional networks with far more data.

mod data;
mod export;
mod linear;
mod network;
mod options;
mod picture;
mod report;
mod stage;
mod training;

use std::error::Error;
use std::fs::File;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};

use crate::data::{CLASSES, PIXELS, Samples, TEST_SAMPLES};
use crate::network::{HIDDEN, Kind, P_OF_NOISE, Place, Variant};
use crate::options::{HELP, Options};
use crate::training::{Plan, run_all};

fn main() -> ExitCode {
    let options = match Options::from_arguments() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let result = match &options.export {
        Some(folder) => export::run(folder),
        None if options.noise => compare_noise(&options),
        None => compare(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<(), Box<dyn Error>> {
    let &Options { epochs, seeds, train_samples, threads, .. } = options;
    // Opened first, so that a path that cannot be written is known before the training and not after it.
    let file =
        File::create(&options.out).map_err(|error| format!("cannot write {}: {error}", options.out.display()))?;
    let layers = layers(HIDDEN);
    println!(
        "Training a {layers} network on {train_samples} of the UCI handwritten digits: \
         {} variants, {seeds} seeds, {epochs} epochs.",
        Variant::ALL.len(),
    );
    println!("Each seed draws its own training images, first weights, masks and {TEST_SAMPLES} test images.\n");

    let plans: Vec<Plan> = Variant::ALL
        .into_iter()
        .flat_map(|variant| (0..seeds).map(move |seed| Plan { variant, hidden: HIDDEN, seed, epochs, train_samples }))
        .collect();
    let bar = progress_bar(options, plans.len());
    let runs = run_all(&plans, threads, &Samples::all(), || bar.inc(1))?;
    bar.finish_and_clear();

    let results = report::summarise(&runs, seeds as usize);
    print!("{}", report::table(&results));
    println!("\ndigest of all final weights: {:016x}", report::digest(runs.iter().flat_map(|run| &run.weights)));
    let subtitle = format!(
        "{layers} perceptron on {train_samples} of the UCI handwritten digits; \
         means of {seeds} seeds, bands are their standard error"
    );
    picture::write_png(file, &results, &subtitle)?;
    println!("curves: {}", options.out.display());
    Ok(())
}

/// Noise of every kind at every place, beside a network without noise.
fn compare_noise(options: &Options) -> Result<(), Box<dyn Error>> {
    let &Options { epochs, seeds, train_samples, threads, .. } = options;
    let noisy = Place::ALL.into_iter().flat_map(|place| Kind::ALL.map(|kind| Variant::Noisy(place, kind)));
    let variants: Vec<Variant> = [Variant::Noisy(Place::Last, Kind::None)].into_iter().chain(noisy).collect();
    println!(
        "Training a {} network with batch norms on {train_samples} of the UCI handwritten digits: \
         {} variants, {seeds} seeds, {epochs} epochs.",
        layers(HIDDEN),
        variants.len(),
    );
    println!(
        "Gaussian and uniform noise have the variance that dropout with p = {P_OF_NOISE} has, and Uout the variance 0.0033.\n"
    );
    let plan = |variant| (0..seeds).map(move |seed| Plan { variant, hidden: HIDDEN, seed, epochs, train_samples });
    let plans: Vec<Plan> = variants.iter().copied().flat_map(plan).collect();
    let bar = progress_bar(options, plans.len());
    let runs = run_all(&plans, threads, &Samples::all(), || bar.inc(1))?;
    bar.finish_and_clear();
    print!("{}", report::noise_table(&variants, Kind::ALL.len(), &runs, seeds as usize));
    println!("\ndigest of all final weights: {:016x}", report::digest(runs.iter().flat_map(|run| &run.weights)));
    Ok(())
}

/// The width of every layer, from the pixels to the digits.
fn layers(hidden: &[usize]) -> String {
    let widths = [&[PIXELS], hidden, &[CLASSES]].concat();
    widths.iter().map(usize::to_string).collect::<Vec<_>>().join("-")
}

/// A bar that counts epochs of all runs; on standard error, and only if that is a terminal.
fn progress_bar(options: &Options, runs: usize) -> ProgressBar {
    if !options.progress {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent:>3}% of {len} epochs, {eta} left");
    let bar = ProgressBar::new(runs as u64 * u64::from(options.epochs));
    bar.with_style(style.expect("the template is valid"))
}
