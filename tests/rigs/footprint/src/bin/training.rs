//! An image that trains: a mask, forward, backward, and evaluation, of batch norm, ReLU and dropout.
//!
//! The shape is hidden from the compiler, so that both walks are in the image: a firmware with one constant shape is
//! smaller.
#![no_std]
#![no_main]

use core::hint::black_box;

use cortex_m_rt::entry;
use footprint::end;
use normdrop::{
    Backward, Config, Dropout, Error, Eval, Layer, ParameterGradients, Parameters, Relu, Running, RunningMut, Saved,
    SavedMut, Shape, Statistics, Train,
};

const CHANNELS: usize = 8;
const LEN: usize = CHANNELS * 32;
/// Enough for either walk over such a tensor; a call says so if not.
const SCRATCH: usize = 2048;

/// Everything that a layer keeps from step to step, and what one step works on.
struct Step {
    weight: [f32; CHANNELS],
    bias: [f32; CHANNELS],
    running_mean: [f32; CHANNELS],
    running_var: [f32; CHANNELS],
    mean: [f32; CHANNELS],
    mean_tail: [f32; CHANNELS],
    inv_std: [f64; CHANNELS],
    grad_weight: [f32; CHANNELS],
    grad_bias: [f32; CHANNELS],
    input: [f32; LEN],
    output: [f32; LEN],
    grad_output: [f32; LEN],
    grad_input: [f32; LEN],
    mask: [u8; LEN / 8],
    scratch: [f64; SCRATCH],
}

// A function of its own for each call, so that its code is not counted as that of `main`.

#[inline(never)]
fn fill_mask(layer: &Layer<Relu>, step: &mut Step) -> Result<(), Error> {
    layer.fill_mask(black_box(42), &mut step.mask).map(drop)
}

#[inline(never)]
fn train(layer: &Layer<Relu>, step: &mut Step) -> Result<(), Error> {
    layer.train(Train {
        parameters: Parameters { weight: Some(&step.weight), bias: Some(&step.bias) },
        running: Some(RunningMut::new(&mut step.running_mean, &mut step.running_var)),
        dropout: Dropout::Mask(&step.mask),
        input: &step.input,
        residual: None,
        output: &mut step.output,
        saved: SavedMut { mean: &mut step.mean, mean_tail: &mut step.mean_tail, inv_std: &mut step.inv_std },
        scratch: &mut step.scratch,
    })
}

#[inline(never)]
fn backward(layer: &Layer<Relu>, step: &mut Step) -> Result<(), Error> {
    layer.backward(Backward {
        parameters: Parameters { weight: Some(&step.weight), bias: Some(&step.bias) },
        statistics: Statistics::Batch(Saved { mean: &step.mean, mean_tail: &step.mean_tail, inv_std: &step.inv_std }),
        dropout: Dropout::Mask(&step.mask),
        input: &step.input,
        residual: None,
        grad_output: &step.grad_output,
        grad_input: Some(&mut step.grad_input),
        grad_residual: None,
        grad_parameters: ParameterGradients { weight: Some(&mut step.grad_weight), bias: Some(&mut step.grad_bias) },
        scratch: &mut step.scratch,
    })
}

#[inline(never)]
fn eval(layer: &Layer<Relu>, step: &mut Step) -> Result<(), Error> {
    layer.eval(Eval {
        parameters: Parameters { weight: Some(&step.weight), bias: Some(&step.bias) },
        running: Running::new(&step.running_mean, &step.running_var),
        dropout: Dropout::Off,
        input: &step.input,
        residual: None,
        output: &mut step.output,
        scratch: &mut step.scratch,
    })
}

#[inline(never)]
fn layer([outer, channels, inner]: [usize; 3]) -> Result<Layer<Relu>, Error> {
    Layer::new(Shape::new(outer, channels, inner)?, Relu, Config { p: 0.25, ..Config::DEFAULT })
}

#[entry]
fn main() -> ! {
    let mut step = Step {
        weight: [1.5; CHANNELS],
        bias: [0.5; CHANNELS],
        running_mean: [0.0; CHANNELS],
        running_var: [1.0; CHANNELS],
        mean: [0.0; CHANNELS],
        mean_tail: [0.0; CHANNELS],
        inv_std: [0.0; CHANNELS],
        grad_weight: [0.0; CHANNELS],
        grad_bias: [0.0; CHANNELS],
        input: [1.0; LEN],
        output: [0.0; LEN],
        grad_output: [1.0; LEN],
        grad_input: [0.0; LEN],
        mask: [0; LEN / 8],
        scratch: [0.0; SCRATCH],
    };
    end(layer(black_box([2, CHANNELS, 16])).and_then(|layer| {
        fill_mask(&layer, black_box(&mut step))?;
        train(&layer, black_box(&mut step))?;
        backward(&layer, black_box(&mut step))?;
        eval(&layer, black_box(&mut step))?;
        black_box(&step);
        Ok(())
    }))
}
