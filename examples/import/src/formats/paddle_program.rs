//! Paddle's programs for inference, of `paddle.jit.save` since Paddle 3: `NAME.json`, a graph, and `NAME.pdiparams`, the
//! numbers of its parameters in the order of their names.
//!
//! The names are `conv2d_0.w_0` and the like, numbered by the order in which the layers were made. `NAME.pdmodel` of Paddle
//! 2 is not read.

use std::collections::{BTreeMap, HashMap};

use normdrop::{WeightOrder, WeightShape};
use prost::Message;
use serde_json::Value;

use super::numbers::{floats, product};
use crate::graph::{Graph, Node, Role};
use crate::model::{BatchNorm, Fault, Model, WeightLayer};

/// What stands before the numbers of a parameter (`framework.proto`).
#[derive(Clone, PartialEq, Message)]
struct TensorDesc {
    #[prost(int32, tag = "1")]
    data_type: i32,
    #[prost(int64, repeated, packed = "false", tag = "2")]
    dims: Vec<i64>,
}

const F32: i32 = 5;

/// A parameter, with numbers if it is of f32.
struct Parameter {
    name: String,
    dims: Vec<usize>,
    values: Option<Vec<f32>>,
}

impl Parameter {
    fn values(&self) -> Result<Vec<f32>, Fault> {
        self.values.clone().ok_or_else(|| format!("{} is not of f32, and no other type is read", self.name))
    }

    /// The layer that it belongs to.
    fn layer(&self) -> String {
        self.name.rsplit_once('.').map_or(&*self.name, |(layer, _)| layer).to_owned()
    }
}

/// Reads a program and its parameters.
///
/// # Errors
/// Names the parameter or the operation that is wrong.
pub fn read(program: &str, params: &[u8]) -> Result<Model, Fault> {
    let json: Value = serde_json::from_str(program).map_err(|error| format!("the program: {error}"))?;
    if json["base_code"]["magic"] != "pir" {
        return Err("the .json beside it is no program of Paddle 3".to_owned());
    }
    let operations =
        json["program"]["regions"][0]["blocks"][0]["ops"].as_array().ok_or("the program has no operations")?;
    // Sorted by their names, as the numbers are.
    let mut names = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation["#"] == "p") {
        let name = operation["A"][3].as_str().ok_or("a parameter without a name")?;
        names.insert(name, operation["O"]["%"].to_string());
    }
    let (mut rest, mut parameters) = (params, HashMap::new());
    for (name, value) in names {
        let parameter = parameter(name, &mut rest).map_err(|fault| format!("{name}: {fault}"))?;
        parameters.insert(value, parameter);
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes are left", rest.len()));
    }
    let (mut model, mut graph) = (Model::default(), Graph::default());
    // Which parameter a reshaped one is.
    let mut reshaped = HashMap::new();
    for (index, operation) in operations.iter().enumerate() {
        let kind = operation["#"].as_str().unwrap_or_default();
        let kind = kind.rsplit_once('.').map_or(kind, |(_, kind)| kind);
        let values =
            |of: &Value| -> Vec<String> { of.as_array().into_iter().flatten().map(|of| of["%"].to_string()).collect() };
        let (inputs, outputs) = (values(&operation["I"]), values(&operation["O"]));
        let of = |place: usize| {
            let value = inputs.get(place).map(|value| reshaped.get(value).unwrap_or(value));
            value.and_then(|value| parameters.get(value))
        };
        let operation = Operation { kind, attributes: &operation["A"] };
        match kind {
            "p" | "data" | "full_int_array" | "full" => continue,
            "reshape" if of(0).is_some() => {
                reshaped.extend(outputs.first().cloned().zip(inputs.first().cloned()));
                continue;
            }
            "fetch" => {
                graph.outputs.extend(inputs);
                continue;
            }
            "add" => {
                // What is added to a weight layer's output alone is its bias.
                let layer =
                    graph.nodes.iter_mut().find(|node| node.outputs.first() == inputs.first() && is_layer(node));
                if let (Some(node), Some(bias)) = (layer, of(1)) {
                    let layer = model.layer(&node.name)?;
                    if model.layers[layer].bias.is_none() && bias.layer() == node.name {
                        model.layers[layer].bias = Some(bias.values()?);
                        node.outputs = outputs;
                        continue;
                    }
                }
            }
            _ => {}
        }
        let (name, role) =
            add(&operation, &of, &mut model)?.unwrap_or_else(|| (format!("{kind} {index}"), operation.role()));
        graph.nodes.push(Node {
            name,
            kind: kind.to_owned(),
            role,
            inputs,
            outputs: outputs.into_iter().take(1).collect(),
        });
    }
    graph.pair(&mut model);
    Ok(model)
}

fn is_layer(node: &Node) -> bool {
    matches!(node.role, Role::Weights { .. } | Role::Transposed { .. })
}

