//! This crate.

use std::hint::black_box;

use aligned_vec::AVec;
use normdrop::{
    Backward, Config, Dropout, Identity, Layer, ParameterGradients, Parameters, RunningMut, Saved, SavedMut, Shape,
    Statistics, Train,
};

use crate::data::Data;
use crate::peer::{Library, Result};
use crate::workload::{EPS, MOMENTUM, Op, P, Workload};

pub(crate) struct Normdrop {
    layer: Layer<Identity>,
    data: Data,
    output: AVec<f32>,
    mask: Vec<u8>,
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

impl Library for Normdrop {
    fn new(workload: &Workload) -> Result<Self> {
        let (outer, inner) = workload.outer_and_inner();
        let channels = workload.channels();
        let config = Config { p: P.into(), eps: EPS, momentum: MOMENTUM.into(), ..Config::DEFAULT };
        let layer = Layer::new(Shape::new(outer, channels, inner)?, Identity, config)?;
        let data = Data::new(workload);
        let mut library = Self {
            output: data.input.clone(),
            data,
            mask: vec![1; layer.mask_len()],
            seed: 0,
            running_mean: vec![0.0; channels],
            running_var: vec![1.0; channels],
            saved_mean: vec![1.0; channels],
            saved_mean_tail: vec![1.0; channels],
            saved_inv_std: vec![1.0; channels],
            grad_weight: vec![1.0; channels],
            grad_bias: vec![1.0; channels],
            scratch: vec![1.0; layer.scratch_len()],
            layer,
        };
        library.run(Op::Forward)?;
        Ok(library)
    }

    fn run(&mut self, op: Op) -> Result<()> {
        let parameters = Parameters { weight: Some(&self.data.weight), bias: Some(&self.data.bias) };
        let input = black_box(&self.data.input[..]);
        if op == Op::Forward {
            self.layer.fill_mask(black_box(self.seed), &mut self.mask)?;
            self.seed = self.seed.wrapping_add(1);
        }
        let dropout = if op.has_dropout() { Dropout::Mask(black_box(&self.mask)) } else { Dropout::Off };
        if matches!(op, Op::Forward | Op::NormForward) {
            self.layer.train(Train {
                parameters,
                running: Some(RunningMut::new(&mut self.running_mean, &mut self.running_var)),
                dropout,
                input,
                residual: None,
                output: &mut self.output,
                saved: SavedMut {
                    mean: &mut self.saved_mean,
                    mean_tail: &mut self.saved_mean_tail,
                    inv_std: &mut self.saved_inv_std,
                },
                scratch: &mut self.scratch,
            })?;
        } else {
            self.layer.backward(Backward {
                parameters,
                statistics: Statistics::Batch(Saved {
                    mean: &self.saved_mean,
                    mean_tail: &self.saved_mean_tail,
                    inv_std: &self.saved_inv_std,
                }),
                dropout,
                input,
                residual: None,
                grad_output: black_box(&self.data.grad_output),
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
