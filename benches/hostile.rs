//! The time of calls on data that is computed in f64, or that takes rare ways, as a ratio to the same call on ordinary
//! data, timed right before it. `SECURITY.md` has the factor.
//!
//! ```text
//! cargo bench --bench hostile -- --json results.jsonl --date 2026-11-29
//! cargo bench --bench hostile -- --case wide-x,dead --op train
//! ```
//!
//! Ordinary data: `x` and `dy` are uniform with a standard deviation near 1, weights are near 1. A case changes one channel
//! or every channel:
//!
//! | case | what is changed | allowed, one channel | allowed, every channel |
//! |---|---|--:|--:|
//! | small-weight | the weight is 1e-31 | 1.1 | 10 |
//! | small-dy | `dy` is 1e-30 times as large | 1.1 | 10 |
//! | wide-x | `x` is 1e18 times as large, and so is the running deviation | 1.1 | 10 |
//! | huge-x | `x` is 3e38 with the signs of ordinary data | 1.1 | 10 |
//! | zeros | `x` is 0 | 1.5 | 1.5 |
//! | constant | `x` is 0.3 | 1.5 | 1.5 |
//! | zero-dy | `dy` is 0 | 1.5 | 1.5 |
//! | dead | the bias is -110: `act(z)` and its derivative are 0 or subnormal | 1.5 | 1.5 |
//!
//! Ops: `train`, with a mask and, if the activation is `Relu`, with gates over the mask (`gates`); `backward`; `eval`. The
//! activation is `Relu` or `Silu`, whose elements go through a strip. `residual` is a training call that adds a residual.

use std::env;
use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;

mod timing;

use lexopt::{Arg, Parser, ValueExt};
use normdrop::{
    AnyActivation, Backend, Backward, Config, Dropout, Eval, Layer, ParameterGradients, Parameters, Relu, Running,
    Saved, SavedMut, Shape, Silu, Statistics, Train,
};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use serde::Serialize;
use timing::{About, cpu_model, median, names, repeats, time, uniform};

const HELP: &str = "\
usage: cargo bench --bench hostile -- [options]
  --json PATH       also write the results there, one JSON object a line; the first one is about the run
  --date DATE       the date in that first line (none)
  --case a,b        some of the cases (all)
  --op a,b          some of train, gates, residual, backward, eval (all)
  --backend NAME    portable, avx2 or avx512 (the best one)
  --rounds N        samples of each call, at least 1 (15)
  --help
";

/// Small enough for the second cache, so that arithmetic shows; 256 channels.
const SHAPES: [(&str, Result<Shape, normdrop::Error>); 4] = [
    ("NC 256x256", Shape::nc(256, 256)),
    ("NCHW 2x256x14x14", Shape::nchw(2, 256, 14, 14)),
    ("NCHW 4x256x7x7", Shape::nchw(4, 256, 7, 7)),
    ("NHWC 1x16x16x256", Shape::nhwc(1, 16, 16, 256)),
];

/// The channel that a case changes if it changes one.
const CHANNEL: usize = 101;

#[derive(Clone, Copy, PartialEq)]
enum Op {
    Train,
    Gates,
    Residual,
    Backward,
    Eval,
}

impl Op {
    const ALL: [Self; 5] = [Self::Train, Self::Gates, Self::Residual, Self::Backward, Self::Eval];

    const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Gates => "gates",
            Self::Residual => "residual",
            Self::Backward => "backward",
            Self::Eval => "eval",
        }
    }
}

/// A way to change ordinary data.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// Changes one channel: its weight, bias and running variance, and all its `x` and `dy`.
    change: fn(&mut Channel<'_>),
    every: f64,
    one: f64,
}

/// What is changed: the parameters of a channel, or one element of it.
enum Channel<'a> {
    Parameters { weight: &'a mut f32, bias: &'a mut f32, running_var: &'a mut f32 },
    Element { x: &'a mut f32, dy: &'a mut f32 },
}

use Channel::{Element, Parameters as OfChannel};

