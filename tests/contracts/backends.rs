//! Every backend against every other, bit for bit: every entry point, every walk, all lengths up to 1100 and around
//! every size at which something changes; and one digest of everything, the same on every target.
//!
//! The portable backend is the measure. `std`'s own detection of CPU features says which others must have been
//! compared with it: a backend that is there and did not run is a failure. NaN payloads are the one exception of the
//! contract, so every NaN counts as the same pattern.

use core::ops::Range;

use crate::digest::corpus::environment;
use crate::support::{ACTIVATIONS, Oracle, Visitor, with_activation};
use normdrop::{
    Activation, Apply, ApplyGradient, Backend, Backward, BackwardInPlace, Config, Dropout, Error, Eval, EvalInPlace,
    GeluTanh, Granularity, Identity, Layer, LeakyRelu, ParameterGradients, Parameters, Relu, Running, RunningMut,
    Saved, SavedMut, Shape, Silu, Statistics, Train, mask_len,
};
use normdrop_reference::random::SplitMix64;

/// All lengths up to here are tried in every layout: two groups of a mask, four blocks, every tail of a vector, and
/// the 1024 rows from which three channels are folded into a wider matrix.
const ALL_LENGTHS: usize = 1100;

/// The sizes at which something changes, and what. Each is tried one below, as it is and one above.
const BOUNDARIES: &[(usize, &str)] = &[
    (8, "the bits of a mask's byte; the lanes of an AVX2 register"),
    (16, "the lanes; the rows of a block of columns; shorter runs are columns"),
    (32, "the bits of a random word"),
    (64, "four vectors, which are added in pairs"),
    (128, "the longest runs of which two share a block; the rows from which eight or sixteen channels are folded"),
    (256, "a block of a channel; the width up to which a matrix is folded"),
    (512, "a group of a mask; the elements of a row whose mask bits are made at once"),
    (1024, "the rows from which an odd number of channels is folded sixteenfold"),
    (2048, "the rows from which three channels are folded into 96 columns"),
    (4096, "one seeding of the mask's generators; the rows of a part; the columns of a strip"),
    (8192, "two seedings, two parts"),
    (65_536, "the values of a part"),
];

/// Shapes whose walk differs, and how.
pub(crate) const WALKS: &[([usize; 3], &str)] = &[
    ([5, 3, 16], "planar: five runs of one vector share a block"),
    ([16, 2, 16], "planar: sixteen runs fill a block"),
    ([33, 2, 16], "planar: two blocks of sixteen runs and one of one"),
    ([19, 3, 17], "planar: eight runs share a block, each with a tail of one value"),
    ([7, 2, 49], "planar: four runs of a 7x7 picture share a block"),
    ([5, 2, 128], "planar: two runs share a block"),
    ([5, 2, 129], "planar: nine vectors a run, so one run a block"),
    ([3, 2, 255], "planar: a block of one run, short of one value"),
    ([3, 2, 256], "planar: whole blocks only"),
    ([3, 2, 257], "planar: a whole block, then a block of one value"),
    ([2, 3, 4095], "planar: many blocks and a tail"),
    ([4, 40, 1000], "planar: groups of sixteen channels and one of eight"),
    ([4097, 2, 16], "planar: 256 blocks of sixteen runs make a part, and one more run begins another"),
    ([1, 2, 65_535], "planar: a part, short of one value"),
    ([1, 2, 65_537], "planar: a part and one value"),
    ([2, 1, 65_600], "one channel is one run: two parts and a rest"),
    ([1, 1, 131_073], "one channel: two whole parts and one value"),
    ([17, 16, 1], "columns: one tile, a block and one more row"),
    ([33, 17, 1], "columns: a second tile of one lane"),
    ([40, 31, 1], "columns: a second tile of fifteen lanes"),
    ([50, 6, 15], "columns: runs of fifteen, one short of planar"),
    ([50, 5, 7], "columns: channels that begin anywhere in a tile"),
    ([4113, 144, 1], "columns: a part, a block and one more row, just too wide to fold"),
    ([8193, 144, 1], "columns: two parts and one row"),
    ([20, 512, 1], "columns: five times four rows, each of one piece"),
    ([20, 513, 1], "columns: five times four rows, each of a piece and one column"),
    ([18, 1040, 1], "columns: four times four rows and two more, each of three pieces"),
    ([18, 200, 3], "columns: runs of three, in two pieces a row"),
    ([17, 100, 15], "columns: runs of fifteen, in three pieces a row"),
    ([4097, 257, 1], "columns: a part and one row, too wide to fold"),
    ([1023, 3, 1], "columns: one row short of folding"),
    ([1024, 3, 1], "folded: sixteen rows to one, 48 columns"),
    ([1039, 3, 1], "folded: a last row of fifteen of sixteen"),
    ([1025, 17, 1], "folded: sixteen rows to one, 272 columns, and a rest of one"),
    ([511, 6, 1], "columns: one row short of folding eightfold"),
    ([519, 6, 1], "folded: eight rows to one and a rest of seven"),
    ([130, 8, 1], "folded: two rows to one"),
    ([127, 16, 1], "columns: one row short of folding whole rows"),
    ([128, 16, 1], "folded: two whole rows to one"),
    ([1037, 16, 1], "folded: sixteen whole rows to one, 256 columns, and a rest of thirteen"),
    ([131, 128, 1], "folded: two rows of 128 to one and a rest of one"),
    ([300, 24, 2], "folded: four rows of 48 to one, runs of two"),
    ([1030, 5, 3], "folded: sixteen rows to one, runs of three"),
    ([1100, 255, 1], "folded: the widest row that is"),
    ([65_553, 3, 1], "folded: 64 rows to one, and a rest of 17"),
    ([65_569, 9, 1], "folded: a part of 4096 folded rows, two more and a rest of one"),
];

/// Walks in strips.
const STRIPS: &[([usize; 3], &str)] = &[
    ([5, 4096, 1], "one strip of the largest width"),
    ([5, 4097, 1], "a strip of 4096 columns and one of one"),
    ([3, 8208, 1], "two whole strips and sixteen columns"),
    ([4, 1400, 3], "a strip of 4080 columns, because sixteen channels of 3 are the unit"),
    ([4, 300, 15], "a strip of 272 channels of 15"),
];

/// Tensors large enough to be shared by several tasks, and what is cut in them.
pub(crate) const LARGE: &[([usize; 3], &str)] = &[
    ([16, 40, 1000], "planar: the channels of a group of three tiles, then its runs"),
    ([40, 16, 1000], "planar: one part each of sixteen channels"),
    ([2, 1400, 400], "planar: two groups of 656 channels, which are worth sharing, and one of 88"),
    ([2, 40, 30_001], "planar: groups as the caches have room, tiles that are not full"),
    ([2, 2, 140_001], "planar: five parts of two channels"),
    ([1, 24, 22_001], "planar: one run for each channel"),
    ([3, 3, 60_000], "planar: more tasks than channels"),
    ([330, 33, 49], "planar: short runs, two tiles of sixteen channels and one of one"),
    ([4099, 9, 16], "planar: 256 blocks of sixteen runs, and one more run"),
    ([1, 1, 525_003], "one channel: nine parts and a long run in pieces"),
    ([9, 1, 65_536], "one channel: nine whole pieces"),
    ([4200, 144, 1], "columns: two parts of nine tiles"),
    ([16_400, 32, 1], "folded: eight rows to one"),
    ([128, 5000, 1], "columns: one part; strips of 4096 and 904 columns"),
    ([105_001, 5, 1], "folded: 32 rows to one and a rest"),
    ([70_001, 9, 1], "folded: two parts and a rest"),
    ([32 * 4096 + 1, 8, 1], "folded: whole parts, and a rest that is a part of its own"),
    ([15_000, 7, 5], "folded: channels of five columns"),
    ([40, 14_000, 2], "columns: two strips of 13120 columns, which are worth sharing, and one of 1760"),
];

