//! ncnn: a `.param` file, a line for each layer, and a `.bin` file with its numbers.
//!
//! The numbers of a layer follow those of the layer before it, without names, so that a layer of an unknown kind ends the
//! reading. Keys and orders are those of ncnn's documentation (`operation-param-weight-table.md`,
//! `param-and-model-file-structure.md`).

use std::collections::BTreeMap;

use normdrop::{WeightOrder, WeightShape};

use super::numbers::Numbers;
use crate::graph::{Graph, Node, Role};
use crate::model::{BatchNorm, Fault, Model, WeightLayer};

const MAGIC: &str = "7767517";

/// Layers without numbers in the `.bin` file.
const WITHOUT_WEIGHTS: [&str; 32] = [
    "Input",
    "ReLU",
    "Sigmoid",
    "TanH",
    "Swish",
    "HardSwish",
    "HardSigmoid",
    "Clip",
    "ELU",
    "SELU",
    "GELU",
    "Mish",
    "Softmax",
    "Pooling",
    "Padding",
    "Flatten",
    "Dropout",
    "Noop",
    "Split",
    "Concat",
    "BinaryOp",
    "UnaryOp",
    "Eltwise",
    "Reshape",
    "Permute",
    "Crop",
    "Slice",
    "Interp",
    "Squeeze",
    "ExpandDims",
    "Reduction",
    "PixelShuffle",
];

impl Numbers<'_> {
    /// Weights of a weight layer: a flag is before them.
    fn weights(&mut self, count: usize) -> Result<Vec<f32>, Fault> {
        match self.take(1)?[0].to_bits() {
            0 => self.take(count),
            0x0130_6B47 => Err("its weights are f16, and only f32 is read: optimise with the flag 0".to_owned()),
            other => Err(format!("the flag of its weights is {other:#x}, and only 0, f32, is read")),
        }
    }
}

/// `key=value` of a line.
struct Keys<'a>(BTreeMap<i32, &'a str>);

impl Keys<'_> {
    fn parsed<T: std::str::FromStr>(&self, key: i32, default: T) -> Result<T, Fault> {
        let Some(value) = self.0.get(&key) else { return Ok(default) };
        value.parse().map_err(|_| format!("{key}={value} is not a number that fits"))
    }

    fn count(&self, key: i32, default: usize) -> Result<usize, Fault> {
        self.parsed(key, default)
    }

    fn integer(&self, key: i32, default: i64) -> Result<i64, Fault> {
        self.parsed(key, default)
    }

    /// Whether one of the keys is another number than 0.
    fn any(&self, keys: &[i32]) -> Result<bool, Fault> {
        keys.iter().try_fold(false, |any, &key| Ok(any || self.integer(key, 0)? != 0))
    }
}

/// Reads a network of f32.
///
/// # Errors
/// Names the layer.
pub fn read(param: &str, bin: &[u8]) -> Result<Model, Fault> {
    let mut lines = param.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    if lines.next() != Some(MAGIC) {
        return Err(format!("the first line is not {MAGIC}"));
    }
    let counts = lines.next().and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    let count = counts.ok_or("the second line is not the number of layers and of values")?;
    let (mut numbers, mut model, mut graph) = (Numbers(bin), Model::default(), Graph::default());
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let short = || format!("{line}: not a kind, a name, two numbers, and as many values");
        let [kind, name, inputs, outputs, rest @ ..] = &words[..] else { return Err(short()) };
        let number = |word: &str| word.parse::<usize>().map_err(|_| short());
        let (inputs, rest) = rest.split_at_checked(number(inputs)?).ok_or_else(short)?;
        let (outputs, rest) = rest.split_at_checked(number(outputs)?).ok_or_else(short)?;
        let mut keys = Keys(BTreeMap::new());
        for pair in rest {
            let (key, value) = pair.split_once('=').ok_or_else(short)?;
            keys.0.insert(key.parse().map_err(|_| short())?, value);
        }
        let role =
            layer(kind, name, &keys, &mut numbers, &mut model).map_err(|fault| format!("{name}, a {kind}: {fault}"))?;
        let owned = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
        let (inputs, outputs) = (owned(inputs), owned(outputs));
        graph.nodes.push(Node { name: (*name).to_owned(), kind: (*kind).to_owned(), role, inputs, outputs });
    }
    if graph.nodes.len() != count {
        return Err(format!("there are {} layers, and the second line says {count}", graph.nodes.len()));
    }
    if !numbers.0.is_empty() {
        return Err(format!("{} bytes are left: the .param is another network's", numbers.0.len()));
    }
    graph.merge_scales(&mut model)?;
    graph.pair(&mut model);
    Ok(model)
}

