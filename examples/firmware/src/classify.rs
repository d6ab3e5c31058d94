//! What the device is for: which digit is this? With the batch norm as a layer of its own, whose statistics are prepared once,
//! and folded into the weights before it.

use normdrop::{
    Dropout, Error, EvalInPlace, EvalPreparedInPlace, Fold, Layer, Prepare, Relu, WeightOrder, WeightShape,
    fold_into_previous,
};

use crate::digits::{self, Camera};
use crate::linear::Linear;
use crate::network::{CLASSES, HIDDEN, Network, PIXELS, TRAINED, layer};
use crate::platform::Platform;
use crate::print::Digest;

/// The layer for one image.
const LAYER: Layer<Relu> = layer(1);

/// What one image needs on its way through the network.
#[derive(Debug)]
pub struct Buffers {
    pixels: [f32; PIXELS],
    hidden: [f32; HIDDEN],
    outputs: [f32; CLASSES],
    scratch: [f64; LAYER.eval_scratch_len()],
    /// The statistics and parameters of the batch norm in the form that calls compute with.
    prepared: [f64; LAYER.prepared_len()],
}

/// All memory of the program `classify`.
#[derive(Debug)]
pub struct Memory {
    buffers: Buffers,
    /// The first weight layer with the batch norm in it. It could be made on the desktop and stay in flash; made here, it
    /// shows that a device can, too: after it has learned, it must.
    folded: Linear<PIXELS, HIDDEN>,
}

impl Memory {
    /// Memory, empty.
    pub const fn new() -> Self {
        Self { buffers: Buffers::new(), folded: Linear::zero() }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Buffers {
    /// Buffers, empty.
    pub const fn new() -> Self {
        Self {
            pixels: [0.0; PIXELS],
            hidden: [0.0; HIDDEN],
            outputs: [0.0; CLASSES],
            scratch: [0.0; LAYER.eval_scratch_len()],
            prepared: [0.0; LAYER.prepared_len()],
        }
    }

    /// Prepares the batch norm of a network, for [`Self::prepared`].
    ///
    /// # Errors
    /// None: all lengths are right.
    pub fn prepare(&mut self, network: &Network) -> Result<(), Error> {
        LAYER.prepare(Prepare {
            parameters: network.norm.parameters(),
            running: network.norm.running(),
            prepared: &mut self.prepared,
        })
    }

    /// The digit that the network sees, with the batch norm that was prepared.
    ///
    /// # Errors
    /// Only if nothing was prepared.
    pub fn prepared(&mut self, network: &Network) -> Result<u8, Error> {
        network.hidden.forward(&self.pixels, &mut self.hidden);
        LAYER.eval_prepared_in_place(EvalPreparedInPlace {
            prepared: &self.prepared,
            dropout: Dropout::Off,
            residual: None,
            values: &mut self.hidden,
            scratch: &mut self.scratch,
        })?;
        network.output.forward(&self.hidden, &mut self.outputs);
        Ok(self.largest())
    }

    /// The digit that the network sees, with the batch norm as it was learned.
    ///
    /// # Errors
    /// None: all lengths are right.
    pub fn unfolded(&mut self, network: &Network) -> Result<u8, Error> {
        network.hidden.forward(&self.pixels, &mut self.hidden);
        LAYER.eval_in_place(EvalInPlace {
            parameters: network.norm.parameters(),
            running: network.norm.running(),
            dropout: Dropout::Off,
            residual: None,
            values: &mut self.hidden,
            scratch: &mut self.scratch,
        })?;
        network.output.forward(&self.hidden, &mut self.outputs);
        Ok(self.largest())
    }

    /// The same with the batch norm in the weights.
    pub fn folded(&mut self, folded: &Linear<PIXELS, HIDDEN>, output: &Linear<HIDDEN, CLASSES>) -> u8 {
        folded.forward(&self.pixels, &mut self.hidden);
        for value in &mut self.hidden {
            *value = if *value > 0.0 { *value } else { 0.0 };
        }
        output.forward(&self.hidden, &mut self.outputs);
        self.largest()
    }

    /// Where the image goes.
    pub fn pixels(&mut self) -> &mut [f32; PIXELS] {
        &mut self.pixels
    }

    /// The digit of the largest output.
    fn largest(&self) -> u8 {
        let mut largest = (0, f32::NEG_INFINITY);
        for (digit, &output) in (0..).zip(&self.outputs) {
            if output > largest.1 {
                largest = (digit, output);
            }
        }
        largest.0
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

/// Puts the batch norm of a network into its first weights.
fn fold(network: &Network, folded: &mut Linear<PIXELS, HIDDEN>) -> Result<(), Error> {
    folded.copy_from(&network.hidden);
    fold_into_previous(Fold {
        parameters: network.norm.parameters(),
        running: network.norm.running(),
        eps: LAYER.config().eps,
        shape: WeightShape { order: WeightOrder::TapsInOut, outputs: HIDDEN, inputs: PIXELS, taps: 1, groups: 1 },
        weights: folded.weight.as_flattened_mut(),
        bias: Some(&mut folded.bias),
    })
}

/// Classifies all images both ways and prints what was seen.
///
/// # Errors
/// None: all lengths are right.
pub fn run(memory: &mut Memory, platform: &mut impl Platform) -> Result<(), Error> {
    /// The images of a line.
    const LINE: usize = 40;
    let Memory { buffers, folded } = memory;
    platform.measure("fold", || fold(&TRAINED, folded))?;
    platform.measure("prepare", || buffers.prepare(&TRAINED))?;
    if let Some(digit) = digits::all().next() {
        digit.pixels(Camera::Upright, buffers.pixels());
        let unfolded = platform.measure("unfolded", || buffers.unfolded(&TRAINED))?;
        let prepared = platform.measure("prepared", || buffers.prepared(&TRAINED))?;
        debug_assert_eq!(prepared, unfolded);
        platform.measure("folded", || buffers.folded(folded, &TRAINED.output));
    }

    let (mut unfolded_right, mut folded_right) = (0, 0);
    let (mut unfolded_outputs, mut folded_outputs) = (Digest::default(), Digest::default());
    let mut digits = digits::all();
    while digits.len() > 0 {
        let line = digits.clone().take(LINE);
        digits.nth(LINE - 1);
        platform.print("shown     ");
        line.clone().for_each(|digit| platform.digit(digit.label));
        platform.print("\nunfolded  ");
        for digit in line.clone() {
            digit.pixels(Camera::Upright, buffers.pixels());
            let seen = buffers.prepared(&TRAINED)?;
            unfolded_right += u32::from(seen == digit.label);
            unfolded_outputs.add(&buffers.outputs);
            platform.digit(seen);
        }
        platform.print("\nfolded    ");
        for digit in line {
            digit.pixels(Camera::Upright, buffers.pixels());
            let seen = buffers.folded(folded, &TRAINED.output);
            folded_right += u32::from(seen == digit.label);
            folded_outputs.add(&buffers.outputs);
            platform.digit(seen);
        }
        platform.print("\n");
    }
    for (way, right, outputs) in
        [("unfolded: ", unfolded_right, unfolded_outputs), ("folded: ", folded_right, folded_outputs)]
    {
        platform.print(way);
        platform.number(right);
        platform.print(" right, digest of all outputs ");
        platform.hex(outputs.value());
        platform.print("\n");
    }
    Ok(())
}