/// The elements of the walks that are tried with every kind of data.
pub(crate) const SMALL: usize = 30_000;

/// What the values of a tensor are like. All are made from random bits by integer arithmetic and scaling by powers of
/// two, so that they are the same on every target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    /// Multiples of 2^-22 in [-2, 2).
    Ordinary,
    /// 10,000 and something, of either sign: the mean must not swamp the rest.
    Offset,
    /// One value of 32 is a NaN or an infinity.
    NotFinite,
    /// About 3e38, of either sign: sums and squares overflow f32.
    Huge,
    /// About 1e-30: squares underflow f32.
    Tiny,
    /// Not normal, down to the smallest f32.
    Subnormal,
    /// 0.0 and -0.0.
    Zeros,
    /// 0.1 everywhere.
    Constant,
    /// Any finite bits: every exponent.
    AnyFinite,
    /// Any bits at all.
    AnyBits,
    /// Each channel is one of the above, so that one vector of columns holds several.
    ByChannel,
}

impl Data {
    const UNIFORM: [Self; 10] = [
        Self::Ordinary,
        Self::Offset,
        Self::NotFinite,
        Self::Huge,
        Self::Tiny,
        Self::Subnormal,
        Self::Zeros,
        Self::Constant,
        Self::AnyFinite,
        Self::AnyBits,
    ];

    fn number(index: usize) -> Self {
        Self::UNIFORM.get(index % 11).copied().unwrap_or(Self::ByChannel)
    }

    #[expect(clippy::cast_possible_truncation, reason = "some of the bits")]
    fn value(self, channel: usize, word: u64) -> f32 {
        let (low, sign) = (word as u32, (word >> 32) as u32 & 0x8000_0000);
        let fraction = low >> 9;
        match self {
            // Numbers below 2^24 convert exactly, and so does division by a power of two.
            Self::Ordinary => (low >> 8) as f32 / (1 << 22) as f32 - 2.0,
            Self::Offset => f32::from_bits((10_000.0 + (low >> 20) as f32 / 1024.0).to_bits() | sign),
            Self::NotFinite => match word >> 59 {
                0 => [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN][channel % 4],
                _ => Self::Ordinary.value(channel, word),
            },
            Self::Huge => f32::from_bits(0x7F61_0000 | low >> 16 | sign),
            Self::Tiny => f32::from_bits(0x0DA2_0000 | low >> 16 | sign),
            Self::Subnormal => f32::from_bits(fraction >> (word >> 59) | sign),
            Self::Zeros => f32::from_bits(sign),
            Self::Constant => 0.1,
            Self::AnyFinite => f32::from_bits((low % 0x7F80_0000) | sign),
            Self::AnyBits => f32::from_bits(low),
            Self::ByChannel => Self::UNIFORM[channel % 10].value(channel, word),
        }
    }
}

/// Everything that the calls of one layer are given.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) shape: Shape,
    data: Data,
    config: Config,
    weight: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    running_mean: Vec<f32>,
    running_mean_tail: Option<Vec<f32>>,
    running_var: Vec<f32>,
    residual: Option<Vec<f32>>,
    /// The mask, if dropout is on.
    pub(crate) mask: Option<Vec<u8>>,
    pub(crate) x: Vec<f32>,
    pub(crate) dy: Vec<f32>,
    seed: usize,
}

impl Problem {
    /// Inputs of one kind, gradients of another, and parameters that may be missing: all decided by the seed.
    pub(crate) fn new([outer, channels, inner]: [usize; 3], data: Data, p: Option<f64>, seed: usize) -> Self {
        // Every third tensor with a position per row has two of them a sample.
        let shape = match inner {
            1 if outer.is_multiple_of(2) && seed.is_multiple_of(3) => Shape::nlc(outer / 2, 2, channels),
            _ => Shape::new(outer, channels, inner),
        };
        let shape = shape.expect("a shape that fits memory");
        let mut random = SplitMix64::new(seed as u64);
        let mut values = |data: Data, count: usize| -> Vec<f32> {
            (0..count).map(|channel| data.value(channel, random.next_u64())).collect()
        };
        let parameters = if data == Data::Ordinary { Data::Ordinary } else { Data::ByChannel };
        let weight = values(parameters, channels);
        let bias = values(parameters, channels);
        let running_mean = values(parameters, channels);
        let running_var = values(parameters, channels).iter().map(|var| var.abs()).collect();
        let mut tensor = |data: Data| -> Vec<f32> {
            let mut tensor = Vec::with_capacity(shape.len());
            for run in 0..outer * channels {
                let channel = run % channels;
                tensor.extend((0..inner).map(|_| data.value(channel, random.next_u64())));
            }
            tensor
        };
        // The gradients are seldom of the kind of the input, and most often ordinary.
        let gradients = if seed.is_multiple_of(3) { Data::number(shape.len() + 3) } else { Data::Ordinary };
        let (x, dy) = (tensor(data), tensor(gradients));
        let residual =
            seed.is_multiple_of(2).then(|| tensor(if seed.is_multiple_of(8) { data } else { Data::Ordinary }));
        let granularity = match seed % 5 {
            0 => Granularity::Channel,
            1 => Granularity::Sample,
            _ => Granularity::Element,
        };
        let config = Config { p: p.unwrap_or(0.0), momentum: 0.25, granularity, ..Config::DEFAULT };
        let layer = Layer::new(shape, Identity, config).expect("constants in their ranges");
        let mask = p.map(|_| {
            let mut mask = vec![0; layer.mask_len()];
            layer.fill_mask(seed as u64, &mut mask).expect("a mask of the right length");
            // Bits past the end mean nothing: all set, so that a kernel that read them would show it.
            if let (1.., Some(last)) = (layer.mask_bits() % 8, mask.last_mut()) {
                *last |= u8::MAX << (layer.mask_bits() % 8);
            }
            mask
        });
        Self {
            shape,
            data,
            config,
            weight: (!seed.is_multiple_of(4)).then_some(weight),
            bias: (!seed.is_multiple_of(5)).then_some(bias),
            running_mean,
            running_mean_tail: None,
            running_var,
            residual,
            mask,
            x,
            dy,
            seed,
        }
    }

    pub(crate) fn layer<A: Activation>(&self, activation: A, backend: Option<Backend>) -> Layer<A> {
        let layer = Layer::new(self.shape, activation, self.config).expect("constants in their ranges");
        match backend {
            Some(backend) => layer.with_backend(backend).expect("a backend that is available"),
            None => layer,
        }
    }
}

/// Which result of which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    call: &'static str,
    variant: &'static str,
    field: &'static str,
    /// The number of words of this part and all before it.
    end: usize,
}

/// The results of every call of a layer, as bits.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) bits: Vec<u32>,
    parts: Vec<Part>,
    /// The first call after which a flag of an invalid operation, a division by zero or an overflow was raised.
    pub(crate) raised: Option<(&'static str, &'static str)>,
}

