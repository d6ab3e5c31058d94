//! The operation: one node of candle's graph from input, weight and bias to the output.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp3, DType, Device, Error, Layout, Result, Shape, Storage, Tensor, Var, WithDType,
    bail,
};
use half::{bf16, f16};
use normdrop::{Activation, Element, Layer, Parameters};

use crate::pass::{Pass, eval_prepared};

/// How the values are normalised, and what is dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    /// With the statistics of the batch, updating the running ones, and dropout.
    Train { mask_seed: u64 },
    /// With the running statistics.
    Eval,
}

/// One call of the layer. It belongs to one node of the graph, and keeps there what its backward pass needs.
#[derive(Debug)]
pub(crate) struct Op<A> {
    layer: Layer<A>,
    mode: Mode,
    running_mean: Var,
    running_var: Var,
    pass: OnceLock<Pass<A>>,
}

impl<A> Op<A> {
    pub(crate) fn new(layer: Layer<A>, mode: Mode, running_mean: Var, running_var: Var) -> Self {
        Self { layer, mode, running_mean, running_var, pass: OnceLock::new() }
    }
}

impl<A: Activation> CustomOp3 for Op<A> {
    fn name(&self) -> &'static str {
        "batch-norm-dropout"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let parameters =
            Parameters { weight: Some(values(weight, weight_layout)?), bias: Some(values(bias, bias_layout)?) };
        // A type that the layer does not take is refused as a tensor that is not f32.
        let output = match input {
            CpuStorage::BF16(_) => CpuStorage::BF16(self.forward(parameters, values(input, input_layout)?)?),
            CpuStorage::F16(_) => CpuStorage::F16(self.forward(parameters, values(input, input_layout)?)?),
            _ => CpuStorage::F32(self.forward(parameters, values(input, input_layout)?)?),
        };
        Ok((output, input_layout.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _output: &Tensor,
        grad_output: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(pass) = self.pass.get() else { bail!("batch-norm-dropout has no forward pass to go back through") };
        // candle adds gradients up into contiguous tensors, so there is nothing to copy; but it promises that nowhere.
        let grad_output = grad_output.contiguous()?;
        let tensors = [input, weight, bias, &grad_output];
        match input.dtype() {
            DType::BF16 => gradients::<bf16, A>(pass, tensors),
            DType::F16 => gradients::<f16, A>(pass, tensors),
            _ => gradients::<f32, A>(pass, tensors),
        }
    }
}

impl<A: Activation> Op<A> {
    /// The forward call, on an input of any type; the pass is kept for the backward call.
    fn forward<E: Element>(&self, parameters: Parameters<'_>, input: &[E]) -> Result<Vec<E>> {
        // Vectors of one number per channel, written back once nothing can fail any more.
        let [mut mean, mut var] = [self.running_mean.to_vec1::<f32>()?, self.running_var.to_vec1::<f32>()?];
        let (pass, output) = match self.mode {
            Mode::Train { mask_seed } => {
                let result = Pass::train(self.layer, mask_seed, parameters, [&mut mean, &mut var], input);
                let result = result.map_err(Error::wrap)?;
                let (channels, device) = (mean.len(), self.running_mean.device());
                self.running_mean.set(&Tensor::from_vec(mean, channels, device)?)?;
                self.running_var.set(&Tensor::from_vec(var, channels, device)?)?;
                result
            }
            Mode::Eval => Pass::eval(self.layer, parameters, [mean, var], input).map_err(Error::wrap)?,
        };
        if self.pass.set(pass).is_err() {
            bail!("a batch-norm-dropout operation belongs to one node of the graph")
        }
        Ok(output)
    }
}

/// An evaluation with prepared statistics. It has no backward pass, which candle says where one is asked for.
#[derive(Debug)]
pub(crate) struct PreparedOp<A> {
    layer: Layer<A>,
    prepared: Arc<[f64]>,
}

impl<A: Activation> PreparedOp<A> {
    pub(crate) fn new(layer: Layer<A>, prepared: Arc<[f64]>) -> Self {
        Self { layer, prepared }
    }

    fn forward<E: Element>(&self, input: &[E]) -> Result<Vec<E>> {
        eval_prepared(&self.layer, &self.prepared, input).map_err(Error::wrap)
    }
}

impl<A: Activation> CustomOp1 for PreparedOp<A> {
    fn name(&self) -> &'static str {
        "prepared-batch-norm"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let output = match input {
            CpuStorage::BF16(_) => CpuStorage::BF16(self.forward(values(input, layout)?)?),
            CpuStorage::F16(_) => CpuStorage::F16(self.forward(values(input, layout)?)?),
            _ => CpuStorage::F32(self.forward(values(input, layout)?)?),
        };
        Ok((output, layout.shape().clone()))
    }
}

/// The gradients of input, weight and bias, from these three and the gradient of the output, which has the input's type.
fn gradients<E: Element + WithDType, A: Activation>(
    pass: &Pass<A>,
    tensors: [&Tensor; 4],
) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
    let [input, weight, ..] = tensors;
    let gradients = {
        let [input, weight, bias, grad_output] = tensors.map(Tensor::storage_and_layout);
        let parameters = Parameters { weight: Some(of_cpu(&weight)?), bias: Some(of_cpu(&bias)?) };
        let (values, grad_output) = (of_cpu::<E>(&input)?, of_cpu(&grad_output)?);
        pass.backward(parameters, values, grad_output, tensors[0].track_op()).map_err(Error::wrap)?
    };
    let grad_input = gradients.input.map(|values| Tensor::from_vec(values, input.shape(), &Device::Cpu)).transpose()?;
    let of_channels = |values: Vec<f32>| Tensor::from_vec(values, weight.shape(), &Device::Cpu);
    Ok((grad_input, Some(of_channels(gradients.weight)?), Some(of_channels(gradients.bias)?)))
}

/// The numbers of a tensor, where they are.
fn of_cpu<'a, E: WithDType>((storage, layout): &'a (impl Deref<Target = Storage>, &Layout)) -> Result<&'a [E]> {
    match &**storage {
        Storage::Cpu(storage) => values(storage, layout),
        _ => bail!("batch-norm-dropout works on the CPU"),
    }
}

/// The numbers of a contiguous tensor.
fn values<'a, E: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [E]> {
    let Some((from, to)) = layout.contiguous_offsets() else { bail!("batch-norm-dropout needs contiguous tensors") };
    match storage.as_slice::<E>()?.get(from..to) {
        Some(values) => Ok(values),
        None => bail!("batch-norm-dropout: the layout of a tensor reaches beyond its storage"),
    }
}
