//! The checked-in seeds: one input for each way in which other libraries broke, and for each boundary of the kernels.
//!
//! `cargo run --release --example seeds` writes them; the tests compare them with the files and run them all.

use arbitrary::{Arbitrary, Unstructured};

use crate::case::NAMES;
use crate::encode::Encode;
use crate::input::{
    Activation, CapiInput, ConfigInput, Dimension, Eps, Fault, FoldInput, Fraction, Function, Gates, Granularity,
    Guard, LayerInput, Mask, MaskInput, MaskWithInput, PhasesInput, Poke, ShapeInput, Size, Values, WrongLength,
};
use crate::targets;

/// One input of one kind.
#[derive(Debug, Clone)]
pub struct Seed {
    /// The folder: the name of a target, or `layer` for the five targets that call a whole layer.
    pub folder: &'static str,
    /// The name of the file.
    pub name: String,
    /// What is in the file.
    pub bytes: Vec<u8>,
}

/// Lengths on either side of every boundary of vectors, blocks, groups and parts.
const BOUNDARIES: [u16; 9] = [255, 256, 257, 511, 512, 513, 4095, 4096, 4097];

/// Every seed.
#[must_use]
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |folder, inputs: Vec<(String, Vec<u8>)>| {
        seeds.extend(inputs.into_iter().map(|(name, bytes)| Seed { folder, name, bytes }));
    };
    add("shape", encoded(placed(shapes(), |input| &mut input.guard)));
    add("config", encoded(configs()));
    add("mask", encoded(placed(masks(), |input| &mut input.guard)));
    add("mask_with", encoded(placed(masks_with(), |input| &mut input.guard)));
    add("fold", encoded(placed(folds(), |input| &mut input.guard)));
    let layers = [shaped(), lengths(), data(), constants(), gradients()].concat();
    add("layer", encoded(placed(layers, |input| &mut input.guard)));
    add("phases", encoded(placed(phases(), |input| &mut input.layer.guard)));
    add("capi", encoded(placed(calls_of_c(), |input| &mut input.layer.guard)));
    seeds
}

/// Runs a seed through the targets of its folder, as the fuzzer would.
///
/// # Panics
/// If the bytes are not an input, or the crate breaks a promise.
pub fn run(folder: &str, bytes: &[u8]) {
    match folder {
        "shape" => targets::shape(&decoded(bytes)),
        "config" => targets::config(&decoded(bytes)),
        "mask" => targets::mask(&decoded(bytes)),
        "mask_with" => targets::mask_with(&decoded(bytes)),
        "fold" => targets::fold(&decoded(bytes)),
        "phases" => targets::phases(&decoded(bytes)),
        "capi" => targets::capi(&decoded(bytes)),
        "layer" => {
            let input = decoded(bytes);
            targets::train(&input);
            targets::eval(&input);
            targets::eval_in_place(&input);
            targets::backward(&input);
            targets::backward_in_place(&input);
            targets::prelu(&input);
        }
        _ => panic!("no target takes seeds of {folder}"),
    }
}

fn decoded<'a, T: Arbitrary<'a>>(bytes: &'a [u8]) -> T {
    T::arbitrary_take_rest(Unstructured::new(bytes)).expect("plain fields can be read from any bytes")
}

fn encoded<T: Encode>(inputs: Vec<(String, T)>) -> Vec<(String, Vec<u8>)> {
    inputs.into_iter().map(|(name, input)| (name, input.encoded())).collect()
}

/// The inputs with their buffers in each place in turn, but those that ask for one.
fn placed<T>(mut inputs: Vec<(String, T)>, guard: fn(&mut T) -> &mut Guard) -> Vec<(String, T)> {
    for ((name, input), &place) in inputs.iter_mut().zip(Guard::ALL.iter().cycle()) {
        if !name.contains("misaligned") {
            *guard(input) = place;
        }
    }
    inputs
}

type Layers = Vec<(String, LayerInput)>;

