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
pub mod paddle_program;
mod pickle;
mod prototxt;
pub mod saved_model;
pub mod state_dict;
pub mod torch;

use std::io::Read;
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
        return model.and_then(checked).map_err(|fault| format!("{}: {fault}", path.display()));
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
        Some("pdiparams") => {
            let program = path.with_extension("json");
            let text = std::fs::read_to_string(&program)
                .map_err(|error| format!("{}: {error}; a .pdmodel of Paddle 2 is not read", program.display()))?;
            paddle_program::read(&text, &bytes(path)?)
        }
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
        _ => Err("the name of the file ends in none of the extensions that --help lists".to_owned()),
    };
    model.and_then(checked).map_err(|fault| format!("{}: {fault}", path.display()))
}

/// The model, if each batch norm has as many numbers of each kind as channels, and if no two have one name, by which they
/// were paired and are written.
fn checked(model: Model) -> Result<Model, Fault> {
    model.batch_norms.iter().try_for_each(|bn| bn.check())?;
    let batch_norms = model.batch_norms.iter().map(|bn| &bn.name);
    let layers = model.layers.iter().map(|layer| &layer.name);
    for mut names in [batch_norms.collect::<Vec<_>>(), layers.collect()] {
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two layers are named {}", pair[0]));
        }
    }
    Ok(model)
}

/// How many bytes the files of an archive have together, at most: those of weights are never a hundred times as long as the
/// archive, and one that is made to fill the memory is.
fn most_unpacked(archive: &[u8]) -> u64 {
    u64::try_from(archive.len()).unwrap_or(u64::MAX).saturating_mul(100)
}

/// The contents of a file of an archive of which so many bytes may still be unpacked.
fn unpacked(file: impl Read, most: &mut u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let rest = u64::try_from(bytes.len()).ok().and_then(|len| most.checked_sub(len));
    *most = rest.ok_or("the archive is over a hundred times as long as its file")?;
    Ok(bytes)
}
