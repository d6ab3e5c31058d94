//! How much stack every public call of normdrop takes: prints `name ordinary worst`, in bytes, a call a line.
//!
//! The stack below a call is painted before it and looked at after it: what is no longer painted was used. The frame of
//! the function here that puts the arguments together is counted as well. *Ordinary* are numbers around 1, *worst* is
//! the most of any numbers: those that overflow or underflow in f32, and take the paths in f64, as well. Either is the
//! most over shapes of both walks, over batch and fixed statistics, with and without a residual.
#![no_std]
#![no_main]

use core::arch::asm;
use core::convert::Infallible;
use core::hint::black_box;

use cortex_m_rt::entry;
use cortex_m_semihosting::hio::{HostStream, hstdout};
use footprint::end;
use normdrop::{
    Activation, Apply, ApplyGradient, Average, Backward, BackwardInPlace, Bernoulli, Config, Dropout, Error, Eval,
    EvalInPlace, Finish, Fold, Gelu, HardSwish, Identity, Layer, LeakyRelu, Moments, ParameterGradients, Parameters,
    Reduce, Relu, Relu6, Running, RunningMut, Saved, SavedMut, Shape, Sigmoid, Silu, Statistics, Tanh, Train,
    WeightOrder, WeightShape, fold_into_next, fold_into_previous, merge_moments, merge_sums, seed_from,
};
use rand_core::TryRng;

/// One channel alone, channels of more than one block, and matrices whose columns are whole channels or not: both walks, with
/// what they do at the end of a run, of a row and of a group.
const SHAPES: [[usize; 3]; 4] = [[1, 1, 1000], [2, 3, 300], [300, 20, 1], [70, 3, 7]];
const LEN: usize = 300 * 20;
const CHANNELS: usize = 20;
const SCRATCH: usize = 4096;
/// Below the frame of `measure`; RAM has room for this and the buffers.
const PAINTED: usize = 32 * 1024;
const PAINT: u32 = 0xC0DE_F00D;

/// The buffers of every call, and the layer's shape and options.
struct Fixture {
    shape: [usize; 3],
    fixed: bool,
    with_residual: bool,
    weight: [f32; CHANNELS],
    bias: [f32; CHANNELS],
    running_mean: [f32; CHANNELS],
    running_var: [f32; CHANNELS],
    mean: [f32; CHANNELS],
    mean_tail: [f32; CHANNELS],
    inv_std: [f64; CHANNELS],
    grad_weight: [f32; CHANNELS],
    grad_bias: [f32; CHANNELS],
    moments: [f64; 3 * CHANNELS],
    sums: [f64; 2 * CHANNELS],
    other: [f64; 3 * CHANNELS],
    input: [f32; LEN],
    residual: [f32; LEN],
    output: [f32; LEN],
    grad_output: [f32; LEN],
    grad_input: [f32; LEN],
    grad_residual: [f32; LEN],
    mask: [u8; LEN.div_ceil(8)],
    scratch: [f64; SCRATCH],
}

/// The first values of a buffer: all of them if there are not so many, and the call then says what is wrong.
fn front<T>(buffer: &[T], len: usize) -> &[T] {
    buffer.get(..len).unwrap_or(buffer)
}

/// [`front`], to be written.
fn front_mut<T>(buffer: &mut [T], len: usize) -> &mut [T] {
    let len = len.min(buffer.len());
    buffer.get_mut(..len).unwrap_or_default()
}

impl Fixture {
    fn layer<A: Activation>(&self, activation: A) -> Result<Layer<A>, Error> {
        let [outer, channels, inner] = black_box(self.shape);
        Layer::new(Shape::new(outer, channels, inner)?, activation, Config { p: 0.25, ..Config::DEFAULT })
    }

    const fn channels(&self) -> usize {
        self.shape[1]
    }

    const fn len(&self) -> usize {
        self.shape[0] * self.shape[1] * self.shape[2]
    }
}

/// A layer where it was made: to move it out of the result would be one more copy of it in the frame that is measured.
fn unmoved<A>(layer: &Result<Layer<A>, Error>) -> Result<&Layer<A>, Error> {
    layer.as_ref().map_err(|&error| error)
}

