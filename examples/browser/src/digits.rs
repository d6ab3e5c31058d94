//! The network of the example `digits`, epoch by epoch.

use wasm_bindgen::prelude::*;

use crate::data::{MOST_TRAIN_SAMPLES, Samples};
use crate::network::{HIDDEN, Variant};
use crate::report::digest;
use crate::training::{BATCH, Epoch, Plan, Training};

/// A 64-128-128-128-10 network that learns the UCI handwritten digits.
#[wasm_bindgen]
pub struct DigitsTraining {
    training: Training,
    last: Epoch,
}

#[wasm_bindgen]
impl DigitsTraining {
    /// A network before its first epoch.
    ///
    /// `variant` is one of `DigitsTraining.variants()`. `seed` chooses the training images, the first weights, the order of
    /// the images and the masks. `trainSamples` is the number of images to train on, from 20 to 797; the test images are
    /// 1000 others.
    ///
    /// # Errors
    /// If there is no such variant, or `trainSamples` is outside its range.
    #[wasm_bindgen(constructor)]
    pub fn new(
        variant: &str,
        seed: u32,
        #[wasm_bindgen(js_name = trainSamples)] train_samples: u32,
    ) -> Result<Self, JsError> {
        Self::begin(variant, seed, train_samples).map_err(|message| JsError::new(&message))
    }

    /// The names of the variants: what stands between one weight layer and the next.
    #[must_use]
    pub fn variants() -> Vec<String> {
        Variant::ALL.into_iter().map(|variant| variant.name().to_owned()).collect()
    }

    /// One pass over the training images, and a test on the others.
    ///
    /// # Errors
    /// Never for a network that was made by the constructor.
    pub fn epoch(&mut self) -> Result<(), JsError> {
        self.last = self.training.epoch()?;
        Ok(())
    }

    /// The mean training loss of the last epoch, as the optimiser saw it: with dropout. NaN before the first.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.last.loss
    }

    /// The share of right answers on the test images after the last epoch, from 0 to 1. NaN before the first.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.last.accuracy
    }

    /// The FNV-1a hash of the bits of all weights, 16 hexadecimal digits: the same on every machine.
    #[must_use]
    pub fn digest(&mut self) -> String {
        format!("{:016x}", digest(&self.training.weights()))
    }
}

impl DigitsTraining {
    /// The constructor, with an error that is text outside JavaScript, too.
    ///
    /// # Errors
    /// As the constructor.
    pub fn begin(variant: &str, seed: u32, train_samples: u32) -> Result<Self, String> {
        let chosen = Variant::ALL.into_iter().find(|known| known.name() == variant);
        let Some(chosen) = chosen else {
            return Err(format!("variant is '{variant}' and not one of: {}", Self::variants().join(", ")));
        };
        let train_samples = train_samples as usize;
        if !(BATCH..=MOST_TRAIN_SAMPLES).contains(&train_samples) {
            return Err(format!("trainSamples is {train_samples}, and not from {BATCH} to {MOST_TRAIN_SAMPLES}"));
        }
        let plan = Plan { variant: chosen, hidden: HIDDEN, seed, epochs: 0, train_samples };
        let training = Training::new(plan, &Samples::all()).map_err(|error| error.to_string())?;
        Ok(Self { training, last: Epoch { loss: f64::NAN, accuracy: f64::NAN } })
    }
}
