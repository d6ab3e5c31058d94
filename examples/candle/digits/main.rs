//! Trains the network of examples/digits in candle, with candle's own batch norm, ReLU and dropout and with normdrop's layer in
//! their place, and prints what both take in time and memory.
//!
//! ```sh
//! cargo run --release --example digits
//! ```

#[path = "../../shared/compare.rs"]
mod compare;
#[path = "../../digits/data.rs"]
mod data;
#[path = "../../shared/memory.rs"]
mod memory;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{
    AdamW, BatchNorm, Dropout, Linear, Module, ModuleT, Optimizer, ParamsAdamW, VarBuilder, VarMap, batch_norm,
};
use normdrop::{Config, Relu};
use normdrop_candle::{BatchNormDropout, PreparedBatchNorm, batch_norm_dropout};

use compare::{Kind, Layer, Network, Number, Order, P, RATE, Result, Start};
use data::PIXELS;

/// Batch norm, ReLU and dropout.
enum Stage {
    Own(BatchNorm, Dropout),
    Normdrop(BatchNormDropout),
}

impl Stage {
    #[expect(clippy::cast_possible_truncation, reason = "candle takes the probability in f32")]
    fn new(kind: Kind, channels: usize, p: f64, seed: u64, vb: VarBuilder<'_>) -> candle_core::Result<Self> {
        Ok(match kind {
            Kind::Own => Self::Own(batch_norm(channels, 1e-5, vb)?, Dropout::new(p as f32)),
            Kind::Normdrop => {
                Self::Normdrop(batch_norm_dropout(channels, Relu, Config { p, ..Config::DEFAULT }, seed, vb)?)
            }
        })
    }
}

impl ModuleT for Stage {
    fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        match self {
            Self::Own(norm, dropout) => dropout.forward_t(&norm.forward_t(x, train)?.relu()?, train),
            Self::Normdrop(layer) => layer.forward_t(x, train),
        }
    }
}

struct Digits {
    linears: Vec<Linear>,
    stages: Vec<Stage>,
    optimiser: AdamW,
}

impl Digits {
    fn forward(&self, pixels: &[f32], train: bool) -> candle_core::Result<Tensor> {
        let mut x = Tensor::from_slice(pixels, (pixels.len() / PIXELS, PIXELS), &Device::Cpu)?;
        for (index, linear) in self.linears.iter().enumerate() {
            x = linear.forward(&x)?;
            if let Some(stage) = self.stages.get(index) {
                x = stage.forward_t(&x, train)?;
            }
        }
        Ok(x)
    }
}

impl Network for Digits {
    fn new(kind: Kind, starts: &[Start], seed: u64) -> Result<Self> {
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let mut variables = Vec::new();
        let (mut linears, mut stages) = (Vec::new(), Vec::new());
        for (index, start) in starts.iter().enumerate() {
            let weight = Tensor::from_slice(&start.weight, (start.outputs, start.inputs), &Device::Cpu)?;
            let (weight, bias) = (Var::from_tensor(&weight)?, Var::zeros(start.outputs, DType::F32, &Device::Cpu)?);
            linears.push(Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone())));
            variables.extend([weight, bias]);
            if index + 1 < starts.len() {
                // Every layer needs a seed of its own.
                let seed = seed << 8 | index as u64;
                stages.push(Stage::new(kind, start.outputs, P, seed, vb.pp(index))?);
            }
        }
        variables.extend(map.all_vars());
        let parameters = ParamsAdamW { lr: RATE, weight_decay: 0.0, ..ParamsAdamW::default() };
        Ok(Self { linears, stages, optimiser: AdamW::new(variables, parameters)? })
    }

    fn step(&mut self, pixels: &[f32], labels: &[usize]) -> Result<()> {
        let labels: Vec<u32> =
            labels.iter().map(|&label| u32::try_from(label)).collect::<std::result::Result<_, _>>()?;
        let labels = Tensor::from_slice(&labels, labels.len(), &Device::Cpu)?;
        let loss = candle_nn::loss::cross_entropy(&self.forward(pixels, true)?, &labels)?;
        Ok(self.optimiser.backward_step(&loss)?)
    }

    fn logits(&self, pixels: &[f32]) -> Result<Vec<f32>> {
        Ok(self.forward(pixels, false)?.flatten_all()?.to_vec1()?)
    }
}

struct Alone {
    stage: Stage,
    prepared: Option<PreparedBatchNorm>,
    x: Var,
    order: Order,
}

impl Alone {
    /// What the layer gets: the variable, or the view of it that has its dimensions in order.
    fn input(&self) -> candle_core::Result<Tensor> {
        match self.order {
            Order::First => Ok(self.x.as_tensor().clone()),
            Order::Last => self.x.permute((0, 3, 1, 2)),
        }
    }
}

impl Layer for Alone {
    type Graph = Tensor;

    fn new(kind: Kind, dims: [usize; 4], order: Order, number: Number, x: &[f32]) -> Result<Self> {
        let dtype = match number {
            Number::F32 => DType::F32,
            Number::Bf16 => DType::BF16,
            Number::F16 => DType::F16,
        };
        let [n, c, h, w] = dims;
        let dims = match order {
            Order::First if (h, w) == (1, 1) => vec![n, c],
            Order::First => vec![n, c, h, w],
            Order::Last => vec![n, h, w, c],
        };
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
        let mut stage = Stage::new(kind, c, 0.1, 0, vb)?;
        if let Stage::Own(norm, _) = &mut stage {
            // candle computes statistics of halves in f32, and applies parameters of the type of the input.
            let parameter = |start: f32| Var::from_tensor(&Tensor::full(start, c, &Device::Cpu)?.to_dtype(dtype)?);
            let (weight, bias) = (parameter(1.0)?.into_inner(), parameter(0.0)?.into_inner());
            let (mean, var) = (norm.running_mean().clone(), norm.running_var().clone());
            *norm = BatchNorm::new(c, mean, var, weight, bias, norm.eps())?;
        }
        let prepared = match &stage {
            Stage::Own(..) => None,
            Stage::Normdrop(layer) => Some(layer.prepare()?),
        };
        let x = Tensor::from_slice(x, dims, &Device::Cpu)?.to_dtype(dtype)?;
        Ok(Self { stage, prepared, x: Var::from_tensor(&x)?, order })
    }

    fn forward(&mut self) -> Result<Tensor> {
        Ok(self.stage.forward_t(&self.input()?, true)?)
    }

    fn backward(&mut self, y: Tensor) -> Result<()> {
        y.backward()?;
        Ok(())
    }

    fn evaluate(&self, prepared: bool) -> Result<()> {
        let x = self.input()?.detach();
        match &self.prepared {
            Some(layer) if prepared => layer.forward(&x)?,
            _ => self.stage.forward_t(&x, false)?,
        };
        Ok(())
    }
}

fn main() -> Result<()> {
    compare::main::<Digits, Alone>("candle")
}