const CASES: [Case; 8] = [
    Case {
        name: "small-weight",
        change: |channel| {
            if let OfChannel { weight, .. } = channel {
                **weight *= 1e-31;
            }
        },
        one: 1.1,
        every: 10.0,
    },
    Case {
        name: "small-dy",
        change: |channel| {
            if let Element { dy, .. } = channel {
                **dy *= 1e-30;
            }
        },
        one: 1.1,
        every: 10.0,
    },
    Case {
        name: "wide-x",
        change: |channel| match channel {
            Element { x, .. } => **x *= 1e18,
            OfChannel { running_var, .. } => **running_var *= 1e36,
        },
        one: 1.1,
        every: 10.0,
    },
    Case {
        name: "huge-x",
        change: |channel| match channel {
            Element { x, .. } => **x = 3e38_f32.copysign(**x),
            OfChannel { running_var, .. } => **running_var = f32::MAX,
        },
        one: 1.1,
        every: 10.0,
    },
    Case {
        name: "zeros",
        change: |channel| {
            if let Element { x, .. } = channel {
                **x = 0.0;
            }
        },
        one: 1.5,
        every: 1.5,
    },
    Case {
        name: "constant",
        change: |channel| {
            if let Element { x, .. } = channel {
                **x = 0.3;
            }
        },
        one: 1.5,
        every: 1.5,
    },
    Case {
        name: "zero-dy",
        change: |channel| {
            if let Element { dy, .. } = channel {
                **dy = 0.0;
            }
        },
        one: 1.5,
        every: 1.5,
    },
    Case {
        name: "dead",
        change: |channel| {
            if let OfChannel { bias, .. } = channel {
                **bias = -110.0;
            }
        },
        one: 1.5,
        every: 1.5,
    },
];

fn main() -> Result<(), Box<dyn Error>> {
    let measure = env::args_os().any(|argument| argument == "--bench");
    let options = if measure { Options::from_arguments()? } else { Some(Options::SMOKE) };
    let Some(options) = options else {
        print!("{HELP}");
        return Ok(());
    };
    let mut json = options.json.as_ref().map(File::create).transpose()?.map(BufWriter::new);
    let cpu = cpu_model();
    let cpu = cpu.as_deref().unwrap_or("unknown");
    let backend = options.backend.unwrap_or_else(Backend::detect);
    println!("CPU: {cpu}, backend: {}", backend.name());
    if let Some(json) = &mut json {
        let reason = format!("backend {}", backend.name());
        serde_json::to_writer(&mut *json, &About { date: &options.date, cpu, reason: &reason })?;
        writeln!(json)?;
    }
    println!(
        "{:<18} {:<5} {:<13} {:<6} {:<9} {:>11} {:>6} {:>8}",
        "tensor", "act", "case", "of", "op", "ordinary ns", "ratio", "allowed"
    );
    let mut above = 0;
    for (layout, shape) in SHAPES {
        for activation in [AnyActivation::Relu(Relu), AnyActivation::Silu(Silu)] {
            for case in CASES.iter().filter(|case| options.has_case(case.name)) {
                for result in measure_case(&options, backend, (layout, shape?), activation, case)? {
                    println!(
                        "{:<18} {:<5} {:<13} {:<6} {:<9} {:>11.3} {:>6.2} {:>8.1}{}",
                        result.tensor,
                        result.activation,
                        result.case,
                        result.channels,
                        result.op,
                        result.ordinary_ns_per_element,
                        result.ratio,
                        result.allowed,
                        if result.ratio > result.allowed { "  above" } else { "" },
                    );
                    above += usize::from(result.ratio > result.allowed);
                    if let Some(json) = &mut json {
                        serde_json::to_writer(&mut *json, &result)?;
                        writeln!(json)?;
                    }
                }
            }
        }
    }
    println!("above what is allowed: {above}");
    if let Some(mut json) = json {
        json.flush()?;
    }
    Ok(())
}

/// One line of the results.
#[derive(Serialize)]
struct Measurement {
    tensor: &'static str,
    activation: &'static str,
    case: &'static str,
    channels: &'static str,
    op: &'static str,
    ordinary_ns_per_element: f64,
    /// The median, over the rounds, of the time of the call on hostile data over that of the call before it.
    ratio: f64,
    allowed: f64,
}

