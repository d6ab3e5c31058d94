//! `MXNet`: `NAME-symbol.json`, a graph, and `NAME-0000.params`, its arrays.
//!
//! The `.params` file is a list of arrays and a list of their names (`ndarray.cc`, `NDArray::Save`). Attributes that have
//! their default are not in the graph: the `eps` of a batch norm is 1e-3, and with `fix_gamma`, the default, its weight is
//! 1 whatever the file says (`batch_norm-inl.h`).

use std::collections::BTreeMap;

use normdrop::{WeightOrder, WeightShape};
use serde_json::Value;

use super::numbers::{floats, product};
use crate::graph::{Graph, Node, Role};
use crate::model::{BatchNorm, Fault, Model, WeightLayer};

const LIST: u64 = 0x112;
/// Arrays whose shape has a u32 or an i32 for the number of dimensions.
const ARRAYS: [u32; 2] = [0xF993_FAC9, 0xF993_FACA];

/// An array, with numbers if it is of f32.
struct Array {
    dims: Vec<usize>,
    values: Option<Vec<f32>>,
}

/// The bytes that are still to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("the file is cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(self.take(N)?.try_into().expect("N bytes were taken"))
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.number().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.number().map(u64::from_le_bytes)
    }

    fn len(&mut self) -> Result<usize, Fault> {
        usize::try_from(self.u64()?).map_err(|_| "a length that is not one".to_owned())
    }

    fn array(&mut self) -> Result<Array, Fault> {
        if !ARRAYS.contains(&self.u32()?) {
            return Err("an array of a version before MXNet 1.0: load and save it with a newer one".to_owned());
        }
        if self.u32()? != 0 {
            return Err("a sparse array".to_owned());
        }
        let rank = self.u32()?;
        if rank == 0 || rank > 8 {
            return Err(format!("an array of {rank} dimensions"));
        }
        let dims = (0..rank).map(|_| self.len()).collect::<Result<Vec<_>, _>>()?;
        // The device on which it was.
        self.take(8)?;
        let kind = self.u32()?;
        let bytes = match kind {
            3 | 5 | 7 => 1,
            2 | 12 => 2,
            0 | 4 => 4,
            1 | 6 => 8,
            other => return Err(format!("the type {other} of an array is not known")),
        };
        let len = dims.iter().try_fold(bytes, |len: usize, &dim| len.checked_mul(dim));
        let data = self.take(len.ok_or("the file is cut off")?)?;
        let values = || floats(data);
        Ok(Array { dims, values: (kind == 0).then(values) })
    }
}

/// The arrays by name, without `arg:` and `aux:`.
fn arrays(params: &[u8]) -> Result<BTreeMap<String, Array>, Fault> {
    let mut bytes = Bytes(params);
    if bytes.u64()? != LIST {
        return Err("it is no list of arrays of MXNet".to_owned());
    }
    bytes.take(8)?;
    let count = bytes.len()?;
    let mut arrays = Vec::new();
    for index in 0..count {
        arrays.push(bytes.array().map_err(|fault| format!("array {index}: {fault}"))?);
    }
    if bytes.len()? != count {
        return Err("it has not as many names as arrays".to_owned());
    }
    let mut named = BTreeMap::new();
    for array in arrays {
        let len = bytes.len()?;
        let name = std::str::from_utf8(bytes.take(len)?).map_err(|error| error.to_string())?;
        named.insert(name.trim_start_matches("arg:").trim_start_matches("aux:").to_owned(), array);
    }
    if bytes.0.is_empty() { Ok(named) } else { Err(format!("{} bytes are left", bytes.0.len())) }
}

/// An operation of the graph.
struct Operation<'a> {
    name: &'a str,
    kind: &'a str,
    attributes: &'a Value,
    /// The names of variables that it reads, by place.
    variables: Vec<Option<&'a str>>,
}

impl Operation<'_> {
    fn attribute<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.attributes[key].as_str().unwrap_or(default)
    }

    /// `MXNet` reads `1` and `True`.
    fn is(&self, key: &str, default: &str) -> bool {
        matches!(self.attribute(key, default), "True" | "true" | "1")
    }

    /// Whether a tuple has a number that is not 0.
    fn any(&self, key: &str) -> bool {
        self.attribute(key, "").contains(|digit| matches!(digit, '1'..='9'))
    }

    fn array<'a>(&self, arrays: &'a BTreeMap<String, Array>, input: usize) -> Result<(&'a Array, Vec<f32>), Fault> {
        let name = self.variables.get(input).copied().flatten();
        let name = name.ok_or_else(|| format!("{}: its input {input} is no variable", self.name))?;
        let array = arrays.get(name).ok_or_else(|| format!("{name} is not in the .params"))?;
        let values = array.values.clone().ok_or_else(|| format!("{name} is not of f32, and no other type is read"))?;
        Ok((array, values))
    }
}