impl Results {
    fn clear(&mut self) {
        self.bits.clear();
        self.parts.clear();
        self.raised = None;
    }

    fn look_at_flags(&mut self, call: &'static str, variant: &'static str) {
        if self.raised.is_none() && environment::raised() {
            self.raised = Some((call, variant));
        }
    }

    fn add(&mut self, call: &'static str, variant: &'static str, field: &'static str, values: &[f32]) {
        self.look_at_flags(call, variant);
        let bits = values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() });
        self.bits.extend(bits);
        self.parts.push(Part { call, variant, field, end: self.bits.len() });
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of a u64")]
    fn add_f64(&mut self, call: &'static str, variant: &'static str, field: &'static str, values: &[f64]) {
        self.look_at_flags(call, variant);
        let bits = values.iter().map(|value| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() });
        self.bits.extend(bits.flat_map(|bits| [bits as u32, (bits >> 32) as u32]));
        self.parts.push(Part { call, variant, field, end: self.bits.len() });
    }
}

/// The gradients that a backward call is asked for: of the input, the weight and the bias. With none of the last two
/// and fixed statistics there are no sums to make; without the first one there is no second pass.
const ASKED: &[(&str, bool, bool, bool)] = &[
    ("all gradients", true, true, true),
    ("the input's gradient", true, false, false),
    ("the input's and the weight's gradient", true, true, false),
    ("the input's and the bias's gradient", true, false, true),
    ("the parameters' gradients", false, true, true),
    ("the weight's gradient", false, true, false),
    ("the bias's gradient", false, false, true),
    ("no gradient", false, false, false),
];

/// What every buffer holds before a call: what is not written, and what is read though it must not be, shows.
const BEFORE: f32 = 12_345.0;

/// Every call, into `results`.
pub(crate) fn run<A: Activation>(layer: &Layer<A>, problem: &Problem, results: &mut Results) {
    results.clear();
    let (len, channels) = (problem.shape.len(), problem.shape.channels());
    let parameters = Parameters { weight: problem.weight.as_deref(), bias: problem.bias.as_deref() };
    let dropout = problem.mask.as_deref().map_or(Dropout::Off, Dropout::Mask);
    let running = Running {
        mean: &problem.running_mean,
        mean_tail: problem.running_mean_tail.as_deref(),
        var: &problem.running_var,
    };
    let residual = problem.residual.as_deref();
    let mut scratch = vec![f64::from(BEFORE); layer.scratch_len()];
    let mut values = vec![BEFORE; len];

    layer
        .eval(Eval {
            parameters,
            running,
            dropout,
            input: &problem.x,
            output: &mut values,
            residual,
            scratch: &mut scratch,
        })
        .expect("an evaluation call without faults");
    results.add("eval", "", "y", &values);

    values.copy_from_slice(&problem.x);
    layer
        .eval_in_place(EvalInPlace {
            parameters,
            running,
            dropout,
            values: &mut values,
            residual,
            scratch: &mut scratch,
        })
        .expect("an evaluation call without faults");
    results.add("eval_in_place", "", "y", &values);

    let (mut mean, mut mean_tail, mut inv_std) = (vec![BEFORE; channels], vec![BEFORE; channels], vec![0.5; channels]);
    for update in [true, false] {
        values.fill(BEFORE);
        let (mut running_mean, mut running_var) = (problem.running_mean.clone(), problem.running_var.clone());
        let mut running_mean_tail = problem.running_mean_tail.clone();
        let trained = layer.train(Train {
            parameters,
            running: update.then_some(RunningMut {
                mean_tail: running_mean_tail.as_deref_mut(),
                ..RunningMut::new(&mut running_mean, &mut running_var)
            }),
            dropout,
            input: &problem.x,
            output: &mut values,
            saved: SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std },
            residual,
            scratch: &mut scratch,
        });
        assert!(trained.is_ok() || (trained == Err(Error::SingleSample) && problem.shape.samples() == 1));
        let variant = if update { "with running statistics" } else { "without running statistics" };
        results.add("train", variant, "y", &values);
        results.add("train", variant, "running mean", &running_mean);
        if let Some(tail) = &running_mean_tail {
            results.add("train", variant, "tail of the running mean", tail);
        }
        results.add("train", variant, "running variance", &running_var);
        results.add("train", variant, "saved mean", &mean);
        results.add("train", variant, "tail of the saved mean", &mean_tail);
        results.add_f64("train", variant, "saved inv_std", &inv_std);
    }

    let saved = SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std };
    let kinds: &[_] = &[
        ("backward, batch statistics", "backward_in_place, batch statistics", Statistics::Batch(saved.as_saved())),
        ("backward, fixed statistics", "backward_in_place, fixed statistics", Statistics::Fixed(running)),
    ];
    for &(call, call_in_place, statistics) in kinds {
        if problem.shape.samples() == 1 && matches!(statistics, Statistics::Batch(_)) {
            continue;
        }
        // All gradients, and one of the other choices: the seed walks through them.
        for (variant, input, weight, bias) in [ASKED[0], ASKED[1 + problem.seed % (ASKED.len() - 1)]] {
            let (mut grad_weight, mut grad_bias) = (vec![BEFORE; channels], vec![BEFORE; channels]);
            let mut grad_residual = vec![BEFORE; if residual.is_some() { len } else { 0 }];
            values.fill(BEFORE);
            layer
                .backward(Backward {
                    parameters,
                    statistics,
                    dropout,
                    input: &problem.x,
                    grad_output: &problem.dy,
                    grad_input: input.then_some(&mut values[..]),
                    grad_parameters: ParameterGradients {
                        weight: weight.then_some(&mut grad_weight[..]),
                        bias: bias.then_some(&mut grad_bias[..]),
                    },
                    residual,
                    grad_residual: residual.map(|_| &mut grad_residual[..]),
                    scratch: &mut scratch,
                })
                .expect("a backward call without faults");
            results.add(call, variant, "grad_input", &values);
            results.add(call, variant, "grad_residual", &grad_residual);
            results.add(call, variant, "grad_weight", &grad_weight);
            results.add(call, variant, "grad_bias", &grad_bias);
            if !input {
                continue;
            }
            grad_residual.fill(BEFORE);
            values.copy_from_slice(&problem.dy);
            layer
                .backward_in_place(BackwardInPlace {
                    parameters,
                    statistics,
                    dropout,
                    input: &problem.x,
                    values: &mut values,
                    grad_parameters: ParameterGradients {
                        weight: weight.then_some(&mut grad_weight[..]),
                        bias: bias.then_some(&mut grad_bias[..]),
                    },
                    residual,
                    grad_residual: residual.map(|_| &mut grad_residual[..]),
                    scratch: &mut scratch,
                })
                .expect("a backward call without faults");
            results.add(call_in_place, variant, "grad_input", &values);
            results.add(call_in_place, variant, "grad_residual", &grad_residual);
            results.add(call_in_place, variant, "grad_weight", &grad_weight);
            results.add(call_in_place, variant, "grad_bias", &grad_bias);
        }
    }
}

/// The backends that must run here: what `std` finds on this CPU, up to the one that the build is capped at.
fn expected_backends() -> Vec<Backend> {
    let mut expected = vec![Backend::Portable];
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected;

        if is_x86_feature_detected!("avx2") && !cfg!(any(normdrop_backend = "scalar", normdrop_backend = "portable")) {
            expected.push(Backend::Avx2);
        }
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && !cfg!(any(normdrop_backend = "scalar", normdrop_backend = "portable", normdrop_backend = "avx2"))
        {
            expected.push(Backend::Avx512);
        }
    }
    expected
}

