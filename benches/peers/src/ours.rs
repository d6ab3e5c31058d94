//! This crate, with a mask and with gates, on tensors of f32 or of bf16.

use std::hint::black_box;

use aligned_vec::AVec;
use normdrop::{
    Activation, Backward, Bf16, Config, Dropout, Element, Identity, Layer, ParameterGradients, Parameters, Relu,
    RunningMut, Saved, SavedMut, Shape, Statistics, Train,
};

use crate::data::Data;
use crate::peer::{Library, Result};
use crate::workload::{EPS, MOMENTUM, Op, P, Workload};

/// An element of the tensors of a run.
pub(crate) trait Stored: Element {
    fn of(values: &[f32]) -> AVec<Self>;
}

impl Stored for f32 {
    fn of(values: &[Self]) -> AVec<Self> {
        AVec::from_slice(0, values)
    }
}

impl Stored for Bf16 {
    fn of(values: &[f32]) -> AVec<Self> {
        AVec::from_iter(0, values.iter().map(|&value| Self::from_f32(value)))
    }
}

/// With `GATES` a forward call with dropout writes gates over its mask, and the backward call reads them.
pub(crate) struct Normdrop<E, const GATES: bool> {
    plain: Layer<Identity>,
    relu: Layer<Relu>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    input: AVec<E>,
    grad_output: AVec<E>,
    output: AVec<E>,
    mask: Vec<u8>,
    /// The mask of a call that writes gates, and then the gates.
    gates: Vec<u8>,
    seed: u64,
    running_mean: Vec<f32>,
    running_var: Vec<f32>,
    saved_mean: Vec<f32>,
    saved_mean_tail: Vec<f32>,
    saved_inv_std: Vec<f64>,
    grad_weight: Vec<f32>,
    grad_bias: Vec<f32>,
    scratch: Vec<f64>,
}

impl<E: Stored, const GATES: bool> Library for Normdrop<E, GATES> {
    fn new(workload: &Workload) -> Result<Self> {
        let (outer, inner) = workload.outer_and_inner();
        let channels = workload.channels();
        let config = Config { p: P.into(), eps: EPS, momentum: MOMENTUM.into(), ..Config::DEFAULT };
        let shape = Shape::new(outer, channels, inner)?;
        let plain = Layer::new(shape, Identity, config)?;
        let data = Data::new(workload);
        let mut library = Self {
            input: E::of(&data.input),
            grad_output: E::of(&data.grad_output),
            output: E::of(&data.input),
            weight: data.weight,
            bias: data.bias,
            mask: vec![1; plain.mask_len()],
            gates: vec![1; plain.mask_len()],
            seed: 0,
            running_mean: vec![0.0; channels],
            running_var: vec![1.0; channels],
            saved_mean: vec![1.0; channels],
            saved_mean_tail: vec![1.0; channels],
            saved_inv_std: vec![1.0; channels],
            grad_weight: vec![1.0; channels],
            grad_bias: vec![1.0; channels],
            scratch: vec![1.0; plain.scratch_len()],
            plain,
            relu: Layer::new(shape, Relu, config)?,
        };
        library.run(Op::Forward)?;
        Ok(library)
    }

    fn run(&mut self, op: Op) -> Result<()> {
        if op.has_relu() { self.call(self.relu, op) } else { self.call(self.plain, op) }
    }
}

impl<E: Stored, const GATES: bool> Normdrop<E, GATES> {
    fn call<A: Activation>(&mut self, layer: Layer<A>, op: Op) -> Result<()> {
        let gates = GATES && op.has_dropout();
        let parameters = Parameters { weight: Some(&self.weight), bias: Some(&self.bias) };
        let input = black_box(&self.input[..]);
        if op.is_forward() && op.has_dropout() {
            let mask = if gates { &mut self.gates } else { &mut self.mask };
            layer.fill_mask(black_box(self.seed), mask)?;
            self.seed = self.seed.wrapping_add(1);
        }
        let mask = || if op.has_dropout() { Dropout::Mask(black_box(&self.mask)) } else { Dropout::Off };
        if op.is_forward() {
            let call = Train {
                parameters,
                running: Some(RunningMut::new(&mut self.running_mean, &mut self.running_var)),
                dropout: if gates { Dropout::InGates } else { mask() },
                input,
                residual: None,
                output: &mut self.output,
                saved: SavedMut {
                    mean: &mut self.saved_mean,
                    mean_tail: &mut self.saved_mean_tail,
                    inv_std: &mut self.saved_inv_std,
                },
                scratch: &mut self.scratch,
            };
            if gates { layer.train_with_gates(call, &mut self.gates)? } else { layer.train(call)? }
        } else {
            layer.backward(Backward {
                parameters,
                statistics: Statistics::Batch(Saved {
                    mean: &self.saved_mean,
                    mean_tail: &self.saved_mean_tail,
                    inv_std: &self.saved_inv_std,
                }),
                dropout: if gates { Dropout::Gates(black_box(&self.gates)) } else { mask() },
                input,
                residual: None,
                grad_output: black_box(&self.grad_output),
                grad_input: Some(&mut self.output),
                grad_residual: None,
                grad_parameters: ParameterGradients {
                    weight: Some(&mut self.grad_weight),
                    bias: Some(&mut self.grad_bias),
                },
                scratch: &mut self.scratch,
            })?;
        }
        black_box(&mut self.output);
        Ok(())
    }
}
