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
    Activation, Bernoulli, Config, Error, Fold, GeluTanh, HardSwish, Identity, Layer, LeakyRelu, Relu, Relu6, Shape,
    Sigmoid, Silu, Tanh, WeightOrder, WeightShape, fold_into_next, fold_into_previous, seed_from,
};
use normdrop_calls::{Call, front, front_mut};
use rand_core::TryRng;

/// One channel alone, channels of more than one block, and matrices whose columns are whole channels or not: both walks, with
/// what they do at the end of a run, of a row and of a group.
const SHAPES: [[usize; 3]; 4] = [[1, 1, 1000], [2, 3, 300], [300, 20, 1], [70, 3, 7]];
const LEN: usize = 300 * 20;
const CHANNELS: usize = 20;
const SCRATCH: usize = 4096;
/// Two tiles of sixteen channels, four fields of each channel, and the end.
const PREPARED: usize = 2 * 32 + 4 * CHANNELS + 2;
/// Below the frame of `measure`; RAM has room for this and the buffers.
const PAINTED: usize = 32 * 1024;
const PAINT: u32 = 0xC0DE_F00D;

/// The memory of every call.
struct Memory {
    weight: [f32; CHANNELS],
    bias: [f32; CHANNELS],
    running_mean: [f32; CHANNELS],
    running_var: [f32; CHANNELS],
    mean: [f32; CHANNELS],
    mean_tail: [f32; CHANNELS],
    inv_std: [f64; CHANNELS],
    grad_weight: [f32; CHANNELS],
    grad_bias: [f32; CHANNELS],
    part: [f64; 3 * CHANNELS],
    other: [f64; 3 * CHANNELS],
    prepared: [f64; PREPARED],
    input: [f32; LEN],
    residual: [f32; LEN],
    output: [f32; LEN],
    grad_output: [f32; LEN],
    grad_input: [f32; LEN],
    grad_residual: [f32; LEN],
    mask: [u8; LEN.div_ceil(8)],
    new_mask: [u8; LEN.div_ceil(8)],
    scratch: [f64; SCRATCH],
}

/// The shape of a layer, and buffers of the lengths that it has.
struct Fixture<'a> {
    shape: [usize; 3],
    call: Call<'a>,
    /// A mask to be filled, which the next call reads.
    new_mask: &'a mut [u8],
}

/// What the calls work on.
struct Options {
    shape: [usize; 3],
    fixed: bool,
    with_residual: bool,
}

impl Memory {
    /// The numbers, and what earlier calls have left of all else, in buffers of the lengths that the shape asks for.
    fn fixture(&mut self, numbers: &Numbers, options: &Options) -> Fixture<'_> {
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
        self.mask = self.new_mask;
        let [outer, c, inner] = options.shape;
        let len = outer * c * inner;
        Fixture {
            shape: options.shape,
            call: Call {
                weight: Some(front(&self.weight, c)),
                bias: Some(front(&self.bias, c)),
                running_mean: front_mut(&mut self.running_mean, c),
                running_mean_tail: None,
                running_var: front_mut(&mut self.running_var, c),
                updates_running: true,
                batches: None,
                mask: Some(front(&self.mask, len.div_ceil(8))),
                gates: &mut [],
                in_gates: false,
                fixed: options.fixed,
                saved_mean: front_mut(&mut self.mean, c),
                saved_mean_tail: front_mut(&mut self.mean_tail, c),
                saved_inv_std: front_mut(&mut self.inv_std, c),
                input: front(&self.input, len),
                residual: options.with_residual.then(|| front(&self.residual, len)),
                output: front_mut(&mut self.output, len),
                grad_output: front(&self.grad_output, len),
                grad_input: Some(front_mut(&mut self.grad_input, len)),
                grad_residual: options.with_residual.then(|| front_mut(&mut self.grad_residual, len)),
                grad_weight: Some(front_mut(&mut self.grad_weight, c)),
                grad_bias: Some(front_mut(&mut self.grad_bias, c)),
                part: &mut self.part,
                other: &mut self.other,
                prepared: &mut self.prepared,
                samples: (outer * inner) as f64,
                scratch: &mut self.scratch,
            },
            new_mask: front_mut(&mut self.new_mask, len.div_ceil(8)),
        }
    }
}

type Outcome = Result<(), Error>;
/// The bytes of stack of a call.
type Stack = Result<usize, Error>;