/// Compares backends, and counts what it compared.
#[derive(Debug)]
struct Comparison {
    /// The backends that must be compared with the portable one, and the number of values that were.
    backends: Vec<(Backend, usize)>,
    portable: Results,
    other: Results,
    /// Counts the calls whose activation is chosen by turns.
    turn: usize,
}

/// [`Comparison::calls`] of whichever activation.
struct Calls<'a>(&'a mut Comparison, &'a Problem);

impl Visitor for Calls<'_> {
    type Result = ();

    fn visit<A: Oracle>(self) {
        self.0.calls(self.1, A::ACTIVATION);
    }
}

impl Comparison {
    fn new() -> Self {
        let expected = expected_backends();
        for backend in Backend::ALL {
            assert_eq!(
                backend.is_available(),
                expected.contains(&backend),
                "{}: what the crate finds, and what this CPU and this build have",
                backend.name()
            );
        }
        assert_eq!(expected.last(), Some(&Backend::detect()), "the fastest backend is the default");
        let backends = expected.into_iter().map(|backend| (backend, 0)).collect();
        Self { backends, portable: Results::default(), other: Results::default(), turn: 0 }
    }

    /// Every call of a layer, on every backend.
    fn calls<A: Activation>(&mut self, problem: &Problem, activation: A) {
        let Self { backends, portable, other, .. } = self;
        run(&problem.layer(activation, Some(Backend::Portable)), problem, portable);
        for (backend, compared) in backends {
            if *backend != Backend::Portable {
                run(&problem.layer(activation, Some(*backend)), problem, other);
                compare(problem, activation, (backend.name(), "portable"), other, portable);
            }
            *compared += portable.bits.len();
        }
    }

    /// Every call of a layer on the backend that is used by default.
    fn default_calls<A: Activation>(&mut self, problem: &Problem, activation: A) {
        run(&problem.layer(activation, Some(Backend::Portable)), problem, &mut self.portable);
        run(&problem.layer(activation, None), problem, &mut self.other);
        compare(problem, activation, (Backend::detect().name(), "portable"), &self.other, &self.portable);
    }

    /// [`Comparison::calls`] with two activations, with dropout and without. The activations take turns, for the sake of
    /// time: the walks are the same with all.
    fn all_calls(&mut self, shape: [usize; 3], data: Data, probabilities: &[Option<f64>], seed: usize) {
        for &p in probabilities {
            let problem = Problem::new(shape, data, p, seed);
            for _ in 0..2 {
                self.next_calls(&problem);
            }
        }
    }

    /// [`Comparison::calls`] with the activation whose turn it is.
    fn next_calls(&mut self, problem: &Problem) {
        let number = self.turn % ACTIVATIONS;
        self.turn += 1;
        with_activation(number, Calls(self, problem));
    }

    /// The mask of one seed on every backend, and any range of it alone.
    fn masks(&mut self, p: f64, seed: u64, elements: usize) {
        let shape = Shape::new(1, 1, elements).expect("a shape that fits memory");
        let layer = Layer::new(shape, Identity, Config { p, ..Config::DEFAULT }).expect("constants in their ranges");
        let draw = |backend| {
            let mut mask = vec![0xA5; layer.mask_len()];
            let layer = layer.with_backend(backend).expect("a backend that is available");
            layer.fill_mask(seed, &mut mask).expect("a mask of the right length");
            mask
        };
        let portable = draw(Backend::Portable);
        for (backend, compared) in &mut self.backends {
            assert!(draw(*backend) == portable, "{}: p = {p}, {elements} elements, seed {seed}", backend.name());
            *compared += elements;
        }
        for first in [1, 7, 8, 9, 500, 512, 517, 4090, 4096] {
            if first < elements {
                let mut range = vec![0xA5; mask_len(elements - first)];
                layer.keep().fill(seed, first as u64, elements - first, &mut range).expect("the right length");
                let expected = shifted(&portable, first, elements - first);
                assert!(range == expected, "elements {first}..{elements}, p = {p}, seed {seed}");
            }
        }
    }

    /// Fails if a backend was not compared; says what was.
    fn finish(self) {
        for (backend, compared) in self.backends {
            assert!(compared > 0, "{} is there and did not run", backend.name());
            println!("{}: {compared} values, the same bits", backend.name());
        }
    }
}

/// The bits of a mask from one on, one bit after the other.
fn shifted(mask: &[u8], first: usize, elements: usize) -> Vec<u8> {
    let mut shifted = vec![0; mask_len(elements)];
    for element in 0..elements {
        let from = first + element;
        shifted[element / 8] |= (mask[from / 8] >> (from % 8) & 1) << (element % 8);
    }
    shifted
}

/// Fails if the bits of two ways to run the same calls are not the same, and says where.
pub(crate) fn compare(
    problem: &Problem,
    activation: impl Activation,
    (this, that): (&str, &str),
    other: &Results,
    portable: &Results,
) {
    assert_eq!(other.parts, portable.parts, "the same calls");
    let Some(position) = other.bits.iter().zip(&portable.bits).position(|(a, b)| a != b) else { return };
    let part = other.parts.partition_point(|part| part.end <= position);
    let Part { call, variant, field, end } = other.parts[part];
    let start = part.checked_sub(1).map_or(0, |before| other.parts[before].end);
    let differing = (start..end).filter(|&index| other.bits[index] != portable.bits[index]).count();
    panic!(
        "{call} ({variant}), {field}: {this} is not {that}, {differing} of {} words differ, first number {}: {:08x} \
         instead of {:08x}\n{activation:?}, {:?}, {:?} data, {:?}, weight {}, bias {}, mask {}",
        end - start,
        position - start,
        other.bits[position],
        portable.bits[position],
        problem.shape,
        problem.data,
        problem.config,
        problem.weight.is_some(),
        problem.bias.is_some(),
        problem.mask.is_some(),
    );
}

/// One below a size, the size itself, and one above.
fn around(size: usize) -> [usize; 3] {
    [size - 1, size, size + 1]
}

#[test]
fn the_backends_that_ran() {
    let mut comparison = Comparison::new();
    for &(walk, _) in WALKS {
        let problem = Problem::new(walk, Data::Ordinary, Some(0.5), 1);
        comparison.default_calls(&problem, Identity);
        if walk.iter().product::<usize>() < SMALL {
            comparison.calls(&problem, Relu);
        }
    }
    comparison.masks(0.1, 1, 10_000);
    let ran: Vec<&str> = comparison.backends.iter().map(|(backend, _)| backend.name()).collect();
    println!("backends on this CPU and in this build: {}; the default is {}", ran.join(", "), Backend::detect().name());
    comparison.finish();
}

#[test]
fn a_tail_of_the_running_mean_is_the_same_on_every_backend() {
    let mut comparison = Comparison::new();
    for (seed, &(walk, _)) in (0..).zip(WALKS).filter(|(_, (walk, _))| walk.iter().product::<usize>() < SMALL) {
        for data in [Data::Ordinary, Data::Offset, Data::ByChannel] {
            let mut problem = Problem::new(walk, data, Some(0.5), seed);
            let (means, tails) = (problem.running_mean.iter().rev(), [1.0, -1.0, 0.25, 0.0].into_iter().cycle());
            problem.running_mean_tail = Some(means.zip(tails).map(|(mean, tail)| mean * tail / 3e7).collect());
            comparison.next_calls(&problem);
            comparison.default_calls(&problem, Identity);
        }
    }
    comparison.finish();
}

