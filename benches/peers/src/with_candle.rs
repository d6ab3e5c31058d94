//! candle, with its own batch norm and dropout.

use std::hint::black_box;

use candle_core::{Device, Tensor, Var};
use candle_nn::BatchNorm;
use candle_nn::ops::dropout;

use crate::data::Data;
use crate::peer::{Library, Result};
use crate::workload::{EPS, MOMENTUM, Op, P, Workload};

/// Channels last is the same as NC to batch norm, and the faster way to say it.
pub(crate) struct Candle {
    input: Var,
    norm: BatchNorm,
    /// Without ReLU and with it.
    outputs: [Tensor; 2],
}

impl Library for Candle {
    fn new(workload: &Workload) -> Result<Self> {
        let (outer, inner) = workload.outer_and_inner();
        let channels = workload.channels();
        let data = Data::new(workload);
        let device = &Device::Cpu;
        let input = Var::from_vec(data.input.to_vec(), (outer, channels, inner), device)?;
        let vector = |values: &[f32]| Tensor::from_slice(values, channels, device);
        let norm = BatchNorm::new_with_momentum(
            channels,
            vector(&vec![0.0; channels])?,
            vector(&vec![1.0; channels])?,
            Var::from_tensor(&vector(&data.weight)?)?.as_tensor().clone(),
            Var::from_tensor(&vector(&data.bias)?)?.as_tensor().clone(),
            EPS.into(),
            MOMENTUM.into(),
        )?;
        let outputs = [forward(&norm, &input, Op::Forward)?, forward(&norm, &input, Op::ReluForward)?];
        Ok(Self { input, norm, outputs })
    }

    fn run(&mut self, op: Op) -> Result<()> {
        match op {
            Op::Forward | Op::ReluForward => {
                black_box(forward(&self.norm, &self.input, op)?);
            }
            Op::Backward | Op::ReluBackward => {
                black_box(self.outputs[usize::from(op.has_relu())].backward()?);
            }
            _ => return Err("candle is run with dropout only".into()),
        }
        Ok(())
    }
}

fn forward(norm: &BatchNorm, input: &Tensor, op: Op) -> Result<Tensor> {
    let normed = norm.forward_train(input)?;
    Ok(dropout(&if op.has_relu() { normed.relu()? } else { normed }, P)?)
}
