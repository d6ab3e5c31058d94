//! Keras 3: `.keras`, an archive of `config.json` and `model.weights.h5`; and `.weights.h5` alone, which has neither the
//! `eps` nor the order of the layers.
//!
//! The groups of the weights are named by class and place (`layers/conv2d_1`); the attribute `name` of `vars` is the
//! layer's own name. `vars/0` and so on are gamma, beta, mean, variance, without those that the layer does not have.

use std::collections::BTreeMap;
use std::io::Cursor;

use normdrop::{WeightOrder, WeightShape};
use serde_json::Value;

use super::numbers::product;
use crate::model::{BatchNorm, Fault, Model, Side, WeightLayer};

/// The variables of a layer, in order.
type Variables = Vec<(Vec<usize>, Vec<f32>)>;

/// What a batch norm of Keras has unless it is given another.
const EPS: f32 = 1e-3;

/// Reads what `save_weights` writes. Layers are paired by their names.
///
/// # Errors
/// If it is no such file.
pub fn read_weights(bytes: Vec<u8>, eps: Option<f32>) -> Result<Model, Fault> {
    let mut model = Model::default();
    if eps.is_none() {
        model
            .remarks
            .push(format!("a file of weights has no eps: Keras' default of {EPS:e} is taken, --eps says another"));
    }
    for (name, Layer { group, variables }) in variables(bytes)? {
        // The group has the name of the class, and a number from the second one on.
        let class = group.trim_end_matches(|digit: char| digit.is_ascii_digit()).trim_end_matches('_');
        if group.starts_with("batch_normalization") {
            let mut values = variables.into_iter().map(|(_, values)| values);
            let (weight, bias, mean, var) = match values.len() {
                4 => (values.next(), values.next(), values.next(), values.next()),
                2 => (None, None, values.next(), values.next()),
                count => {
                    let what = "whether the weight or the bias is missing is in the .keras alone";
                    model.remarks.push(format!("{name}: {count} variables; {what}: not read"));
                    continue;
                }
            };
            let (mean, var, eps) = (mean.unwrap_or_default(), var.unwrap_or_default(), eps.unwrap_or(EPS));
            model.batch_norms.push(BatchNorm { name, weight, bias, mean, var, eps });
        } else if group.starts_with("depthwise_conv") {
            model.layers.push(weights_of(&name, "DepthwiseConv2D", &Value::Null, variables)?);
        } else if matches!(class, "conv1d" | "conv2d" | "conv3d" | "dense") {
            model.layers.push(weights_of(&name, "Conv2D", &Value::Null, variables)?);
        } else if !variables.is_empty() {
            model.remarks.push(format!("{name}: a layer whose weights are not read"));
        }
    }
    model.guess();
    Ok(model)
}

/// A layer in the file of weights.
struct Layer {
    /// The name of its group, made from its class.
    group: String,
    variables: Variables,
}

