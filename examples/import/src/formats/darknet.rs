//! Darknet: a `.weights` file, numbers without names, and the `.cfg` that says whose they are.
//!
//! For each convolution with `batch_normalize=1`: biases, scales, rolling means, rolling variances, weights; without:
//! biases, weights. The `eps` of 1e-6 is outside the root (`normalize_cpu` in Darknet's `blas.c`).

use normdrop::{Stored, WeightOrder, WeightShape};

use super::numbers::{Numbers, product};
use crate::model::{BatchNorm, Fault, Model, Side, WeightLayer};

const EPS: f32 = 1e-6;

/// Reads the convolutions of a network that is a chain of convolutions and of layers without weights. All others are
/// refused, because the places of all later numbers depend on them.
///
/// # Errors
/// Names the section of the `.cfg`.
pub fn read(cfg: &str, weights: &[u8]) -> Result<Model, Fault> {
    let version: Vec<i32> = weights.as_chunks().0.iter().take(2).map(|&bytes| i32::from_le_bytes(bytes)).collect();
    // Since version 0.2 the number of images that were seen has 64 bits.
    let header = match version[..] {
        [major, minor] if major.saturating_mul(10).saturating_add(minor) >= 2 => 20,
        [_, _] => 16,
        _ => return Err("no header".to_owned()),
    };
    let mut numbers = Numbers(weights.get(header..).ok_or("no header")?);
    let mut model = Model::default();
    model.remarks.push(format!("Darknet's eps of {EPS:e} is outside the root: it is in the variances, and eps is 0"));
    let mut channels = 0;
    for (index, section) in sections(cfg)?.into_iter().enumerate() {
        let fault = |what: String| format!("[{}], section {index}: {what}", section.name);
        let number = |key: &str, default: Option<usize>| {
            let value = section.keys.iter().find(|(name, _)| *name == key).map(|(_, value)| value.parse());
            match (value, default) {
                (Some(Ok(number)), _) | (None, Some(number)) => Ok(number),
                _ => Err(fault(format!("{key} is not a number"))),
            }
        };
        match section.name {
            "net" | "network" => channels = number("channels", Some(3))?,
            "convolutional" => {
                let (outputs, size) = (number("filters", Some(1))?, number("size", Some(1))?);
                let groups = number("groups", Some(1))?;
                if channels == 0 || groups == 0 || channels % groups != 0 {
                    return Err(fault(format!("{groups} groups of {channels} channels")));
                }
                let name = format!("convolutional_{}", model.layers.len());
                let mut take = |count| numbers.take(count).map_err(fault);
                let mut bias = take(outputs)?;
                let normalised = number("batch_normalize", Some(0))? != 0;
                if normalised {
                    let (weight, mut mean, mut var) = (take(outputs)?, take(outputs)?, take(outputs)?);
                    let stored = Stored::EpsOutside { eps: EPS };
                    let eps = stored.into_running(&mut mean, &mut var).map_err(|error| fault(error.to_string()))?;
                    let bias = Some(std::mem::take(&mut bias));
                    let name = format!("{name}.batch_normalize");
                    model.batch_norms.push(BatchNorm { name, weight: Some(weight), bias, mean, var, eps });
                }
                let dims = vec![outputs, channels / groups, size, size];
                let (order, inputs, taps) = (WeightOrder::OutInTaps, channels, size.saturating_mul(size));
                model.layers.push(WeightLayer {
                    weights: take(product(&dims))?,
                    bias: (!normalised).then_some(bias),
                    shape: WeightShape { order, outputs, inputs, taps, groups },
                    dims,
                    name: name.clone(),
                });
                if normalised {
                    model.pair(&format!("{name}.batch_normalize"), &name, Side::Previous)?;
                }
                channels = outputs;
            }
            "maxpool" | "avgpool" | "dropout" | "softmax" | "upsample" | "activation" => {}
            _ => return Err(fault("only chains of convolutions are read".to_owned())),
        }
    }
    match numbers.0.len() {
        0 => Ok(model),
        left => Err(format!("{left} bytes are left: the .cfg is another network's")),
    }
}

struct Section<'a> {
    name: &'a str,
    keys: Vec<(&'a str, &'a str)>,
}

fn sections(cfg: &str) -> Result<Vec<Section<'_>>, Fault> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for line in cfg.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections.push(Section { name, keys: Vec::new() });
        } else {
            let (key, value) = line.split_once('=').ok_or_else(|| format!("{line}: neither a section nor a key"))?;
            let section = sections.last_mut().ok_or_else(|| format!("{line}: before the first section"))?;
            section.keys.push((key.trim(), value.trim()));
        }
    }
    Ok(sections)
}