/// A layer of a shape, with everything else as usual.
fn layer(outer: u16, channels: u16, inner: u16) -> LayerInput {
    LayerInput { size: Size::Large, outer, channels, inner, ..LayerInput::default() }
}

/// The number of a class of data.
fn class(name: &str) -> u8 {
    let classes = normdrop_reference::classes::CLASSES;
    let number = classes.iter().position(|class| class.name == name).expect("the class exists");
    u8::try_from(number).expect("there are few classes")
}

/// Single samples, empty dimensions, short lengths and the boundaries of blocks, in all layouts.
fn shaped() -> Layers {
    let mut seeds = vec![
        ("one_sample".to_owned(), layer(1, 7, 1)),
        ("one_sample_of_one_channel".to_owned(), layer(1, 1, 1)),
        ("one_sample_biased".to_owned(), LayerInput { biased: true, ..layer(1, 7, 1) }),
        ("one_sample_and_no_running".to_owned(), LayerInput { has_running: false, ..layer(1, 20, 1) }),
        ("empty_outer".to_owned(), layer(0, 5, 7)),
        ("empty_channels".to_owned(), layer(3, 0, 7)),
        ("empty_inner".to_owned(), layer(3, 5, 0)),
        ("empty_everything".to_owned(), layer(0, 0, 0)),
        ("rows_share_a_vector".to_owned(), layer(1025, 3, 1)),
        ("rows_share_a_vector_two_columns_each".to_owned(), layer(131, 3, 2)),
        ("more_columns_than_a_strip".to_owned(), layer(5, 1031, 1)),
        ("more_columns_than_a_strip_of_inner_3".to_owned(), layer(3, 515, 3)),
        ("misaligned".to_owned(), LayerInput { misalign: 1, scratch_extra: 3, ..layer(9, 21, 5) }),
    ];
    for length in 0..=17 {
        seeds.push((format!("length_{length:02}_inner"), layer(2, 2, length)));
        seeds.push((format!("length_{length:02}_channels"), layer(3, length, 1)));
        seeds.push((format!("length_{length:02}_of_one_channel"), layer(length, 1, 1)));
    }
    for length in BOUNDARIES {
        seeds.push((format!("boundary_{length:04}_inner"), layer(1, 2, length)));
        seeds.push((format!("boundary_{length:04}_outer"), layer(length, 3, 1)));
    }
    seeds
}

/// Every buffer too short, too long and empty.
fn lengths() -> Layers {
    let mut seeds = Vec::new();
    for (number, name) in (0..).zip(NAMES) {
        let name = name.name().replace(' ', "_");
        for (what, by) in [("too_short", -1), ("too_long", 1), ("missing", i8::MIN)] {
            let wrong = [WrongLength { buffer: number, by }, WrongLength::default()];
            // Running statistics and inputs of backward calls are used by one half of the calls each.
            let fixed_statistics = name.starts_with("running");
            seeds.push((
                format!("{name}_{what}"),
                LayerInput { wrong, fixed_statistics, has_residual: true, ..layer(4, 9, 2) },
            ));
        }
    }
    seeds
}

/// Data that other libraries lose.
fn data() -> Layers {
    let mut seeds = Vec::new();
    for (name, class_name) in [
        ("constant", "constant"),
        ("offset_1e6", "offset -1e6"),
        ("offset_1e7", "offset 1e7"),
        ("1e30", "1e30"),
        ("1e30_with_an_offset", "1e30 with an offset"),
        ("3e38_of_both_signs", "3e38 of both signs"),
        ("3e38", "3e38"),
        ("first_value_an_outlier", "first value an outlier"),
        ("alternating_1e8_and_1e-3", "alternating 1e8 and 1e-3"),
        ("subnormal", "subnormal"),
        ("variance_below_eps", "small offset"),
        ("all_magnitudes", "all magnitudes"),
        ("lattice", "lattice"),
        ("nan", "one NaN"),
        ("infinity", "one Inf"),
    ] {
        let x = Values { class: class(class_name), ..Values::default() };
        seeds.push((format!("{name}_planar"), LayerInput { x: x.clone(), ..layer(5, 3, 60) }));
        seeds.push((format!("{name}_columns"), LayerInput { x, ..layer(150, 7, 1) }));
    }
    let any_bits = u8::try_from(normdrop_reference::classes::CLASSES.len()).expect("there are few classes");
    let x = Values { class: any_bits, ..Values::default() };
    seeds.push(("any_bits".to_owned(), LayerInput { x: x.clone(), dy: x, ..layer(3, 50, 1) }));
    let x = Values { mixed: true, ..Values::default() };
    seeds.push(("a_class_per_channel".to_owned(), LayerInput { x, ..layer(33, 40, 1) }));
    seeds
}

