//! The time of the layer per element, as a ratio to a copy of the same bytes timed right before it.
//!
//! ```text
//! cargo bench --bench throughput -- --json results.jsonl --date 2026-11-26 --reason 'what has changed'
//! cargo bench --bench throughput -- --workload A,C --op train --backend avx2
//! cargo bench --bench throughput --features rayon -- --threads 1,2
//! cargo bench --bench throughput -- --help
//! ```
//!
//! The layer is batch norm with weight and bias, [`Relu`] and dropout with `p = 0.1`; it keeps running statistics.
//!
//! | op | what is timed |
//! |---|---|
//! | eval | `Layer::eval`: running statistics, no dropout |
//! | prepared | `Layer::eval_prepared`: the same with prepared statistics |
//! | mask | `Layer::fill_mask` alone: one bit per element is drawn and stored |
//! | train | `Layer::fill_mask` and `Layer::train` together: the whole forward half, with the mask drawn and stored |
//! | backward | `Layer::backward` through batch statistics: all three gradients, from the stored mask |
//! | gaussian | `Layer::apply_noise` with Gaussian noise: factors drawn, and a tensor multiplied in place |
//! | uniform | the same with uniform noise |
//! | alpha | `Layer::alpha_dropout`: a tensor in place, from the stored mask |
//! | train-masked, eval-masked, backward-masked | the calls over the valid positions of a padded batch, otherwise as above; of [n, c] a position is a sample |
//! | train-prelu, eval-prelu, backward-prelu | `Layer::train_prelu` and the calls beside it, of a layer with PReLU in the place of `Relu`, otherwise as above |
//! | read | a limit: the sum of one tensor, which is read and not written |
//! | triad | a limit: the sum of two tensors, element by element, into a third one |
//! | environment | once, without a workload: `Layer::eval` of one value, where the floating-point environment is the default one and where the call has to set that and put the caller's back; and one read of the register |
//!
//! Memory speed drifts from second to second, so only ratios inside one run mean anything. A round goes through all
//! ops and backends of a workload, and times a copy (`copy_from_slice` of as many f32, from the input to the output
//! buffer) before each. `ratio` is the median over the rounds of the op's time over that of its own copy; the two
//! columns in nanoseconds are medians of their own. Where one call takes less than [`SAMPLE`](timing::SAMPLE), a sample is several
//! calls, and as many copies. Time in which the thread waited for a core is subtracted where the kernel tells, so
//! that other programs disturb no more than the caches and the memory. Every page is touched and every op run before
//! the first round. Tensors start at a multiple of 64 bytes, as other libraries allocate them; a large `Vec` does not
//! (16 bytes past one with glibc), and `--offset 4` measures that.
//!
//! Of the positions of a padded batch, half are valid: lengths are drawn between 0 and all positions. `--valid 95` draws them
//! between 90 and 100 percent, and so on. The time is that per element of the whole tensor, and so is the copy.
//!
//! With several threads the copy is cut into as many parts as there are threads, too. Time in which other threads than the
//! first wait for a core is not subtracted.
//!
//! Without `--bench`, which `cargo bench` passes and `cargo test` does not, arguments are ignored and every op runs
//! once, to show that it does.

use std::env;
use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

#[path = "../tests/rigs/digest/src/environment.rs"]
#[expect(dead_code, unreachable_pub, reason = "part of a library of the tests")]
mod environment;
mod timing;

use lexopt::{Arg, Parser, ValueExt};
use normdrop::{
    Activation, Backend, Backward, Config, Dropout, Eval, EvalPrepared, Identity, Layer, Masked, Noise,
    ParameterGradients, Parameters, Prepare, Relu, Running, RunningMut, RunningVariance, Saved, SavedMut, Shape,
    Statistics, Train, Validity,
};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use serde::Serialize;
use timing::{About, cpu_model, median, names, repeats, time, uniform};

