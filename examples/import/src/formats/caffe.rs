//! Caffe: a `.caffemodel`, which has the layers of the network and their numbers. A `.prototxt` with it has the layers as
//! they are run, and then the `.caffemodel` gives the numbers alone, by the names of the layers: so Caffe does it.
//!
//! The messages are those of `caffe.proto`, with the fields that are read here. A `BatchNorm` has sums and a factor by
//! which they are divided; its weight and bias are those of a `Scale` layer after it.

use std::collections::HashMap;

use normdrop::{Stored, WeightOrder, WeightShape};
use prost::Message;

use super::numbers::product;
use super::prototxt::{self, Fields};
use crate::graph::{Graph, Node, Role};
use crate::model::{BatchNorm, Fault, Model, WeightLayer};

#[derive(Clone, PartialEq, Message)]
struct NetParameter {
    /// The layers of files of before 2014, whose messages are others.
    #[prost(bytes = "vec", repeated, tag = "2")]
    layers: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "100")]
    layer: Vec<LayerParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct LayerParameter {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    kind: String,
    #[prost(string, repeated, tag = "3")]
    bottom: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    top: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    blobs: Vec<BlobProto>,
    #[prost(message, optional, tag = "106")]
    convolution_param: Option<ConvolutionParameter>,
    #[prost(message, optional, tag = "117")]
    inner_product_param: Option<InnerProductParameter>,
    #[prost(message, optional, tag = "121")]
    pooling_param: Option<PoolingParameter>,
    #[prost(message, optional, tag = "139")]
    batch_norm_param: Option<BatchNormParameter>,
    #[prost(message, optional, tag = "142")]
    scale_param: Option<ScaleParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct BlobProto {
    /// `num`, `channels`, `height` and `width` of old files, without a shape.
    #[prost(int32, tag = "1")]
    num: i32,
    #[prost(int32, tag = "2")]
    channels: i32,
    #[prost(int32, tag = "3")]
    height: i32,
    #[prost(int32, tag = "4")]
    width: i32,
    #[prost(float, repeated, tag = "5")]
    data: Vec<f32>,
    #[prost(message, optional, tag = "7")]
    shape: Option<BlobShape>,
    #[prost(double, repeated, tag = "8")]
    double_data: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct BlobShape {
    #[prost(int64, repeated, tag = "1")]
    dim: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct ConvolutionParameter {
    #[prost(uint32, repeated, tag = "3")]
    pad: Vec<u32>,
    #[prost(uint32, optional, tag = "5")]
    group: Option<u32>,
    #[prost(uint32, tag = "9")]
    pad_h: u32,
    #[prost(uint32, tag = "10")]
    pad_w: u32,
}

#[derive(Clone, PartialEq, Message)]
struct InnerProductParameter {
    #[prost(int32, optional, tag = "5")]
    axis: Option<i32>,
    #[prost(bool, tag = "6")]
    transpose: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PoolingParameter {
    /// 0 takes the largest value, 1 the average.
    #[prost(int32, tag = "1")]
    pool: i32,
    #[prost(uint32, tag = "4")]
    pad: u32,
    #[prost(uint32, tag = "9")]
    pad_h: u32,
    #[prost(uint32, tag = "10")]
    pad_w: u32,
    #[prost(bool, tag = "12")]
    global_pooling: bool,
}

#[derive(Clone, PartialEq, Message)]
struct BatchNormParameter {
    #[prost(float, optional, tag = "3")]
    eps: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct ScaleParameter {
    #[prost(int32, optional, tag = "1")]
    axis: Option<i32>,
    #[prost(int32, optional, tag = "2")]
    num_axes: Option<i32>,
}

/// Dimensions and numbers.
type Blob = (Vec<usize>, Vec<f32>);

impl LayerParameter {
    /// A blob, if the layer has it.
    fn blob(&self, index: usize) -> Result<Option<Blob>, Fault> {
        let Some(blob) = self.blobs.get(index) else { return Ok(None) };
        let fault = |what: &str| format!("{}, blob {index}: {what}", self.name);
        if !blob.double_data.is_empty() {
            return Err(fault("numbers of f64, and only f32 is read"));
        }
        let old = [blob.num, blob.channels, blob.height, blob.width].map(i64::from);
        let dims = blob.shape.as_ref().map_or(&old[..], |shape| &shape.dim);
        let dims = dims.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
        let dims = dims.map_err(|_| fault("a negative dimension"))?;
        if dims.iter().try_fold(1_usize, |len, &dim| len.checked_mul(dim)) != Some(blob.data.len()) {
            return Err(fault("not as many numbers as its dimensions have"));
        }
        Ok(Some((dims, blob.data.clone())))
    }

    fn values(&self, index: usize) -> Result<Vec<f32>, Fault> {
        let blob = self.blob(index)?.ok_or_else(|| format!("{} lacks its blob {index}", self.name))?;
        Ok(blob.1)
    }
}

/// The layers of a `.prototxt` without their numbers, as far as they are run in evaluation.
fn layers(text: &str) -> Result<Vec<LayerParameter>, Fault> {
    let network = prototxt::parse(text)?;
    if network.messages("layers").next().is_some() {
        return Err(format!("the .prototxt: {OLD}"));
    }
    let mut layers = Vec::new();
    for of in network.messages("layer") {
        let trains = |rule: &Fields| rule.text("phase") == Some("TRAIN");
        let tests = |rule: &Fields| rule.text("phase") == Some("TEST");
        let included = of.messages("include").next().is_none() || !of.messages("include").all(trains);
        if !included || of.messages("exclude").any(tests) {
            continue;
        }
        layers.push(LayerParameter::from_text(of)?);
    }
    Ok(layers)
}

impl LayerParameter {
    fn from_text(of: &Fields) -> Result<Self, Fault> {
        let name = of.text("name").unwrap_or_default().to_owned();
        let at = |fault: Fault| format!("the .prototxt, layer {name}: {fault}");
        let texts = |key: &str| of.texts(key).map(str::to_owned).collect();
        let mut layer = Self {
            kind: of.text("type").unwrap_or_default().to_owned(),
            bottom: texts("bottom"),
            top: texts("top"),
            ..Self::default()
        };
        if let Some(of) = of.messages("convolution_param").next() {
            layer.convolution_param = Some(ConvolutionParameter {
                pad: of.numbers("pad").map_err(at)?,
                group: of.number("group").map_err(at)?,
                pad_h: of.number("pad_h").map_err(at)?.unwrap_or_default(),
                pad_w: of.number("pad_w").map_err(at)?.unwrap_or_default(),
            });
        }
        if let Some(of) = of.messages("inner_product_param").next() {
            let transpose = of.text("transpose") == Some("true");
            layer.inner_product_param = Some(InnerProductParameter { axis: of.number("axis").map_err(at)?, transpose });
        }
        if let Some(of) = of.messages("pooling_param").next() {
            layer.pooling_param = Some(PoolingParameter {
                pool: match of.text("pool") {
                    None | Some("MAX" | "0") => 0,
                    Some("AVE" | "1") => 1,
                    Some(_) => 2,
                },
                pad: of.number("pad").map_err(at)?.unwrap_or_default(),
                pad_h: of.number("pad_h").map_err(at)?.unwrap_or_default(),
                pad_w: of.number("pad_w").map_err(at)?.unwrap_or_default(),
                global_pooling: of.text("global_pooling") == Some("true"),
            });
        }
        if let Some(of) = of.messages("batch_norm_param").next() {
            layer.batch_norm_param = Some(BatchNormParameter { eps: of.number("eps").map_err(at)? });
        }
        if let Some(of) = of.messages("scale_param").next() {
            let (axis, num_axes) = (of.number("axis").map_err(at)?, of.number("num_axes").map_err(at)?);
            layer.scale_param = Some(ScaleParameter { axis, num_axes });
        }
        layer.name = name;
        Ok(layer)
    }
}

const OLD: &str = "its layers are of the form of before 2014: upgrade_net_proto_binary and upgrade_net_proto_text turn it \
                   into the new one";

/// Reads a `.caffemodel` as `caffe train` writes it, of version 1.0, with the layers of a `.prototxt` if there is one.
///
/// # Errors
/// Names the layer.
pub fn read(bytes: &[u8], prototxt: Option<&str>) -> Result<Model, Fault> {
    let mut network = NetParameter::decode(bytes).map_err(|error| error.to_string())?;
    if !network.layers.is_empty() {
        return Err(OLD.to_owned());
    }
    if network.layer.is_empty() {
        return Err("there is no layer in it".to_owned());
    }
    let (mut model, mut graph) = (Model::default(), Graph::default());
    if let Some(text) = prototxt {
        let mut layers = layers(text)?;
        if layers.is_empty() {
            return Err("there is no layer in the .prototxt".to_owned());
        }
        model.remarks.push("the layers and their eps are those of the .prototxt".to_owned());
        for with_numbers in network.layer.into_iter().filter(|layer| !layer.blobs.is_empty()) {
            match layers.iter_mut().find(|layer| layer.name == with_numbers.name) {
                Some(layer) => layer.blobs = with_numbers.blobs,
                None => model.remarks.push(format!("{} is not in the .prototxt: not read", with_numbers.name)),
            }
        }
        network.layer = layers;
    }
    // A layer may write over the blob that it reads: what is in a blob has the number of the layer that wrote it.
    let mut written: HashMap<&str, String> = HashMap::new();
    for (index, layer) in network.layer.iter().enumerate() {
        let inputs =
            layer.bottom.iter().map(|name| written.get(name.as_str()).cloned().unwrap_or_else(|| name.clone()));
        let inputs = inputs.collect();
        let outputs: Vec<String> = layer.top.iter().map(|name| format!("{name}:{index}")).collect();
        written.extend(layer.top.iter().map(String::as_str).zip(outputs.iter().cloned()));
        let role = add(layer, &mut model)?;
        graph.nodes.push(Node { name: layer.name.clone(), kind: layer.kind.clone(), role, inputs, outputs });
    }
    graph.merge_scales(&mut model)?;
    graph.pair(&mut model);
    Ok(model)
}

/// Adds the numbers of a layer to the model.
fn add(layer: &LayerParameter, model: &mut Model) -> Result<Role, Fault> {
    let name = layer.name.clone();
    Ok(match layer.kind.as_str() {
        "BatchNorm" => {
            let (mut mean, mut var, factor) = (layer.values(0)?, layer.values(1)?, layer.values(2)?);
            let &[factor] = &factor[..] else { return Err(format!("{name}: its factor is not one number")) };
            if factor == 0.0 {
                model.remarks.push(format!("{name}: a factor of 0, with which Caffe takes mean and variance of 0"));
            }
            let eps = layer.batch_norm_param.as_ref().and_then(|of| of.eps).unwrap_or(1e-5);
            let stored = Stored::Sums { factor, eps };
            let eps = stored.into_running(&mut mean, &mut var).map_err(|error| format!("{name}: {error}"))?;
            model.batch_norms.push(BatchNorm { name, weight: None, bias: None, mean, var, eps });
            Role::BatchNorm
        }
        "Scale" => {
            let of = layer.scale_param.clone().unwrap_or_default();
            if layer.bottom.len() != 1 || of.axis.unwrap_or(1) != 1 || of.num_axes.unwrap_or(1) != 1 {
                return Ok(Role::Other);
            }
            let weight = layer.values(0)?;
            let bias = layer.blob(1)?.map(|(_, values)| values);
            let (mean, var) = (vec![0.0; weight.len()], vec![1.0; weight.len()]);
            model.batch_norms.push(BatchNorm { name, weight: Some(weight), bias, mean, var, eps: 0.0 });
            Role::Scale
        }
        "Convolution" | "Deconvolution" | "InnerProduct" => {
            let (mut dims, weights) = layer.blob(0)?.ok_or_else(|| format!("{name} has no weights"))?;
            let of = layer.convolution_param.clone().unwrap_or_default();
            let linear_param = layer.inner_product_param.clone().unwrap_or_default();
            let linear = layer.kind == "InnerProduct";
            if linear {
                // Old files have [1, 1, out, in].
                dims = dims.split_off(dims.len().saturating_sub(2));
            }
            let [first, second, taps @ ..] = &dims[..] else {
                return Err(format!("{name}: weights of fewer than two dimensions"));
            };
            let groups = if linear { 1 } else { usize::try_from(of.group.unwrap_or(1)).unwrap_or(0) };
            let divided = groups > 0 && first % groups == 0;
            let second = second.checked_mul(groups).filter(|_| divided);
            let second = second.ok_or_else(|| format!("{name}: {groups} groups do not divide its weights"))?;
            let transposed = layer.kind == "Deconvolution";
            let (order, outputs, inputs) = match (transposed, linear_param.transpose) {
                (false, false) => (WeightOrder::OutInTaps, *first, second),
                _ => (WeightOrder::InOutTaps, second, *first),
            };
            let shape = WeightShape { order, outputs, inputs, taps: product(taps), groups };
            let bias = layer.blob(1)?.map(|(_, values)| values);
            // Behind a flattened image the pixels are within the channels.
            let shape = if linear && linear_param.transpose {
                WeightShape { order: WeightOrder::InTapsOut, ..shape }
            } else {
                shape
            };
            model.layers.push(WeightLayer { name, dims, shape, weights, bias });
            match (transposed, linear) {
                (true, _) => Role::Transposed { activated: false },
                (_, true) if linear_param.axis.unwrap_or(1) != 1 => Role::Other,
                _ => {
                    let pads = of.pad.iter().any(|&pad| pad != 0) || of.pad_h != 0 || of.pad_w != 0;
                    Role::Weights { pads, activated: false }
                }
            }
        }
        "Pooling" => {
            let of = layer.pooling_param.clone().unwrap_or_default();
            match of.pool {
                0 => Role::MaxPools,
                // The average counts the padding.
                1 if !of.global_pooling && (of.pad, of.pad_h, of.pad_w) != (0, 0, 0) => Role::Pads,
                1 => Role::Passes,
                _ => Role::Other,
            }
        }
        "Dropout" | "Flatten" => Role::Passes,
        _ => Role::Other,
    })
}