/// Constants at the ends of their ranges.
fn constants() -> Layers {
    let base = || layer(6, 4, 5);
    let nan = f32::NAN.to_bits();
    // The tensors are numbered as the case has them: 4 and 5 are the running statistics.
    let nan_running = (0..8).map(|index| Poke { tensor: 4 + (index % 2) as u8, index: index / 2, bits: nan }).collect();
    let nan_running: Vec<Poke> = nan_running;
    let infinite = || Values { class: class("one -Inf"), seed: 30069, exponent: 117, mixed: false };
    vec![
        ("p_0".to_owned(), LayerInput { p: Fraction::Zero, ..base() }),
        ("p_half".to_owned(), LayerInput { p: Fraction::Half, ..base() }),
        ("p_1".to_owned(), LayerInput { p: Fraction::One, ..base() }),
        ("p_1_of_all_kept".to_owned(), LayerInput { p: Fraction::One, mask: Mask::AllKept, ..base() }),
        ("p_almost_1".to_owned(), LayerInput { p: Fraction::AlmostOne, mask: Mask::Random, ..base() }),
        (
            "p_1_of_infinite_data".to_owned(),
            LayerInput {
                p: Fraction::One,
                x: Values { class: class("one Inf"), ..Values::default() },
                dy: Values { class: class("one Inf"), ..Values::default() },
                ..base()
            },
        ),
        ("all_dropped".to_owned(), LayerInput { mask: Mask::AllDropped, ..base() }),
        ("no_dropout".to_owned(), LayerInput { mask: Mask::Off, ..base() }),
        ("eps_0".to_owned(), LayerInput { eps: Eps::Zero, fixed_statistics: true, ..base() }),
        ("eps_smallest".to_owned(), LayerInput { eps: Eps::Smallest, ..base() }),
        ("momentum_0".to_owned(), LayerInput { momentum: Fraction::Zero, pokes: nan_running.clone(), ..base() }),
        ("momentum_1".to_owned(), LayerInput { momentum: Fraction::One, pokes: nan_running.clone(), ..base() }),
        ("momentum_of_nan".to_owned(), LayerInput { pokes: nan_running, ..base() }),
        ("residual".to_owned(), LayerInput { has_residual: true, ..base() }),
        ("residual_and_no_dropout".to_owned(), LayerInput { has_residual: true, mask: Mask::Off, ..base() }),
        ("channel_mask".to_owned(), LayerInput { granularity: Granularity::Channel, ..base() }),
        ("sample_mask".to_owned(), LayerInput { granularity: Granularity::Sample, ..base() }),
        (
            "channel_mask_of_positions".to_owned(),
            LayerInput { granularity: Granularity::Channel, positions: 3, has_residual: true, ..layer(12, 20, 1) },
        ),
        (
            "sample_mask_of_positions".to_owned(),
            LayerInput { granularity: Granularity::Sample, positions: 3, ..layer(12, 20, 1) },
        ),
        ("no_running_mean_tail".to_owned(), LayerInput { has_mean_tail: false, ..base() }),
        ("negative_var".to_owned(), LayerInput { negative_var: true, fixed_statistics: true, ..base() }),
        ("running_var_biased".to_owned(), LayerInput { biased: true, ..base() }),
        ("average_of_the_first_batch".to_owned(), LayerInput { cumulative: true, ..base() }),
        ("average_of_the_fourth_batch".to_owned(), LayerInput { cumulative: true, momentum_bits: 3, ..base() }),
        (
            // In f32 a product overflows to the opposite infinity.
            "infinite_bias".to_owned(),
            LayerInput {
                activation: Activation::Relu,
                mask: Mask::Off,
                x: infinite(),
                weight: infinite(),
                bias: Values { seed: 29127, exponent: 28, ..infinite() },
                running_var: infinite(),
                ..base()
            },
        ),
        ("no_parameters".to_owned(), LayerInput { has_weight: false, has_bias: false, has_running: false, ..base() }),
    ]
}