impl Fixture<'_> {
    fn layer<A: Activation>(&self, activation: A) -> Result<Layer<A>, Error> {
        let [outer, channels, inner] = black_box(self.shape);
        Layer::new(Shape::new(outer, channels, inner)?, activation, Config { p: 0.25, ..Config::DEFAULT })
    }

    const fn len(&self) -> usize {
        self.shape[0] * self.shape[1] * self.shape[2]
    }

    /// Makes a layer, and measures a call of it. The layer is made before, as that of a firmware, which is a constant: the
    /// stack of `Layer::new` is a line of its own.
    fn make<A: Activation>(
        &mut self,
        activation: A,
        mut call: impl FnMut(&mut Call<'_>, &Layer<A>) -> Outcome,
    ) -> Stack {
        let layer = self.layer(activation)?;
        measure(&mut || call(&mut self.call, &layer))
    }

    /// What the part has, for a part that is merged into it.
    fn copy_part(&mut self) {
        for (other, &value) in self.call.other.iter_mut().zip(&*self.call.part) {
            *other = value;
        }
    }
}

/// A call of the layer with an activation, in the frame that is measured.
macro_rules! layer {
    ($method:ident($activation:expr)) => {
        |fixture: &mut Fixture<'_>| fixture.make($activation, |call, layer| call.$method(layer))
    };
}

fn merge_two_moments(fixture: &mut Fixture<'_>) -> Stack {
    fixture.copy_part();
    fixture.make(Relu, |call, layer| call.merge_moments(layer))
}

fn merge_two_sums(fixture: &mut Fixture<'_>) -> Stack {
    fixture.copy_part();
    fixture.make(Relu, |call, layer| call.merge_sums(layer))
}

/// The weights are the output; their layer has as many inputs as outputs.
fn fold(fixture: &mut Fixture<'_>, fold: fn(Fold<'_>) -> Outcome, order: WeightOrder) -> Stack {
    let [outer, channels, taps] = fixture.shape;
    let next = order == WeightOrder::OutInTaps;
    let (outputs, inputs) = if next { (outer, channels) } else { (channels, outer) };
    // A bias, whether or not there is a residual.
    fixture.call.grad_residual = fixture.call.grad_input.take();
    measure(&mut || match fixture.call.fold(fold, WeightShape { order, outputs, inputs, taps, groups: 1 }, 1e-5) {
        // Numbers that are not finite, or would not be after the call, are refused: that takes stack as well.
        Err(Error::NotFinite { .. }) => Ok(()),
        result => result,
    })
}

fn fill_mask(fixture: &mut Fixture<'_>) -> Stack {
    let layer = fixture.layer(Relu)?;
    measure(&mut || layer.fill_mask(black_box(42), fixture.new_mask).map(drop))
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

fn fill_mask_with(fixture: &mut Fixture<'_>) -> Stack {
    let layer = fixture.layer(Relu)?;
    measure(&mut || layer.fill_mask_with(&mut Counter(black_box(1)), fixture.new_mask).map(drop))
}

fn bernoulli_fill(fixture: &mut Fixture<'_>) -> Stack {
    measure(&mut || Bernoulli::new(black_box(0.25))?.fill(black_box(42), 0, fixture.len(), fixture.new_mask))
}

fn bernoulli_fill_with(fixture: &mut Fixture<'_>) -> Stack {
    measure(&mut || {
        Bernoulli::new(black_box(0.25))?.fill_with(&mut Counter(black_box(1)), fixture.len(), fixture.new_mask)
    })
}

/// A call and how it is named in the table.
type Entry = (&'static str, fn(&mut Fixture<'_>) -> Stack);