const HELP: &str = "\
usage: cargo bench --bench throughput -- [options]
  --json PATH       also write the results there, one JSON object a line; the first one is about the run
  --date DATE       the date in that first line (none)
  --reason TEXT     the reason of the run in that first line (none)
  --workload A,C    some of the workloads A to H, S, X and Y (all)
  --op train        some of eval, prepared, mask, train, backward, gaussian, uniform, alpha,
                    train-masked, eval-masked, backward-masked,
                    train-prelu, eval-prelu, backward-prelu, read, triad, environment (all)
  --valid PERCENT   valid positions of a padded batch, 50 to 100 (50)
  --backend avx2    some of portable, avx2, avx512 (all)
  --rounds N        samples of each op, at least 1 (31)
  --threads 1,2     numbers of threads, with the feature rayon (1)
  --offset N        f32 values between a multiple of 64 bytes and each tensor, below 16 (0)
  --help
";

const WORKLOADS: [Workload; 11] = [
    Workload::new("A", "NC 256x1024", Shape::nc(256, 1024)),
    Workload::new("B", "NC 4096x4096", Shape::nc(4096, 4096)),
    Workload::new("C", "NCHW 32x64x56x56", Shape::nchw(32, 64, 56, 56)),
    Workload::new("D", "NCHW 32x256x14x14", Shape::nchw(32, 256, 14, 14)),
    Workload::new("E", "NHWC 32x56x56x64", Shape::nhwc(32, 56, 56, 64)),
    Workload::new("F", "NCHW 8x512x7x7", Shape::nchw(8, 512, 7, 7)),
    Workload::new("G", "NC 32x64", Shape::nc(32, 64)),
    Workload::new("H", "NCL 16x32x4096", Shape::ncl(16, 32, 4096)),
    Workload::new("S", "NC 1x256", Shape::nc(1, 256)),
    Workload::new("X", "NLC 64x128x256", Shape::nlc(64, 128, 256)),
    Workload::new("Y", "NCL 64x256x50", Shape::ncl(64, 256, 50)),
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
    println!("CPU: {cpu}");
    if let Some(json) = &mut json {
        serde_json::to_writer(&mut *json, &About { date: &options.date, cpu, reason: &options.reason })?;
        writeln!(json)?;
    }
    let mut backends = Vec::new();
    for backend in Backend::ALL.into_iter().filter(|backend| chosen(&options.backends, backend.name())) {
        if backend.is_available() {
            println!("{}: available", backend.name());
            backends.push(backend);
        } else {
            println!("{}: not available on this CPU", backend.name());
        }
    }
    println!(
        "{:<20} {:<15} {:<8} {:>7} {:>10} {:>15} {:>6}",
        "workload", "op", "backend", "threads", "ns/element", "copy ns/element", "ratio"
    );
    for workload in WORKLOADS.iter().filter(|workload| chosen(&options.workloads, workload.name)) {
        for result in workload.measure(&options, &backends)? {
            println!(
                "{:<20} {:<15} {:<8} {:>7} {:>10.4} {:>15.4} {:>6.2}",
                format!("{} {}", workload.name, workload.layout),
                result.op,
                result.backend,
                result.threads,
                result.ns_per_element,
                result.copy_ns_per_element,
                result.ratio
            );
            if let Some(json) = &mut json {
                serde_json::to_writer(&mut *json, &result)?;
                writeln!(json)?;
            }
        }
    }
    if chosen(&options.ops, "environment") {
        let result = SmallestCall::measure(&options)?;
        println!(
            "smallest call: {:.1} ns; in another floating-point environment {:.2} times that; one read of the register {:.2} ns",
            result.ns, result.other_environment, result.read_ns
        );
        if let Some(json) = &mut json {
            serde_json::to_writer(&mut *json, &result)?;
            writeln!(json)?;
        }
    }
    if let Some(mut json) = json {
        json.flush()?;
    }
    Ok(())
}

/// What the floating-point environment costs the smallest call there is.
#[derive(Serialize)]
struct SmallestCall {
    op: &'static str,
    /// In the default environment.
    ns: f64,
    /// The time in an environment that flushes subnormal numbers, as a ratio to the time in the default one right before.
    other_environment: f64,
    /// Of one read of the register, with what it takes to keep the compiler from leaving it out.
    read_ns: f64,
}

