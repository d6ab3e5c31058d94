//! An image that evaluates and nothing else: batch norm and ReLU, in place and not, without dropout.
//!
//! The shape is hidden from the compiler, so that both walks are in the image: a firmware with one constant shape is
//! smaller.
#![no_std]
#![no_main]

use core::hint::black_box;

use cortex_m_rt::entry;
use footprint::end;
use normdrop::{Config, Dropout, Error, Eval, EvalInPlace, Layer, Parameters, Relu, Running, Shape};

const CHANNELS: usize = 8;
const LEN: usize = CHANNELS * 32;
/// Enough for either walk over such a tensor; a call says so if not.
const SCRATCH: usize = 512;

/// What the layer has learned.
struct Learned {
    weight: [f32; CHANNELS],
    bias: [f32; CHANNELS],
    mean: [f32; CHANNELS],
    var: [f32; CHANNELS],
}

impl Learned {
    fn parameters(&self) -> Parameters<'_> {
        Parameters { weight: Some(&self.weight), bias: Some(&self.bias) }
    }

    fn running(&self) -> Running<'_> {
        Running::new(&self.mean, &self.var)
    }
}

// A function of its own for each call, so that its code is not counted as that of `main`.

#[inline(never)]
fn eval(
    layer: &Layer<Relu>,
    learned: &Learned,
    input: &[f32],
    output: &mut [f32],
    scratch: &mut [f64],
) -> Result<(), Error> {
    let (parameters, running) = (learned.parameters(), learned.running());
    layer.eval(Eval { parameters, running, dropout: Dropout::Off, input, residual: None, output, scratch })
}

#[inline(never)]
fn eval_in_place(layer: &Layer<Relu>, learned: &Learned, values: &mut [f32], scratch: &mut [f64]) -> Result<(), Error> {
    let (parameters, running) = (learned.parameters(), learned.running());
    layer.eval_in_place(EvalInPlace { parameters, running, dropout: Dropout::Off, residual: None, values, scratch })
}

#[inline(never)]
fn layer([outer, channels, inner]: [usize; 3]) -> Result<Layer<Relu>, Error> {
    Layer::new(Shape::new(outer, channels, inner)?, Relu, Config::DEFAULT)
}

#[entry]
fn main() -> ! {
    let learned = black_box(Learned {
        weight: [1.5; CHANNELS],
        bias: [0.5; CHANNELS],
        mean: [0.25; CHANNELS],
        var: [2.0; CHANNELS],
    });
    let input = black_box([1.0; LEN]);
    let mut output = [0.0; LEN];
    let mut scratch = [0.0; SCRATCH];
    #[cfg(feature = "self-test")]
    {
        output[black_box(LEN)] = 1.0;
    }
    end(layer(black_box([2, CHANNELS, 16])).and_then(|layer| {
        eval(&layer, &learned, &input, &mut output, &mut scratch)?;
        eval_in_place(&layer, &learned, black_box(&mut output), &mut scratch)?;
        black_box(&output);
        Ok(())
    }))
}