#[test]
fn a_backend_that_is_not_there_is_refused() {
    let expected = expected_backends();
    let layer = Layer::new(Shape::nc(4, 3).expect("a small shape"), Relu, Config::DEFAULT).expect("defaults");
    for backend in Backend::ALL {
        let available = expected.contains(&backend);
        assert_eq!(layer.with_backend(backend).is_ok(), available, "{}", backend.name());
        assert_eq!(backend.require().is_ok(), available, "{}", backend.name());
        if !available {
            assert_eq!(layer.with_backend(backend).err(), Some(Error::BackendUnavailable { backend }));
        }
    }
}

/// Otherwise all comparisons of backends would be of one with itself.
#[test]
fn a_layer_keeps_the_backend_that_it_is_given() {
    let layer = Layer::new(Shape::nc(4, 3).expect("a small shape"), Relu, Config::DEFAULT).expect("defaults");
    let mut seen = vec![layer];
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
        let with_backend = layer.with_backend(backend).expect("an available backend");
        assert!(!seen.contains(&with_backend), "{}", backend.name());
        seen.push(with_backend);
    }
}

#[test]
fn masks_of_all_lengths_and_boundary_sizes_are_the_same_on_every_backend() {
    let mut comparison = Comparison::new();
    for elements in 0..=ALL_LENGTHS {
        for p in [0.5, 0.1] {
            comparison.masks(p, elements as u64, elements);
        }
    }
    for &(size, _) in BOUNDARIES {
        for elements in around(size).into_iter().chain(around(3 * size)) {
            for p in [0.0, 1.0, 0.25, 0.9, 1.0 / 3.0, 1e-9, 1.0 - 1e-9] {
                comparison.masks(p, !(elements as u64), elements);
            }
        }
    }
    comparison.finish();
}

/// All lengths in one layout: one kind of data after the other, so that each is met with every tail of a vector. The
/// small tensors with dropout and without; the large ones in turns, for the sake of time.
fn all_lengths(shape: impl Fn(usize) -> [usize; 3]) {
    let mut comparison = Comparison::new();
    for length in 0..=ALL_LENGTHS {
        let (shape, data) = (shape(length), Data::number(length));
        let p = Some([0.5, 0.1, 0.9][length % 3]);
        if shape.iter().product::<usize>() < 4_000 {
            comparison.all_calls(shape, data, &[None, p], length);
        } else {
            let (first, second) = if length.is_multiple_of(2) { (None, p) } else { (p, None) };
            comparison.next_calls(&Problem::new(shape, data, first, length));
            comparison.next_calls(&Problem::new(shape, data, second, length));
        }
    }
    comparison.finish();
}

#[test]
fn planar_runs_of_all_lengths_are_the_same_on_every_backend() {
    all_lengths(|length| [2, 2, length]);
}

#[test]
fn one_channel_of_all_lengths_is_the_same_on_every_backend() {
    all_lengths(|length| [length, 1, 1]);
}

#[test]
fn columns_of_3_channels_and_all_lengths_are_the_same_on_every_backend() {
    all_lengths(|length| [length, 3, 1]);
}

#[test]
fn columns_of_16_channels_and_all_lengths_are_the_same_on_every_backend() {
    all_lengths(|length| [length, 16, 1]);
}

#[test]
fn columns_of_17_channels_and_all_lengths_are_the_same_on_every_backend() {
    all_lengths(|length| [length, 17, 1]);
}

#[test]
fn all_numbers_of_channels_are_the_same_on_every_backend() {
    all_lengths(|channels| [3, channels, 1]);
}

#[test]
fn planar_boundary_sizes_are_the_same_on_every_backend() {
    let mut comparison = Comparison::new();
    for &(size, _) in BOUNDARIES {
        for length in around(size) {
            for data in [Data::Ordinary, Data::Offset, Data::NotFinite, Data::AnyFinite] {
                comparison.all_calls([1, 2, length], data, &[None, Some(0.1)], length);
            }
        }
    }
    comparison.finish();
}

#[test]
fn column_boundary_sizes_are_the_same_on_every_backend() {
    let mut comparison = Comparison::new();
    for &(size, _) in BOUNDARIES {
        for length in around(size) {
            for data in [Data::Ordinary, Data::ByChannel] {
                comparison.all_calls([length, 3, 1], data, &[None, Some(0.1)], length);
            }
            if length < 10_000 {
                comparison.all_calls([length, 16, 1], Data::ByChannel, &[None, Some(0.1)], length);
                comparison.all_calls([3, length, 1], Data::ByChannel, &[None, Some(0.1)], length);
            }
        }
    }
    comparison.finish();
}

#[test]
fn every_walk_is_the_same_on_every_backend() {
    let mut comparison = Comparison::new();
    for &(walk, _) in WALKS.iter().chain(STRIPS) {
        let small = walk.iter().product::<usize>() < SMALL;
        for index in 0..11 {
            // The large walks meet some kinds of data only: what is large about them is in the merging.
            if small || index % 5 == 0 {
                comparison.all_calls(walk, Data::number(index), &[None, Some(0.1)], index + 1);
            }
        }
        if small {
            // Masks that need no randomness have code of their own.
            comparison.all_calls(walk, Data::NotFinite, &[Some(0.0), Some(1.0)], 7);
        }
    }
    comparison.finish();
}

/// Outputs from 12 MiB on are written past the caches, vectors that are a cache line at least; those that overwrite their
/// input are not.
#[test]
fn large_outputs_have_the_bits_of_those_in_place_on_every_backend() {
    for shape in [[65_537, 64, 1], [1024, 4099, 1], [1025, 2, 2048], [2, 16, 131_077]] {
        let problem = Problem::new(shape, Data::Ordinary, Some(0.1), 1);
        let elements = problem.x.len();
        assert!(elements >= 1 << 22, "{shape:?} is not large");
        let channels = shape[1];
        let (mean, var) = (vec![0.25; channels], vec![0.75; channels]);
        let (mean_tail, inv_std) = (vec![1e-9; channels], vec![1.1; channels]);
        let running = Running::new(&mean, &var);
        let (parameters, dropout) = (Parameters::default(), Dropout::Mask(problem.mask.as_deref().unwrap_or_default()));
        for backend in expected_backends() {
            let layer = problem.layer(Relu, Some(backend));
            let mut scratch = vec![0.0; layer.scratch_len()];
            // Lines of the cache begin where vectors do, and where they do not.
            for (offset, with_residual) in [(0, false), (5, false), (0, true), (5, true)] {
                let mut memory = vec![0.0; elements + 32];
                let start = memory.as_ptr().align_offset(64) + offset;
                let output = &mut memory[start..][..elements];
                // The gradient of the residual, where those of dx do not.
                let mut memory_residual = vec![0.0; if with_residual { elements + 32 } else { 0 }];
                let start_residual = memory_residual.as_ptr().align_offset(64) + 5 - offset;
                let mut grad_residual = with_residual.then(|| &mut memory_residual[start_residual..][..elements]);
                let mut grad_residual_in_place = with_residual.then(|| vec![0.0; elements]);
                let (input, residual) = (&problem.x[..], with_residual.then_some(&problem.dy[..]));
                layer
                    .eval(Eval { parameters, running, dropout, input, output, residual, scratch: &mut scratch })
                    .unwrap();
                let mut values = problem.x.clone();
                let call =
                    EvalInPlace { parameters, running, dropout, residual, values: &mut values, scratch: &mut scratch };
                layer.eval_in_place(call).unwrap();
                assert!(same_bits(output, &values), "eval of {shape:?} on {backend:?}, offset {offset}");

                let statistics = Statistics::Batch(Saved { mean: &mean, mean_tail: &mean_tail, inv_std: &inv_std });
                let call = Backward {
                    parameters,
                    statistics,
                    dropout,
                    input,
                    grad_output: &problem.dy,
                    grad_input: Some(output),
                    grad_parameters: ParameterGradients::default(),
                    residual,
                    grad_residual: grad_residual.as_deref_mut(),
                    scratch: &mut scratch,
                };
                layer.backward(call).unwrap();
                values.copy_from_slice(&problem.dy);
                let call = BackwardInPlace {
                    parameters,
                    statistics,
                    dropout,
                    input,
                    residual,
                    values: &mut values,
                    grad_residual: grad_residual_in_place.as_deref_mut(),
                    grad_parameters: ParameterGradients::default(),
                    scratch: &mut scratch,
                };
                layer.backward_in_place(call).unwrap();
                assert!(same_bits(&memory[start..][..elements], &values), "backward of {shape:?} on {backend:?}");
                let both = grad_residual.as_deref().zip(grad_residual_in_place.as_deref());
                let same = both.is_none_or(|(one, other)| same_bits(one, other));
                assert!(same, "gradient of the residual of {shape:?} on {backend:?}, offset {offset}");
            }
        }
    }
}