/// In an order in which each finds what it needs. Calls that are there with every activation are measured with every one;
/// the others share their walks.
const CALLS: [Entry; 42] = [
    ("Layer::new", |fixture| measure(&mut || fixture.layer(Relu).map(|layer| _ = black_box(layer)))),
    ("Layer::fill_mask", fill_mask),
    ("Layer::fill_mask_with", fill_mask_with),
    ("Layer::train<Relu>", layer!(train(Relu))),
    ("Layer::eval<Relu>", layer!(eval(Relu))),
    ("Layer::eval_in_place<Relu>", layer!(eval_in_place(Relu))),
    ("Layer::backward<Relu>", layer!(backward(Relu))),
    ("Layer::backward_in_place<Relu>", layer!(backward_in_place(Relu))),
    ("Layer::prepare", layer!(prepare(Relu))),
    ("Layer::eval_prepared<Relu>", layer!(eval_prepared(Relu))),
    ("Layer::eval_prepared_in_place<Relu>", layer!(eval_prepared_in_place(Relu))),
    ("Layer::backward_prepared<Relu>", layer!(backward_prepared(Relu))),
    ("Layer::moments", layer!(moments(Relu))),
    ("merge_moments", merge_two_moments),
    ("Layer::finish", layer!(finish(Relu))),
    ("Layer::apply<Relu>", layer!(apply(Relu))),
    ("Layer::reduce<Relu>", layer!(reduce(Relu))),
    ("merge_sums", merge_two_sums),
    ("Layer::finish_gradients", layer!(finish_gradients(Relu))),
    ("Layer::apply_gradient<Relu>", layer!(apply_gradient(Relu))),
    ("Layer::eval<Identity>", layer!(eval(Identity))),
    ("Layer::backward<Identity>", layer!(backward(Identity))),
    ("Layer::eval<Relu6>", layer!(eval(Relu6))),
    ("Layer::backward<Relu6>", layer!(backward(Relu6))),
    ("Layer::eval<LeakyRelu>", layer!(eval(LeakyRelu::new(black_box(0.1))?))),
    ("Layer::backward<LeakyRelu>", layer!(backward(LeakyRelu::new(black_box(0.1))?))),
    ("Layer::eval<HardSwish>", layer!(eval(HardSwish))),
    ("Layer::backward<HardSwish>", layer!(backward(HardSwish))),
    ("Layer::eval<Sigmoid>", layer!(eval(Sigmoid))),
    ("Layer::backward<Sigmoid>", layer!(backward(Sigmoid))),
    ("Layer::eval<Tanh>", layer!(eval(Tanh))),
    ("Layer::backward<Tanh>", layer!(backward(Tanh))),
    ("Layer::eval<Silu>", layer!(eval(Silu))),
    ("Layer::backward<Silu>", layer!(backward(Silu))),
    ("Layer::eval<GeluTanh>", layer!(eval(GeluTanh))),
    ("Layer::backward<GeluTanh>", layer!(backward(GeluTanh))),
    ("fold_into_previous", |fixture| fold(fixture, fold_into_previous, WeightOrder::InOutTaps)),
    ("fold_into_next", |fixture| fold(fixture, fold_into_next, WeightOrder::OutInTaps)),
    ("Bernoulli::new", |_| measure(&mut || Bernoulli::new(black_box(0.25)).map(|keep| _ = black_box(keep)))),
    ("Bernoulli::fill", bernoulli_fill),
    ("Bernoulli::fill_with", bernoulli_fill_with),
    ("seed_from", |_| {
        measure(&mut || {
            black_box(seed_from(&mut Counter(black_box(1))));
            Ok(())
        })
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

/// The bytes of stack that a call takes, with the frame that puts its arguments together.
#[inline(never)]
fn measure(call: &mut dyn FnMut() -> Outcome) -> Stack {
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
    call()?;
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

fn known() -> Outcome {
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

fn run(memory: &mut Memory) -> Result<[[usize; 2]; CALLS.len()], Error> {
    let mut table = [[0; 2]; CALLS.len()];
    for (index, numbers) in NUMBERS.iter().enumerate() {
        for shape in SHAPES {
            for (fixed, with_residual) in [(false, false), (false, true), (true, false), (true, true)] {
                let options = Options { shape, fixed, with_residual };
                for ((_, call), [ordinary, worst]) in CALLS.iter().zip(&mut table) {
                    // Each call finds the numbers, not what those before it made of them.
                    let bytes = call(&mut memory.fixture(numbers, &options))?;
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
    let mut memory = Memory {
        weight: [0.0; CHANNELS],
        bias: [0.0; CHANNELS],
        running_mean: [0.0; CHANNELS],
        running_var: [0.0; CHANNELS],
        mean: [0.0; CHANNELS],
        mean_tail: [0.0; CHANNELS],
        inv_std: [0.0; CHANNELS],
        grad_weight: [0.0; CHANNELS],
        grad_bias: [0.0; CHANNELS],
        part: [0.0; 3 * CHANNELS],
        other: [0.0; 3 * CHANNELS],
        prepared: [0.0; PREPARED],
        input: [0.0; LEN],
        residual: [0.0; LEN],
        output: [0.0; LEN],
        grad_output: [0.0; LEN],
        grad_input: [0.0; LEN],
        grad_residual: [0.0; LEN],
        mask: [0; LEN.div_ceil(8)],
        new_mask: [0; LEN.div_ceil(8)],
        scratch: [0.0; SCRATCH],
    };
    // A measure that cannot be wrong is none: of this function the answer is known.
    if !matches!(measure(&mut known), Ok(KNOWN..=1200)) {
        end(Err(Error::SingleSample));
    }
    let result = run(&mut memory);
    if let (Ok(table), Ok(mut to)) = (&result, hstdout()) {
        for ((name, _), &numbers) in CALLS.iter().zip(table) {
            if print(&mut to, name, numbers).is_err() {
                end(Err(Error::SingleSample));
            }
        }
    }
    end(result.map(|_| ()))
}
