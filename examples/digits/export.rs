//! One small network for firmware: trained, and written as numbers and nothing else.

use std::error::Error;
use std::fs;
use std::path::Path;

use crate::data::{MOST_TRAIN_SAMPLES, PIXELS, Samples};
use crate::network::Variant;
use crate::training::Plan;
use crate::{layers, report};

/// What 10 KiB hold.
const PLAN: Plan =
    Plan { variant: Variant::BatchNormDropout, hidden: &[32], seed: 0, epochs: 60, train_samples: MOST_TRAIN_SAMPLES };
/// The images that go with it, of those that it was not trained on.
const IMAGES: usize = 320;

/// Writes `network.f32`, little-endian numbers in the order of [`Network::in_use`](crate::network::Network::in_use), and
/// `digits.u8`, for each image its pixels from 0 to 16 and what it shows.
pub(crate) fn run(folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let write = |name: &str, bytes: Vec<u8>| {
        let path = folder.join(name);
        fs::write(&path, &bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("{}: {} bytes", path.display(), bytes.len());
        Ok::<(), String>(())
    };
    let (mut network, _, unseen) = PLAN.train(&Samples::all(), || {})?;
    let unseen = unseen.pick(&(0..IMAGES).collect::<Vec<_>>());

    let right = network.accuracy(&unseen)? * IMAGES as f64;
    let logits = report::digest(&network.logits(&unseen.pixels, None)?);
    println!("A {} network, trained on {} of the UCI handwritten digits:", layers(PLAN.hidden), PLAN.train_samples);
    println!("{right:.0} of {IMAGES} others right, digest of its outputs {logits:016x}");

    write("network.f32", network.in_use().flatten().flat_map(|number| number.to_le_bytes()).collect())?;
    let images = unseen.pixels.chunks_exact(PIXELS).zip(&unseen.labels);
    write("digits.u8", images.flat_map(|(pixels, &label)| bytes(pixels, label)).collect())?;
    Ok(())
}

/// An image as the file of the digits has it, a byte a number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers from 0 to 16")]
fn bytes(pixels: &[f32], label: usize) -> impl Iterator<Item = u8> {
    pixels.iter().map(|ink| (ink * 16.0) as u8).chain([label as u8])
}