/// What is special to backward, and dropped elements that are not finite.
fn gradients() -> Layers {
    let base = || layer(4, 3, 21);
    vec![
        ("frozen".to_owned(), LayerInput { fixed_statistics: true, ..base() }),
        (
            "nan_under_dropped_elements".to_owned(),
            LayerInput { nan_under_dropped: true, fixed_statistics: true, ..base() },
        ),
        ("nan_gradient_under_dropped_elements".to_owned(), LayerInput { nan_under_dropped: true, ..base() }),
        ("foreign_saved".to_owned(), LayerInput { foreign_saved: true, ..base() }),
        (
            "residual_gradient_alone".to_owned(),
            LayerInput { has_residual: true, wants_input: false, wants_weight: false, wants_bias: false, ..base() },
        ),
        ("input_gradient_alone".to_owned(), LayerInput { wants_weight: false, wants_bias: false, ..base() }),
        ("parameter_gradients_alone".to_owned(), LayerInput { wants_input: false, ..base() }),
        ("identity".to_owned(), LayerInput { activation: Activation::Identity, ..base() }),
        ("relu6".to_owned(), LayerInput { activation: Activation::Relu6, ..base() }),
        ("leaky_relu".to_owned(), LayerInput { activation: Activation::LeakyRelu, ..base() }),
        ("hard_swish".to_owned(), LayerInput { activation: Activation::HardSwish, ..base() }),
        ("sigmoid".to_owned(), LayerInput { activation: Activation::Sigmoid, ..base() }),
        ("tanh".to_owned(), LayerInput { activation: Activation::Tanh, ..base() }),
        ("silu".to_owned(), LayerInput { activation: Activation::Silu, ..base() }),
        ("gelu_tanh".to_owned(), LayerInput { activation: Activation::GeluTanh, ..base() }),
        ("gelu".to_owned(), LayerInput { activation: Activation::Gelu, ..base() }),
        ("elu".to_owned(), LayerInput { activation: Activation::Elu, ..base() }),
        ("selu".to_owned(), LayerInput { activation: Activation::Selu, ..base() }),
        ("mish".to_owned(), LayerInput { activation: Activation::Mish, ..base() }),
        ("softplus".to_owned(), LayerInput { activation: Activation::Softplus, ..base() }),
        (
            "large_gradients".to_owned(),
            LayerInput { dy: Values { class: class("3e38"), ..Values::default() }, ..base() },
        ),
        // Channels that are computed in f64 with the bias, and would not be without it.
        ("large_bias".to_owned(), LayerInput { bias: Values { seed: 4, exponent: 93, ..Values::default() }, ..base() }),
    ]
}

