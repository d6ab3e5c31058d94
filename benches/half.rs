//! The time of the layer on halves, as a ratio to its time on f32 measured right before it.
//!
//! ```text
//! cargo bench --features half-precision --bench half
//! cargo bench --features half-precision --bench half -- B,C,E
//! ```
//!
//! The layer is that of the bench `throughput`: batch norm with weight and bias, [`Relu`] and dropout with `p = 0.1`. All
//! tensors are of one type: `x`, `y`, `dy` and `dx`. A round times f32, bf16 and f16, one after the other, so that what
//! disturbs one disturbs the others; `ratio` is the median over the rounds of the time on f32 over the time on the half: above 1
//! the half is faster. The mask is drawn once, before the first round. Time in which the thread waited for a core is
//! subtracted where the kernel tells. Every tensor starts at a multiple of 64 bytes.
//!
//! Without `--bench`, which `cargo bench` passes and `cargo test` does not, every op of the smallest workload runs once.

use std::env;
use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use normdrop::{
    Backend, Backward, Bf16, Config, Dropout, Element, Error, Eval, F16, Layer, ParameterGradients, Parameters, Relu,
    Running, RunningMut, SavedMut, Shape, Statistics, Train,
};

/// Those of the bench `throughput`, from memory (B, C, E) and in the caches.
const WORKLOADS: [(&str, &str, Result<Shape, Error>); 6] = [
    ("G", "NC 32x64", Shape::nc(32, 64)),
    ("A", "NC 256x1024", Shape::nc(256, 1024)),
    ("F", "NCHW 8x512x7x7", Shape::nchw(8, 512, 7, 7)),
    ("B", "NC 4096x4096", Shape::nc(4096, 4096)),
    ("C", "NCHW 32x64x56x56", Shape::nchw(32, 64, 56, 56)),
    ("E", "NHWC 32x56x56x64", Shape::nhwc(32, 56, 56, 64)),
];

const OPS: [&str; 3] = ["eval", "train", "backward"];
const ROUNDS: usize = 21;
/// The least time that the calls of one sample take together.
const SAMPLE: Duration = Duration::from_millis(1);

fn main() -> Result<(), Error> {
    let measure = env::args_os().any(|argument| argument == "--bench");
    let chosen: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    println!("{}: {:?}", cpu_model().as_deref().unwrap_or("unknown"), Backend::detect());
    println!(
        "{:<20} {:<9} {:>14} {:>11} {:>11} {:>6} {:>6}",
        "workload", "op", "f32 ns/element", "bf16", "f16", "bf16", "f16"
    );
    for (name, layout, shape) in &WORKLOADS[..if measure { WORKLOADS.len() } else { 1 }] {
        let is_chosen = chosen.iter().flat_map(|names| names.split(',')).any(|one| one == *name);
        if measure && !chosen.is_empty() && !is_chosen {
            continue;
        }
        let layer = Layer::new((*shape)?, Relu, Config { p: 0.1, ..Config::DEFAULT })?;
        let (mut single, mut bf16, mut f16) = (
            Buffers::<f32>::new(&layer, |value| value)?,
            Buffers::<Bf16>::new(&layer, Bf16::from_f32)?,
            Buffers::<F16>::new(&layer, F16::from_f32)?,
        );
        for op in OPS {
            let calls = if measure { repeats(|| single.run(&layer, op))? } else { 1 };
            let mut rounds = Vec::new();
            for _ in 0..if measure { ROUNDS } else { 1 } {
                rounds.push([
                    time(calls, || single.run(&layer, op))?,
                    time(calls, || bf16.run(&layer, op))?,
                    time(calls, || f16.run(&layer, op))?,
                ]);
            }
            let per_element = 1e9 / (f64::from(calls) * layer.shape().len() as f64);
            let of = |kind: usize| median(rounds.iter().map(|round| round[kind] * per_element).collect());
            let ratio = |kind: usize| median(rounds.iter().map(|round| round[0] / round[kind]).collect());
            println!(
                "{:<20} {op:<9} {:>14.4} {:>11.4} {:>11.4} {:>6.2} {:>6.2}",
                format!("{name} {layout}"),
                of(0),
                of(1),
                of(2),
                ratio(1),
                ratio(2)
            );
        }
    }
    Ok(())
}

/// Values from a multiple of 64 bytes on.
struct Tensor<E> {
    memory: Vec<E>,
    start: usize,
    len: usize,
}

