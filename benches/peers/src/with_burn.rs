//! burn, with its backend `flex` and its autodiff.

use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use std::hint::black_box;

use crate::data::Data;
use crate::peer::{Library, Result};
use crate::workload::{EPS, MOMENTUM, Op, P, Workload};

/// Channels last is the same as NC to batch norm, and the faster way to say it.
pub(crate) struct Burn {
    input: Tensor<3>,
    norm: BatchNorm,
    dropout: Dropout,
    /// Outputs with their graphs, which backward uses up.
    outputs: Vec<Tensor<3>>,
}

impl Library for Burn {
    fn new(workload: &Workload) -> Result<Self> {
        let (outer, inner) = workload.outer_and_inner();
        let device = Device::flex().autodiff();
        let data = Data::new(workload);
        let channels = workload.channels();
        let input = TensorData::new(data.input.to_vec(), [outer, channels, inner]);
        let mut config = BatchNormConfig::new(channels);
        config.epsilon = EPS.into();
        config.momentum = MOMENTUM.into();
        Ok(Self {
            input: Tensor::from_data(input, &device).require_grad(),
            norm: config.init(&device),
            dropout: DropoutConfig::new(P.into()).init(),
            outputs: Vec::new(),
        })
    }

    fn prepare(&mut self, op: Op, calls: u32) -> Result<()> {
        self.outputs.clear();
        if !op.is_forward() {
            self.outputs = (0..calls).map(|_| self.forward(op)).collect();
        }
        Ok(())
    }

    fn run(&mut self, op: Op) -> Result<()> {
        match op {
            Op::Forward | Op::ReluForward => {
                black_box(self.forward(op));
            }
            Op::Backward | Op::ReluBackward => {
                let output = self.outputs.pop().ok_or("there is a graph for each call")?;
                black_box(output.backward());
            }
            _ => return Err("burn is run with dropout only".into()),
        }
        Ok(())
    }
}

impl Burn {
    fn forward(&self, op: Op) -> Tensor<3> {
        let normed = self.norm.forward(self.input.clone());
        self.dropout.forward(if op.has_relu() { relu(normed) } else { normed })
    }
}
