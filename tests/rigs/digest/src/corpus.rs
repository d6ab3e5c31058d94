//! The corpus: every public call over fixed shapes, kinds of data, probabilities and seeds, and a digest of all that each
//! call writes.
//!
//! The data are made from random bits by integer arithmetic, one rounded sum and products with powers of two, so that they
//! are the same on every target. A digest is FNV-1a (Fowler, Noll and Vo) over the little-endian bytes of the values, every NaN
//! counted as the same pattern: NaN payloads are the one thing that may differ.

#[path = "environment.rs"]
pub mod environment;

use core::fmt::{self, Write};
use core::hash::Hasher;

use fnv::FnvHasher;
use normdrop::{
    Activation, Backend, Bernoulli, Config, Elu, Error, Fold, Gelu, GeluTanh, Granularity, HardSwish, Identity, Layer,
    LeakyRelu, Masked, Mish, Noise, Relu, Relu6, RunningVariance, Selu, Shape, Sigmoid, Silu, Softplus, Stored, Tanh,
    Validity, WeightOrder, WeightShape, fold_into_next, fold_into_previous, mask_len, moments_len, seed_from,
};
#[cfg(feature = "half-precision")]
use normdrop::{Bf16, Element, F16};
use normdrop_calls::{Call, front};
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Shapes `[outer, channels, inner]` and the memory that they need.
pub trait Corpus {
    /// What its lines begin with.
    const NAME: &'static str;
    /// The shapes: each with every kind of data.
    const SHAPES: &'static [[usize; 3]];
    /// Shapes whose size alone is special, and the time that they take: with them, training and its backward call only.
    const LARGE_SHAPES: &'static [[usize; 3]];
    /// Shapes of padded batches. Their workspace has the place of the gradient of the residual.
    const MASKED_SHAPES: &'static [[usize; 3]];
    /// The kinds of data.
    const DATA: &'static [Data];
    /// Whether every activation is tried, or Identity and ReLU alone.
    const EVERY_ACTIVATION: bool;
    /// Whether there are tensors of halves, for which the smallest programs have no room.
    #[cfg(feature = "half-precision")]
    const HALVES: bool;
}

/// What fits 16 KiB of RAM: both walks with all that happens at the end of a run, a row and a tile.
#[derive(Debug)]
pub struct Small;

impl Corpus for Small {
    const NAME: &'static str = "small";
    const SHAPES: &'static [[usize; 3]] = &[
        [1, 1, 150], // one channel
        [2, 3, 17],  // planar: a vector and a tail
        [3, 1, 33],
        [4, 2, 16], // planar: runs share a block
        [21, 5, 1], // columns: a tile that is not full, a block and more rows
        [7, 20, 1], // columns: a second tile
        [3, 4, 7],  // columns: channels that begin anywhere in a tile
        [1, 6, 1],  // one value per channel: no batch statistics
    ];
    const LARGE_SHAPES: &'static [[usize; 3]] = &[];
    const MASKED_SHAPES: &'static [[usize; 3]] = &[
        [2, 1, 18], // planar if all positions of a channel are together
        [9, 4, 1],  // columns: three samples of three positions
        [4, 2, 2],  // columns: chunks with neighbours of one channel
    ];
    const DATA: &'static [Data] = &Data::ALL;
    const EVERY_ACTIVATION: bool = true;
    #[cfg(feature = "half-precision")]
    const HALVES: bool = false;
}

/// What takes a Megabyte or two: whole blocks, parts, strips, folded rows.
#[derive(Debug)]
pub struct Large;

impl Corpus for Large {
    const NAME: &'static str = "large";
    const SHAPES: &'static [[usize; 3]] = &[
        [3, 2, 257],  // planar: a whole block, and one of one value
        [33, 2, 49],  // planar: four runs share a block
        [2, 17, 260], // planar: more than one group of channels
        [1039, 3, 1], // folded: sixteen rows to one, and a rest
        [130, 8, 1],  // folded: two rows to one
        [20, 513, 1], // columns: a whole piece and one column
        [18, 100, 5], // columns: runs of five
    ];
    const LARGE_SHAPES: &'static [[usize; 3]] = &[
        [1, 1, 65_600], // planar: a part and a rest
        [4113, 16, 1],  // columns: a part, a block and one more row
    ];
    const MASKED_SHAPES: &'static [[usize; 3]] = &[
        [33, 2, 49],  // planar: chunks over several samples
        [3, 17, 300], // planar: chunks of thirteen channels and of four
        [2, 1, 5000], // planar: chunks that are not copied
        [1038, 3, 1], // columns: a chunk, folded
        [150, 65, 1], // columns: chunks of 64 channels and of one
    ];
    const DATA: &'static [Data] = &[Data::Ordinary, Data::Offset, Data::Placed];
    const EVERY_ACTIVATION: bool = false;
    #[cfg(feature = "half-precision")]
    const HALVES: bool = true;
}

/// What the values of a tensor are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Multiples of 2^-22 in [-2, 2).
    Ordinary,
    /// 1e6 and up to 4 more: a mean of a million standard deviations.
    Offset,
    /// Subnormal, down to the smallest f32.
    Subnormal,
    /// From 1.7e38 to the largest f32, of either sign: sums and squares overflow f32.
    Huge,
    /// One value of sixteen or so is a NaN or an infinity.
    Placed,
}

impl Data {
    const ALL: [Self; 5] = [Self::Ordinary, Self::Offset, Self::Subnormal, Self::Huge, Self::Placed];

    const fn name(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::Offset => "offset 1e6",
            Self::Subnormal => "subnormal",
            Self::Huge => "huge",
            Self::Placed => "NaN and Inf",
        }
    }

    fn value(self, word: u64) -> f32 {
        let (low, high) = ((word & 0xFFFF_FFFF) as u32, (word >> 32) as u32);
        let (sign, fraction) = (high & 0x8000_0000, low >> 9);
        // Numbers below 2^24 convert exactly, and so does division by a power of two.
        let ordinary = (low >> 8) as f32 / (1 << 22) as f32 - 2.0;
        match self {
            Self::Ordinary => ordinary,
            Self::Offset => 1e6 + (low >> 16) as f32 / (1 << 14) as f32,
            Self::Subnormal => f32::from_bits(sign | fraction),
            Self::Huge => f32::from_bits(sign | 254 << 23 | fraction),
            Self::Placed => match high % 48 {
                0 => f32::NAN,
                1 => f32::INFINITY,
                2 => f32::NEG_INFINITY,
                _ => ordinary,
            },
        }
    }

    fn fill(self, random: &mut SplitMix64, values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = self.value(random.next_u64()));
    }
}

