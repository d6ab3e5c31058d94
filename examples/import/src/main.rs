//! `normdrop-import MODEL`: what batch norms a model file has, and the model without them.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;
use normdrop_import::formats;
use normdrop_import::model::{Between, Fault, Side};
use normdrop_import::write::{self, Language};

const USAGE: &str = "\
usage: normdrop-import MODEL [options]

MODEL is .safetensors (a state dict of PyTorch or Paddle), .pt or .pth (PyTorch), .pdparams or .pdiparams with its
.json (Paddle), .onnx, .keras or .weights.h5 (Keras), .npz (flax, haiku), the folder of a SavedModel or the .index of
a checkpoint (TensorFlow), .caffemodel, with its .prototxt if there is one, .params with its -symbol.json (MXNet),
.param with its .bin (ncnn) or .weights with its .cfg (Darknet).
Prints the batch norms and what is unusual about them, and folds them.

  --eps EPS                  of the batch norms, where the file has none (state dict, npz, .weights.h5, SavedModel)
  --previous BN=LAYER        BN is directly after LAYER, where the file does not say (the same)
  --next BN=LAYER[,padding][,max-pooling][,channels-last]
                             BN is before LAYER, with zero padding, max-pooling or a flattening of channels-last
                             images between the two
  --min-pooling              your program can min-pool the channels that are named
  --out FILE                 the folded weights: .safetensors, .rs or .h
  --int8                     weights of eight bits and a scale for each output, in .rs and .h
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("normdrop-import: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Fault> {
    let fault = |error: lexopt::Error| format!("{error}\n\n{USAGE}");
    let (mut path, mut eps, mut pairs, mut min_pooling, mut out, mut int8) =
        (None, None, Vec::new(), false, None, false);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next().map_err(fault)? {
        match argument {
            Value(given) if path.is_none() => path = Some(PathBuf::from(given)),
            Long("eps") => eps = Some(arguments.value().map_err(fault)?.parse::<f32>().map_err(fault)?),
            Long("previous") => pairs.push((arguments.value().map_err(fault)?.string().map_err(fault)?, false)),
            Long("next") => pairs.push((arguments.value().map_err(fault)?.string().map_err(fault)?, true)),
            Long("min-pooling") => min_pooling = true,
            Long("out") => out = Some(PathBuf::from(arguments.value().map_err(fault)?)),
            Long("int8") => int8 = true,
            Long("help") | Short('h') => {
                print!("{USAGE}");
                return Ok(());
            }
            other => return Err(fault(other.unexpected())),
        }
    }
    let path = path.ok_or(USAGE)?;
    let mut model = formats::read(&path, eps)?;
    for (pair, next) in pairs {
        let (batch_norm, layer) = pair.split_once('=').ok_or_else(|| format!("{pair} is not BN=LAYER"))?;
        let mut words = layer.split(',');
        let layer = words.next().unwrap_or_default();
        let (mut padding, mut max_pooling) = (false, false);
        for word in words {
            match word {
                "padding" if next => padding = true,
                "max-pooling" if next => max_pooling = true,
                "channels-last" if next => model.channels_last(layer)?,
                other => return Err(format!("{other} is none of padding, max-pooling and channels-last after --next")),
            }
        }
        model.remarks.retain(|remark| !remark.starts_with(&format!("{batch_norm}: ")));
        model.pair(batch_norm, layer, if next { Side::Next { max_pooling, padding } } else { Side::Previous })?;
    }

    println!("{}: {} batch norms, {} weight layers", path.display(), model.batch_norms.len(), model.layers.len());
    for (index, bn) in model.batch_norms.iter().enumerate() {
        let neighbour = model.neighbours.iter().find(|neighbours| neighbours.batch_norm == index);
        let place = neighbour.map_or("stays".to_owned(), |neighbours| {
            let layer = &model.layers[neighbours.layer].name;
            match neighbours.side {
                Side::Previous => format!("folded into {layer}, before it"),
                Side::Next { max_pooling, padding } => {
                    let between = [(max_pooling, ", max-pooling between"), (padding, ", zero padding between")];
                    let between: String = between.iter().filter(|(there, _)| *there).map(|(_, text)| *text).collect();
                    format!("folded into {layer}, after it{between}")
                }
            }
        });
        println!("  {}: {} channels, eps {:e}, {place}", bn.name, bn.mean.len(), bn.eps);
    }
    model.remarks.iter().for_each(|remark| println!("note: {remark}"));
    model.batch_norms.iter().flat_map(|bn| bn.warnings()).for_each(|warning| println!("warning: {warning}"));

    let between = model.fold(min_pooling)?;
    for Between { layer, padding, min_pooled } in &between {
        if let Some(padding) = padding {
            println!("pad the input of {layer} with {padding:?} instead of 0");
        }
        if let Some(min_pooled) = min_pooled {
            let channels: Vec<usize> = (0..min_pooled.len()).filter(|&channel| min_pooled[channel]).collect();
            println!("min-pool the channels {channels:?} before {layer}");
        }
    }
    for layer in &model.layers {
        let subnormal = layer.weights.iter().filter(|weight| weight.is_subnormal()).count();
        if subnormal > 0 {
            println!(
                "warning: {subnormal} folded weights of {} are subnormal, slow on many CPUs: set them to 0",
                layer.name
            );
        }
        if int8 {
            layer.check()?;
            let quantised = write::quantise(layer);
            println!(
                "int8: the weights of {} are off by {:.2} % of the largest of their output; with one scale for all outputs by {:.2} %",
                layer.name,
                100.0 * quantised.error,
                100.0 * quantised.error_of_one_scale
            );
        }
    }
    let Some(out) = out else { return Ok(()) };
    let bytes = match out.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") if !int8 => write::safetensors(&model, &between)?,
        Some("rs") => write::constants(&model, &between, Language::Rust, int8).into_bytes(),
        Some("h") => write::constants(&model, &between, Language::C, int8).into_bytes(),
        _ => return Err(format!("{}: none of .safetensors (without --int8), .rs and .h", out.display())),
    };
    std::fs::write(&out, bytes).map_err(|error| format!("{}: {error}", out.display()))
}