/// A bundle's fields, cut to the length that the layer has.
macro_rules! parameters {
    ($fixture:ident, $c:ident) => {
        Parameters { weight: Some(front(&$fixture.weight, $c)), bias: Some(front(&$fixture.bias, $c)) }
    };
}
macro_rules! saved {
    ($fixture:ident, $c:ident) => {
        Saved {
            mean: front(&$fixture.mean, $c),
            mean_tail: front(&$fixture.mean_tail, $c),
            inv_std: front(&$fixture.inv_std, $c),
        }
    };
}
macro_rules! saved_mut {
    ($fixture:ident, $c:ident) => {
        SavedMut {
            mean: front_mut(&mut $fixture.mean, $c),
            mean_tail: front_mut(&mut $fixture.mean_tail, $c),
            inv_std: front_mut(&mut $fixture.inv_std, $c),
        }
    };
}
macro_rules! running {
    ($fixture:ident, $c:ident) => {
        Running { mean: front(&$fixture.running_mean, $c), var: front(&$fixture.running_var, $c) }
    };
}
macro_rules! running_mut {
    ($fixture:ident, $c:ident) => {
        Some(RunningMut {
            mean: front_mut(&mut $fixture.running_mean, $c),
            var: front_mut(&mut $fixture.running_var, $c),
            average: Average::Exponential,
        })
    };
}
macro_rules! statistics {
    ($fixture:ident, $c:ident) => {
        if $fixture.fixed { Statistics::Fixed(running!($fixture, $c)) } else { Statistics::Batch(saved!($fixture, $c)) }
    };
}
macro_rules! residual {
    ($fixture:ident, $len:ident) => {
        $fixture.with_residual.then(|| front(&$fixture.residual, $len))
    };
}
macro_rules! dropout {
    ($fixture:ident, $layer:ident) => {
        Dropout::Mask(front(&$fixture.mask, $layer.mask_len()))
    };
}
macro_rules! grad_parameters {
    ($fixture:ident, $c:ident) => {
        ParameterGradients {
            weight: Some(front_mut(&mut $fixture.grad_weight, $c)),
            bias: Some(front_mut(&mut $fixture.grad_bias, $c)),
        }
    };
}

type Outcome = Result<(), Error>;

fn train<A: Activation>(fixture: &mut Fixture, activation: A) -> Outcome {
    let made = fixture.layer(activation);
    let (layer, c, len) = (unmoved(&made)?, fixture.channels(), fixture.len());
    layer.train(Train {
        parameters: parameters!(fixture, c),
        running: running_mut!(fixture, c),
        dropout: dropout!(fixture, layer),
        input: front(&fixture.input, len),
        residual: residual!(fixture, len),
        output: front_mut(&mut fixture.output, len),
        saved: saved_mut!(fixture, c),
        scratch: &mut fixture.scratch,
    })
}

fn eval<A: Activation>(fixture: &mut Fixture, activation: A) -> Outcome {
    let made = fixture.layer(activation);
    let (layer, c, len) = (unmoved(&made)?, fixture.channels(), fixture.len());
    layer.eval(Eval {
        parameters: parameters!(fixture, c),
        running: running!(fixture, c),
        dropout: dropout!(fixture, layer),
        input: front(&fixture.input, len),
        residual: residual!(fixture, len),
        output: front_mut(&mut fixture.output, len),
        scratch: &mut fixture.scratch,
    })
}

fn eval_in_place(fixture: &mut Fixture) -> Outcome {
    let made = fixture.layer(Relu);
    let (layer, c, len) = (unmoved(&made)?, fixture.channels(), fixture.len());
    layer.eval_in_place(EvalInPlace {
        parameters: parameters!(fixture, c),
        running: running!(fixture, c),
        dropout: dropout!(fixture, layer),
        residual: residual!(fixture, len),
        values: front_mut(&mut fixture.output, len),
        scratch: &mut fixture.scratch,
    })
}