/// Elements are worked one by one, so that a matrix and its transpose, whose columns are runs, have the same results: in rows of
/// one piece and of several, four at a time and alone, folded and not; with an activation that is a bound, and with those that are
/// applied to strips.
#[test]
fn elements_have_the_same_bits_in_rows_and_in_runs() {
    rows_and_runs(Relu);
    rows_and_runs(Silu);
    rows_and_runs(LeakyRelu::default());
}

fn rows_and_runs<A: Activation>(activation: A) {
    for [rows, channels] in
        [[1100, 255], [1100, 63], [20, 513], [7, 1040], [5, 4097], [1030, 33], [21, 17], [1026, 100]]
    {
        let problem = Problem::new([rows, channels, 1], Data::Ordinary, None, 1);
        let transposed = |values: &[f32]| -> Vec<f32> {
            (0..values.len()).map(|index| values[index % rows * channels + index / rows]).collect()
        };
        let runs =
            Layer::new(Shape::ncl(1, channels, rows).expect("a shape"), activation, Config::DEFAULT).expect("in range");
        let lines =
            Layer::new(Shape::nc(rows, channels).expect("a shape"), activation, Config::DEFAULT).expect("in range");
        let numbers =
            |first: f32| -> Vec<f32> { (0..channels).map(|channel| first + channel as f32 / 128.0).collect() };
        let (mean, var, bias) = (numbers(-1.0), numbers(0.5), numbers(-2.0));
        let (running, parameters) = (Running::new(&mean, &var), Parameters { weight: None, bias: Some(&bias) });
        let calls = |layer: &Layer<A>, input: &[f32], residual: Option<&[f32]>, grad_output: &[f32]| {
            let (dropout, mut scratch) = (Dropout::Off, vec![0.0; layer.scratch_len()]);
            let (mut output, mut grad_input) = (vec![0.0; input.len()], vec![0.0; input.len()]);
            let call =
                Eval { parameters, running, dropout, input, output: &mut output, residual, scratch: &mut scratch };
            layer.eval(call).expect("buffers of the right lengths");
            let call = Backward {
                parameters,
                statistics: Statistics::Fixed(running),
                dropout,
                input,
                grad_output,
                grad_input: Some(&mut grad_input),
                grad_parameters: ParameterGradients::default(),
                residual,
                grad_residual: None,
                scratch: &mut scratch,
            };
            layer.backward(call).expect("buffers of the right lengths");
            [output, grad_input]
        };
        let (x, dy) = (transposed(&problem.x), transposed(&problem.dy));
        for residual in [false, true] {
            let of_lines = residual.then_some(&problem.dy[..]);
            let of_runs = residual.then_some(&dy[..]);
            let expected = calls(&runs, &x, of_runs, &dy);
            for backend in expected_backends() {
                let lines = lines.with_backend(backend).expect("a backend that is there");
                let found = calls(&lines, &problem.x, of_lines, &problem.dy);
                for (call, (found, expected)) in ["eval", "backward"].iter().zip(found.iter().zip(&expected)) {
                    let found = transposed(found);
                    assert!(
                        same_bits(&found, expected),
                        "{call} of {rows} x {channels}, {activation:?}, {residual}, {backend:?}"
                    );
                }
            }
        }
    }
}

/// Runs of one channel that are shorter than a piece are worked many at a time, with coefficients by position: each has the
/// results that it has as a tensor of its own, with and without a residual, also where `z` leaves the range of f32.
#[test]
fn short_runs_have_the_bits_of_each_run_alone() {
    short_runs(Relu);
    short_runs(GeluTanh);
    short_runs(LeakyRelu::default());
}

