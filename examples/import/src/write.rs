//! What is written: safetensors, and constants in Rust or C for a firmware.

use std::fmt::Write as _;

use safetensors::tensor::{Dtype, TensorView};

use crate::model::{Between, Fault, Model, WeightLayer};

/// The folded network as safetensors: `NAME.weight` in the dimensions of the file that was read, `NAME.bias`, and
/// `NAME.padding` with the values to pad a layer's input with.
///
/// # Errors
/// If two tensors have one name or dimensions do not fit.
pub fn safetensors(model: &Model, between: &[Between]) -> Result<Vec<u8>, Fault> {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors = Vec::new();
    for layer in &model.layers {
        tensors.push((format!("{}.weight", layer.name), layer.dims.clone(), bytes(&layer.weights)));
        if let Some(bias) = &layer.bias {
            tensors.push((format!("{}.bias", layer.name), vec![bias.len()], bytes(bias)));
        }
    }
    for Between { layer, padding, .. } in between {
        if let Some(padding) = padding {
            tensors.push((format!("{layer}.padding"), vec![padding.len()], bytes(padding)));
        }
    }
    let mut views = Vec::new();
    for (name, dims, data) in &tensors {
        let view = TensorView::new(Dtype::F32, dims.clone(), data).map_err(|error| format!("{name}: {error}"))?;
        views.push((name.as_str(), view));
    }
    safetensors::serialize(views, None).map_err(|error| error.to_string())
}

/// Weights in eight bits, with a scale for each output: `weight = int8 * scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantised {
    /// In `[-127, 127]`, in the order of the weights.
    pub values: Vec<i8>,
    /// For each output.
    pub scales: Vec<f32>,
    /// The largest error of a weight, relative to the largest weight of its output.
    pub error: f64,
    /// The same with one scale for all outputs: what a channel of small weights would lose.
    pub error_of_one_scale: f64,
}

/// Rounds the weights of a layer that [`WeightLayer::check`] accepts to eight bits, symmetrically (Jacob et al., *Quantization and training of neural
/// networks*, 2018, with one scale per output channel as TFLite has it).
#[must_use]
pub fn quantise(layer: &WeightLayer) -> Quantised {
    let mut largest = vec![0.0_f32; layer.shape.outputs];
    for (index, weight) in layer.weights.iter().enumerate() {
        let largest = &mut largest[layer.output_of(index)];
        *largest = largest.max(weight.abs());
    }
    // A row of zeros stays one with any scale.
    let scale_of = |largest: f32| if largest > 0.0 { largest / 127.0 } else { 1.0 };
    let scales: Vec<f32> = largest.iter().map(|&largest| scale_of(largest)).collect();
    let one = scale_of(largest.iter().copied().fold(0.0, f32::max));
    #[expect(clippy::cast_possible_truncation, reason = "rounded and clamped to the range of an i8")]
    let round = |weight: f32, scale: f32| (weight / scale).round().clamp(-127.0, 127.0) as i8;
    let (mut error, mut error_of_one_scale) = (0.0_f64, 0.0_f64);
    let mut values = Vec::new();
    for (index, &weight) in layer.weights.iter().enumerate() {
        let output = layer.output_of(index);
        let off = |scale: f32| (f64::from(round(weight, scale)) * f64::from(scale) - f64::from(weight)).abs();
        if largest[output] > 0.0 {
            error = error.max(off(scales[output]) / f64::from(largest[output]));
            error_of_one_scale = error_of_one_scale.max(off(one) / f64::from(largest[output]));
        }
        values.push(round(weight, scales[output]));
    }
    Quantised { values, scales, error, error_of_one_scale }
}

/// The language of constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `pub const NAME: [f32; N]`
    Rust,
    /// `static const float name[N]`
    C,
}

impl Language {
    fn array(self, text: &mut String, name: &str, kind: Kind<'_>) {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        // Neither language has a name that begins with a digit.
        let name = if name.starts_with(|c: char| c.is_ascii_digit()) { format!("layer_{name}") } else { name };
        let numbers: Vec<String> = match kind {
            Kind::F32(values) => values.iter().map(|value| self.number(*value)).collect(),
            Kind::I8(values) => values.iter().map(ToString::to_string).collect(),
        };
        let len = numbers.len();
        let (open, close) = match (self, kind) {
            (Self::Rust, Kind::F32(_)) => (format!("pub const {}: [f32; {len}] = [", name.to_uppercase()), "];"),
            (Self::Rust, Kind::I8(_)) => (format!("pub const {}: [i8; {len}] = [", name.to_uppercase()), "];"),
            (Self::C, Kind::F32(_)) => (format!("static const float {}[{len}] = {{", name.to_lowercase()), "};"),
            (Self::C, Kind::I8(_)) => (format!("static const signed char {}[{len}] = {{", name.to_lowercase()), "};"),
        };
        text.push_str(&open);
        for chunk in numbers.chunks(8) {
            write!(text, "\n    {},", chunk.join(", ")).expect("a string");
        }
        writeln!(text, "\n{close}").expect("a string");
    }

    /// The shortest decimal that is read as the same f32.
    fn number(self, value: f32) -> String {
        match (self, value.is_finite()) {
            (Self::Rust, true) => format!("{value:?}"),
            (Self::C, true) => format!("{value:?}f"),
            (Self::Rust, false) if value.is_nan() => "f32::NAN".to_owned(),
            (Self::Rust, false) => format!("{}f32::INFINITY", if value < 0.0 { "-" } else { "" }),
            (Self::C, false) if value.is_nan() => "NAN".to_owned(),
            (Self::C, false) => format!("{}INFINITY", if value < 0.0 { "-" } else { "" }),
        }
    }
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    F32(&'a [f32]),
    I8(&'a [i8]),
}

/// The folded network as constants, in the order of the file. With `int8`, the weights have eight bits and a scale for
/// each output.
#[must_use]
pub fn constants(model: &Model, between: &[Between], language: Language, int8: bool) -> String {
    let mut text = String::from("// Written by normdrop-import: weights with the batch norms folded in.\n");
    if language == Language::C {
        text = String::from(
            "/* Written by normdrop-import: weights with the batch norms folded in. */\n#include <math.h>\n",
        );
    }
    for layer in &model.layers {
        if int8 {
            let Quantised { values, scales, .. } = quantise(layer);
            language.array(&mut text, &format!("{}_weight", layer.name), Kind::I8(&values));
            language.array(&mut text, &format!("{}_scale", layer.name), Kind::F32(&scales));
        } else {
            language.array(&mut text, &format!("{}_weight", layer.name), Kind::F32(&layer.weights));
        }
        if let Some(bias) = &layer.bias {
            language.array(&mut text, &format!("{}_bias", layer.name), Kind::F32(bias));
        }
    }
    for Between { layer, padding, .. } in between {
        if let Some(padding) = padding {
            language.array(&mut text, &format!("{layer}_padding"), Kind::F32(padding));
        }
    }
    text
}