/// Batches in one part, in several and in empty ones; wrong lengths, data and constants in two.
fn phases() -> Vec<(String, PhasesInput)> {
    let in_parts = |parts, cuts, layer| PhasesInput { parts, cuts, layer };
    let mut seeds = Vec::new();
    for (name, shape) in [
        ("planar", layer(7, 3, 60)),
        ("blocks", layer(5, 2, 300)),
        ("columns", layer(300, 7, 1)),
        ("narrow", layer(41, 1, 1)),
        ("wide", layer(9, 600, 1)),
        ("short_runs", layer(9, 7, 5)),
        ("positions", LayerInput { positions: 3, ..layer(30, 20, 1) }),
    ] {
        let residual = LayerInput { has_residual: true, ..shape.clone() };
        seeds.push((format!("{name}_whole"), in_parts(1, [0; 3], shape.clone())));
        seeds.push((format!("{name}_in_2"), in_parts(2, [3, 0, 0], residual)));
        seeds.push((format!("{name}_in_4"), in_parts(4, [1, 2, 4], shape.clone())));
        seeds.push((format!("{name}_with_empty_parts"), in_parts(4, [0, 2, 2], shape.clone())));
        seeds.push((
            format!("{name}_past_fixed_statistics"),
            in_parts(3, [2, 5, 0], LayerInput { fixed_statistics: true, ..shape }),
        ));
    }
    seeds.push(("one_sample_a_part".to_owned(), in_parts(2, [1, 0, 0], layer(2, 5, 1))));
    let biased = LayerInput { biased: true, ..layer(1, 5, 1) };
    seeds.push(("one_sample_in_parts_biased".to_owned(), in_parts(2, [1, 0, 0], biased)));
    let frozen = LayerInput { negative_var: true, fixed_statistics: true, ..layer(6, 5, 1) };
    seeds.push(("negative_var_in_parts".to_owned(), in_parts(2, [3, 0, 0], frozen)));
    let others = shaped().into_iter().filter(|(name, _)| name.starts_with("one_") || name.starts_with("empty_"));
    for (name, layer) in others.chain(lengths()).chain(data()).chain(constants()).chain(gradients()) {
        seeds.push((name, in_parts(2, [2, 0, 0], layer)));
    }
    seeds
}