fn short_runs(activation: impl Activation) {
    for [outer, channels, inner] in
        [[8, 19, 49], [3, 16, 17], [9, 5, 63], [5, 33, 16], [4, 40, 128], [8, 18, 200], [1, 3, 31], [2, 37, 20]]
    {
        let mut problem = Problem::new([outer, channels, inner], Data::Ordinary, Some(0.3), 1);
        let len = problem.x.len();
        for element in (0..len).step_by(37) {
            problem.x[element] *= 1e38;
        }
        let residual: Vec<f32> = problem.x.iter().rev().map(|&x| -2.0 * x).collect();
        problem.config.granularity = Granularity::Element;
        let mut mask = vec![0; mask_len(len)];
        problem.layer(activation, None).fill_mask(1, &mut mask).expect("a mask of the right length");
        let numbers = |first: f32| (0..channels).map(|channel| first + channel as f32 / 128.0).collect::<Vec<_>>();
        let (mean, mean_tail, weight, bias) = (numbers(-1.0), vec![0.0; channels], numbers(1.5), numbers(-2.0));
        let inv_std: Vec<f64> = numbers(3.0).into_iter().map(f64::from).collect();
        let sums: Vec<f64> = numbers(7.0).into_iter().chain(numbers(-5.0)).map(f64::from).collect();
        // The results of some channels of some samples: y, y in place of x, dx, the gradient of the residual; then dx past
        // fixed statistics.
        let calls = |backend, shape: Shape, of: Range<usize>, elements: Range<usize>, with_residual: bool| {
            let layer = Layer::new(shape, activation, problem.config).expect("in range").with_backend(backend);
            let layer = layer.expect("a backend that is there");
            let mut scratch = vec![f64::NAN; layer.scratch_len()];
            let parameters = Parameters { weight: Some(&weight[of.clone()]), bias: Some(&bias[of.clone()]) };
            let saved =
                Saved { mean: &mean[of.clone()], mean_tail: &mean_tail[of.clone()], inv_std: &inv_std[of.clone()] };
            let running = Running::new(saved.mean, parameters.weight.expect("there are weights"));
            let kept = |element: usize| mask[element / 8] >> (element % 8) & 1;
            let bits: Vec<u8> = elements.clone().map(kept).collect();
            let bits: Vec<u8> =
                bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |byte, bit| byte << 1 | bit)).collect();
            let (dropout, input) = (Dropout::Mask(&bits), &problem.x[elements.clone()]);
            let grad_output = &problem.dy[elements.clone()];
            let residual = with_residual.then_some(&residual[elements]);
            let of_sums: Vec<f64> = [&sums[of.clone()], &sums[channels..][of]].concat();
            let [mut output, mut dx, mut d_residual, mut dx_fixed] = [(); 4].map(|()| vec![f32::NAN; input.len()]);
            let mut values = input.to_vec();
            layer
                .apply(Apply {
                    parameters,
                    saved,
                    dropout,
                    input,
                    residual,
                    output: &mut output,
                    scratch: &mut scratch,
                })
                .expect("buffers of the right lengths");
            layer
                .eval_in_place(EvalInPlace {
                    parameters,
                    running,
                    dropout,
                    residual,
                    values: &mut values,
                    scratch: &mut scratch,
                })
                .expect("buffers of the right lengths");
            layer
                .apply_gradient(ApplyGradient {
                    parameters,
                    saved,
                    samples: 100.0,
                    sums: &of_sums,
                    dropout,
                    input,
                    residual,
                    grad_output,
                    grad_input: &mut dx,
                    grad_residual: with_residual.then_some(&mut d_residual),
                    scratch: &mut scratch,
                })
                .expect("buffers of the right lengths");
            layer
                .backward(Backward {
                    parameters,
                    statistics: Statistics::Fixed(running),
                    dropout,
                    input,
                    residual,
                    grad_output,
                    grad_input: Some(&mut dx_fixed),
                    grad_residual: None,
                    grad_parameters: ParameterGradients::default(),
                    scratch: &mut scratch,
                })
                .expect("buffers of the right lengths");
            [output, values, dx, d_residual, dx_fixed]
        };
        let whole = Shape::ncl(outer, channels, inner).expect("a shape");
        let alone = Shape::ncl(1, 1, inner).expect("a shape");
        for backend in expected_backends() {
            for residual in [false, true] {
                let found = calls(backend, whole, 0..channels, 0..len, residual);
                for run in 0..outer * channels {
                    let (channel, elements) = (run % channels, run * inner..(run + 1) * inner);
                    let expected = calls(backend, alone, channel..channel + 1, elements.clone(), residual);
                    assert!(!expected[0].iter().any(|y| y.is_nan()), "a call that writes nothing would pass");
                    for (result, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        assert!(
                            same_bits(&found[elements.clone()], expected),
                            "result {result} of run {run} of {outer} x {channels} x {inner}, {activation:?}, {residual}, {backend:?}"
                        );
                    }
                }
            }
        }
    }
}

/// A column that needs f64 is worked alone if few of its tile do, and with its tile if many do. It has the same results both
/// ways, and its neighbours have those that they have without it: wherever the column is, in rows that are whole tiles or not.
#[test]
fn numeric_contract_columns_in_f64_have_the_same_bits_alone_and_among_others() {
    columns_in_f64(Relu);
    columns_in_f64(Silu);
}

fn columns_in_f64(activation: impl Activation) {
    for [rows, channels] in [[37, 48], [20, 41], [70, 5], [5, 530], [259, 32]] {
        let mut problem = Problem::new([rows, channels, 1], Data::Ordinary, Some(0.3), 1);
        problem.config.granularity = Granularity::Element;
        let residual: Vec<f32> = problem.x.iter().rev().copied().collect();
        let bias: Vec<f32> = (0..channels).map(|channel| channel as f32 / 128.0 - 1.0).collect();
        for backend in expected_backends() {
            let layer = problem.layer(activation, Some(backend));
            let mut mask = vec![0; layer.mask_len()];
            layer.fill_mask(1, &mut mask).expect("a mask of the right length");
            for residual in [None, Some(&residual[..])] {
                // y, dx, the gradient of the residual, and the gradients of weight and bias in the last row.
                let calls = |is_small: &dyn Fn(usize) -> bool| {
                    let weight: Vec<f32> =
                        (0..channels).map(|channel| if is_small(channel) { 1e-31 } else { 1.5 }).collect();
                    let parameters = Parameters { weight: Some(&weight), bias: Some(&bias) };
                    let (mut mean, mut mean_tail) = (vec![f32::NAN; channels], vec![f32::NAN; channels]);
                    let (mut inv_std, mut scratch) = (vec![f64::NAN; channels], vec![f64::NAN; layer.scratch_len()]);
                    let [mut y, mut dx, mut d_residual] = [(); 3].map(|()| vec![f32::NAN; problem.x.len()]);
                    let (mut d_weight, mut d_bias) = (vec![f32::NAN; channels], vec![f32::NAN; channels]);
                    let (dropout, input) = (Dropout::Mask(&mask), &problem.x[..]);
                    let saved = SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std };
                    layer
                        .train(Train {
                            parameters,
                            running: None,
                            dropout,
                            input,
                            residual,
                            output: &mut y,
                            saved,
                            scratch: &mut scratch,
                        })
                        .expect("buffers of the right lengths");
                    layer
                        .backward(Backward {
                            parameters,
                            statistics: Statistics::Batch(Saved {
                                mean: &mean,
                                mean_tail: &mean_tail,
                                inv_std: &inv_std,
                            }),
                            dropout,
                            input,
                            residual,
                            grad_output: &problem.dy,
                            grad_input: Some(&mut dx),
                            grad_residual: residual.map(|_| &mut d_residual[..]),
                            grad_parameters: ParameterGradients::new(&mut d_weight, &mut d_bias),
                            scratch: &mut scratch,
                        })
                        .expect("buffers of the right lengths");
                    [y, dx, d_residual, [d_weight, d_bias].concat()]
                };
                let (none, all) = (calls(&|_| false), calls(&|_| true));
                assert!(none[..2].iter().chain(&all[..2]).flatten().all(|value| value.is_finite()));
                assert!(!same_bits(&none[1], &all[1]), "the weights would not matter");
                for few in [&[0][..], &[1], &[channels - 1], &[0, 2, 3, 4], &[0, 1, 2, 3, 4], &[2, channels / 2]] {
                    let found = calls(&|channel| few.contains(&channel));
                    for (result, found) in found.iter().enumerate() {
                        let expected: Vec<f32> = (0..found.len())
                            .map(|index| if few.contains(&(index % channels)) { &all } else { &none }[result][index])
                            .collect();
                        assert!(
                            same_bits(found, &expected),
                            "result {result} of {rows} x {channels}, {few:?} in f64, {activation:?}, {backend:?}"
                        );
                    }
                }
            }
        }
    }
}

/// Whether two slices have the same bits.
fn same_bits(some: &[f32], others: &[f32]) -> bool {
    some.len() == others.len() && some.iter().zip(others).all(|(some, other)| some.to_bits() == other.to_bits())
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo).
struct Digest(u64);