impl SmallestCall {
    fn measure(options: &Options) -> Result<Self, normdrop::Error> {
        let layer = Layer::new(Shape::nc(1, 1)?, Relu, Config::DEFAULT)?;
        let (mean, var, x, mut y) = ([0.0], [1.0], [0.5], [0.0]);
        let mut scratch = vec![0.0; layer.eval_scratch_len()];
        let mut call = || {
            let running = Running::new(black_box(&mean), &var);
            layer.eval(Eval { dropout: Dropout::Off, ..Eval::new(running, &x, black_box(&mut y), &mut scratch) })
        };
        let read = || {
            black_box(environment::State::read());
            Ok(())
        };
        let (calls, reads) = if options.smoke { (1, 1) } else { (repeats(&mut call)?, repeats(read)?) };
        let (mut default, mut ratios, mut of_read) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds.get() {
            let before = time(calls, &mut call)?.as_secs_f64();
            // The third of the environments flushes, wherever there are several.
            let entered = environment::enter(2);
            let other = time(calls, &mut call);
            let kept = environment::leave(entered);
            assert!(kept, "the environment has changed");
            default.push(before * 1e9 / f64::from(calls));
            ratios.push(other?.as_secs_f64() / before);
            of_read.push(time(reads, read)?.as_secs_f64() * 1e9 / f64::from(reads));
        }
        Ok(Self { op: "environment", ns: median(default), other_environment: median(ratios), read_ns: median(of_read) })
    }
}

/// One line of the results.
#[derive(Serialize)]
struct Measurement {
    workload: &'static str,
    op: &'static str,
    backend: &'static str,
    threads: usize,
    ns_per_element: f64,
    copy_ns_per_element: f64,
    ratio: f64,
}

/// A tensor to run the layer on.
struct Workload {
    name: &'static str,
    layout: &'static str,
    shape: Shape,
}

impl Workload {
    const fn new(name: &'static str, layout: &'static str, shape: Result<Shape, normdrop::Error>) -> Self {
        match shape {
            Ok(shape) => Self { name, layout, shape },
            Err(_) => panic!("the shape is too large"),
        }
    }

    fn measure(&self, options: &Options, backends: &[Backend]) -> Result<Vec<Measurement>, normdrop::Error> {
        // The unbiased variance of one value, as in S, does not exist.
        let config = Config { p: 0.1, running_var: RunningVariance::Biased, ..Config::DEFAULT };
        let layer = Layer::new(self.shape, Relu, config)?;
        let linear = Layer::new(self.shape, Identity, config)?;
        let threads = if options.threads.is_empty() { &[NonZeroUsize::MIN][..] } else { &options.threads };
        let most = threads.iter().copied().max().unwrap_or(NonZeroUsize::MIN);
        let mut buffers = Buffers::new((&in_tasks(layer, most), &in_tasks(linear, most)), options)?;
        let mut series = Vec::new();
        let limits = Op::LIMITS.map(|op| (op, None, NonZeroUsize::MIN));
        let of_backend = |backend: Backend| {
            let on = move |&threads: &NonZeroUsize| Op::ALL.map(|op| (op, Some(backend), threads));
            threads.iter().flat_map(on)
        };
        let ops = backends.iter().copied().flat_map(of_backend);
        for (op, backend, threads) in ops.chain(limits).filter(|(op, ..)| chosen(&options.ops, op.name())) {
            let layer = backend.map_or(Ok(layer), |backend| layer.with_backend(backend))?;
            let linear = backend.map_or(Ok(linear), |backend| linear.with_backend(backend))?;
            let (layer, linear) = (in_tasks(layer, threads), in_tasks(linear, threads));
            let repeats = if options.smoke { 1 } else { repeats(|| buffers.run((&layer, &linear), op))? };
            series.push(Series { op, backend, threads, layer, linear, repeats, samples: Vec::new() });
        }
        for _ in 0..options.rounds.get() {
            for series in &mut series {
                let copy = time(series.repeats, || {
                    buffers.copy(series.threads);
                    Ok(())
                })?;
                let call = time(series.repeats, || buffers.run((&series.layer, &series.linear), series.op))?;
                series.samples.push(Sample { call, copy });
            }
        }
        Ok(series.iter().map(|series| series.result(self)).collect())
    }
}

