//! Trains the network of examples/digits in burn, with burn's own batch norm, ReLU and dropout and with normdrop's layer in their
//! place, and prints what both take in time and memory.
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

use burn::module::{Module, Param, RunningState};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use normdrop::Config;
use normdrop_burn::{BatchNormDropout, PreparedBatchNorm};

use compare::{Kind, Layer, Network, Number, Order, P, RATE, Result, Start};
use data::PIXELS;

/// Batch norm, ReLU and dropout.
#[derive(Module, Debug)]
enum Stage {
    Own((BatchNorm, Dropout)),
    Normdrop(BatchNormDropout),
}

impl Stage {
    fn new(kind: Kind, channels: usize, p: f64, seed: u64, device: &Device) -> Result<Self> {
        Ok(match kind {
            Kind::Own => Self::Own((BatchNormConfig::new(channels).init(device), DropoutConfig::new(p).init())),
            Kind::Normdrop => {
                Self::Normdrop(BatchNormDropout::new(channels, Config { p, ..Config::DEFAULT }, seed, device)?)
            }
        })
    }

    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Own((norm, dropout)) => dropout.forward(relu(norm.forward(x))),
            Self::Normdrop(layer) => layer.forward(x),
        }
    }
}

#[derive(Module, Debug)]
struct Model {
    linears: Vec<Linear>,
    stages: Vec<Stage>,
}

impl Model {
    fn forward(&self, pixels: &[f32], device: &Device) -> Tensor<2> {
        let pixels = TensorData::new(pixels.to_vec(), [pixels.len() / PIXELS, PIXELS]);
        let mut x = Tensor::<2>::from_data(pixels, device);
        for (index, linear) in self.linears.iter().enumerate() {
            x = linear.forward(x);
            if let Some(stage) = self.stages.get(index) {
                x = stage.forward(x);
            }
        }
        x
    }
}

struct Digits {
    // None only while the optimiser has it.
    model: Option<Model>,
    optimiser: ModuleOptimizer,
    loss: CrossEntropyLoss,
    device: Device,
}

impl Network for Digits {
    fn new(kind: Kind, starts: &[Start], seed: u64) -> Result<Self> {
        let device = Device::flex().autodiff();
        // The generator of burn's own dropout, which belongs to the process.
        device.seed(seed);
        let mut model = Model { linears: Vec::new(), stages: Vec::new() };
        for (index, start) in starts.iter().enumerate() {
            let mut linear = LinearConfig::new(start.inputs, start.outputs).init(&device);
            let weight = TensorData::new(start.weight.clone(), [start.outputs, start.inputs]);
            // In the order in which burn has it, not as a view.
            let weight = Tensor::<2>::from_data(weight, &device).transpose().into_data();
            linear.weight = Param::from_tensor(Tensor::from_data(weight, &device));
            linear.bias = Some(Param::from_tensor(Tensor::zeros([start.outputs], &device)));
            model.linears.push(linear);
            if index + 1 < starts.len() {
                // Every layer needs a seed of its own.
                model.stages.push(Stage::new(kind, start.outputs, P, seed << 8 | index as u64, &device)?);
            }
        }
        let optimiser = AdamConfig::new().with_epsilon(1e-8).init();
        Ok(Self { model: Some(model), optimiser, loss: CrossEntropyLossConfig::new().init(&device), device })
    }

    fn step(&mut self, pixels: &[f32], labels: &[usize]) -> Result<()> {
        let model = self.model.take().ok_or("an earlier step has failed")?;
        let labels: Vec<i32> =
            labels.iter().map(|&label| i32::try_from(label)).collect::<std::result::Result<_, _>>()?;
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels.clone(), [labels.len()]), &self.device);
        let loss = self.loss.forward(model.forward(pixels, &self.device), labels);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        self.model = Some(self.optimiser.step(RATE, model, gradients));
        Ok(())
    }

    fn logits(&self, pixels: &[f32]) -> Result<Vec<f32>> {
        let model = self.model.as_ref().ok_or("an earlier step has failed")?.valid();
        Ok(model.forward(pixels, &Device::flex()).into_data().try_to_vec()?)
    }
}

/// A tensor of two dimensions, or of four.
#[derive(Clone)]
enum Values {
    Nc(Tensor<2>),
    Nchw(Tensor<4>),
}

/// An input that has a gradient.
fn variable<const D: usize>(x: &[f32], dims: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    Tensor::<D>::from_data(TensorData::new(x.to_vec(), dims), device).cast(dtype).detach().require_grad()
}

struct Alone {
    stage: Stage,
    /// The same on the device without autodiff.
    valid: Stage,
    prepared: Option<PreparedBatchNorm>,
    x: Values,
    order: Order,
}

impl Layer for Alone {
    type Graph = Values;

    fn new(kind: Kind, dims: [usize; 4], order: Order, number: Number, x: &[f32]) -> Result<Self> {
        let device = Device::flex().autodiff();
        let dtype = match number {
            Number::F32 => DType::F32,
            Number::Bf16 => DType::BF16,
            Number::F16 => DType::F16,
        };
        let [n, c, h, w] = dims;
        let mut stage = Stage::new(kind, c, 0.1, 0, &device)?;
        if let Stage::Own((norm, _)) = &mut stage {
            // burn computes in one type, that of the input.
            let parameter = |tensor: Tensor<1>| Param::from_tensor(tensor.cast(dtype).detach().require_grad());
            (norm.gamma, norm.beta) = (parameter(norm.gamma.val()), parameter(norm.beta.val()));
            let [mean, var] = [&norm.running_mean, &norm.running_var].map(|state| state.value().cast(dtype));
            (norm.running_mean, norm.running_var) = (RunningState::new(mean), RunningState::new(var));
        }
        let prepared = match &stage {
            Stage::Own(_) => None,
            Stage::Normdrop(layer) => Some(layer.prepare()?),
        };
        Ok(Self {
            valid: stage.valid(),
            stage,
            prepared,
            x: match order {
                Order::First if (h, w) == (1, 1) => Values::Nc(variable(x, [n, c], dtype, &device)),
                Order::First => Values::Nchw(variable(x, dims, dtype, &device)),
                Order::Last => Values::Nchw(variable(x, [n, h, w, c], dtype, &device)),
            },
            order,
        })
    }

    fn forward(&mut self) -> Result<Values> {
        Ok(match self.x.clone() {
            Values::Nc(x) => Values::Nc(self.stage.forward(x)),
            Values::Nchw(x) if self.order == Order::Last => Values::Nchw(self.stage.forward(x.permute([0, 3, 1, 2]))),
            Values::Nchw(x) => Values::Nchw(self.stage.forward(x)),
        })
    }

    fn backward(&mut self, y: Values) -> Result<()> {
        match y {
            Values::Nc(y) => drop(y.backward()),
            Values::Nchw(y) => drop(y.backward()),
        }
        Ok(())
    }

    fn evaluate(&self, prepared: bool) -> Result<()> {
        match (&self.prepared, self.x.clone()) {
            (Some(layer), Values::Nc(x)) if prepared => drop(layer.try_forward(x.inner())?),
            (Some(layer), Values::Nchw(x)) if prepared => drop(layer.try_forward(x.inner())?),
            (_, Values::Nc(x)) => drop(self.valid.forward(x.inner())),
            (_, Values::Nchw(x)) => drop(self.valid.forward(x.inner())),
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    compare::main::<Digits, Alone>("burn")
}