impl<E: Copy> Tensor<E> {
    fn new(len: usize, mut make: impl FnMut(usize) -> E) -> Self {
        let spare = 64 / size_of::<E>();
        let mut memory: Vec<E> = vec![make(0); len + spare];
        let start = memory.as_ptr().align_offset(64);
        memory[start..][..len].iter_mut().enumerate().for_each(|(index, value)| *value = make(index));
        Self { memory, start, len }
    }

    fn values(&self) -> &[E] {
        &self.memory[self.start..][..self.len]
    }

    fn values_mut(&mut self) -> &mut [E] {
        &mut self.memory[self.start..][..self.len]
    }
}

/// Everything that the calls read and write.
struct Buffers<E> {
    input: Tensor<E>,
    grad_output: Tensor<E>,
    output: Tensor<E>,
    mask: Vec<u8>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    running: (Vec<f32>, Vec<f32>),
    saved: (Vec<f32>, Vec<f32>, Vec<f64>),
    grads: (Vec<f32>, Vec<f32>),
    scratch: Vec<f64>,
}

impl<E: Element> Buffers<E> {
    fn new(layer: &Layer<Relu>, of: fn(f32) -> E) -> Result<Self, Error> {
        let (len, channels) = (layer.shape().len(), layer.shape().channels());
        // Any numbers will do whose signs no predictor learns: the upper bits of a product.
        let value = |index: usize| {
            let bits = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            of(bits as f32 / (1 << 23) as f32 - 1.0)
        };
        let mut mask = vec![1; layer.mask_len()];
        layer.fill_mask(1, &mut mask)?;
        let mut buffers = Self {
            input: Tensor::new(len, value),
            grad_output: Tensor::new(len, |index| value(index + 7)),
            output: Tensor::new(len, value),
            mask,
            weight: vec![1.25; channels],
            bias: vec![0.25; channels],
            running: (vec![0.5; channels], vec![1.5; channels]),
            saved: (vec![1.0; channels], vec![1.0; channels], vec![1.0; channels]),
            grads: (vec![1.0; channels], vec![1.0; channels]),
            scratch: vec![1.0; layer.scratch_len()],
        };
        buffers.run(layer, "train")?;
        Ok(buffers)
    }

    fn run(&mut self, layer: &Layer<Relu>, op: &str) -> Result<(), Error> {
        let parameters = Parameters { weight: Some(&self.weight), bias: Some(&self.bias) };
        let (input, scratch) = (black_box(self.input.values()), &mut self.scratch[..]);
        match op {
            "eval" => layer.eval(Eval {
                parameters,
                dropout: Dropout::Off,
                ..Eval::new(Running::new(&self.running.0, &self.running.1), input, self.output.values_mut(), scratch)
            })?,
            "train" => {
                let (mean, mean_tail, inv_std) = (&mut self.saved.0, &mut self.saved.1, &mut self.saved.2);
                layer.train(Train {
                    parameters,
                    running: Some(RunningMut::new(&mut self.running.0, &mut self.running.1)),
                    dropout: Dropout::Mask(&self.mask),
                    ..Train::new(input, self.output.values_mut(), SavedMut { mean, mean_tail, inv_std }, scratch)
                })?;
            }
            _ => {
                let saved = normdrop::Saved::new(&self.saved.0, &self.saved.1, &self.saved.2);
                let call = Backward::new(Statistics::Batch(saved), input, self.grad_output.values(), scratch);
                layer.backward(Backward {
                    parameters,
                    dropout: Dropout::Mask(&self.mask),
                    grad_input: Some(self.output.values_mut()),
                    grad_parameters: ParameterGradients::new(&mut self.grads.0, &mut self.grads.1),
                    ..call
                })?;
            }
        }
        black_box(self);
        Ok(())
    }
}

/// The seconds of some calls together.
fn time(calls: u32, mut call: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let (waited_before, start) = (waited(), Instant::now());
    for _ in 0..calls {
        call()?;
    }
    let elapsed = start.elapsed();
    Ok(elapsed.saturating_sub(waited().saturating_sub(waited_before)).as_secs_f64())
}

/// How long this thread has waited for a core since it started, where the kernel tells.
fn waited() -> Duration {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = statistics.split_whitespace().nth(1).and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// How many calls together take [`SAMPLE`]: a power of two.
fn repeats(mut call: impl FnMut() -> Result<(), Error>) -> Result<u32, Error> {
    let mut calls = 1;
    while time(calls, &mut call)? < SAMPLE.as_secs_f64() && calls < 1 << 20 {
        calls *= 2;
    }
    Ok(calls)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The CPU's name, where the system tells.
fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