/// What is timed.
#[derive(Clone, Copy)]
enum Op {
    Eval,
    Prepared,
    Mask,
    Train,
    Backward,
    Gaussian,
    Uniform,
    Alpha,
    TrainMasked,
    EvalMasked,
    BackwardMasked,
    TrainPrelu,
    EvalPrelu,
    BackwardPrelu,
    Read,
    Triad,
}

impl Op {
    /// Those of the layer.
    const ALL: [Self; 14] = [
        Self::Eval,
        Self::Prepared,
        Self::Mask,
        Self::Train,
        Self::Backward,
        Self::Gaussian,
        Self::Uniform,
        Self::Alpha,
        Self::TrainMasked,
        Self::EvalMasked,
        Self::BackwardMasked,
        Self::TrainPrelu,
        Self::EvalPrelu,
        Self::BackwardPrelu,
    ];
    /// The names of all of them.
    const NAMES: [&str; 17] = [
        "eval",
        "prepared",
        "mask",
        "train",
        "backward",
        "gaussian",
        "uniform",
        "alpha",
        "train-masked",
        "eval-masked",
        "backward-masked",
        "train-prelu",
        "eval-prelu",
        "backward-prelu",
        "read",
        "triad",
        "environment",
    ];
    /// What memory allows.
    const LIMITS: [Self; 2] = [Self::Read, Self::Triad];

    const fn name(self) -> &'static str {
        match self {
            Self::Eval => "eval",
            Self::Prepared => "prepared",
            Self::Mask => "mask",
            Self::Train => "train",
            Self::Backward => "backward",
            Self::Gaussian => "gaussian",
            Self::Uniform => "uniform",
            Self::Alpha => "alpha",
            Self::TrainMasked => "train-masked",
            Self::EvalMasked => "eval-masked",
            Self::BackwardMasked => "backward-masked",
            Self::TrainPrelu => "train-prelu",
            Self::EvalPrelu => "eval-prelu",
            Self::BackwardPrelu => "backward-prelu",
            Self::Read => "read",
            Self::Triad => "triad",
        }
    }
}

/// One op on one backend, if it is the layer's, round after round.
struct Series {
    op: Op,
    backend: Option<Backend>,
    threads: NonZeroUsize,
    layer: Layer<Relu>,
    /// The same without an activation, for PReLU.
    linear: Layer<Identity>,
    /// The calls, and the copies, of one sample.
    repeats: u32,
    samples: Vec<Sample>,
}

/// The time of an op, and of the copy right before it.
struct Sample {
    call: Duration,
    copy: Duration,
}

impl Series {
    fn result(&self, workload: &Workload) -> Measurement {
        let elements = workload.shape.len() as f64 * f64::from(self.repeats);
        let median_of = |value: fn(&Sample) -> f64| median(self.samples.iter().map(value).collect());
        Measurement {
            workload: workload.name,
            op: self.op.name(),
            backend: self.backend.map_or("-", Backend::name),
            threads: self.threads.get(),
            ns_per_element: median_of(|sample| sample.call.as_secs_f64()) * 1e9 / elements,
            copy_ns_per_element: median_of(|sample| sample.copy.as_secs_f64()) * 1e9 / elements,
            ratio: median_of(|sample| sample.call.as_secs_f64() / sample.copy.as_secs_f64()),
        }
    }
}

/// Values at a known distance from a multiple of 64 bytes.
struct Tensor {
    memory: Vec<f32>,
    start: usize,
    len: usize,
}

impl Tensor {
    fn new(values: &[f32], offset: usize) -> Self {
        const LINE: usize = 64;
        let memory = vec![1.0; values.len() + offset + LINE / size_of::<f32>()];
        let start = memory.as_ptr().align_offset(LINE) + offset;
        let mut tensor = Self { memory, start, len: values.len() };
        tensor.values_mut().copy_from_slice(values);
        tensor
    }

    fn values(&self) -> &[f32] {
        &self.memory[self.start..][..self.len]
    }

    fn values_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.start..][..self.len]
    }
}

