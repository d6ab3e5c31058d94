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
    /// `f32`, `f16` or `bf16`, or the type of elements that are not read.
    pub(super) element: String,
    /// In little endian, and in the order of the dimensions.
    pub(super) bytes: Cow<'a, [u8]>,
}

/// The bytes of an element, if tensors of its type are read. Halves are widened, which is exact.
pub(super) fn size_of(element: &str) -> Option<usize> {
    match element {
        "f32" => Some(4),
        "f16" | "bf16" => Some(2),
        _ => None,
    }
}

/// A number of the type f16 of IEEE 754.
fn widened(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let (sign, exponent, fraction) = (bits >> 15 << 31, bits >> 10 & 0x1F, bits & 0x3FF);
    let magnitude = match exponent {
        // The fraction in units of 2^-24: a subnormal number or 0.
        0 => (f32::from_bits(0x3380_0000) * f32::from(u16::try_from(fraction).unwrap_or(0))).to_bits(),
        31 => 0x7F80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
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
        let element = match view.dtype() {
            Dtype::F32 => "f32".to_owned(),
            Dtype::F16 => "f16".to_owned(),
            Dtype::BF16 => "bf16".to_owned(),
            other => format!("{other:?}"),
        };
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
        let size =
            size_of(element).ok_or_else(|| format!("{name} is {element}, and only f32, f16 and bf16 are read"))?;
        if dims.iter().try_fold(size, |len, &dim| len.checked_mul(dim)) != Some(bytes.len()) {
            return Err(format!("{name} has {} bytes, which its dimensions {dims:?} do not", bytes.len()));
        }
        let halves = || bytes.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes));
        Ok(Some(match &**element {
            "f16" => halves().map(widened).collect(),
            "bf16" => halves().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect(),
            _ => floats(bytes),
        }))
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

#[cfg(test)]
mod tests {
    use super::widened;

    #[test]
    fn every_half_becomes_its_value() {
        for bits in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from(bits >> 10 & 0x1F), f64::from(bits & 0x3FF));
            let magnitude = match exponent {
                0 => fraction * 2.0_f64.powi(-24),
                31 if fraction == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1024.0 + fraction) * 2.0_f64.powi(exponent - 25),
            };
            let expected = if bits & 0x8000 == 0 { magnitude } else { -magnitude };
            let value = f64::from(widened(bits));
            assert!(value == expected || value.is_nan() && expected.is_nan(), "{bits:#06x}: {value}, {expected}");
            assert!(expected.is_nan() || value.is_sign_negative() == expected.is_sign_negative(), "{bits:#06x}");
        }
    }
}