fn backward<A: Activation>(fixture: &mut Fixture, activation: A) -> Outcome {
    let made = fixture.layer(activation);
    let (layer, c, len) = (unmoved(&made)?, fixture.channels(), fixture.len());
    layer.backward(Backward {
        parameters: parameters!(fixture, c),
        statistics: statistics!(fixture, c),
        dropout: dropout!(fixture, layer),
        input: front(&fixture.input, len),
        residual: residual!(fixture, len),
        grad_output: front(&fixture.grad_output, len),
        grad_input: Some(front_mut(&mut fixture.grad_input, len)),
        grad_residual: fixture.with_residual.then(|| front_mut(&mut fixture.grad_residual, len)),
        grad_parameters: grad_parameters!(fixture, c),
        scratch: &mut fixture.scratch,
    })
}

fn backward_in_place(fixture: &mut Fixture) -> Outcome {
    let made = fixture.layer(Relu);
    let (layer, c, len) = (unmoved(&made)?, fixture.channels(), fixture.len());
    layer.backward_in_place(BackwardInPlace {
        parameters: parameters!(fixture, c),
        statistics: statistics!(fixture, c),
        dropout: dropout!(fixture, layer),
        input: front(&fixture.input, len),
        residual: residual!(fixture, len),
        values: front_mut(&mut fixture.output, len),
        grad_residual: fixture.with_residual.then(|| front_mut(&mut fixture.grad_residual, len)),
        grad_parameters: grad_parameters!(fixture, c),
        scratch: &mut fixture.scratch,
    })
}

fn moments(fixture: &mut Fixture) -> Outcome {
    let made = fixture.layer(Relu);
    let (layer, len) = (unmoved(&made)?, fixture.len());
    layer.moments(Moments {
        input: front(&fixture.input, len),
        moments: front_mut(&mut fixture.moments, layer.moments_len()),
        scratch: &mut fixture.scratch,
    })
}

fn merge_two_moments(fixture: &mut Fixture) -> Outcome {
    let len = fixture.layer(Relu)?.moments_len();
    fixture.other = fixture.moments;
    merge_moments(front_mut(&mut fixture.moments, len), front(&fixture.other, len))
}

fn finish(fixture: &mut Fixture) -> Outcome {
    let made = fixture.layer(Relu);
    let (layer, c) = (unmoved(&made)?, fixture.channels());
    layer.finish(Finish {
        moments: front(&fixture.moments, layer.moments_len()),
        running: running_mut!(fixture, c),
        saved: saved_mut!(fixture, c),
    })
}

fn apply(fixture: &mut Fixture) -> Outcome {
    let made = fixture.layer(Relu);
    let (layer, c, len) = (unmoved(&made)?, fixture.channels(), fixture.len());
    layer.apply(Apply {
        parameters: parameters!(fixture, c),
        saved: saved!(fixture, c),
        dropout: dropout!(fixture, layer),
        input: front(&fixture.input, len),
        residual: residual!(fixture, len),
        output: front_mut(&mut fixture.output, len),
        scratch: &mut fixture.scratch,
    })
}

fn reduce(fixture: &mut Fixture) -> Outcome {
    let made = fixture.layer(Relu);
    let (layer, c, len) = (unmoved(&made)?, fixture.channels(), fixture.len());
    layer.reduce(Reduce {
        parameters: parameters!(fixture, c),
        statistics: statistics!(fixture, c),
        dropout: dropout!(fixture, layer),
        input: front(&fixture.input, len),
        residual: residual!(fixture, len),
        grad_output: front(&fixture.grad_output, len),
        sums: front_mut(&mut fixture.sums, layer.sums_len()),
        scratch: &mut fixture.scratch,
    })
}

fn merge_two_sums(fixture: &mut Fixture) -> Outcome {
    let len = fixture.layer(Relu)?.sums_len();
    for (other, &sum) in fixture.other.iter_mut().zip(&fixture.sums) {
        *other = sum;
    }
    merge_sums(front_mut(&mut fixture.sums, len), front(&fixture.other, len))
}

fn finish_gradients(fixture: &mut Fixture) -> Outcome {
    let made = fixture.layer(Relu);
    let (layer, c) = (unmoved(&made)?, fixture.channels());
    layer.finish_gradients(front(&fixture.sums, layer.sums_len()), grad_parameters!(fixture, c))
}

