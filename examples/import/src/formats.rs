//! The formats of model files, one a file.

pub mod caffe;
pub mod darknet;
pub mod keras;
pub mod mxnet;
pub mod ncnn;
pub mod npz;
mod numbers;
pub mod onnx;
pub mod paddle;
mod pickle;
mod prototxt;
pub mod saved_model;
pub mod state_dict;
pub mod torch;

use std::path::Path;

use crate::model::{Fault, Model};

/// Reads a model file of any format, by its name. `eps` is for the formats that do not store it.
///
/// # Errors
/// Says what about the file is wrong or not supported.
pub fn read(path: &Path, eps: Option<f32>) -> Result<Model, Fault> {
    let bytes = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    if path.is_dir() {
        let model = saved_model::read(&path.join("variables"), eps);
        return model.map_err(|fault| format!("{}: {fault}", path.display()));
    }
    let model = match path.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") => state_dict::read(&bytes(path)?, eps),
        Some("onnx") => onnx::read(&bytes(path)?),
        Some("keras") => keras::read(&bytes(path)?),
        Some("npz") => npz::read(&bytes(path)?, eps),
        Some("weights") => {
            let cfg = path.with_extension("cfg");
            let text = std::fs::read_to_string(&cfg).map_err(|error| format!("{}: {error}", cfg.display()))?;
            darknet::read(&text, &bytes(path)?)
        }
        Some("pdparams") => paddle::read(&bytes(path)?, eps),
        Some("pdiparams") => Err(
            "the numbers of a program, without names: paddle.save(paddle.jit.load(PREFIX).state_dict(), 'FILE.pdparams')"
                .into(),
        ),
        Some("pt" | "pth" | "bin" | "ckpt" | "tar") => torch::read(&bytes(path)?, eps),
        Some("pb") => saved_model::read(&path.with_file_name("variables"), eps),
        Some("index") => saved_model::read_checkpoint(path, eps),
        Some("caffemodel") => {
            // `NAME.prototxt`, unless there is none.
            let prototxt = path.with_extension("prototxt");
            let text = match std::fs::read_to_string(&prototxt) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(format!("{}: {error}", prototxt.display())),
            };
            caffe::read(&bytes(path)?, text.as_deref())
        }
        Some("h5") => keras::read_weights(bytes(path)?, eps),
        Some("params") => {
            // `NAME-0000.params`, with the number of an epoch.
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let name = stem.rsplit_once('-').map_or(stem, |(name, _)| name);
            let symbol = path.with_file_name(format!("{name}-symbol.json"));
            let text = std::fs::read_to_string(&symbol).map_err(|error| format!("{}: {error}", symbol.display()))?;
            mxnet::read(&text, &bytes(path)?)
        }
        Some("param") => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            ncnn::read(&text, &bytes(&path.with_extension("bin"))?)
        }
        _ => {
            Err("the name of the file ends in none of the extensions that --help lists".to_owned())
        }
    };
    model.map_err(|fault| format!("{}: {fault}", path.display()))
}