/// Reads the numbers of a layer into the model.
fn layer(kind: &str, name: &str, keys: &Keys<'_>, numbers: &mut Numbers<'_>, model: &mut Model) -> Result<Role, Fault> {
    match kind {
        "BatchNorm" => {
            let channels = keys.count(0, 0)?;
            let eps = keys.parsed(1, 0.0_f32)?;
            let weight = Some(numbers.take(channels)?);
            let (mean, mut var) = (numbers.take(channels)?, numbers.take(channels)?);
            // `batchnorm.cpp`: a root of 0 is replaced by 1e-4.
            let zeros: Vec<usize> = (0..channels).filter(|&channel| var[channel] + eps == 0.0).collect();
            zeros.iter().for_each(|&channel| var[channel] = 1e-8 - eps);
            if !zeros.is_empty() {
                model.remarks.push(format!(
                    "{name}: variance and eps are 0 in the channels {zeros:?}; ncnn divides by 1e-4 there, so it is 1e-8"
                ));
            }
            let bias = Some(numbers.take(channels)?);
            model.batch_norms.push(BatchNorm { name: name.to_owned(), weight, bias, mean, var, eps });
            Ok(Role::BatchNorm)
        }
        "Scale" => {
            let channels = keys.parsed(0, 0_i64)?;
            let channels = usize::try_from(channels).map_err(|_| "its factors are another layer's output")?;
            let weight = Some(numbers.take(channels)?);
            let bias = keys.any(&[1])?.then(|| numbers.take(channels)).transpose()?;
            let (mean, var) = (vec![0.0; channels], vec![1.0; channels]);
            model.batch_norms.push(BatchNorm { name: name.to_owned(), weight, bias, mean, var, eps: 0.0 });
            Ok(Role::Scale)
        }
        "Convolution" | "ConvolutionDepthWise" | "Deconvolution" | "DeconvolutionDepthWise" | "InnerProduct" => {
            weights(kind, name, keys, numbers, model)
        }
        "PReLU" => {
            numbers.take(keys.count(0, 0)?)?;
            Ok(Role::Other)
        }
        "Pooling" => Ok(match keys.integer(0, 0)? {
            0 => Role::MaxPools,
            _ if !keys.any(&[4])? && keys.any(&[6])? && keys.any(&[3, 13, 14, 15])? => Role::Pads,
            _ => Role::Passes,
        }),
        "Padding" => match keys.integer(4, 0)? {
            0 if keys.parsed(5, 0.0_f32)? == 0.0 => Ok(Role::Pads),
            0 => Ok(Role::Other),
            _ => Ok(Role::Passes),
        },
        "Dropout" if keys.parsed(0, 1.0_f32)? != 1.0 => Ok(Role::Other),
        "Dropout" | "Flatten" | "Noop" => Ok(Role::Passes),
        _ if WITHOUT_WEIGHTS.contains(&kind) => Ok(Role::Other),
        _ => Err("how many numbers it has is not known here".to_owned()),
    }
}

fn weights(
    kind: &str,
    name: &str,
    keys: &Keys<'_>,
    numbers: &mut Numbers<'_>,
    model: &mut Model,
) -> Result<Role, Fault> {
    let linear = kind == "InnerProduct";
    let (bias, len, activation) = if linear { (1, 2, 9) } else { (5, 6, 9) };
    if keys.any(&[8])? {
        return Err("its weights are int8, and only f32 is read".to_owned());
    }
    let (outputs, len, activated) = (keys.count(0, 0)?, keys.count(len, 0)?, keys.any(&[activation])?);
    let bias = keys.any(&[bias])?;
    let width = keys.count(1, 0)?;
    let kernel = if linear { vec![] } else { vec![keys.count(11, width)?, width] };
    let groups = if kind.ends_with("DepthWise") { keys.count(7, 1)? } else { 1 };
    let taps = kernel.iter().try_fold(1_usize, |taps, &size| taps.checked_mul(size));
    let counted = taps.and_then(|taps| {
        let each = outputs.checked_mul(taps)?;
        let per_output = len.checked_div(each)?;
        let whole = per_output * each == len && per_output > 0 && groups > 0 && outputs % groups == 0;
        Some((taps, per_output, per_output.checked_mul(groups)?)).filter(|_| whole)
    });
    let (taps, per_output, inputs) = counted
        .ok_or_else(|| format!("{len} weights are not {outputs} outputs in {groups} groups of {kernel:?} taps"))?;
    let weights = numbers.weights(len)?;
    let bias = bias.then(|| numbers.take(outputs)).transpose()?;
    let mut dims = vec![outputs, per_output];
    dims.extend(kernel);
    // A transposed convolution has its outputs first, too.
    let shape = WeightShape { order: WeightOrder::OutInTaps, outputs, inputs, taps, groups };
    model.layers.push(WeightLayer { name: name.to_owned(), dims, shape, weights, bias });
    if kind.starts_with("Deconvolution") {
        return Ok(Role::Transposed { activated });
    }
    let pads = !linear && keys.any(&[4, 14, 15, 16])?;
    if pads && keys.parsed(18, 0.0_f32)? != 0.0 {
        return Err("it pads with another value than 0".to_owned());
    }
    Ok(Role::Weights { pads, activated })
}