fn apply_gradient(fixture: &mut Fixture) -> Outcome {
    let made = fixture.layer(Relu);
    let (layer, c, len) = (unmoved(&made)?, fixture.channels(), fixture.len());
    layer.apply_gradient(ApplyGradient {
        parameters: parameters!(fixture, c),
        saved: saved!(fixture, c),
        samples: layer.shape().samples() as f64,
        sums: front(&fixture.sums, layer.sums_len()),
        dropout: dropout!(fixture, layer),
        input: front(&fixture.input, len),
        residual: residual!(fixture, len),
        grad_output: front(&fixture.grad_output, len),
        grad_input: front_mut(&mut fixture.grad_input, len),
        grad_residual: fixture.with_residual.then(|| front_mut(&mut fixture.grad_residual, len)),
        scratch: &mut fixture.scratch,
    })
}

/// The weights are the output; their layer has as many inputs as outputs.
fn fold(fixture: &mut Fixture, fold: fn(Fold<'_>) -> Outcome, order: WeightOrder) -> Outcome {
    let (c, len, [outer, channels, taps]) = (fixture.channels(), fixture.len(), fixture.shape);
    let next = order == WeightOrder::OutInTaps;
    let (outputs, inputs) = if next { (outer, channels) } else { (channels, outer) };
    fold(Fold {
        parameters: parameters!(fixture, c),
        running: running!(fixture, c),
        eps: 1e-5,
        shape: WeightShape { order, outputs, inputs, taps, groups: 1 },
        weights: front_mut(&mut fixture.output, len),
        bias: Some(front_mut(&mut fixture.grad_residual, outputs)),
    })
}

fn fill_mask(fixture: &mut Fixture) -> Outcome {
    let made = fixture.layer(Relu);
    let layer = unmoved(&made)?;
    layer.fill_mask(black_box(42), front_mut(&mut fixture.mask, layer.mask_len()))
}

/// A generator that takes next to no stack itself.
struct Counter(u64);

impl TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|word| (word >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        Ok(self.0)
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.fill(0x5A);
        Ok(())
    }
}

fn fill_mask_with(fixture: &mut Fixture) -> Outcome {
    let made = fixture.layer(Relu);
    let layer = unmoved(&made)?;
    layer.fill_mask_with(&mut Counter(black_box(1)), front_mut(&mut fixture.mask, layer.mask_len()))
}

fn bernoulli_fill(fixture: &mut Fixture) -> Outcome {
    let bits = fixture.len();
    Bernoulli::new(black_box(0.25))?.fill(black_box(42), 0, bits, front_mut(&mut fixture.mask, bits.div_ceil(8)))
}

fn bernoulli_fill_with(fixture: &mut Fixture) -> Outcome {
    let bits = fixture.len();
    let mask = front_mut(&mut fixture.mask, bits.div_ceil(8));
    Bernoulli::new(black_box(0.25))?.fill_with(&mut Counter(black_box(1)), bits, mask)
}