/// Every function of the C interface with every fault of a buffer, and every other fault.
fn calls_of_c() -> Vec<(String, CapiInput)> {
    let of = |number: usize, function, fault| CapiInput {
        function,
        fault,
        buffer: u8::try_from(number % 14).expect("a small number"),
        other: u8::try_from(number % 5).expect("a small number"),
        by: 0,
        backend: u8::try_from(number % 4).expect("a small number"),
        gates: Gates::LeftOut,
        layer: LayerInput { has_residual: true, fixed_statistics: number.is_multiple_of(2), ..layer(4, 5, 6) },
    };
    let of_buffers = [
        Fault::Nothing,
        Fault::NullBuffer,
        Fault::MisalignedBuffer,
        Fault::HugeBuffer,
        Fault::WrappingBuffer,
        Fault::Overlap,
    ];
    let mut seeds = Vec::new();
    for (number, &function) in Function::ALL.iter().enumerate() {
        for (fault_number, fault) in of_buffers.into_iter().enumerate() {
            let input = of(5 * number + 3 * fault_number, function, fault);
            seeds.push((format!("{function:?}_{fault:?}"), input));
        }
    }
    // Halves: of the tensors that are read (bf16, f16 or none), and of those that are written.
    let with_halves = [
        Function::Train,
        Function::Eval,
        Function::EvalInPlace,
        Function::Backward,
        Function::BackwardInPlace,
        Function::Moments,
        Function::Apply,
        Function::Reduce,
        Function::ApplyGradient,
    ];
    for (number, function) in with_halves.into_iter().enumerate() {
        for (way, by) in [("both", 0b0110), ("others", 0b1001), ("read", 0b0010), ("written", 0b0100)] {
            let input = CapiInput { by, other: 0, ..of(number, function, Fault::Nothing) };
            seeds.push((format!("{function:?}_halves_{way}"), input));
        }
    }
    for (number, function) in [Function::Train, Function::Eval, Function::Backward].into_iter().enumerate() {
        for (way, gates, seed) in [
            ("lengths", Gates::LeftOut, 1),
            ("bits", Gates::LeftOut, 2),
            ("gates", Gates::Over, 3),
            ("gates_beside", Gates::Beside, 4),
        ] {
            let mut input = CapiInput { other: 1, by: 0, gates, ..of(number, function, Fault::Nothing) };
            input.layer.mask_seed = seed;
            seeds.push((format!("{function:?}_masked_{way}"), input));
        }
    }
    for (number, &fault) in Fault::ALL.iter().enumerate().filter(|(_, fault)| !of_buffers.contains(fault)) {
        let function = [Function::Backward, Function::Reduce, Function::Train][number % 3];
        let function = if fault == Fault::Statistics { Function::Backward } else { function };
        let mut input = of(number, function, fault);
        input.layer.activation = Activation::LeakyRelu;
        seeds.push((format!("{fault:?}"), input));
    }
    let with_gates = [
        Function::Train,
        Function::Eval,
        Function::Apply,
        Function::Backward,
        Function::BackwardInPlace,
        Function::Reduce,
        Function::ApplyGradient,
    ];
    for (number, function) in with_gates.into_iter().enumerate() {
        let ways = [("beside_the_mask", Gates::Beside), ("over_the_mask", Gates::Over)];
        for ((way, gates), fault) in ways.into_iter().flat_map(|way| of_buffers.map(|fault| (way, fault))) {
            // The gates come after a few buffers that are read.
            let buffer = 3 + u8::try_from(number).expect("a small number");
            let input = CapiInput { gates, buffer, ..of(2 * number + fault as usize, function, fault) };
            seeds.push((format!("{function:?}_{fault:?}_gates_{way}"), input.clone()));
            if fault != Fault::Nothing {
                continue;
            }
            let layer = &input.layer;
            let gates = u8::try_from(NAMES.len() - 1).expect("a small number");
            let wrong = [WrongLength { buffer: gates, by: -1 }, WrongLength::default()];
            for (what, layer) in [
                ("of_gelu", LayerInput { activation: Activation::Gelu, ..layer.clone() }),
                ("without_a_mask", LayerInput { activation: Activation::Identity, mask: Mask::Off, ..layer.clone() }),
                ("at_p_0", LayerInput { p: Fraction::Zero, mask: Mask::Off, ..layer.clone() }),
                ("of_channels", LayerInput { granularity: Granularity::Channel, ..layer.clone() }),
                ("too_short", LayerInput { wrong, ..layer.clone() }),
            ] {
                seeds.push((format!("{function:?}_gates_{way}_{what}"), CapiInput { layer, ..input.clone() }));
            }
        }
    }
    // Two buffers that are read in one memory, and one that is written a value further on in another.
    seeds.push((
        "weight_is_bias".to_owned(),
        CapiInput { buffer: 0, other: 1, ..of(1, Function::Train, Fault::Overlap) },
    ));
    let shifted = CapiInput { buffer: 7, other: 3, by: 4, ..of(1, Function::Eval, Fault::Overlap) };
    seeds.push(("output_one_value_past_input".to_owned(), shifted));
    seeds
}

fn shapes() -> Vec<(String, ShapeInput)> {
    use Dimension::{FractionOfMax, PowerOfTwo, Value};
    let of = |kinds, values| ShapeInput { kinds, values, lengths: [0; 4], guard: Guard::Heap };
    let sixteenth = [PowerOfTwo; 5];
    vec![
        ("small".to_owned(), ShapeInput { lengths: [24, 3, 3, 255], ..of([Value; 5], [2, 3, 4, 1, 1]) }),
        ("one_sample".to_owned(), ShapeInput { lengths: [1, 1, 1, 255], ..of([Value; 5], [1; 5]) }),
        ("overflow_by_one_bit".to_owned(), of(sixteenth, [16, 16, 32, 0, 0])),
        ("just_fits".to_owned(), of(sixteenth, [16, 16, 31, 0, 0])),
        ("product_of_32_bits".to_owned(), of(sixteenth, [16, 16, 0, 0, 0])),
        ("max".to_owned(), of([FractionOfMax; 5], [1; 5])),
        ("zero_beside_overflow".to_owned(), of([FractionOfMax, FractionOfMax, Value, Value, Value], [1, 1, 0, 2, 2])),
        ("zero_samples_of_max".to_owned(), of([Value, FractionOfMax, FractionOfMax, Value, Value], [0, 1, 1, 2, 2])),
    ]
}