/// Reads a graph and its arrays.
///
/// # Errors
/// Names the operation or the array.
pub fn read(symbol: &str, params: &[u8]) -> Result<Model, Fault> {
    let json: Value = serde_json::from_str(symbol).map_err(|error| format!("the symbol: {error}"))?;
    let nodes = json["nodes"].as_array().ok_or("the symbol has no nodes")?;
    let arrays = arrays(params)?;
    let (mut model, mut graph) = (Model::default(), Graph::default());
    // A value is the number of a node and the number of its output.
    let value = |of: &Value| format!("{}:{}", of[0], of[1]);
    for (index, node) in nodes.iter().enumerate() {
        let (name, kind) = (node["name"].as_str().unwrap_or_default(), node["op"].as_str().unwrap_or_default());
        if kind == "null" {
            continue;
        }
        let inputs = node["inputs"].as_array().map_or(&[][..], Vec::as_slice);
        let variable = |input: &Value| {
            let of = usize::try_from(input[0].as_u64()?).ok().and_then(|of| nodes.get(of))?;
            (of["op"] == "null").then(|| of["name"].as_str())?
        };
        let attributes = ["attrs", "attr", "param"].iter().map(|key| &node[*key]).find(|found| found.is_object());
        let variables = inputs.iter().map(variable).collect();
        let operation = Operation { name, kind, attributes: attributes.unwrap_or(&Value::Null), variables };
        let role = layer(&operation, &arrays, &mut model)?;
        let (inputs, outputs) = (inputs.iter().map(value).collect(), vec![format!("{index}:0")]);
        graph.nodes.push(Node { name: name.to_owned(), kind: kind.to_owned(), role, inputs, outputs });
    }
    graph.outputs = json["heads"].as_array().into_iter().flatten().map(value).collect();
    graph.pair(&mut model);
    Ok(model)
}

/// Reads the arrays of an operation into the model.
fn layer(of: &Operation<'_>, arrays: &BTreeMap<String, Array>, model: &mut Model) -> Result<Role, Fault> {
    let name = of.name.to_owned();
    Ok(match of.kind {
        "BatchNorm" => {
            let part = |input| of.array(arrays, input).map(|(_, values)| values);
            let eps = of.attribute("eps", "0.001").parse().map_err(|_| format!("{name}: its eps is not a number"))?;
            let (mut weight, bias) = (part(1)?, Some(part(2)?));
            if of.is("fix_gamma", "True") && weight.iter().any(|&weight| weight != 1.0) {
                model.remarks.push(format!("{name}: fix_gamma is on, so its weights are 1 and not those of the file"));
                weight.fill(1.0);
            }
            model.batch_norms.push(BatchNorm { mean: part(3)?, var: part(4)?, name, weight: Some(weight), bias, eps });
            Role::BatchNorm
        }
        "Convolution" | "Deconvolution" | "FullyConnected" => {
            let (array, weights) = of.array(arrays, 1)?;
            let channels_last = of.attribute("layout", "NCHW").ends_with('C');
            let groups: usize = of.attribute("num_group", "1").parse().unwrap_or(0);
            let (first, second, taps) = match &array.dims[..] {
                [first, taps @ .., second] if channels_last => (*first, *second, product(taps)),
                [first, second, taps @ ..] => (*first, *second, product(taps)),
                _ => return Err(format!("{name}: weights of one dimension")),
            };
            let second = second.checked_mul(groups).filter(|&inputs| inputs > 0 && first % groups == 0);
            let second = second.ok_or_else(|| format!("{name}: {groups} groups do not divide its weights"))?;
            let transposed = of.kind == "Deconvolution";
            let (order, outputs, inputs) = match (transposed, channels_last) {
                (false, false) => (WeightOrder::OutInTaps, first, second),
                (false, true) => (WeightOrder::OutTapsIn, first, second),
                (true, false) => (WeightOrder::InOutTaps, second, first),
                (true, true) => (WeightOrder::InTapsOut, second, first),
            };
            let no_bias = of.is("no_bias", if transposed { "True" } else { "False" });
            let bias = (!no_bias).then(|| of.array(arrays, 2).map(|(_, values)| values)).transpose()?;
            let shape = WeightShape { order, outputs, inputs, taps, groups };
            model.layers.push(WeightLayer { name, dims: array.dims.clone(), shape, weights, bias });
            match of.kind {
                "Deconvolution" => Role::Transposed { activated: false },
                // With `flatten=False` it works on the last dimension, which is not that of the channels.
                "FullyConnected" if !of.is("flatten", "True") => Role::Other,
                _ => Role::Weights { pads: of.any("pad"), activated: false },
            }
        }
        "Pooling" => match (of.attribute("pool_type", "max"), of.is("global_pool", "False")) {
            ("max", _) => Role::MaxPools,
            ("avg", true) => Role::Passes,
            ("avg", false) if of.attribute("pooling_convention", "valid") == "full" => Role::Other,
            ("avg", false) if of.any("pad") && of.is("count_include_pad", "True") => Role::Pads,
            ("avg", false) => Role::Passes,
            _ => Role::Other,
        },
        "Dropout" if of.attribute("mode", "training") != "always" => Role::Passes,
        "Flatten" | "flatten" | "_copy" | "identity" => Role::Passes,
        "Pad" | "pad" if of.attribute("mode", "constant") != "constant" => Role::Passes,
        "Pad" | "pad" if !of.any("constant_value") => Role::Pads,
        _ => Role::Other,
    })
}