fn measure_case(
    options: &Options,
    backend: Backend,
    (tensor, shape): (&'static str, Shape),
    activation: AnyActivation,
    case: &Case,
) -> Result<Vec<Measurement>, normdrop::Error> {
    let layer = Layer::new(shape, activation, Config { p: 0.1, ..Config::DEFAULT })?.with_backend(backend)?;
    let relu = matches!(activation, AnyActivation::Relu(_));
    let mut results = Vec::new();
    for (channels, allowed) in [("one", case.one), ("every", case.every)] {
        let ordinary = Buffers::new(&layer)?;
        let mut hostile = ordinary.clone();
        let channels_changed = if channels == "one" { CHANNEL..CHANNEL + 1 } else { 0..shape.channels() };
        hostile.change(&layer, case, channels_changed)?;
        // Both are timed in the same memory: where a tensor lies in memory decides how well the caches hold it.
        let mut buffers = ordinary.clone();
        for op in Op::ALL.into_iter().filter(|&op| options.has_op(op.name()) && (relu || op != Op::Gates)) {
            let repeats = if options.smoke { 1 } else { repeats(|| buffers.run(&layer, op))? };
            let (mut before, mut ratios) = (Vec::new(), Vec::new());
            for _ in 0..options.rounds.get() {
                let mut seconds_of = |data: &Buffers| {
                    buffers.take(data);
                    buffers.run(&layer, op)?;
                    Ok(time(repeats, || buffers.run(&layer, op))?.as_secs_f64())
                };
                let (of_ordinary, of_hostile) = (seconds_of(&ordinary)?, seconds_of(&hostile)?);
                before.push(of_ordinary * 1e9 / (f64::from(repeats) * shape.len() as f64));
                ratios.push(of_hostile / of_ordinary);
            }
            results.push(Measurement {
                tensor,
                activation: if relu { "Relu" } else { "Silu" },
                case: case.name,
                channels,
                op: op.name(),
                ordinary_ns_per_element: median(before),
                ratio: median(ratios),
                allowed,
            });
        }
    }
    Ok(results)
}

/// Everything that the calls read and write.
#[derive(Clone)]
struct Buffers {
    x: Vec<f32>,
    dy: Vec<f32>,
    residual: Vec<f32>,
    y: Vec<f32>,
    mask: Vec<u8>,
    gates: Vec<u8>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    running_mean: Vec<f32>,
    running_var: Vec<f32>,
    saved_mean: Vec<f32>,
    saved_mean_tail: Vec<f32>,
    saved_inv_std: Vec<f64>,
    grad_weight: Vec<f32>,
    grad_bias: Vec<f32>,
    scratch: Vec<f64>,
}

impl Buffers {
    /// Ordinary data, after one training call.
    fn new(layer: &Layer<AnyActivation>) -> Result<Self, normdrop::Error> {
        let (elements, channels) = (layer.shape().len(), layer.shape().channels());
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
        let mut values = |len, low, high| -> Vec<f32> { (0..len).map(|_| uniform(&mut rng, low, high)).collect() };
        let mut buffers = Self {
            x: values(elements, -1.5, 2.0),
            dy: values(elements, -1.5, 2.0),
            residual: values(elements, -1.0, 1.0),
            y: vec![1.0; elements],
            mask: vec![1; layer.mask_len()],
            gates: vec![1; layer.mask_len()],
            weight: values(channels, 0.5, 1.5),
            bias: values(channels, -0.5, 0.5),
            running_mean: values(channels, -0.5, 0.5),
            running_var: values(channels, 0.5, 1.5),
            saved_mean: vec![1.0; channels],
            saved_mean_tail: vec![1.0; channels],
            saved_inv_std: vec![1.0; channels],
            grad_weight: vec![1.0; channels],
            grad_bias: vec![1.0; channels],
            scratch: vec![1.0; layer.scratch_len()],
        };
        layer.fill_mask(1, &mut buffers.mask)?;
        buffers.run(layer, Op::Train)?;
        Ok(buffers)
    }

    /// Takes over what the calls read.
    fn take(&mut self, other: &Self) {
        self.x.copy_from_slice(&other.x);
        self.dy.copy_from_slice(&other.dy);
        self.weight.copy_from_slice(&other.weight);
        self.bias.copy_from_slice(&other.bias);
        self.running_mean.copy_from_slice(&other.running_mean);
        self.running_var.copy_from_slice(&other.running_var);
        self.saved_mean.copy_from_slice(&other.saved_mean);
        self.saved_mean_tail.copy_from_slice(&other.saved_mean_tail);
        self.saved_inv_std.copy_from_slice(&other.saved_inv_std);
    }

    /// Changes channels, and makes the statistics that `backward` reads.
    fn change(
        &mut self,
        layer: &Layer<AnyActivation>,
        case: &Case,
        channels: std::ops::Range<usize>,
    ) -> Result<(), normdrop::Error> {
        for channel in channels.clone() {
            let [weight, bias, running_var] =
                [&mut self.weight, &mut self.bias, &mut self.running_var].map(|values| &mut values[channel]);
            (case.change)(&mut OfChannel { weight, bias, running_var });
        }
        let (inner, count) = (layer.shape().inner(), layer.shape().channels());
        for (index, (x, dy)) in self.x.iter_mut().zip(&mut self.dy).enumerate() {
            if channels.contains(&(index / inner % count)) {
                (case.change)(&mut Element { x, dy });
            }
        }
        self.run(layer, Op::Train)
    }

    fn run(&mut self, layer: &Layer<AnyActivation>, op: Op) -> Result<(), normdrop::Error> {
        let parameters = Parameters { weight: Some(&self.weight), bias: Some(&self.bias) };
        let x = black_box(self.x.as_slice());
        match op {
            Op::Train | Op::Gates | Op::Residual => {
                let saved = SavedMut {
                    mean: &mut self.saved_mean,
                    mean_tail: &mut self.saved_mean_tail,
                    inv_std: &mut self.saved_inv_std,
                };
                let train = Train {
                    parameters,
                    dropout: Dropout::Mask(&self.mask),
                    residual: (op == Op::Residual).then_some(self.residual.as_slice()),
                    ..Train::new(x, &mut self.y, saved, &mut self.scratch)
                };
                if op == Op::Gates {
                    layer.train_with_gates(train, &mut self.gates)?;
                } else {
                    layer.train(train)?;
                }
            }
            Op::Backward => layer.backward(Backward {
                parameters,
                dropout: Dropout::Mask(black_box(&self.mask)),
                grad_input: Some(&mut self.y),
                grad_parameters: ParameterGradients::new(&mut self.grad_weight, &mut self.grad_bias),
                ..Backward::new(
                    Statistics::Batch(Saved {
                        mean: &self.saved_mean,
                        mean_tail: &self.saved_mean_tail,
                        inv_std: &self.saved_inv_std,
                    }),
                    x,
                    black_box(&self.dy),
                    &mut self.scratch,
                )
            })?,
            Op::Eval => layer.eval(Eval {
                parameters,
                dropout: Dropout::Off,
                ..Eval::new(Running::new(&self.running_mean, &self.running_var), x, &mut self.y, &mut self.scratch)
            })?,
        }
        black_box(self);
        Ok(())
    }
}

/// What the command line asks for. Empty lists are everything.
struct Options {
    json: Option<PathBuf>,
    date: String,
    cases: Vec<String>,
    ops: Vec<String>,
    backend: Option<Backend>,
    rounds: NonZeroU32,
    smoke: bool,
}

impl Options {
    /// Everything, once.
    const SMOKE: Self = Self {
        json: None,
        date: String::new(),
        cases: Vec::new(),
        ops: Vec::new(),
        backend: None,
        rounds: NonZeroU32::MIN,
        smoke: true,
    };

    /// The options of this process, or none if it was asked for help.
    fn from_arguments() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self { rounds: const { NonZeroU32::new(15).unwrap() }, smoke: false, ..Self::SMOKE };
        let mut parser = Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("json") => options.json = Some(parser.value()?.into()),
                Arg::Long("date") => options.date = parser.value()?.string()?,
                Arg::Long("case") => options.cases = names(&mut parser, &CASES.map(|case| case.name))?,
                Arg::Long("op") => options.ops = names(&mut parser, &Op::ALL.map(Op::name))?,
                Arg::Long("backend") => {
                    let name = parser.value()?.string()?;
                    let found = Backend::ALL.into_iter().find(|backend| backend.name() == name);
                    options.backend = Some(found.ok_or_else(|| format!("{name:?} is no backend"))?);
                }
                Arg::Long("rounds") => options.rounds = parser.value()?.parse()?,
                Arg::Long("bench") => {}
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(options))
    }

    fn has_case(&self, name: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|case| case == name)
    }

    fn has_op(&self, name: &str) -> bool {
        self.ops.is_empty() || self.ops.iter().any(|op| op == name)
    }
}