impl Digest {
    const EMPTY: Self = Self(0xCBF2_9CE4_8422_2325);

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

/// The digest of all results of a fixed corpus, as recorded. It changes when any bit of any result does: that is a
/// change of the numeric contract, to be made knowingly and noted in the changelog.
const RECORDED: u64 = 0x8ea0_3b2a_4dd9_d9b7;

#[test]
fn the_bits_are_the_same_on_every_target_as_recorded() {
    let mut digest = Digest::EMPTY;
    let mut results = Results::default();
    for (number, &(walk, _)) in (1..).zip(WALKS) {
        if walk.iter().product::<usize>() < SMALL {
            for (data, p) in [(Data::Ordinary, None), (Data::Offset, Some(0.5)), (Data::ByChannel, Some(0.1))] {
                let problem = Problem::new(walk, data, p, number);
                digest.add(problem.mask.as_deref().unwrap_or_default());
                run(&problem.layer(Identity, None), &problem, &mut results);
                results.bits.iter().for_each(|bits| digest.add(&bits.to_le_bytes()));
                run(&problem.layer(Relu, None), &problem, &mut results);
                results.bits.iter().for_each(|bits| digest.add(&bits.to_le_bytes()));
            }
        }
    }
    assert_eq!(digest.0, RECORDED, "{:#018x} instead of {RECORDED:#018x}", digest.0);
}

/// The digests of all results of the walks that are too large for that corpus, in strips, and for several tasks.
const RECORDED_LARGE: [u64; 31] = [
    0x5104_67c3_6934_dc65,
    0xa050_507c_57bd_1b91,
    0x4c49_6d83_f3c8_74f1,
    0x34f1_97ef_b6f1_0434,
    0xaaf8_b80e_a672_d523,
    0x83f6_7330_d55b_7a61,
    0xd54c_3cba_4756_f3a4,
    0xca15_e4f1_bdbc_7f66,
    0x62c3_9e27_a3c7_981a,
    0x6445_0f71_b8fe_0856,
    0x4aeb_cc71_ca2d_8aad,
    0x908e_2451_f3ad_880b,
    0x0a5f_215a_4ccf_21e5,
    0xada3_9377_d8f0_bcf4,
    0xfdd7_ccc0_40ce_a249,
    0x1ab8_3781_1cac_ac35,
    0x6103_6633_3485_7cb8,
    0x6831_0d27_a9f8_5b91,
    0x268f_00d6_ea30_ab5b,
    0xd458_6c6c_b9ec_f4e2,
    0x595b_6492_ade0_1d3f,
    0x658e_578d_54d9_d2db,
    0xf3c0_431d_00a3_141d,
    0xaf3b_7c4b_70e1_ac2c,
    0x0a52_2c2c_ebdc_510c,
    0xaf6a_e591_0e42_94ed,
    0x40bd_1689_82e8_6e96,
    0x579b_e56f_52f1_ba57,
    0x48d5_2f9a_1ac7_a834,
    0x851b_b44b_4ceb_c1e0,
    0xdf83_522c_245f_de59,
];

#[test]
fn the_bits_of_larger_tensors_are_the_same_on_every_target_as_recorded() {
    let (mut found, mut results) = (Vec::new(), Results::default());
    for (number, &(walk, _)) in (1..).zip(WALKS.iter().chain(STRIPS).chain(LARGE)) {
        if walk.iter().product::<usize>() >= SMALL {
            let mut digest = Digest::EMPTY;
            // With channels that need f64 among the others, and without: those are worked in other loops.
            for data in [Data::ByChannel, Data::Ordinary] {
                let problem = Problem::new(walk, data, Some(0.1), number);
                digest.add(problem.mask.as_deref().unwrap_or_default());
                run(&problem.layer(Relu, None), &problem, &mut results);
                results.bits.iter().for_each(|bits| digest.add(&bits.to_le_bytes()));
            }
            found.push(digest.0);
        }
    }
    assert_eq!(found, RECORDED_LARGE, "{found:#018x?}");
}

/// Tensors of four parts, the elements of a whole part of each, and the digest of its statistics.
const FOUR_PARTS: [([usize; 3], usize, u64); 2] = [
    // planar: one run a block, three parts of 256 blocks and one of 132
    ([900, 2, 129], 256 * 2 * 129, 0x14d8_6c43_0def_dce2),
    // columns: three parts of 4096 rows and one of twelve
    ([12_300, 144, 1], 4096 * 144, 0xaf08_4d31_4134_3623),
];

#[test]
fn the_bits_of_statistics_of_four_parts_with_different_means_are_the_same_on_every_target_as_recorded() {
    for (shape, of_part, recorded) in FOUR_PARTS {
        let mut problem = Problem::new(shape, Data::Ordinary, None, 1);
        for (element, x) in problem.x.iter_mut().enumerate() {
            *x += [0.0, 8.0, -16.0, 4.0][element / of_part];
        }
        for backend in expected_backends() {
            let layer = problem.layer(Identity, Some(backend));
            let (len, channels) = (problem.shape.len(), problem.shape.channels());
            let (mut mean, mut mean_tail) = (vec![BEFORE; channels], vec![BEFORE; channels]);
            let mut inv_std = vec![f64::from(BEFORE); channels];
            layer
                .train(Train {
                    parameters: Parameters { weight: None, bias: None },
                    running: None,
                    dropout: Dropout::Off,
                    input: &problem.x,
                    output: &mut vec![BEFORE; len],
                    saved: SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std },
                    residual: None,
                    scratch: &mut vec![f64::from(BEFORE); layer.train_scratch_len()],
                })
                .expect("a training call without faults");
            let mut digest = Digest::EMPTY;
            mean.iter().chain(&mean_tail).for_each(|value| digest.add(&value.to_le_bytes()));
            inv_std.iter().for_each(|value| digest.add(&value.to_le_bytes()));
            assert_eq!(digest.0, recorded, "{shape:?}, {}: {:#018x}", backend.name(), digest.0);
        }
    }
}

/// The digests of all results of a smaller corpus, activation by activation in the order of the tests' table.
const RECORDED_ACTIVATIONS: [u64; ACTIVATIONS] = [
    0x1051_888a_4d78_41ca,
    0x44af_68c6_7b4d_cf2a,
    0xc808_c240_fe80_251a,
    0xfc83_f55e_271c_acf6,
    0x4209_ff5d_bb63_40aa,
    0x2e54_8101_94e1_3cd6,
    0xc5f8_61c8_128e_53fe,
    0x1eb2_8a01_4c82_1172,
    0xf7d5_2233_e8b3_a2b6,
    0x5c36_227f_2992_f70e,
    0xe9ec_51e0_fb46_f0a6,
    0x001f_ce3b_9fad_e98e,
    0xcc06_bc99_772a_3b0e,
    0xeb7b_a9f5_7b76_9872,
];

/// The digest of one activation.
struct DigestOf<'a>(&'a [Problem]);

impl Visitor for DigestOf<'_> {
    type Result = u64;

    fn visit<A: Oracle>(self) -> u64 {
        let (mut digest, mut results) = (Digest::EMPTY, Results::default());
        for problem in self.0 {
            run(&problem.layer(A::ACTIVATION, None), problem, &mut results);
            results.bits.iter().for_each(|bits| digest.add(&bits.to_le_bytes()));
        }
        digest.0
    }
}

#[test]
fn the_bits_of_every_activation_are_the_same_on_every_target_as_recorded() {
    let kinds = (0..11).map(|number| (Data::number(number), [None, Some(0.1)][number % 2]));
    let problems: Vec<Problem> =
        kinds.flat_map(|(data, p)| [[5, 2, 129], [519, 6, 1]].map(|shape| Problem::new(shape, data, p, 1))).collect();
    let found: Vec<u64> = (0..ACTIVATIONS).map(|number| with_activation(number, DigestOf(&problems))).collect();
    assert_eq!(found, RECORDED_ACTIVATIONS, "{found:#018x?}");
}