/// The memory of a run. `LEN`, `CHANNELS`, `MASK` and `SCRATCH` are at least what the shapes of its corpus need.
#[derive(Debug)]
pub struct Memory<const LEN: usize, const CHANNELS: usize, const MASK: usize, const SCRATCH: usize, const HALVES: usize>
{
    input: [f32; LEN],
    residual: [f32; LEN],
    grad: [f32; LEN],
    output: [f32; LEN],
    grad_residual: [f32; LEN],
    mask: [u8; MASK],
    /// Rows of one value per channel: learned, running, saved, gradients.
    channels: [[f32; CHANNELS]; 8],
    inv_std: [f64; CHANNELS],
    moments: [[[f64; CHANNELS]; 3]; 2],
    /// Enough for sixteen channels and more.
    prepared: [[f64; CHANNELS]; 8],
    scratch: [f64; SCRATCH],
    /// The bits of halves: input, residual, gradient, output, gradient of the residual.
    #[cfg_attr(not(feature = "half-precision"), expect(dead_code, reason = "for halves alone"))]
    halves: [[u16; HALVES]; 5],
}

/// The memory of the small corpus.
pub type SmallMemory =
    Memory<150, 20, { MASK_BITS / 8 }, { scratch_len(Small::SHAPES, false, &[], Small::MASKED_SHAPES) }, 0>;
/// The memory of either corpus.
pub type LargeMemory = Memory<
    65_808,
    513,
    { 65_808 / 8 },
    { scratch_len(Large::SHAPES, true, Large::LARGE_SHAPES, Large::MASKED_SHAPES) },
    65_808,
>;

impl<const LEN: usize, const CHANNELS: usize, const MASK: usize, const SCRATCH: usize, const HALVES: usize>
    Memory<LEN, CHANNELS, MASK, SCRATCH, HALVES>
{
    /// Memory with anything in it.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            input: [0.0; LEN],
            residual: [0.0; LEN],
            grad: [0.0; LEN],
            output: [0.0; LEN],
            grad_residual: [0.0; LEN],
            mask: [0; MASK],
            channels: [[0.0; CHANNELS]; 8],
            inv_std: [0.0; CHANNELS],
            moments: [[[0.0; CHANNELS]; 3]; 2],
            prepared: [[0.0; CHANNELS]; 8],
            scratch: [0.0; SCRATCH],
            halves: [[0; HALVES]; 5],
        }
    }

    /// Runs all calls of a corpus on a backend, or on the fastest there is, and prints a digest of what each has written.
    ///
    /// # Errors
    /// The error of a call, of which there should be none.
    pub fn run<C: Corpus>(&mut self, backend: Option<Backend>, out: &mut impl Write) -> Result<(), Failure> {
        let [weight, bias, running_mean, running_var, mean, mean_tail, grad_weight, grad_bias] = &mut self.channels;
        let [moments, other] = &mut self.moments;
        let mut buffers = Buffers {
            input: &mut self.input,
            residual: &mut self.residual,
            grad: &mut self.grad,
            output: &mut self.output,
            grad_residual: &mut self.grad_residual,
            mask: &mut self.mask,
            weight,
            bias,
            running_mean,
            running_var,
            mean,
            mean_tail,
            inv_std: &mut self.inv_std,
            grad_weight,
            grad_bias,
            moments: moments.as_flattened_mut(),
            other: other.as_flattened_mut(),
            prepared: self.prepared.as_flattened_mut(),
            scratch: &mut self.scratch,
        };
        let mut run = Run { buffers: &mut buffers, backend };
        run.activation::<C, _>(out, "Identity", Identity)?;
        run.activation::<C, _>(out, "Relu", Relu)?;
        if C::EVERY_ACTIVATION {
            run.activation::<C, _>(out, "Relu6", Relu6)?;
            run.activation::<C, _>(out, "LeakyRelu", LeakyRelu::new(0.1)?)?;
            run.activation::<C, _>(out, "HardSwish", HardSwish)?;
            run.activation::<C, _>(out, "Sigmoid", Sigmoid)?;
            run.activation::<C, _>(out, "Tanh", Tanh)?;
            run.activation::<C, _>(out, "Silu", Silu)?;
            run.activation::<C, _>(out, "GeluTanh", GeluTanh)?;
            run.activation::<C, _>(out, "Gelu", Gelu)?;
            run.activation::<C, _>(out, "Elu", Elu::new(0.9)?)?;
            run.activation::<C, _>(out, "Selu", Selu)?;
            run.activation::<C, _>(out, "Mish", Mish)?;
            run.activation::<C, _>(out, "Softplus", Softplus)?;
        }
        #[cfg(feature = "half-precision")]
        if C::HALVES {
            let f16 = self.halves.each_mut().map(|bits| F16::from_bits_slice_mut(bits));
            run.halves::<C, F16, _>(out, "F16", Gelu, f16)?;
            let bf16 = self.halves.each_mut().map(|bits| Bf16::from_bits_slice_mut(bits));
            run.halves::<C, Bf16, _>(out, "Bf16", Relu, bf16)?;
        }
        run.channels::<C>(out)?;
        run.masked::<C>(out)?;
        run.prelu::<C>(out)?;
        if C::LARGE_SHAPES.is_empty() {
            run.masks(out)?;
        }
        Ok(())
    }
}

impl<const LEN: usize, const CHANNELS: usize, const MASK: usize, const SCRATCH: usize, const HALVES: usize> Default
    for Memory<LEN, CHANNELS, MASK, SCRATCH, HALVES>
{
    fn default() -> Self {
        Self::new()
    }
}