/// Takes a parameter off the numbers: two versions, no levels of details, what it is, and its numbers.
fn parameter(name: &str, rest: &mut &[u8]) -> Result<Parameter, Fault> {
    let mut take = |len: usize| rest.split_off(..len).ok_or("the .pdiparams is cut off");
    if take(16)?.iter().any(|&byte| byte != 0) {
        return Err("it is stored in a version or with levels of details that are not read".to_owned());
    }
    let len = take(4)?.iter().rev().fold(0_usize, |len, &byte| len << 8 | usize::from(byte));
    let desc = TensorDesc::decode(take(len)?).map_err(|error| error.to_string())?;
    let dims = desc.dims.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
    let dims = dims.map_err(|_| "a negative dimension")?;
    // `VarType` of `framework.proto`: bool, i16, i32, i64, f16, f32, f64; then u8, i8 and bf16.
    let size = match desc.data_type {
        0 | 20 | 21 => 1,
        1 | 4 | 22 => 2,
        2 | 5 => 4,
        3 | 6 => 8,
        other => return Err(format!("the type {other} is not known")),
    };
    let bytes = take(product(&dims).saturating_mul(size))?;
    let values = (desc.data_type == F32).then(|| floats(bytes));
    Ok(Parameter { name: name.to_owned(), dims, values })
}

/// An operation of the program.
struct Operation<'a> {
    kind: &'a str,
    attributes: &'a Value,
}

impl Operation<'_> {
    fn attribute(&self, name: &str) -> &Value {
        let found = self.attributes.as_array().into_iter().flatten().find(|attribute| attribute["N"] == name);
        found.map_or(&Value::Null, |attribute| &attribute["AT"]["D"])
    }

    /// Whether it pads: by a number that is not 0, or to keep the size.
    fn pads(&self) -> bool {
        let paddings = self.attribute("paddings").as_array().into_iter().flatten();
        let mut numbers = paddings.map(|of| if of.is_object() { &of["D"] } else { of });
        numbers.any(|number| number != 0) || self.attribute("padding_algorithm") == "SAME"
    }

    /// What it is to a batch norm beside it, if it has no parameters.
    fn role(&self) -> Role {
        match self.kind {
            "flatten" => Role::Passes,
            "dropout" if self.attribute("mode") == "upscale_in_train" => Role::Passes,
            "max_pool2d_with_index" => Role::MaxPools,
            "pool2d" if self.attribute("pooling_type") == "max" => Role::MaxPools,
            "pool2d" if self.attribute("exclusive") == false && self.pads() => Role::Pads,
            "pool2d" => Role::Passes,
            _ => Role::Other,
        }
    }
}

/// Adds the numbers of an operation to the model, if it is a layer, and gives its name and what it is.
fn add<'p>(
    operation: &Operation<'_>,
    of: &impl Fn(usize) -> Option<&'p Parameter>,
    model: &mut Model,
) -> Result<Option<(String, Role)>, Fault> {
    if operation.attribute("data_format") == "NHWC" {
        return Err(format!("a {} with its channels last, and only NCHW is read", operation.kind));
    }
    if matches!(operation.kind, "batch_norm" | "batch_norm_") {
        let part = |place| of(place).ok_or("a batch norm whose statistics are computed, not stored");
        let (mean, var, weight, bias) = (part(1)?, part(2)?, part(3)?, part(4)?);
        let name = weight.layer();
        if operation.attribute("is_test") != true && operation.attribute("use_global_stats") != true {
            return Err(format!("{name} is in training mode: call eval() before paddle.jit.save"));
        }
        let eps = operation.attribute("epsilon").as_f64().ok_or_else(|| format!("{name} has no epsilon"))?;
        #[expect(clippy::cast_possible_truncation, reason = "Paddle adds an f32")]
        let eps = eps as f32;
        let (weight, bias) = (Some(weight.values()?), Some(bias.values()?));
        model.batch_norms.push(BatchNorm {
            name: name.clone(),
            weight,
            bias,
            mean: mean.values()?,
            var: var.values()?,
            eps,
        });
        return Ok(Some((name, Role::BatchNorm)));
    }
    let Some(weights) = of(1) else { return Ok(None) };
    let (order, role) = match operation.kind {
        "conv2d" | "conv3d" | "depthwise_conv2d" => {
            (WeightOrder::OutInTaps, Role::Weights { pads: operation.pads(), activated: false })
        }
        "conv2d_transpose" | "conv3d_transpose" => (WeightOrder::InOutTaps, Role::Transposed { activated: false }),
        "matmul" if operation.attribute("transpose_x") == false && operation.attribute("transpose_y") == false => {
            // Behind a flattened image, the pixels are within the channels.
            (WeightOrder::InTapsOut, Role::Weights { pads: false, activated: false })
        }
        _ => return Ok(None),
    };
    let name = weights.layer();
    let [first, second, taps @ ..] = &weights.dims[..] else {
        return Err(format!("{name}: weights of fewer than two dimensions"));
    };
    let groups = operation.attribute("groups").as_u64().map_or(Some(1), |groups| usize::try_from(groups).ok());
    let groups = groups.filter(|&groups| groups > 0).ok_or_else(|| format!("{name}: groups that are none"))?;
    let (outputs, inputs) = match order {
        WeightOrder::OutInTaps => (*first, second.saturating_mul(groups)),
        _ => (second.saturating_mul(groups), *first),
    };
    let shape = WeightShape { order, outputs, inputs, taps: product(taps), groups };
    let layer =
        WeightLayer { name: name.clone(), dims: weights.dims.clone(), shape, weights: weights.values()?, bias: None };
    model.layers.push(layer);
    Ok(Some((name, role)))
}