fn configs() -> Vec<(String, ConfigInput)> {
    let of = |eps: f32, momentum: f64, p: f64| ConfigInput {
        eps: eps.to_bits(),
        momentum: momentum.to_bits(),
        p: p.to_bits(),
    };
    vec![
        ("usual".to_owned(), of(1e-5, 0.1, 0.1)),
        ("ends".to_owned(), of(0.0, 0.0, 0.0)),
        ("other_ends".to_owned(), of(f32::MAX, 1.0, 1.0)),
        ("nan".to_owned(), of(f32::NAN, f64::NAN, f64::NAN)),
        ("p_nan".to_owned(), of(1e-5, 0.1, f64::NAN)),
        ("p_below_0".to_owned(), of(1e-5, 0.1, -f64::from_bits(1))),
        ("p_above_1".to_owned(), of(1e-5, 0.1, 1.0 + f64::EPSILON)),
        ("negative_zero".to_owned(), of(-0.0, -0.0, -0.0)),
        ("infinite".to_owned(), of(f32::INFINITY, f64::INFINITY, f64::INFINITY)),
        // `(1-p) * 2^32` on either side of a half.
        ("p_rounds_up".to_owned(), of(1e-5, 0.1, 1.0 - 1.5 / (1u64 << 32) as f64)),
        ("p_rounds_to_1".to_owned(), of(1e-5, 0.1, 1.0 - 0.25 / (1u64 << 32) as f64)),
    ]
}

/// Probabilities of which a mask costs no, one, some and all 32 bits an element.
const PROBABILITIES: [(&str, f64); 6] = [
    ("0", 0.0),
    ("tenth", 0.1),
    ("half", 0.5),
    ("1", 1.0),
    ("almost_1", 1.0 - 1.0 / (1u64 << 32) as f64),
    ("nan", f64::NAN),
];

fn masks() -> Vec<(String, MaskInput)> {
    let of = |p: f64, first, elements| MaskInput {
        p: p.to_bits(),
        seed: 42,
        first,
        elements,
        wrong: 0,
        guard: Guard::Heap,
        misalign: 0,
    };
    let mut seeds = vec![
        ("too_short".to_owned(), MaskInput { wrong: -1, ..of(0.1, 0, 100) }),
        ("too_long".to_owned(), MaskInput { wrong: 1, ..of(0.1, 0, 100) }),
        ("far_away".to_owned(), of(0.1, u64::MAX - 5000, 4000)),
        ("past_the_end".to_owned(), of(0.1, u64::MAX - 5, 1000)),
        ("between_bytes".to_owned(), MaskInput { misalign: 3, ..of(0.1, 4093, 1030) }),
        ("between_groups".to_owned(), of(0.1, 520, 5000)),
    ];
    for (name, p) in PROBABILITIES {
        seeds.push((format!("p_{name}"), of(p, 0, 1000)));
    }
    for elements in 0..=17 {
        seeds.push((format!("length_{elements:02}"), of(0.1, 0, elements)));
    }
    for elements in BOUNDARIES {
        seeds.push((format!("boundary_{elements:04}"), of(0.1, 1, elements)));
    }
    seeds
}

/// The orders of weights, by their numbers in the inputs.
const ORDERS: [&str; 6] = ["out_in_taps", "out_taps_in", "in_out_taps", "in_taps_out", "taps_in_out", "taps_out_in"];