/// What can go wrong.
#[derive(Debug)]
pub enum Failure {
    /// A call has refused its arguments.
    Call(Error),
    /// A line could not be printed.
    Print(fmt::Error),
    /// A call has not left the floating-point environment as it was.
    Environment(environment::State),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Print(error) => error.fmt(f),
            Self::Environment(state) => write!(f, "the floating-point environment was {state:x?}, and is not any more"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<fmt::Error> for Failure {
    fn from(error: fmt::Error) -> Self {
        Self::Print(error)
    }
}

/// The scratch that the largest of some shapes needs, with those of masked calls. `halves` says whether the first ones have
/// tensors of halves, of which PReLU has a copy in scratch.
const fn scratch_len(shapes: &[[usize; 3]], halves: bool, large: &[[usize; 3]], masked: &[[usize; 3]]) -> usize {
    let mut most = 0;
    let mut index = 0;
    let plain = shapes.len() + large.len();
    while index < plain + masked.len() {
        let [outer, channels, inner] = if index < shapes.len() {
            shapes[index]
        } else if index < plain {
            large[index - shapes.len()]
        } else {
            masked[index - plain]
        };
        if let Ok(shape) = Shape::new(outer, channels, inner)
            && let Ok(layer) = Layer::new(shape, Identity, Config::DEFAULT)
        {
            let copy = if halves && index < shapes.len() { shape.len().div_ceil(2) } else { 0 };
            let len = copy + if index < plain { layer.prelu_scratch_len() } else { layer.masked_scratch_len() };
            if len > most {
                most = len;
            }
        }
        index += 1;
    }
    most
}

/// The digest of what a call has written.
#[derive(Default)]
struct Digest(FnvHasher);

impl Digest {
    fn add(&mut self, values: &[f32]) {
        for value in values {
            let bits = if value.is_nan() { 0x7FC0_0000 } else { value.to_bits() };
            self.0.write(&bits.to_le_bytes());
        }
    }

    #[cfg(feature = "half-precision")]
    fn add_halves<E: Half>(&mut self, values: &[E]) {
        values.iter().for_each(|value| self.add(&[value.single()]));
    }

    fn add_f64(&mut self, values: &[f64]) {
        for value in values {
            let bits = if value.is_nan() { 0x7FF8 << 48 } else { value.to_bits() };
            self.0.write(&bits.to_le_bytes());
        }
    }
}

/// The calls whose results depend on the activation.
const CALLS: [&str; 9] = [
    "train",
    "eval",
    "eval_in_place",
    "backward",
    "backward, fixed",
    "backward_in_place",
    "apply",
    "reduce",
    "apply_gradient",
];

/// The calls with tensors of halves.
#[cfg(feature = "half-precision")]
const HALF_CALLS: [&str; 5] =
    ["halves, train", "halves, eval", "halves, backward", "halves, in place", "halves, prelu"];

/// A half, as the corpus makes and digests it.
#[cfg(feature = "half-precision")]
trait Half: Element {
    fn of(value: f32) -> Self;
    fn single(self) -> f32;
}

#[cfg(feature = "half-precision")]
impl Half for F16 {
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn single(self) -> f32 {
        self.to_f32()
    }
}

#[cfg(feature = "half-precision")]
impl Half for Bf16 {
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn single(self) -> f32 {
        self.to_f32()
    }
}

/// The calls whose results do not, and which have data all the same.
const CHANNEL_CALLS: [&str; 13] = [
    "moments",
    "merge_moments",
    "finish",
    "merge_sums",
    "finish_gradients",
    "fold_into_previous",
    "fold_into_next",
    "fold_padding",
    "into_running",
    "noise, gaussian",
    "noise, uniform",
    "alpha_dropout",
    "alpha_dropout_back",
];

/// The calls with PReLU.
const PRELU_CALLS: [&str; 3] = ["train_prelu", "eval_prelu", "backward_prelu"];

/// The calls over the valid positions of a padded batch.
const MASKED_CALLS: [&str; 3] = ["train_masked", "eval_masked", "backward_masked"];

/// Valid positions, a bit for each, of up to 1040.
const BITMAP: [u8; 130] = {
    let (mut bytes, mut index) = ([0; 130], 0);
    while index < bytes.len() {
        // Stretches of several lengths, and some bytes of all or nothing.
        bytes[index] = match index % 5 {
            0 => 0xFF,
            1 => 0b0011_1011,
            2 => 0b1110_0000,
            3 => 0,
            _ => 0b1000_0111,
        };
        index += 1;
    }
    bytes
};

/// The calls that make masks.
const MASK_CALLS: [&str; 5] = ["fill_mask", "fill_mask_with", "fill", "fill_with", "seed_from"];

/// The probabilities that masks are made with.
const PROBABILITIES: [f64; 5] = [0.5, 0.1, 1.0 / 3.0, 0.999, 0.0];

/// A seeding of the mask's generators and a quarter of another.
const MASK_BITS: usize = 5120;

/// Digests of several calls, for several kinds of data.
type Digests<const CALLS: usize> = [[Digest; Data::ALL.len()]; CALLS];

fn print<const CALLS: usize>(
    out: &mut impl Write,
    corpus: &str,
    calls: [&str; CALLS],
    activation: &str,
    columns: usize,
    digests: &Digests<CALLS>,
) -> Result<(), Failure> {
    for (call, digests) in calls.into_iter().zip(digests) {
        write!(out, "{corpus} {call:<19}{activation:<10}")?;
        for digest in digests.iter().take(columns) {
            write!(out, " {:016x}", digest.0.finish())?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Prints what a corpus has in its columns.
fn print_head<C: Corpus>(out: &mut impl Write) -> Result<(), Failure> {
    write!(out, "\n{:<36}", "")?;
    for data in C::DATA {
        write!(out, "{:<17}", data.name())?;
    }
    Ok(writeln!(out)?)
}

/// The memory of a run, in slices.
struct Buffers<'a> {
    input: &'a mut [f32],
    residual: &'a mut [f32],
    grad: &'a mut [f32],
    output: &'a mut [f32],
    grad_residual: &'a mut [f32],
    mask: &'a mut [u8],
    weight: &'a mut [f32],
    bias: &'a mut [f32],
    running_mean: &'a mut [f32],
    running_var: &'a mut [f32],
    mean: &'a mut [f32],
    mean_tail: &'a mut [f32],
    inv_std: &'a mut [f64],
    grad_weight: &'a mut [f32],
    grad_bias: &'a mut [f32],
    moments: &'a mut [f64],
    other: &'a mut [f64],
    prepared: &'a mut [f64],
    scratch: &'a mut [f64],
}

/// The constants of one problem, all of them made from its number.
#[derive(Clone, Copy)]
struct Problem {
    number: usize,
    dimensions: [usize; 3],
    shape: Shape,
    config: Config,
    with_residual: bool,
    with_weight: bool,
    with_bias: bool,
    with_mask: bool,
    data: Data,
}

impl Problem {
    fn new(number: usize, dimensions: [usize; 3], data: Data) -> Result<Self, Error> {
        let [outer, channels, inner] = dimensions;
        let shape = match inner {
            // Positions of a sample, if there can be some.
            1 if outer % 3 == 0 => Shape::nlc(outer / 3, 3, channels)?,
            _ => Shape::new(outer, channels, inner)?,
        };
        let granularities = [Granularity::Element, Granularity::Channel, Granularity::Element, Granularity::Sample];
        let config = Config {
            eps: [1e-5, 0.25][number % 2],
            momentum: [0.1, 1.0, 0.75][number % 3],
            running_var: [RunningVariance::Unbiased, RunningVariance::Biased][number / 2 % 2],
            p: [0.1, 0.5, 0.3, 0.9][number % 4],
            granularity: granularities[number / 2 % 4],
        };
        Ok(Self {
            number,
            dimensions,
            shape,
            config,
            with_residual: number % 3 == 1,
            with_weight: number % 5 != 3,
            with_bias: number % 5 != 4,
            with_mask: number % 7 != 6,
            data,
        })
    }

    const fn len(&self) -> usize {
        let [outer, channels, inner] = self.dimensions;
        outer * channels * inner
    }

    const fn channels(&self) -> usize {
        self.dimensions[1]
    }

    /// Whether batch statistics exist.
    const fn has_batch(&self) -> bool {
        self.dimensions[0] * self.dimensions[2] > 1
    }

    fn random(&self) -> SplitMix64 {
        SplitMix64::seed_from_u64(self.number as u64)
    }
}

/// Problems over some shapes, three to a shape with one kind of data: enough for every option to be on and off.
fn problems(shapes: &'static [[usize; 3]], data: &'static [Data]) -> impl Iterator<Item = (usize, Problem)> {
    let all = shapes.iter().flat_map(move |&shape| {
        data.iter().enumerate().flat_map(move |(column, &data)| (0..3).map(move |_| (column, shape, data)))
    });
    all.enumerate()
        .filter_map(|(number, (column, shape, data))| Some((column, Problem::new(number, shape, data).ok()?)))
}

struct Run<'a, 'b> {
    buffers: &'a mut Buffers<'b>,
    backend: Option<Backend>,
}

/// The buffers of one problem, cut to their lengths and filled.
struct Cut<'a> {
    problem: Problem,
    call: Call<'a>,
    /// The residual, also where the layer has none: a fold has a bias made of it.
    residual: &'a [f32],
    /// The number of calls so far.
    calls: usize,
}

/// Makes a call in one of the floating-point environments.
fn surrounded<T>(environment: usize, call: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    let entered = environment::enter(environment);
    let result = call();
    if environment::leave(entered) { Ok(result?) } else { Err(Failure::Environment(entered)) }
}

/// Not negative. A function of its own, because `.ci/targets` looks for arithmetic in vectors where there must be none.
#[inline(never)]
fn variance(value: f32) -> f32 {
    value * value + 0.125
}

impl Run<'_, '_> {
    fn layer<A: Activation>(&self, problem: &Problem, activation: A) -> Result<Layer<A>, Failure> {
        let layer = surrounded(problem.number, || Layer::new(problem.shape, activation, problem.config))?;
        match self.backend {
            Some(backend) => Ok(layer.with_backend(backend)?),
            None => Ok(layer),
        }
    }

    fn cut<A: Activation>(&mut self, problem: Problem, layer: &Layer<A>) -> Result<Cut<'_>, Failure> {
        let of_residual = problem.len();
        self.cut_with(problem, layer, of_residual)
    }

    /// [`Self::cut`] with so many values in the place of the gradient of the residual.
    fn cut_with<A: Activation>(
        &mut self,
        problem: Problem,
        layer: &Layer<A>,
        of_residual: usize,
    ) -> Result<Cut<'_>, Failure> {
        let (len, c) = (problem.len(), problem.channels());
        let all = &mut *self.buffers;
        let (input, residual, grad) = (&mut all.input[..len], &mut all.residual[..len], &mut all.grad[..len]);
        let (weight, bias) = (&mut all.weight[..c], &mut all.bias[..c]);
        let (running_mean, running_var) = (&mut all.running_mean[..c], &mut all.running_var[..c]);
        let mask = &mut all.mask[..layer.mask_len()];
        let random = &mut problem.random();
        let gradients = if problem.data == Data::Placed { Data::Placed } else { Data::Ordinary };
        problem.data.fill(random, input);
        gradients.fill(random, grad);
        problem.data.fill(random, running_mean);
        for values in [&mut *residual, weight, bias, running_var] {
            Data::Ordinary.fill(random, values);
        }
        running_var.iter_mut().for_each(|var| *var = variance(*var));
        surrounded(problem.number, || layer.fill_mask(random.next_u64(), mask))?;
        let call = Call {
            weight: problem.with_weight.then_some(&*weight),
            bias: problem.with_bias.then_some(&*bias),
            running_mean,
            running_mean_tail: None,
            running_var,
            updates_running: true,
            batches: None,
            mask: problem.with_mask.then_some(&*mask),
            gates: &mut [],
            in_gates: false,
            fixed: false,
            saved_mean: &mut all.mean[..c],
            saved_mean_tail: &mut all.mean_tail[..c],
            saved_inv_std: &mut all.inv_std[..c],
            input,
            residual: problem.with_residual.then_some(&*residual),
            output: &mut all.output[..len],
            grad_output: grad,
            grad_input: None,
            grad_residual: Some(&mut all.grad_residual[..of_residual]),
            grad_weight: Some(&mut all.grad_weight[..c]),
            grad_bias: Some(&mut all.grad_bias[..c]),
            part: &mut all.moments[..moments_len(c)],
            other: &mut all.other[..moments_len(c)],
            prepared: &mut *all.prepared,
            samples: layer.shape().samples() as f64 + 3.0,
            scratch: &mut all.scratch[..],
        };
        Ok(Cut { problem, call, residual: &*residual, calls: 0 })
    }

    /// The calls with one activation.
    fn activation<C: Corpus, A: Activation>(
        &mut self,
        out: &mut impl Write,
        name: &str,
        activation: A,
    ) -> Result<(), Failure> {
        if name == "Identity" {
            print_head::<C>(out)?;
        }
        let mut digests = Digests::<{ CALLS.len() }>::default();
        for (column, problem) in problems(C::SHAPES, C::DATA) {
            let layer = self.layer(&problem, activation)?;
            let mut cut = self.cut(problem, &layer)?;
            let [train, eval, eval_in_place, backward, fixed, backward_in_place, apply, reduce, apply_gradient] =
                &mut digests;
            cut.eval(&layer, &mut eval[column])?;
            cut.eval_in_place(&layer, &mut eval_in_place[column])?;
            cut.backward(&layer, false, &mut fixed[column])?;
            if problem.has_batch() {
                cut.train(&layer, &mut train[column])?;
                cut.backward(&layer, true, &mut backward[column])?;
                cut.apply(&layer, &mut apply[column])?;
                cut.reduce(&layer, &mut reduce[column])?;
                cut.apply_gradient(&layer, &mut apply_gradient[column])?;
                cut.backward_in_place(&layer, &mut backward_in_place[column])?;
            }
        }
        for (column, problem) in problems(C::LARGE_SHAPES, C::DATA) {
            // One of three, but for the options that differ: it is their size that matters.
            if problem.number % 3 == 0 {
                let layer = self.layer(&problem, activation)?;
                let mut cut = self.cut(problem, &layer)?;
                let [train, _, _, backward, ..] = &mut digests;
                cut.train(&layer, &mut train[column])?;
                cut.backward(&layer, true, &mut backward[column])?;
            }
        }
        print(out, C::NAME, CALLS, name, C::DATA.len(), &digests)
    }

    /// Calls with tensors of halves, which are made of the f32 of the other calls.
    #[cfg(feature = "half-precision")]
    fn halves<C: Corpus, E: Half, A: Activation>(
        &mut self,
        out: &mut impl Write,
        name: &str,
        activation: A,
        tensors: [&mut [E]; 5],
    ) -> Result<(), Failure> {
        let mut digests = Digests::<{ HALF_CALLS.len() }>::default();
        let [input, residual, grad, output, grad_residual] = tensors;
        for (column, problem) in problems(C::SHAPES, C::DATA) {
            let layer = self.layer(&problem, activation)?;
            let linear = self.layer(&problem, Identity)?;
            let Cut { call: singles, residual: single_residual, .. } = self.cut(problem, &layer)?;
            let (len, slope) = (problem.len(), front(single_residual, problem.channels()));
            for (halves, values) in
                [(&mut *input, singles.input), (&mut *residual, single_residual), (&mut *grad, singles.grad_output)]
            {
                halves.iter_mut().zip(values).for_each(|(half, value)| *half = E::of(*value));
            }
            let mut call = Call {
                weight: singles.weight,
                bias: singles.bias,
                running_mean: singles.running_mean,
                running_mean_tail: None,
                running_var: singles.running_var,
                updates_running: true,
                batches: None,
                mask: singles.mask,
                fixed: !problem.has_batch(),
                saved_mean: singles.saved_mean,
                saved_mean_tail: singles.saved_mean_tail,
                saved_inv_std: singles.saved_inv_std,
                input: &input[..len],
                residual: problem.with_residual.then_some(&residual[..len]),
                output: &mut output[..len],
                grad_output: &grad[..len],
                grad_input: None,
                grad_residual: Some(&mut grad_residual[..len]),
                grad_weight: singles.grad_weight,
                grad_bias: singles.grad_bias,
                part: singles.part,
                other: singles.other,
                gates: singles.gates,
                in_gates: false,
                prepared: singles.prepared,
                samples: singles.samples,
                scratch: singles.scratch,
            };
            let [train, eval, backward, in_place, prelu] = &mut digests;
            surrounded(problem.number, || call.eval(&layer))?;
            eval[column].add_halves(call.output);
            if problem.has_batch() {
                surrounded(problem.number + 1, || call.train(&layer))?;
                train[column].add_halves(call.output);
                train[column].add(call.saved_mean);
                train[column].add_f64(call.saved_inv_std);
            }
            call.grad_input = Some(core::mem::take(&mut call.output));
            surrounded(problem.number + 2, || call.backward(&layer))?;
            call.output = call.grad_input.take().unwrap_or_default();
            backward[column].add_halves(call.output);
            backward[column].add_halves(call.grad_residual.as_deref().unwrap_or_default());
            for gradient in [&call.grad_weight, &call.grad_bias] {
                backward[column].add(gradient.as_deref().unwrap_or_default());
            }
            call.output.copy_from_slice(call.grad_output);
            surrounded(problem.number + 3, || call.backward_in_place(&layer))?;
            in_place[column].add_halves(call.output);
            surrounded(problem.number + 4, || call.eval_prelu(&linear, slope))?;
            prelu[column].add_halves(call.output);
            call.grad_input = Some(core::mem::take(&mut call.output));
            surrounded(problem.number + 5, || call.backward_prelu(&linear, slope, None))?;
            call.output = call.grad_input.take().unwrap_or_default();
            prelu[column].add_halves(call.output);
            prelu[column].add(call.grad_weight.as_deref().unwrap_or_default());
        }
        print(out, C::NAME, HALF_CALLS, name, C::DATA.len(), &digests)
    }

    /// The calls that have no activation.
    fn channels<C: Corpus>(&mut self, out: &mut impl Write) -> Result<(), Failure> {
        let mut digests = Digests::<{ CHANNEL_CALLS.len() }>::default();
        for (column, problem) in problems(C::SHAPES, C::DATA) {
            let layer = self.layer(&problem, Identity)?;
            // The same channels with fewer samples: another part of the batch.
            let [outer, channels, inner] = problem.dimensions;
            let part = Problem::new(problem.number, [outer.div_ceil(2), channels, inner], problem.data)?;
            let part_layer = self.layer(&part, Identity)?;
            let mut cut = self.cut(problem, &layer)?;
            let [moments, merged, finish, merged_sums, finish_gradients, previous, next, padding, running, rest @ ..] =
                &mut digests;
            let [gaussian, uniform, alpha, alpha_gradient] = rest;
            cut.moments(&layer, &mut moments[column])?;
            cut.merge_moments(&part_layer, &mut merged[column])?;
            cut.finish(&layer, &mut finish[column])?;
            cut.merge_sums(&layer, &mut merged_sums[column])?;
            cut.finish_gradients(&layer, &mut finish_gradients[column])?;
            // No more than 2^64, and 0 and 1 are not missing.
            let width = [0.25, 1.0, 3.0, 1e6, 0.0][problem.number % 5];
            cut.noise(&layer, Noise::gaussian(width)?, &mut gaussian[column])?;
            cut.noise(&layer, Noise::gaussian_dropout(problem.config.p)?, &mut gaussian[column])?;
            cut.noise(&layer, Noise::uniform(width)?, &mut uniform[column])?;
            cut.alpha_dropout(&layer, false, &mut alpha[column])?;
            cut.alpha_dropout(&layer, true, &mut alpha_gradient[column])?;
            // The channels of the batch norm are in the middle, whatever side of it the layer is on.
            let layer = |order, outputs, inputs| WeightShape { order, outputs, inputs, taps: inner, groups: 1 };
            let before = layer(WeightOrder::InOutTaps, channels, outer);
            let after = layer(WeightOrder::OutInTaps, outer, channels);
            cut.fold(fold_into_previous, before, &mut previous[column])?;
            cut.fold(fold_into_next, after, &mut next[column])?;
            cut.fold_padding(&mut padding[column])?;
            cut.stored(&mut running[column])?;
        }
        print(out, C::NAME, CHANNEL_CALLS, "", C::DATA.len(), &digests)
    }

    /// The calls over the valid positions of a padded batch: by lengths, or by a bitmap.
    fn masked<C: Corpus>(&mut self, out: &mut impl Write) -> Result<(), Failure> {
        let mut digests = Digests::<{ MASKED_CALLS.len() }>::default();
        for (column, problem) in problems(C::MASKED_SHAPES, C::DATA) {
            let layer = self.layer(&problem, Relu)?;
            let mut cut = self.cut_with(problem, &layer, layer.masked_workspace_len())?;
            let shape = layer.shape();
            let samples = shape.outer() / shape.positions().max(1);
            let positions = shape.positions() * shape.inner();
            let mut lengths = [0; 50];
            for (sample, length) in lengths.iter_mut().enumerate().take(samples) {
                *length = positions - (7 * sample + 1) % positions;
            }
            let validity = match (lengths.get(..samples), BITMAP.get(..mask_len(shape.samples()))) {
                (Some(lengths), _) if problem.number % 2 == 0 => Validity::Lengths(lengths),
                (_, Some(bits)) => Validity::Bitmap(bits),
                (Some(lengths), None) => Validity::Lengths(lengths),
                (None, None) => continue,
            };
            let [train, eval, backward] = &mut digests;
            cut.masked(&layer, validity, [&mut train[column], &mut eval[column], &mut backward[column]])?;
        }
        print(out, C::NAME, MASKED_CALLS, "Relu", C::DATA.len(), &digests)
    }

    /// The calls with PReLU, whose slopes are in the residual.
    fn prelu<C: Corpus>(&mut self, out: &mut impl Write) -> Result<(), Failure> {
        let mut digests = Digests::<{ PRELU_CALLS.len() }>::default();
        for (column, problem) in problems(C::SHAPES, C::DATA) {
            let layer = self.layer(&problem, Identity)?;
            let mut cut = self.cut(problem, &layer)?;
            let slopes = if problem.number % 4 == 3 { 1 } else { problem.channels() };
            let slope = front(cut.residual, slopes);
            let [train, eval, backward] = &mut digests;
            cut.eval_prelu(&layer, slope, &mut eval[column])?;
            cut.backward_prelu(&layer, slope, true, &mut backward[column])?;
            if problem.has_batch() {
                cut.train_prelu(&layer, slope, &mut train[column])?;
                cut.backward_prelu(&layer, slope, false, &mut backward[column])?;
            }
        }
        print(out, C::NAME, PRELU_CALLS, "", C::DATA.len(), &digests)
    }

    /// Masks, which have probabilities in place of data.
    fn masks(&mut self, out: &mut impl Write) -> Result<(), Failure> {
        write!(out, "\n{:<36}", "")?;
        for p in PROBABILITIES {
            write!(out, "p = {p:<13.3}")?;
        }
        writeln!(out)?;
        let mut digests = Digests::<{ MASK_CALLS.len() }>::default();
        let [layer_mask, layer_mask_with, fill, fill_with, seed] = &mut digests;
        for (column, p) in PROBABILITIES.into_iter().enumerate() {
            let mut random = SplitMix64::seed_from_u64(column as u64);
            for granularity in [Granularity::Element, Granularity::Channel, Granularity::Sample] {
                let config = Config { p, granularity, ..Config::DEFAULT };
                let shape = Shape::nhwc(20, 2, 3, 19)?;
                let layer = surrounded(column, || Layer::new(shape, Identity, config))?;
                let mask = &mut self.buffers.mask[..layer.mask_len()];
                surrounded(column + 1, || layer.fill_mask(random.next_u64(), mask))?;
                layer_mask[column].0.write(mask);
                layer.fill_mask_with(&mut random, mask)?;
                layer_mask_with[column].0.write(mask);
            }
            let keep = surrounded(column + 3, || Bernoulli::new(p))?;
            for (first, bits) in [(0, MASK_BITS), (13, 1000), (4090, 4103), (8192, 1), (u64::MAX - 4000, 4500)] {
                let mask = &mut self.buffers.mask[..mask_len(bits)];
                keep.fill(random.next_u64(), first, bits, mask)?;
                fill[column].0.write(mask);
                keep.fill_with(&mut random, bits, mask)?;
                fill_with[column].0.write(mask);
            }
            fill[column].add(&[surrounded(column + 4, || Ok(keep.scale()))?]);
            seed[column].0.write(&seed_from(&mut random).to_le_bytes());
        }
        print(out, "masks", MASK_CALLS, "", PROBABILITIES.len(), &digests)
    }
}

impl Cut<'_> {
    /// Scratch as a call may find it.
    fn spoil_scratch(&mut self) {
        self.call.scratch.fill(f64::NAN);
    }

