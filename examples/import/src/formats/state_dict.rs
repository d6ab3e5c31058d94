//! PyTorch's state dict in safetensors: `weight`, `bias`, `running_mean`, `running_var`, and for each batch norm
//! `num_batches_tracked`. Paddle's has `_mean` and `_variance` instead, and linear weights of `[in, out]`. Neither has an
//! `eps` or a graph.

use std::collections::BTreeMap;

use normdrop::{WeightOrder, WeightShape};
use safetensors::{Dtype, SafeTensors};

use super::numbers::floats;
use crate::model::{BatchNorm, Fault, Model, WeightLayer};

/// What the layers of both have unless they are given another.
const EPS: f32 = 1e-5;

/// Reads the batch norms and weight layers of a state dict. Transposed convolutions and groups are not told apart from
/// others by their numbers: pairs whose channels do not fit are refused.
///
/// # Errors
/// Names the tensor that is wrong.
pub fn read(bytes: &[u8], eps: Option<f32>) -> Result<Model, Fault> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        tensors.insert(name, view);
    }
    let values = |name: &str| -> Result<Option<Vec<f32>>, Fault> {
        let Some(view) = tensors.get(name) else { return Ok(None) };
        match view.dtype() {
            Dtype::F32 => Ok(Some(floats(view.data()))),
            other => Err(format!("{name} is {other:?}, and only F32 is read")),
        }
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
        } else if let (Some(prefix), dims) = (name.strip_suffix(".weight"), tensors[name].shape())
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
                shape: WeightShape { order, outputs, inputs, taps: dims[2..].iter().product(), groups: 1 },
                weights: values(name)?.unwrap_or_default(),
                bias: values(&format!("{prefix}.bias"))?,
            });
        }
    }
    model.guess();
    Ok(model)
}
