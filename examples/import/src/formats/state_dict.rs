//! State dicts of PyTorch and Paddle: names with tensors, in safetensors here, and in pickles in `torch` and `paddle`.
//!
//! PyTorch has `weight`, `bias`, `running_mean`, `running_var`, and for each batch norm `num_batches_tracked`. Paddle has
//! `_mean` and `_variance` instead, and linear weights of `[in, out]`. Neither has an `eps` or a graph.

use std::borrow::Cow;
use std::collections::BTreeMap;

use normdrop::{WeightOrder, WeightShape};
use safetensors::{Dtype, SafeTensors};

use super::numbers::{floats, product};
use crate::model::{BatchNorm, Fault, Model, WeightLayer};

/// What the layers of both have unless they are given another.
const EPS: f32 = 1e-5;

/// A tensor of a file.
#[derive(Debug, Clone)]
pub(super) struct Tensor<'a> {
    pub(super) dims: Vec<usize>,
    /// `f32`, or the type of elements that are not read.
    pub(super) element: String,
    /// In little endian, and in the order of the dimensions.
    pub(super) bytes: Cow<'a, [u8]>,
}

/// Several names may have the same tensor. But its numbers are copied for each, and a small file must not fill the memory.
pub(super) const SHARED: &str =
    "its tensors are the same numbers many times, and more than four times as long as the file";

/// The bytes that the tensors of a file of `len` bytes have at most.
pub(super) fn most_bytes(len: usize) -> usize {
    len.saturating_mul(4)
}

/// Refuses tensors that share their numbers too often.
pub(super) fn check_shared(tensors: &BTreeMap<String, Tensor<'_>>, len: usize) -> Result<(), Fault> {
    let total = tensors.values().fold(0_usize, |total, tensor| total.saturating_add(tensor.bytes.len()));
    if total > most_bytes(len) { Err(SHARED.to_owned()) } else { Ok(()) }
}

/// Reads the batch norms and weight layers of a state dict in safetensors.
///
/// # Errors
/// Names the tensor that is wrong.
pub fn read(bytes: &[u8], eps: Option<f32>) -> Result<Model, Fault> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let element = if view.dtype() == Dtype::F32 { "f32".to_owned() } else { format!("{:?}", view.dtype()) };
        let tensor = Tensor { dims: view.shape().to_vec(), element, bytes: Cow::Borrowed(view.data()) };
        tensors.insert(name, tensor);
    }
    read_tensors(&tensors, eps)
}

/// Reads the batch norms and weight layers among tensors. Transposed convolutions and groups are not told apart from others
/// by their numbers: pairs whose channels do not fit are refused.
///
/// # Errors
/// Names the tensor that is wrong.
pub(super) fn read_tensors(tensors: &BTreeMap<String, Tensor<'_>>, eps: Option<f32>) -> Result<Model, Fault> {
    let values = |name: &str| -> Result<Option<Vec<f32>>, Fault> {
        let Some(Tensor { dims, element, bytes }) = tensors.get(name) else { return Ok(None) };
        if element != "f32" {
            return Err(format!("{name} is {element}, and only f32 is read"));
        }
        if dims.iter().try_fold(4_usize, |len, &dim| len.checked_mul(dim)) != Some(bytes.len()) {
            return Err(format!("{name} has {} bytes, which its dimensions {dims:?} do not", bytes.len()));
        }
        Ok(Some(floats(bytes)))
    };
    let mut model = Model::default();
    if eps.is_none() {
        model.remarks.push(format!("a state dict has no eps: the default of {EPS:e} is taken, --eps says another"));
    }
    let paddle = tensors.keys().any(|name| name.ends_with("._mean"));
    let (mean, var) = if paddle { ("_mean", "_variance") } else { ("running_mean", "running_var") };
    for name in tensors.keys() {
        if let Some(prefix) = name.strip_suffix(mean).and_then(|prefix| prefix.strip_suffix('.')) {
            let of = |part: &str| values(&format!("{prefix}.{part}"));
            let missing = || format!("{prefix} has a {mean} and no {var}");
            model.batch_norms.push(BatchNorm {
                name: prefix.to_owned(),
                weight: of("weight")?,
                bias: of("bias")?,
                mean: of(mean)?.unwrap_or_default(),
                var: of(var)?.ok_or_else(missing)?,
                eps: eps.unwrap_or(EPS),
            });
        } else if let (Some(prefix), dims) = (name.strip_suffix(".weight"), &tensors[name].dims[..])
            && dims.len() >= 2
        {
            let (order, outputs, inputs) = match dims {
                // Behind a flattened image, the pixels are within the channels.
                [inputs, outputs] if paddle => (WeightOrder::InTapsOut, *outputs, *inputs),
                _ => (WeightOrder::OutInTaps, dims[0], dims[1]),
            };
            model.layers.push(WeightLayer {
                name: prefix.to_owned(),
                dims: dims.to_vec(),
                shape: WeightShape { order, outputs, inputs, taps: product(&dims[2..]), groups: 1 },
                weights: values(name)?.unwrap_or_default(),
                bias: values(&format!("{prefix}.bias"))?,
            });
        }
    }
    if model.batch_norms.is_empty() && !tensors.is_empty() {
        let names: Vec<&str> = tensors.keys().take(8).map(String::as_str).collect();
        model.remarks.push(format!(
            "none of its {} tensors is a running mean; the first are {}",
            tensors.len(),
            names.join(", ")
        ));
    }
    model.guess();
    Ok(model)
}