/// A call and how it is named in the table.
type Call = (&'static str, fn(&mut Fixture) -> Outcome);

/// In an order in which each finds what it needs. Calls that are there with every activation are measured with every one;
/// the others share their walks.
const CALLS: [Call; 38] = [
    ("Layer::new", |fixture| fixture.layer(Relu).map(|layer| _ = black_box(layer))),
    ("Layer::fill_mask", fill_mask),
    ("Layer::fill_mask_with", fill_mask_with),
    ("Layer::train<Relu>", |fixture| train(fixture, Relu)),
    ("Layer::eval<Relu>", |fixture| eval(fixture, Relu)),
    ("Layer::eval_in_place<Relu>", eval_in_place),
    ("Layer::backward<Relu>", |fixture| backward(fixture, Relu)),
    ("Layer::backward_in_place<Relu>", backward_in_place),
    ("Layer::moments", moments),
    ("merge_moments", merge_two_moments),
    ("Layer::finish", finish),
    ("Layer::apply<Relu>", apply),
    ("Layer::reduce<Relu>", reduce),
    ("merge_sums", merge_two_sums),
    ("Layer::finish_gradients", finish_gradients),
    ("Layer::apply_gradient<Relu>", apply_gradient),
    ("Layer::eval<Identity>", |fixture| eval(fixture, Identity)),
    ("Layer::backward<Identity>", |fixture| backward(fixture, Identity)),
    ("Layer::eval<Relu6>", |fixture| eval(fixture, Relu6)),
    ("Layer::backward<Relu6>", |fixture| backward(fixture, Relu6)),
    ("Layer::eval<LeakyRelu>", |fixture| eval(fixture, LeakyRelu::new(black_box(0.1))?)),
    ("Layer::backward<LeakyRelu>", |fixture| backward(fixture, LeakyRelu::new(black_box(0.1))?)),
    ("Layer::eval<HardSwish>", |fixture| eval(fixture, HardSwish)),
    ("Layer::backward<HardSwish>", |fixture| backward(fixture, HardSwish)),
    ("Layer::eval<Sigmoid>", |fixture| eval(fixture, Sigmoid)),
    ("Layer::backward<Sigmoid>", |fixture| backward(fixture, Sigmoid)),
    ("Layer::eval<Tanh>", |fixture| eval(fixture, Tanh)),
    ("Layer::backward<Tanh>", |fixture| backward(fixture, Tanh)),
    ("Layer::eval<Silu>", |fixture| eval(fixture, Silu)),
    ("Layer::backward<Silu>", |fixture| backward(fixture, Silu)),
    ("Layer::eval<Gelu>", |fixture| eval(fixture, Gelu)),
    ("Layer::backward<Gelu>", |fixture| backward(fixture, Gelu)),
    ("fold_into_previous", |fixture| fold(fixture, fold_into_previous, WeightOrder::InOutTaps)),
    ("fold_into_next", |fixture| fold(fixture, fold_into_next, WeightOrder::OutInTaps)),
    ("Bernoulli::new", |_| Bernoulli::new(black_box(0.25)).map(|keep| _ = black_box(keep))),
    ("Bernoulli::fill", bernoulli_fill),
    ("Bernoulli::fill_with", bernoulli_fill_with),
    ("seed_from", |_| {
        black_box(seed_from(&mut Counter(black_box(1))));
        Ok(())
    }),
];

/// Numbers for a tensor, in turn, and for each channel.
struct Numbers {
    input: [f32; 4],
    weight: f32,
    running_var: f32,
}

/// The first are the ordinary ones. The others overflow or underflow in f32: as input, as the square of it, as slope of the
/// normalisation, as gradient.
const NUMBERS: [Numbers; 6] = [
    Numbers { input: [0.5, -1.25, 2.0, 0.75], weight: 1.5, running_var: 2.0 },
    Numbers { input: [1e30, -2e30, 3e30, 0.0], weight: 1.0, running_var: 3e38 },
    Numbers { input: [3e38, -3e38, 1e38, -2e38], weight: 1e-30, running_var: 3e38 },
    Numbers { input: [3e38, -3e38, 1e38, -2e38], weight: 3e38, running_var: 1e-40 },
    Numbers { input: [1e-40, -3e-40, 2e-40, 0.0], weight: 3e38, running_var: 0.0 },
    Numbers { input: [f32::NAN, 1e30, f32::INFINITY, 1.0], weight: 1.0, running_var: 1.0 },
];

impl Fixture {
    fn fill(&mut self, numbers: &Numbers) {
        for buffer in [&mut self.input, &mut self.residual, &mut self.grad_output] {
            for (value, &number) in buffer.iter_mut().zip(numbers.input.iter().cycle()) {
                *value = number;
            }
        }
        self.weight.fill(numbers.weight);
        self.bias.fill(0.5);
        self.running_mean.fill(0.25);
        self.running_var.fill(numbers.running_var);
        // What is worked on in place.
        self.output = self.input;
        self.grad_residual = self.residual;
    }
}

/// The bytes of stack that a call takes.
#[inline(never)]
fn measure(call: fn(&mut Fixture) -> Outcome, fixture: &mut Fixture) -> Result<usize, Error> {
    let stack: usize;
    // SAFETY: what is painted lies below the stack pointer, where nothing is, and inside of RAM, which is 4 MiB and has
    // the stack at its end; no interrupt is enabled that could use the stack meanwhile.
    unsafe {
        asm!(
            "mov {stack}, sp",
            "sub {at}, {stack}, {bytes}",
            "2:",
            "str {paint}, [{at}], #4",
            "cmp {at}, {stack}",
            "blo 2b",
            stack = out(reg) stack,
            at = out(reg) _,
            bytes = in(reg) PAINTED,
            paint = in(reg) PAINT,
            options(nostack),
        );
    }
    call(fixture)?;
    let mut lowest = stack - PAINTED;
    // SAFETY: painted above, and still below the stack pointer. The reads are volatile because the compiler does not know
    // of what the call has left there.
    while lowest < stack && unsafe { (lowest as *const u32).read_volatile() } == PAINT {
        lowest += 4;
    }
    Ok(stack - lowest)
}

/// A function that takes a known amount of stack.
const KNOWN: usize = 1024;

fn known(_: &mut Fixture) -> Outcome {
    black_box([1u8; KNOWN]);
    Ok(())
}

/// Writes a line without the formatting of core, which can panic and would hide a panic of a call.
fn print(to: &mut HostStream, name: &str, numbers: [usize; 2]) -> Result<(), ()> {
    to.write_all(name.as_bytes())?;
    for mut number in numbers {
        let mut digits = [b' '; 11];
        for digit in digits.iter_mut().skip(1).rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        to.write_all(&digits)?;
    }
    to.write_all(b"\n")
}

fn run(fixture: &mut Fixture) -> Result<[[usize; 2]; CALLS.len()], Error> {
    let mut table = [[0; 2]; CALLS.len()];
    for (index, numbers) in NUMBERS.iter().enumerate() {
        for shape in SHAPES {
            for (fixed, with_residual) in [(false, false), (false, true), (true, false), (true, true)] {
                (fixture.shape, fixture.fixed, fixture.with_residual) = (shape, fixed, with_residual);
                for ((_, call), [ordinary, worst]) in CALLS.iter().zip(&mut table) {
                    // Each call finds the numbers, not what those before it made of them.
                    fixture.fill(numbers);
                    let bytes = measure(*call, fixture)?;
                    *worst = bytes.max(*worst);
                    if index == 0 {
                        *ordinary = *worst;
                    }
                }
            }
        }
    }
    Ok(table)
}

#[entry]
fn main() -> ! {
    let mut fixture = Fixture {
        shape: SHAPES[0],
        fixed: false,
        with_residual: false,
        weight: [0.0; CHANNELS],
        bias: [0.0; CHANNELS],
        running_mean: [0.0; CHANNELS],
        running_var: [0.0; CHANNELS],
        mean: [0.0; CHANNELS],
        mean_tail: [0.0; CHANNELS],
        inv_std: [0.0; CHANNELS],
        grad_weight: [0.0; CHANNELS],
        grad_bias: [0.0; CHANNELS],
        moments: [0.0; 3 * CHANNELS],
        sums: [0.0; 2 * CHANNELS],
        other: [0.0; 3 * CHANNELS],
        input: [0.0; LEN],
        residual: [0.0; LEN],
        output: [0.0; LEN],
        grad_output: [0.0; LEN],
        grad_input: [0.0; LEN],
        grad_residual: [0.0; LEN],
        mask: [0; LEN.div_ceil(8)],
        scratch: [0.0; SCRATCH],
    };
    // A measure that cannot be wrong is none: of this function the answer is known.
    let known = measure(known, &mut fixture);
    if !matches!(known, Ok(KNOWN..=1200)) {
        end(Err(Error::ShapeOverflow));
    }
    let result = run(&mut fixture);
    if let (Ok(table), Ok(mut to)) = (&result, hstdout()) {
        for ((name, _), &numbers) in CALLS.iter().zip(table) {
            if print(&mut to, name, numbers).is_err() {
                end(Err(Error::ShapeOverflow));
            }
        }
    }
    end(result.map(|_| ()))
}