/// Everything that the calls read and write; train, eval and backward share the output.
struct Buffers {
    input: Tensor,
    grad_output: Tensor,
    output: Tensor,
    mask: Vec<u8>,
    seed: u64,
    weight: Vec<f32>,
    bias: Vec<f32>,
    running_mean: Vec<f32>,
    running_var: Vec<f32>,
    saved_mean: Vec<f32>,
    saved_mean_tail: Vec<f32>,
    saved_inv_std: Vec<f64>,
    grad_weight: Vec<f32>,
    grad_bias: Vec<f32>,
    slope: Vec<f32>,
    grad_slope: Vec<f32>,
    prepared: Vec<f64>,
    scratch: Vec<f64>,
    lengths: Vec<usize>,
    workspace: Vec<f32>,
}

impl Buffers {
    /// Buffers whose pages are all in memory, after one training call.
    fn new((layer, linear): (&Layer<Relu>, &Layer<Identity>), options: &Options) -> Result<Self, normdrop::Error> {
        let (elements, channels) = (layer.shape().len(), layer.shape().channels());
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
        let mut values = |len, low, high| -> Vec<f32> { (0..len).map(|_| uniform(&mut rng, low, high)).collect() };
        let (offset, shape) = (options.offset, layer.shape());
        let positions = (shape.positions() * shape.inner()).max(1);
        let lengths = (0..shape.samples() / positions).map(|sample| {
            // Evenly between the least length and all positions, in an order that the hardware cannot foresee.
            let part = (sample as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            let least = positions * (2 * options.valid - 100) / 100;
            least + (((positions - least + 1) as u64 * part) >> 24) as usize
        });
        let mut buffers = Self {
            lengths: lengths.collect(),
            workspace: vec![1.0; layer.masked_workspace_len()],
            input: Tensor::new(&values(elements, -1.0, 2.0), offset),
            grad_output: Tensor::new(&values(elements, -1.0, 1.0), offset),
            output: Tensor::new(&values(elements, 0.0, 1.0), offset),
            // Not zero, here and below: a vector of zeros would be pages that nothing has touched.
            mask: vec![1; layer.mask_len()],
            seed: 0,
            weight: values(channels, 0.5, 1.5),
            bias: values(channels, -0.5, 0.5),
            running_mean: values(channels, -0.5, 0.5),
            running_var: values(channels, 0.5, 1.5),
            saved_mean: vec![1.0; channels],
            saved_mean_tail: vec![1.0; channels],
            saved_inv_std: vec![1.0; channels],
            grad_weight: vec![1.0; channels],
            grad_bias: vec![1.0; channels],
            slope: values(channels, 0.0, 0.5),
            grad_slope: vec![1.0; channels],
            prepared: vec![1.0; layer.prepared_len()],
            scratch: vec![1.0; layer.prelu_scratch_len().max(layer.masked_scratch_len())],
        };
        buffers.run((layer, linear), Op::Train)?;
        layer.prepare(Prepare {
            parameters: Parameters { weight: Some(&buffers.weight), bias: Some(&buffers.bias) },
            running: Running::new(&buffers.running_mean, &buffers.running_var),
            prepared: &mut buffers.prepared,
        })?;
        Ok(buffers)
    }

    fn copy(&mut self, threads: NonZeroUsize) {
        copy(black_box(self.input.values()), self.output.values_mut(), threads);
        black_box(&mut self.output);
    }

    fn run(&mut self, (layer, linear): (&Layer<Relu>, &Layer<Identity>), op: Op) -> Result<(), normdrop::Error> {
        let parameters = Parameters { weight: Some(&self.weight), bias: Some(&self.bias) };
        let input = black_box(self.input.values());
        let masked = Masked::new(Validity::Lengths(&self.lengths), &mut self.workspace);
        match op {
            Op::Eval | Op::EvalMasked | Op::EvalPrelu => {
                let eval = Eval {
                    parameters,
                    running: Running::new(&self.running_mean, &self.running_var),
                    dropout: Dropout::Off,
                    input,
                    output: self.output.values_mut(),
                    residual: None,
                    scratch: &mut self.scratch,
                };
                match op {
                    Op::EvalMasked => layer.eval_masked(eval, masked)?,
                    Op::EvalPrelu => linear.eval_prelu(eval, black_box(&self.slope))?,
                    _ => layer.eval(eval)?,
                }
            }
            Op::Prepared => layer.eval_prepared(EvalPrepared {
                prepared: black_box(&self.prepared),
                dropout: Dropout::Off,
                input,
                residual: None,
                output: self.output.values_mut(),
                scratch: &mut self.scratch,
            })?,
            Op::Mask => self.seed = draw(layer, self.seed, &mut self.mask)?,
            // Of so small a width that the values stay what they are, however often they are multiplied.
            Op::Gaussian => {
                self.seed = self.seed.wrapping_add(1);
                layer.apply_noise(Noise::gaussian(1e-7)?, self.seed, self.output.values_mut())?;
            }
            Op::Uniform => {
                self.seed = self.seed.wrapping_add(1);
                layer.apply_noise(Noise::uniform(1e-7)?, self.seed, self.output.values_mut())?;
            }
            Op::Alpha => layer.alpha_dropout(black_box(&self.mask), self.output.values_mut())?,
            Op::Read => {
                black_box(sum(input));
            }
            Op::Triad => {
                let pairs = input.iter().zip(black_box(self.grad_output.values()));
                for (output, (x, dy)) in self.output.values_mut().iter_mut().zip(pairs) {
                    *output = x + dy;
                }
            }
            Op::Train | Op::TrainMasked | Op::TrainPrelu => {
                self.seed = draw(layer, self.seed, &mut self.mask)?;
                let train = Train {
                    parameters,
                    running: Some(RunningMut::new(&mut self.running_mean, &mut self.running_var)),
                    dropout: Dropout::Mask(&self.mask),
                    input,
                    output: self.output.values_mut(),
                    saved: SavedMut {
                        mean: &mut self.saved_mean,
                        mean_tail: &mut self.saved_mean_tail,
                        inv_std: &mut self.saved_inv_std,
                    },
                    residual: None,
                    scratch: &mut self.scratch,
                };
                match op {
                    Op::TrainMasked => layer.train_masked(train, masked)?,
                    Op::TrainPrelu => linear.train_prelu(train, black_box(&self.slope))?,
                    _ => layer.train(train)?,
                }
            }
            Op::Backward | Op::BackwardMasked | Op::BackwardPrelu => {
                let backward = Backward {
                    parameters,
                    statistics: Statistics::Batch(Saved {
                        mean: &self.saved_mean,
                        mean_tail: &self.saved_mean_tail,
                        inv_std: &self.saved_inv_std,
                    }),
                    dropout: Dropout::Mask(black_box(&self.mask)),
                    input,
                    grad_output: black_box(self.grad_output.values()),
                    grad_input: Some(self.output.values_mut()),
                    grad_parameters: ParameterGradients {
                        weight: Some(&mut self.grad_weight),
                        bias: Some(&mut self.grad_bias),
                    },
                    residual: None,
                    grad_residual: None,
                    scratch: &mut self.scratch,
                };
                match op {
                    Op::BackwardMasked => layer.backward_masked(backward, masked)?,
                    Op::BackwardPrelu => {
                        linear.backward_prelu(backward, black_box(&self.slope), Some(&mut self.grad_slope))?;
                    }
                    _ => layer.backward(backward)?,
                }
            }
        }
        black_box(self);
        Ok(())
    }
}

/// The layer in as many tasks as threads.
#[cfg(feature = "rayon")]
fn in_tasks<A: Activation>(layer: Layer<A>, threads: NonZeroUsize) -> Layer<A> {
    layer.with_tasks(threads.get())
}

/// The layer: without the feature there is one thread.
#[cfg(not(feature = "rayon"))]
fn in_tasks<A: Activation>(layer: Layer<A>, _: NonZeroUsize) -> Layer<A> {
    layer
}

/// Copies in as many parts as there are threads.
#[cfg(feature = "rayon")]
fn copy(from: &[f32], to: &mut [f32], threads: NonZeroUsize) {
    if threads.get() == 1 {
        return to.copy_from_slice(from);
    }
    let part = from.len().div_ceil(threads.get());
    let mut parts = from.chunks(part).zip(to.chunks_mut(part));
    let first = parts.next();
    rayon::in_place_scope(|scope| {
        for (from, to) in parts {
            scope.spawn(|_| to.copy_from_slice(from));
        }
        // As the layer's calls, the one that copies works, too.
        if let Some((from, to)) = first {
            to.copy_from_slice(from);
        }
    });
}

/// Copies on one thread.
#[cfg(not(feature = "rayon"))]
fn copy(from: &[f32], to: &mut [f32], _: NonZeroUsize) {
    to.copy_from_slice(from);
}

/// Draws a new mask and returns the next seed.
fn draw(layer: &Layer<Relu>, seed: u64, mask: &mut [u8]) -> Result<u64, normdrop::Error> {
    layer.fill_mask(black_box(seed), mask)?;
    black_box(mask);
    Ok(seed.wrapping_add(1))
}

/// The sum of some values in enough lanes that memory is what it waits for.
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0; 64];
    for values in values.as_chunks::<64>().0 {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane += value;
        }
    }
    lanes.iter().sum()
}