fn folds() -> Vec<(String, FoldInput)> {
    let mut seeds = Vec::new();
    for (direction, into_next) in [("previous", false), ("next", true)] {
        let base = || FoldInput {
            into_next,
            order: 0,
            dims: [3, 4, 5],
            groups: 1,
            uneven: false,
            eps: 1e-5f32.to_bits(),
            has: [true; 4],
            values: [1, 2, 3, 4, 5, 6].map(|seed| Values { seed, ..Values::default() }),
            negative_var: false,
            guard: Guard::Heap,
            misalign: 0,
            wrong: WrongLength::default(),
            pokes: vec![],
        };
        let mut no_shift = FoldInput { has: [true, false, false, true], ..base() };
        no_shift.pokes = (0..5).map(|index| Poke { tensor: 2, index, bits: 0 }).collect();
        let mut cases = vec![
            ("usual", base()),
            ("no_parameters", FoldInput { has: [false, false, true, false], ..base() }),
            ("missing_bias", FoldInput { has: [true, true, false, true], ..base() }),
            ("no_shift", no_shift),
            ("negative_var", FoldInput { negative_var: true, ..base() }),
            ("eps_0", FoldInput { eps: 0, ..base() }),
            ("eps_nan", FoldInput { eps: f32::NAN.to_bits(), ..base() }),
            ("empty_outputs", FoldInput { dims: [0, 4, 5], ..base() }),
            ("empty_inputs", FoldInput { dims: [3, 0, 5], ..base() }),
            ("groups_0", FoldInput { groups: 0, ..base() }),
            ("groups_uneven", FoldInput { groups: 2, uneven: true, ..base() }),
            ("empty_taps", FoldInput { dims: [3, 4, 0], ..base() }),
            ("nan_mean", FoldInput { pokes: vec![Poke { tensor: 2, index: 1, bits: 0x7FC0_0000 }], ..base() }),
            ("infinite_var", FoldInput { pokes: vec![Poke { tensor: 3, index: 1, bits: 0x7F80_0000 }], ..base() }),
        ];
        let large = Values { class: class("3e38"), ..Values::default() };
        let tiny = Values { class: class("subnormal"), ..Values::default() };
        cases.push(("subnormal", FoldInput { values: std::array::from_fn(|_| tiny.clone()), ..base() }));
        for (order, name) in (0..).zip(ORDERS) {
            seeds.push((format!("{direction}_{name}"), FoldInput { order, ..base() }));
            seeds.push((format!("{direction}_{name}_grouped"), FoldInput { order, groups: 3, ..base() }));
        }
        cases.push(("large", FoldInput { values: std::array::from_fn(|_| large.clone()), ..base() }));
        for (buffer, name) in (0..).zip(["weight", "bias", "mean", "var", "weights", "fold_bias", "mean_tail"]) {
            let wrong = WrongLength { buffer, by: if buffer % 2 == 0 { 1 } else { -1 } };
            seeds.push((format!("{direction}_wrong_{name}"), FoldInput { wrong, ..base() }));
        }
        seeds.extend(cases.into_iter().map(|(name, input)| (format!("{direction}_{name}"), input)));
    }
    seeds
}

fn masks_with() -> Vec<(String, MaskWithInput)> {
    let of = |p: f64, elements, words| MaskWithInput {
        p: p.to_bits(),
        elements,
        wrong: 0,
        guard: Guard::Heap,
        misalign: 0,
        seed: 1,
        words,
    };
    let mut seeds = vec![
        ("too_short".to_owned(), MaskWithInput { wrong: -1, ..of(0.1, 100, vec![]) }),
        ("stuck_at_0".to_owned(), of(0.1, 600, vec![0; 100])),
        ("stuck_at_1".to_owned(), of(0.1, 600, vec![u32::MAX; 100])),
    ];
    for (name, p) in PROBABILITIES {
        seeds.push((format!("p_{name}"), of(p, 1000, vec![])));
    }
    for elements in [0, 1, 7, 8, 9, 511, 512, 513] {
        seeds.push((format!("length_{elements:03}"), of(0.5, elements, vec![0x1234_5678])));
    }
    seeds
}
