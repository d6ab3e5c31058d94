//! ONNX: a graph, so that nothing has to be guessed.
//!
//! The messages are those of `onnx.proto`, with the fields that are read here.

use std::collections::HashMap;

use normdrop::{WeightOrder, WeightShape};
use prost::Message;

use super::numbers::product;
use crate::graph::{self, Role};
use crate::model::{BatchNorm, Fault, Model, WeightLayer};

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, tag = "2")]
    f: f32,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(bytes = "vec", tag = "4")]
    s: Vec<u8>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
    /// 1 if the numbers are in another file.
    #[prost(int32, tag = "14")]
    data_location: i32,
}

impl NodeProto {
    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name == name)
    }

    fn number(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |attribute| attribute.f)
    }

    fn integer(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i)
    }

    fn input(&self, index: usize) -> Option<&str> {
        self.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Its name, or that of its output: names of nodes are optional.
    fn called(&self) -> &str {
        if self.name.is_empty() { self.output.first().map_or("", String::as_str) } else { &self.name }
    }

    /// Whether zeros are padded.
    fn pads(&self) -> bool {
        let automatic = self.attribute("auto_pad").is_some_and(|pad| pad.s.starts_with(b"SAME"));
        automatic || self.attribute("pads").is_some_and(|pads| pads.ints.iter().any(|&pad| pad != 0))
    }

    /// What it is to a batch norm beside it.
    fn role(&self) -> Role {
        match self.op_type.as_str() {
            "BatchNormalization" => Role::BatchNorm,
            "Conv" => Role::Weights { pads: self.pads(), activated: false },
            "Gemm" => Role::Weights { pads: false, activated: false },
            "ConvTranspose" => Role::Transposed { activated: false },
            "AveragePool" if self.integer("count_include_pad", 0) != 0 && self.pads() => Role::Pads,
            "AveragePool" | "Dropout" | "Identity" | "Flatten" | "GlobalAveragePool" => Role::Passes,
            "MaxPool" | "GlobalMaxPool" => Role::MaxPools,
            "Pad" if self.attribute("mode").is_none_or(|mode| mode.s == b"constant") => Role::Pads,
            "Pad" => Role::Passes,
            _ => Role::Other,
        }
    }
}

/// A tensor of f32.
struct Constant {
    dims: Vec<usize>,
    values: Vec<f32>,
}

impl TryFrom<&TensorProto> for Constant {
    type Error = Fault;

    fn try_from(tensor: &TensorProto) -> Result<Self, Fault> {
        let fault = |what: &str| Err(format!("{}: {what}", tensor.name));
        if tensor.data_type != 1 {
            return fault("only tensors of f32 are read");
        }
        if tensor.data_location == 1 {
            return fault("the numbers are in another file: save the model without external data");
        }
        let dims = tensor.dims.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
        let dims = dims.map_err(|_| format!("{}: a negative dimension", tensor.name))?;
        let values = match tensor.raw_data.as_chunks() {
            ([], _) => tensor.float_data.clone(),
            (chunks, _) => chunks.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        };
        let len = dims.iter().try_fold(1_usize, |len, &dim| len.checked_mul(dim));
        if len == Some(values.len()) {
            Ok(Self { dims, values })
        } else {
            fault("not as many numbers as its dimensions have")
        }
    }
}

/// The graph and its constants.
struct Graph<'a> {
    graph: &'a GraphProto,
    constants: HashMap<&'a str, &'a TensorProto>,
}

impl<'a> Graph<'a> {
    fn constant(&self, node: &NodeProto, input: usize) -> Result<Option<Constant>, Fault> {
        let Some(name) = node.input(input) else { return Ok(None) };
        let tensor = self.constants.get(name).ok_or_else(|| format!("{}: {name} is no constant", node.called()))?;
        Constant::try_from(*tensor).map(Some)
    }

    /// A `Conv`, `ConvTranspose` or `Gemm` as a weight layer.
    fn layer(&self, node: &NodeProto) -> Result<WeightLayer, Fault> {
        let fault = |what: &str| format!("{}: {what}", node.called());
        let Constant { dims, values } = self.constant(node, 1)?.ok_or_else(|| fault("no weights"))?;
        let [first, second, taps @ ..] = &dims[..] else { return Err(fault("weights of fewer than two dimensions")) };
        let taps = product(taps);
        let groups = usize::try_from(node.integer("group", 1)).map_err(|_| fault("a negative group"))?;
        let (order, outputs, inputs) = match node.op_type.as_str() {
            "Conv" => (WeightOrder::OutInTaps, *first, second.saturating_mul(groups)),
            "ConvTranspose" => (WeightOrder::InOutTaps, second.saturating_mul(groups), *first),
            _ if node.number("alpha", 1.0) != 1.0
                || node.number("beta", 1.0) != 1.0
                || node.integer("transA", 0) != 0 =>
            {
                return Err(fault("only alpha and beta of 1, and transA of 0"));
            }
            _ if node.integer("transB", 0) != 0 => (WeightOrder::OutInTaps, *first, *second),
            // Behind a flattened image, the pixels are within the channels.
            _ => (WeightOrder::InTapsOut, *second, *first),
        };
        let shape = WeightShape { order, outputs, inputs, taps, groups };
        let bias = self.constant(node, 2)?.map(|constant| constant.values);
        Ok(WeightLayer { name: node.called().to_owned(), dims, shape, weights: values, bias })
    }
}

fn is_weights(node: &NodeProto) -> bool {
    matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "Gemm")
}

/// Reads a model whose batch norms have constant parameters.
///
/// # Errors
/// Names the node or the tensor.
pub fn read(bytes: &[u8]) -> Result<Model, Fault> {
    let graph = ModelProto::decode(bytes).map_err(|error| error.to_string())?.graph.ok_or("there is no graph in it")?;
    let constants = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let graph = Graph { graph: &graph, constants };
    let mut model = Model::default();
    for node in graph.graph.node.iter().filter(|node| is_weights(node)) {
        match graph.layer(node) {
            Ok(layer) => model.layers.push(layer),
            Err(fault) => model.remarks.push(format!("{fault}: not read")),
        }
    }
    for node in graph.graph.node.iter().filter(|node| node.op_type == "BatchNormalization") {
        let name = node.called().to_owned();
        if node.integer("training_mode", 0) != 0 {
            return Err(format!(
                "{name} is in training mode: its statistics are those of each batch. Export the model in eval()"
            ));
        }
        let part = |input| {
            let constant = graph.constant(node, input)?.ok_or_else(|| format!("{name} lacks its input {input}"))?;
            Ok::<_, Fault>(constant.values)
        };
        let eps = node.number("epsilon", 1e-5);
        let (weight, bias) = (Some(part(1)?), Some(part(2)?));
        model.batch_norms.push(BatchNorm { mean: part(3)?, var: part(4)?, name, weight, bias, eps });
    }
    let nodes = graph.graph.node.iter().map(|node| graph::Node {
        name: node.called().to_owned(),
        kind: node.op_type.clone(),
        role: node.role(),
        inputs: node.input.clone(),
        outputs: node.output.clone(),
    });
    let outputs = graph.graph.output.iter().map(|output| output.name.clone());
    graph::Graph { nodes: nodes.collect(), outputs: outputs.collect() }.pair(&mut model);
    Ok(model)
}