/// Whether a name is in a list, where an empty list is everything.
fn chosen(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|chosen| chosen == name)
}

/// What the command line asks for. Empty lists are everything.
struct Options {
    json: Option<PathBuf>,
    date: String,
    reason: String,
    workloads: Vec<String>,
    ops: Vec<String>,
    backends: Vec<String>,
    rounds: NonZeroU32,
    threads: Vec<NonZeroUsize>,
    offset: usize,
    /// The percentage of valid positions of a padded batch.
    valid: usize,
    smoke: bool,
}

impl Options {
    /// Everything, once.
    const SMOKE: Self = Self {
        json: None,
        date: String::new(),
        reason: String::new(),
        workloads: Vec::new(),
        ops: Vec::new(),
        backends: Vec::new(),
        rounds: NonZeroU32::MIN,
        threads: Vec::new(),
        offset: 0,
        valid: 50,
        smoke: true,
    };

    /// The options of this process, or none if it was asked for help.
    fn from_arguments() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self { rounds: const { NonZeroU32::new(31).unwrap() }, smoke: false, ..Self::SMOKE };
        let mut parser = Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("json") => options.json = Some(parser.value()?.into()),
                Arg::Long("date") => options.date = parser.value()?.string()?,
                Arg::Long("reason") => options.reason = parser.value()?.string()?,
                Arg::Long("workload") => options.workloads = names(&mut parser, &WORKLOADS.map(|it| it.name))?,
                Arg::Long("op") => options.ops = names(&mut parser, &Op::NAMES)?,
                Arg::Long("backend") => options.backends = names(&mut parser, &Backend::ALL.map(Backend::name))?,
                Arg::Long("rounds") => options.rounds = parser.value()?.parse()?,
                Arg::Long("threads") => options.threads = numbers(&parser.value()?.string()?)?,
                Arg::Long("offset") => options.offset = parser.value()?.parse_with(below_16)?,
                Arg::Long("valid") => options.valid = parser.value()?.parse_with(half_or_more)?,
                Arg::Long("bench") => {}
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(options))
    }
}

/// The numbers of threads in a list; more than one only where calls can have them.
fn numbers(list: &str) -> Result<Vec<NonZeroUsize>, lexopt::Error> {
    let numbers =
        list.split(',').map(|number| number.parse().map_err(|_| format!("{number:?} is no number of threads")));
    let numbers = numbers.collect::<Result<Vec<NonZeroUsize>, String>>()?;
    if numbers.iter().any(|number| number.get() > 1) && !cfg!(feature = "rayon") {
        return Err("more than one thread needs the feature rayon".into());
    }
    Ok(numbers)
}

fn half_or_more(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 50..=100) => Ok(number),
        _ => Err("not a percentage between 50 and 100".to_owned()),
    }
}

fn below_16(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 0..16) => Ok(number),
        _ => Err("not a number below 16".to_owned()),
    }
}