/// Reads a `Sequential` model, or a functional one that is a chain.
///
/// # Errors
/// Says what the file lacks, or that the model is no chain.
pub fn read(bytes: &[u8]) -> Result<Model, Fault> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let mut most = super::most_unpacked(bytes);
    let mut part = |name: &str| -> Result<Vec<u8>, Fault> {
        let file = archive.by_name(name).map_err(|error| format!("{name}: {error}"))?;
        super::unpacked(file, &mut most).map_err(|fault| format!("{name}: {fault}"))
    };
    let config: Value =
        serde_json::from_slice(&part("config.json")?).map_err(|error| format!("config.json: {error}"))?;
    let weights = variables(part("model.weights.h5")?)?;
    let layers = config["config"]["layers"].as_array().ok_or("config.json has no layers")?;
    let functional = config["class_name"] != "Sequential";
    let mut model = Model::default();
    // What the next layer finds before it: a weight layer without an activation, or batch norm and what was after it.
    let (mut weight_layer, mut waiting) = (None::<String>, None::<(String, bool, bool)>);
    let mut before = None::<String>;
    for layer in layers {
        let (class, of) = (layer["class_name"].as_str().unwrap_or_default(), &layer["config"]);
        let name = of["name"].as_str().ok_or("a layer without a name")?.to_owned();
        if functional && class != "InputLayer" {
            let inputs: Vec<&str> = histories(&layer["inbound_nodes"]);
            if inputs.len() != 1 || Some(inputs[0]) != before.as_deref() {
                return Err(format!("{name}: only chains of layers are read, and its inputs are {inputs:?}"));
            }
        }
        before = Some(name.clone());
        let variables = weights.get(&name).map(|layer| layer.variables.clone()).unwrap_or_default();
        match class {
            "InputLayer" => {}
            "BatchNormalization" => {
                let mut variables = variables.into_iter().map(|(_, values)| values);
                let mut next = |there: bool| if there { variables.next() } else { None };
                let (weight, bias) = (next(of["scale"] != false), next(of["center"] != false));
                let (Some(mean), Some(var)) = (next(true), next(true)) else {
                    return Err(format!("{name} has no mean and variance"));
                };
                let eps = of["epsilon"].as_f64().ok_or_else(|| format!("{name} has no epsilon"))?;
                #[expect(clippy::cast_possible_truncation, reason = "Keras adds an f32")]
                let eps = eps as f32;
                model.batch_norms.push(BatchNorm { name: name.clone(), weight, bias, mean, var, eps });
                if let Some(previous) = weight_layer.take() {
                    model.pair(&name, &previous, Side::Previous)?;
                    waiting = None;
                } else {
                    waiting = Some((name, false, false));
                }
            }
            "Conv1D" | "Conv2D" | "Conv3D" | "Dense" | "DepthwiseConv2D" => {
                let layer = weights_of(&name, class, of, variables)?;
                model.layers.push(layer);
                let padded = of["padding"] == "same"
                    && of["kernel_size"].as_array().is_some_and(|size| size.iter().any(|size| size != 1));
                if let Some((batch_norm, max_pooling, padding)) = waiting.take() {
                    model.pair(&batch_norm, &name, Side::Next { max_pooling, padding: padding || padded })?;
                }
                weight_layer = (of["activation"] == "linear").then_some(name);
            }
            "Dropout"
            | "SpatialDropout1D"
            | "SpatialDropout2D"
            | "SpatialDropout3D"
            | "Flatten"
            | "AveragePooling1D"
            | "AveragePooling2D"
            | "AveragePooling3D"
            | "GlobalAveragePooling1D"
            | "GlobalAveragePooling2D"
            | "UpSampling2D" => {
                weight_layer = None;
            }
            "MaxPooling1D" | "MaxPooling2D" | "MaxPooling3D" | "GlobalMaxPooling1D" | "GlobalMaxPooling2D" => {
                weight_layer = None;
                waiting = waiting.map(|(name, _, padding)| (name, true, padding));
            }
            "ZeroPadding1D" | "ZeroPadding2D" | "ZeroPadding3D" => {
                weight_layer = None;
                waiting = waiting.map(|(name, max_pooling, _)| (name, max_pooling, true));
            }
            _ => {
                if let Some((batch_norm, ..)) = waiting.take() {
                    model.remarks.push(format!("{batch_norm}: {class} stands between it and the weights: it stays"));
                }
                weight_layer = None;
                if !variables.is_empty() {
                    model.remarks.push(format!("{name}: a {class}, whose weights are not read"));
                }
            }
        }
    }
    Ok(model)
}

fn weights_of(name: &str, class: &str, of: &Value, variables: Variables) -> Result<WeightLayer, Fault> {
    let mut variables = variables.into_iter();
    let (dims, weights) = variables.next().ok_or_else(|| format!("{name} has no weights"))?;
    let [taps @ .., inputs, last] = &dims[..] else { return Err(format!("{name} has weights of {dims:?}")) };
    let groups = usize::try_from(of["groups"].as_u64().unwrap_or(1)).unwrap_or(1);
    // [k, in/groups, out], or [k, in, m] of a depthwise convolution, which has in*m outputs.
    let (inputs, outputs, groups) = match class {
        "DepthwiseConv2D" => (*inputs, inputs.saturating_mul(*last), *inputs),
        _ => (inputs.saturating_mul(groups), *last, groups),
    };
    let shape = WeightShape { order: WeightOrder::TapsInOut, outputs, inputs, taps: product(taps), groups };
    let bias = variables.next().map(|(_, values)| values);
    Ok(WeightLayer { name: name.to_owned(), shape, dims, weights, bias })
}

/// The layers that a functional model's layer is called on.
fn histories(nodes: &Value) -> Vec<&str> {
    match nodes {
        Value::Array(items) => items.iter().flat_map(histories).collect(),
        Value::Object(of) => match of.get("keras_history").and_then(|history| history[0].as_str()) {
            Some(name) => vec![name],
            None => of.values().flat_map(histories).collect(),
        },
        _ => vec![],
    }
}

/// The variables of all layers by name.
fn variables(file: Vec<u8>) -> Result<BTreeMap<String, Layer>, Fault> {
    let fault = |error: hdf5_reader::error::Error| format!("model.weights.h5: {error}");
    let file = hdf5_reader::Hdf5File::from_vec(file).map_err(fault)?;
    let mut all = BTreeMap::new();
    for layer in file.group("layers").and_then(|layers| layers.groups()).map_err(fault)? {
        let Ok(vars) = layer.group("vars") else { continue };
        let name = vars.attribute("name").and_then(|name| name.read_string()).map_err(fault)?;
        let mut variables = Variables::new();
        let count = vars.datasets().map_err(fault)?.len();
        for index in 0..count {
            let dataset = vars.dataset(&index.to_string()).map_err(fault)?;
            let dims = dataset.shape().iter().map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX)).collect();
            // The seed of a dropout is an integer.
            if let Ok(values) = dataset.read_array::<f32>() {
                variables.push((dims, values.iter().copied().collect()));
            }
        }
        let group = layer.name().rsplit('/').next().unwrap_or_default().to_owned();
        all.insert(name, Layer { group, variables });
    }
    Ok(all)
}