    fn train<A: Activation>(&mut self, layer: &Layer<A>, digest: &mut Digest) -> Result<(), Failure> {
        self.spoil_scratch();
        self.call.batches = (self.problem.number % 4 == 3).then_some(4);
        self.surrounded(|call| call.train(layer))?;
        self.call.batches = None;
        for values in [&*self.call.output, self.call.running_mean, self.call.running_var] {
            digest.add(values);
        }
        self.add_saved(digest);
        Ok(())
    }

    fn add_saved(&self, digest: &mut Digest) {
        digest.add(self.call.saved_mean);
        digest.add(self.call.saved_mean_tail);
        digest.add_f64(self.call.saved_inv_std);
    }

    fn eval<A: Activation>(&mut self, layer: &Layer<A>, digest: &mut Digest) -> Result<(), Failure> {
        self.spoil_scratch();
        self.surrounded(|call| call.eval(layer))?;
        digest.add(self.call.output);
        let of_output = |call: &Call<'_>| {
            let mut digest = Digest::default();
            digest.add(call.output);
            digest.0.finish()
        };
        let unprepared = of_output(&self.call);
        self.spoil_scratch();
        self.call.prepare(layer)?;
        self.call.eval_prepared(layer)?;
        // The same bits, or a digest that nobody has recorded.
        if of_output(&self.call) != unprepared {
            digest.0.write(b"prepared");
        }
        Ok(())
    }

    fn eval_in_place<A: Activation>(&mut self, layer: &Layer<A>, digest: &mut Digest) -> Result<(), Failure> {
        self.spoil_scratch();
        self.call.output.copy_from_slice(self.call.input);
        self.surrounded(|call| call.eval_in_place(layer))?;
        digest.add(self.call.output);
        Ok(())
    }

    /// Makes a call in one of the floating-point environments, another one for each call of a problem and each problem.
    fn surrounded(&mut self, call: impl FnOnce(&mut Call<'_>) -> Result<(), Error>) -> Result<(), Failure> {
        self.calls += 1;
        surrounded(self.problem.number + self.calls, || call(&mut self.call))
    }

    /// A call whose gradient with respect to the input goes into the memory of the output: there is none for both.
    fn gradient_in_output(&mut self, call: impl FnOnce(&mut Call<'_>) -> Result<(), Error>) -> Result<(), Failure> {
        self.call.grad_input = Some(core::mem::take(&mut self.call.output));
        let result = self.surrounded(call);
        self.call.output = self.call.grad_input.take().unwrap_or_default();
        result
    }

    fn backward<A: Activation>(&mut self, layer: &Layer<A>, batch: bool, digest: &mut Digest) -> Result<(), Failure> {
        self.spoil_scratch();
        self.call.fixed = !batch;
        self.gradient_in_output(|call| call.backward(layer))?;
        self.add_gradients(digest);
        Ok(())
    }

    fn add_gradients(&self, digest: &mut Digest) {
        digest.add(self.call.output);
        for values in [&self.call.grad_residual, &self.call.grad_weight, &self.call.grad_bias] {
            digest.add(values.as_deref().unwrap_or_default());
        }
    }

    fn backward_in_place<A: Activation>(&mut self, layer: &Layer<A>, digest: &mut Digest) -> Result<(), Failure> {
        self.spoil_scratch();
        self.call.fixed = false;
        self.call.output.copy_from_slice(self.call.grad_output);
        self.surrounded(|call| call.backward_in_place(layer))?;
        self.add_gradients(digest);
        Ok(())
    }

    fn apply<A: Activation>(&mut self, layer: &Layer<A>, digest: &mut Digest) -> Result<(), Failure> {
        self.spoil_scratch();
        self.surrounded(|call| call.apply(layer))?;
        digest.add(self.call.output);
        Ok(())
    }

    fn reduce<A: Activation>(&mut self, layer: &Layer<A>, digest: &mut Digest) -> Result<(), Failure> {
        self.spoil_scratch();
        self.call.fixed = !self.problem.number.is_multiple_of(2);
        self.surrounded(|call| call.reduce(layer))?;
        digest.add_f64(front(self.call.part, layer.sums_len()));
        Ok(())
    }

    /// With the sums that [`Self::reduce`] has left.
    fn apply_gradient<A: Activation>(&mut self, layer: &Layer<A>, digest: &mut Digest) -> Result<(), Failure> {
        self.spoil_scratch();
        self.gradient_in_output(|call| call.apply_gradient(layer))?;
        digest.add(self.call.output);
        digest.add(self.call.grad_residual.as_deref().unwrap_or_default());
        Ok(())
    }

    /// The calls over valid positions.
    fn masked(
        &mut self,
        layer: &Layer<Relu>,
        validity: Validity<'_>,
        [train, eval, backward]: [&mut Digest; 3],
    ) -> Result<(), Failure> {
        let workspace = self.call.grad_residual.take().unwrap_or_default();
        workspace.fill(f32::NAN);
        self.spoil_scratch();
        self.surrounded(|call| call.eval_masked(layer, Masked::new(validity, workspace)))?;
        eval.add(self.call.output);
        self.surrounded(|call| call.train_masked(layer, Masked::new(validity, workspace)))?;
        for values in [&*self.call.output, self.call.running_mean, self.call.running_var] {
            train.add(values);
        }
        self.add_saved(train);
        for fixed in [false, true] {
            self.call.fixed = fixed;
            self.gradient_in_output(|call| call.backward_masked(layer, Masked::new(validity, workspace)))?;
            self.add_gradients(backward);
        }
        Ok(())
    }

    fn train_prelu(&mut self, layer: &Layer<Identity>, slope: &[f32], digest: &mut Digest) -> Result<(), Failure> {
        self.spoil_scratch();
        self.surrounded(|call| call.train_prelu(layer, slope))?;
        for values in [&*self.call.output, self.call.running_mean, self.call.running_var] {
            digest.add(values);
        }
        self.add_saved(digest);
        Ok(())
    }

    /// Out of place, and with every second problem in place: the same bits.
    fn eval_prelu(&mut self, layer: &Layer<Identity>, slope: &[f32], digest: &mut Digest) -> Result<(), Failure> {
        self.spoil_scratch();
        if self.problem.number.is_multiple_of(2) {
            self.surrounded(|call| call.eval_prelu(layer, slope))?;
        } else {
            self.call.output.copy_from_slice(self.call.input);
            self.surrounded(|call| call.eval_prelu_in_place(layer, slope))?;
        }
        digest.add(self.call.output);
        Ok(())
    }

    /// The gradient of the slopes goes into the place of a mean that the call does not read.
    fn backward_prelu(
        &mut self,
        layer: &Layer<Identity>,
        slope: &[f32],
        fixed: bool,
        digest: &mut Digest,
    ) -> Result<(), Failure> {
        self.spoil_scratch();
        self.call.fixed = fixed;
        let mean = if fixed { &mut self.call.saved_mean } else { &mut self.call.running_mean };
        let mean = core::mem::take(mean);
        let gradient = &mut mean[..slope.len()];
        self.gradient_in_output(|call| call.backward_prelu(layer, slope, Some(gradient)))?;
        self.add_gradients(digest);
        digest.add(front(mean, slope.len()));
        if fixed {
            self.call.saved_mean = mean;
        } else {
            self.call.running_mean = mean;
        }
        Ok(())
    }

    fn moments(&mut self, layer: &Layer<Identity>, digest: &mut Digest) -> Result<(), Failure> {
        self.spoil_scratch();
        self.surrounded(|call| call.moments(layer))?;
        digest.add_f64(self.call.part);
        Ok(())
    }

    fn merge_moments(&mut self, part: &Layer<Identity>, digest: &mut Digest) -> Result<(), Failure> {
        self.spoil_scratch();
        self.surrounded(|call| call.moments_of_other(part))?;
        self.surrounded(|call| call.merge_moments(part))?;
        digest.add_f64(self.call.part);
        Ok(())
    }

    /// With the moments that [`Self::merge_moments`] has left.
    fn finish(&mut self, layer: &Layer<Identity>, digest: &mut Digest) -> Result<(), Failure> {
        self.surrounded(|call| call.finish(layer))?;
        digest.add(self.call.running_mean);
        digest.add(self.call.running_var);
        self.add_saved(digest);
        Ok(())
    }

    /// Of any f64: here of moments.
    fn merge_sums(&mut self, layer: &Layer<Identity>, digest: &mut Digest) -> Result<(), Failure> {
        self.surrounded(|call| call.merge_sums(layer))?;
        digest.add_f64(front(self.call.part, layer.sums_len()));
        Ok(())
    }

    fn finish_gradients(&mut self, layer: &Layer<Identity>, digest: &mut Digest) -> Result<(), Failure> {
        self.surrounded(|call| call.finish_gradients(layer))?;
        for values in [&self.call.grad_weight, &self.call.grad_bias] {
            digest.add(values.as_deref().unwrap_or_default());
        }
        Ok(())
    }

    /// The input serves as weights, and the residual as their layer's bias.
    fn fold(
        &mut self,
        fold: fn(Fold<'_>) -> Result<(), Error>,
        shape: WeightShape,
        digest: &mut Digest,
    ) -> Result<(), Failure> {
        self.call.output.copy_from_slice(self.call.input);
        if let Some(bias) = &mut self.call.grad_residual {
            bias.copy_from_slice(self.residual);
        }
        let eps = self.problem.config.eps;
        match self.surrounded(|call| call.fold(fold, shape, eps)) {
            // Refused, because the channels or the weights are not finite: all stays as it was, which is digested as well.
            Ok(()) | Err(Failure::Call(Error::NotFinite { .. })) => {}
            Err(error) => return Err(error),
        }
        digest.add(front(self.call.grad_residual.as_deref().unwrap_or_default(), shape.outputs));
        digest.add(self.call.output);
        Ok(())
    }

    fn fold_padding(&mut self, digest: &mut Digest) -> Result<(), Failure> {
        let eps = self.problem.config.eps;
        match self.surrounded(|call| call.fold_padding(eps)) {
            // Refused, as above, or because a weight is 0.
            Ok(()) | Err(Failure::Call(Error::NotFinite { .. })) => {}
            Err(error) => return Err(error),
        }
        digest.add(front(self.call.output, self.problem.channels()));
        Ok(())
    }

    /// Noise on the input, in place, and on a part of it that begins anywhere.
    fn noise(&mut self, layer: &Layer<Identity>, noise: Noise, digest: &mut Digest) -> Result<(), Failure> {
        let number = self.problem.number;
        self.call.output.copy_from_slice(self.call.input);
        self.surrounded(|call| call.apply_noise(layer, noise, number as u64))?;
        digest.add(self.call.output);
        self.surrounded(|call| {
            noise.apply(number as u64, 4000 + 7 * number as u64, call.output);
            Ok(())
        })?;
        digest.add(self.call.output);
        Ok(())
    }

    /// Alpha dropout of the input, in place, or of the gradient of the output.
    fn alpha_dropout(&mut self, layer: &Layer<Identity>, backward: bool, digest: &mut Digest) -> Result<(), Failure> {
        if self.call.mask.is_none() {
            return Ok(());
        }
        self.call.output.copy_from_slice(if backward { self.call.grad_output } else { self.call.input });
        if backward {
            self.surrounded(|call| call.alpha_dropout_backward(layer))?;
        } else {
            self.surrounded(|call| call.alpha_dropout(layer))?;
        }
        digest.add(self.call.output);
        Ok(())
    }

    /// The running statistics, taken for those of other programs one after another.
    fn stored(&mut self, digest: &mut Digest) -> Result<(), Failure> {
        let eps = self.problem.config.eps;
        let all = [
            Stored::EpsOutside { eps },
            Stored::Deviation,
            Stored::InverseDeviation,
            Stored::Sums { factor: 3.0, eps },
        ];
        for stored in all {
            match self.surrounded(|call| call.stored(stored)) {
                // Refused, because a variance is 0 or would not fit.
                Ok(()) | Err(Failure::Call(Error::NotFinite { .. } | Error::Variance { .. })) => {}
                Err(error) => return Err(error),
            }
            digest.add(self.call.running_mean);
            digest.add(self.call.running_var);
        }
        Ok(())
    }
}
