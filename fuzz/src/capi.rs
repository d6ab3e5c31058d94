//! The target of the C interface: the same call from Rust and through pointers, and pointers that must be refused.
#![expect(unsafe_code, reason = "calls with pointers, as C makes them")]

use std::ffi::CStr;
use std::ptr;

use normdrop::capi as c;
use normdrop::{
    Bf16, Buffer as Name, Error, F16, Fold, FoldPadding, Layer, Noise, Parameters, Running, Validity, WeightOrder,
    WeightShape,
};

use crate::buffer::{Bits, Buffer};
use crate::calls::{Visitor, alone, forward, scratch_len, with_activation};
use crate::case::{Case, Entry, Kept, Lengths, Memory, Merged};
use crate::input::{CapiInput, Fault, Function, Gates};
use crate::padded::Padding;

/// One call of a function of the C interface, and of what it stands for in Rust.
///
/// Both must return the same and leave the same bits, or the call of C must be refused for its fault and must have written
/// nothing but its error.
pub(crate) fn capi(input: &CapiInput) {
    let case = Case::new(&input.layer);
    with_activation(case.activation, Call { input, case });
}

struct Call<'a> {
    input: &'a CapiInput,
    case: Case,
}

impl Visitor for Call<'_> {
    type Result = ();

    fn visit<A: normdrop::Activation>(self, activation: A) {
        let Self { input, mut case } = self;
        case.unset = true;
        if input.fault == Fault::Momentum {
            case.config.momentum = f64::NAN;
        }
        let layer = case.layer(activation);
        prepare(&mut case, &layer);
        if is_masked(input) {
            case.padding = Padding::new(&case, &input.layer);
        }
        check_lengths(&case, &layer, described(&case, input));

        let function = input.function;
        let mut of_rust = memory(&case, input, &layer);
        round_tensors(input, &mut of_rust);
        let mut of_c = of_rust.clone();
        let before = of_c.clone();
        let mut call = CallOfC {
            function,
            fault: input.fault,
            layer: described(&case, input),
            fold: (case.config.eps, fold_shape(&case, function)),
            statistics: u32::from(case.fixed_statistics),
            noise: noise(&case).0,
            samples: case.merged.samples,
            in_gates: of_c.kept == Kept::InGates,
            buffers: buffers(&case, function, &mut of_c),
            halves: Vec::new(),
            masked: case.padding.as_ref().map(|padding| masked(padding, &mut of_c.workspace)),
            batches: of_c.batches.as_mut().filter(|_| case.has_running).map_or(ptr::null_mut(), ptr::from_mut),
        };
        let expected = call.spoil(input, &case, &mut of_rust);
        call.store_as_halves(input);
        let stored = call.halves.clone();
        let mut error = no_error();
        if input.fault == Fault::VersionOfError {
            error.version += 1 + u32::from(input.by);
        }
        let untouched = error;
        let status = call.run(&mut error);

        let (after, was) = (contents(&of_c), contents(&before));
        if let Expected::Refused { status: refusal, of } = expected {
            assert_eq!(text(status), text(refusal), "{function:?} with {:?}", input.fault);
            assert_eq!(after, was, "a refused call wrote");
            assert_eq!(of_c.scratch_contents(), before.scratch_contents(), "a refused call wrote scratch");
            if matches!(input.fault, Fault::VersionOfError | Fault::MisalignedError) {
                assert_eq!(described_error(error), described_error(untouched), "no such error can be written");
            } else {
                assert_eq!((error.status, error.version), (status, c::NORMDROP_ABI_VERSION));
                assert!(of.is_empty() || of.contains(&name(error.buffer)), "{} is none of {of:?}", name(error.buffer));
            }
            return;
        }
        let result = in_rust(&mut of_rust, &case, function, &layer);
        for ((name, after), ((_, was), (_, of_rust))) in after.iter().zip(was.iter().zip(&contents(&of_rust))) {
            let is_half = call.halves.iter().any(|half| half.name == *name);
            let written = !is_half && call.buffers.iter().any(|buffer| buffer.written && buffer.name == *name);
            let expected = if written { of_rust } else { was };
            assert_eq!(after, expected, "{name:?} is not as after the call from Rust, which returned {result:?}");
        }
        for (after, before) in call.halves.iter().zip(&stored) {
            let written = call.buffers.iter().any(|buffer| buffer.written && buffer.name == after.name);
            let expected = match tensor(&mut of_rust, after.name) {
                Some(values) if written && result.is_ok() => values.iter().map(|&value| after.rounded(value)).collect(),
                _ => before.widened(),
            };
            let same = after.widened().iter().map(|value| value.bits()).eq(expected.iter().map(|value| value.bits()));
            assert!(same, "{:?} of halves is not that of floats, rounded once", after.name);
        }
        let Err(refusal) = result else {
            assert_eq!(text(status), text(c::NORMDROP_STATUS_OK));
            assert_eq!(described_error(error), described_error(untouched), "a successful call wrote an error");
            return;
        };
        assert_eq!(of_c.scratch_contents(), before.scratch_contents(), "a refused call wrote scratch");
        let refusal = as_c_says(refusal, function);
        assert_eq!(text(status), text(refusal.status), "Rust refuses {refusal:?}");
        if input.fault != Fault::NullError {
            assert_eq!(described_error(error), refusal);
        }
    }
}

/// The tensors of a call, each of which may be one of halves.
const TENSORS: [Name; 7] =
    [Name::Input, Name::Residual, Name::Output, Name::Values, Name::GradOutput, Name::GradInput, Name::GradResidual];

fn tensor(memory: &mut Memory, name: Name) -> Option<&mut Buffer<f32>> {
    match name {
        Name::Input => Some(&mut memory.input),
        Name::Residual => memory.residual.as_mut(),
        Name::Output => Some(&mut memory.output),
        Name::Values => Some(&mut memory.values),
        Name::GradOutput => Some(&mut memory.grad_output),
        Name::GradInput => memory.grad_input.as_mut(),
        Name::GradResidual => memory.grad_residual.as_mut(),
        _ => None,
    }
}

/// The type of the halves that a tensor of the call is of, if it is: where nothing is wrong with the call, what says how
/// wrong it is says that. The tensors that are read, and those that are written, have types of their own.
fn element(input: &CapiInput, name: Name) -> Option<c::normdrop_element> {
    let has_halves = matches!(
        input.function,
        Function::Train
            | Function::Eval
            | Function::EvalInPlace
            | Function::Backward
            | Function::BackwardInPlace
            | Function::Moments
            | Function::Apply
            | Function::Reduce
            | Function::ApplyGradient
    );
    let bits = input.by >> (2 * usize::from(matches!(name, Name::Output | Name::GradInput)));
    if input.fault != Fault::Nothing || !has_halves || is_masked(input) || !TENSORS.contains(&name) {
        return None;
    }
    [None, Some(c::NORMDROP_ELEMENT_F16), Some(c::NORMDROP_ELEMENT_BF16), None][usize::from(bits % 4)]
}

/// Whether the call is one over the valid positions of a padded batch, if the shape has any: where nothing is wrong with
/// it, the number of the other buffer says that.
fn is_masked(input: &CapiInput) -> bool {
    let has_masked = matches!(input.function, Function::Train | Function::Eval | Function::Backward);
    has_masked && input.fault == Fault::Nothing && input.other % 2 == 1
}

/// The valid positions as C has them.
fn masked(padding: &Padding, workspace: &mut [f32]) -> c::normdrop_masked {
    let (mut lengths, mut validity) =
        (c::normdrop_slice { values: ptr::null(), len: 0 }, c::normdrop_slice { values: ptr::null(), len: 0 });
    match padding.validity() {
        Validity::Lengths(of_samples) => (lengths.values, lengths.len) = (of_samples.as_ptr(), of_samples.len()),
        Validity::Bitmap(bits) => (validity.values, validity.len) = (bits.as_ptr(), bits.len()),
    }
    let workspace = c::normdrop_slice_mut { values: workspace.as_mut_ptr(), len: workspace.len() };
    c::normdrop_masked { version: c::NORMDROP_ABI_VERSION, lengths, validity, workspace }
}

/// A number rounded to a type of halves.
fn rounded(value: f32, element: c::normdrop_element) -> (u16, f32) {
    if element == c::NORMDROP_ELEMENT_F16 {
        let half = F16::from_f32(value);
        (half.to_bits(), half.to_f32())
    } else {
        let half = Bf16::from_f32(value);
        (half.to_bits(), half.to_f32())
    }
}

/// Rounds the tensors that C gets as halves, so that floats have the same values.
fn round_tensors(input: &CapiInput, memory: &mut Memory) {
    for name in TENSORS {
        if let (Some(element), Some(values)) = (element(input, name), tensor(memory, name)) {
            values.iter_mut().for_each(|value| *value = rounded(*value, element).1);
        }
    }
}

/// A tensor of halves.
#[derive(Debug, Clone)]
struct HalfTensor {
    name: Name,
    element: c::normdrop_element,
    bits: Vec<u16>,
    /// The first of the bits, for C to write.
    values: *mut u16,
}

impl HalfTensor {
    fn rounded(&self, value: f32) -> f32 {
        rounded(value, self.element).1
    }

    fn widened(&self) -> Vec<f32> {
        let widened = |&bits: &u16| match self.element {
            c::NORMDROP_ELEMENT_F16 => F16::from_bits(bits).to_f32(),
            _ => Bf16::from_bits(bits).to_f32(),
        };
        self.bits.iter().map(widened).collect()
    }
}

/// What phases and backward calls need of those before them; what was refused leaves something as good.
fn prepare<A: normdrop::Activation>(case: &mut Case, layer: &Layer<A>) {
    case.forward = forward(case, layer);
    let (channels, samples) = (case.shape.channels(), case.shape.samples());
    case.merged = Merged { moments: vec![1.0; 3 * channels], sums: vec![1.0; 2 * channels], samples: samples as f64 };
    let (moments, _) = alone(case, Entry::Moments, layer);
    let (sums, _) = alone(case, Entry::Reduce, layer);
    (case.merged.moments, case.merged.sums) = (moments.moments.to_vec(), sums.sums.to_vec());
}

/// The layer as C describes it.
fn described(case: &Case, input: &CapiInput) -> c::normdrop_layer {
    let mut layer = c::normdrop_layer {
        version: 0,
        activation: case.activation as u32,
        outer: case.shape.outer(),
        channels: case.shape.channels(),
        inner: case.shape.inner(),
        positions: case.shape.positions(),
        momentum: case.config.momentum,
        p: case.config.p,
        eps: case.config.eps,
        slope: normdrop::LeakyRelu::default().slope(),
        alpha: normdrop::Elu::default().alpha(),
        granularity: case.config.granularity as u32,
        running_variance: case.config.running_var as u32,
        backend: u32::from(input.backend % 4),
        tasks: 1,
    };
    let mut default = layer;
    // SAFETY: both are layers.
    let statuses = unsafe {
        (
            c::normdrop_layer_init(&raw mut default, c::NORMDROP_ABI_VERSION),
            c::normdrop_layer_init(&raw mut layer, c::NORMDROP_ABI_VERSION + 1),
        )
    };
    assert_eq!(statuses, (c::NORMDROP_STATUS_OK, c::NORMDROP_STATUS_VERSION));
    assert_eq!(layer.version, 0, "a refused call wrote");
    if c::normdrop_backend_is_available(layer.backend) == 0 {
        layer.backend = c::NORMDROP_BACKEND_FASTEST;
    }
    c::normdrop_layer { version: default.version, ..layer }
}

/// A buffer that nobody may look at.
const fn nobody_looks<T>() -> c::normdrop_slice<T> {
    c::normdrop_slice { values: ptr::without_provenance(1), len: usize::MAX }
}

/// The lengths of both interfaces.
fn check_lengths<A: normdrop::Activation>(case: &Case, layer: &Layer<A>, described: c::normdrop_layer) {
    let mut lengths = c::normdrop_lengths {
        version: c::NORMDROP_ABI_VERSION,
        elements: 0,
        channels: 0,
        mask_bits: 0,
        mask: 0,
        eval_scratch: 0,
        train_scratch: 0,
        backward_scratch: 0,
        scratch: 0,
        moments: 0,
        sums: 0,
        prepared: 0,
        masked_scratch: 0,
        masked_workspace: 0,
        prelu_scratch: 0,
    };
    let mut error = no_error();
    // SAFETY: the pointers are to what they say.
    let status = unsafe { c::normdrop_layer_lengths(&raw const described, &raw mut lengths, &raw mut error) };
    assert_eq!(status, c::NORMDROP_STATUS_OK);
    let of_tensors = [lengths.elements, lengths.channels, lengths.mask_bits, lengths.mask];
    assert_eq!(of_tensors, [case.shape.len(), case.shape.channels(), layer.mask_bits(), layer.mask_len()]);
    let of_scratch = [lengths.eval_scratch, lengths.train_scratch, lengths.backward_scratch, lengths.scratch];
    let expected =
        [layer.eval_scratch_len(), layer.train_scratch_len(), layer.backward_scratch_len(), layer.scratch_len()];
    assert_eq!(of_scratch, expected);
    assert_eq!(
        [lengths.masked_scratch, lengths.masked_workspace, lengths.prelu_scratch],
        [layer.masked_scratch_len(), layer.masked_workspace_len(), layer.prelu_scratch_len()]
    );
    let per_channel = [lengths.moments, lengths.sums, lengths.prepared];
    assert_eq!(per_channel, [layer.moments_len(), layer.sums_len(), layer.prepared_len()]);
}

/// The entry whose buffers a function has.
fn entry(function: Function) -> Entry {
    match function {
        Function::Train => Entry::Train,
        Function::Eval | Function::FillMask => Entry::Eval,
        Function::EvalInPlace | Function::ApplyNoise | Function::AlphaDropout | Function::AlphaDropoutBackward => {
            Entry::EvalInPlace
        }
        Function::Backward => Entry::Backward,
        // The weights that are folded into, and the padding, take the place of gradients.
        Function::BackwardInPlace | Function::FoldIntoPrevious | Function::FoldIntoNext | Function::FoldPadding => {
            Entry::BackwardInPlace
        }
        Function::Moments | Function::MergeMoments => Entry::Moments,
        Function::Finish | Function::CheckMoments => Entry::Finish,
        Function::Apply => Entry::Apply,
        Function::Reduce | Function::MergeSums => Entry::Reduce,
        Function::FinishGradients => Entry::FinishGradients,
        Function::ApplyGradient => Entry::ApplyGradient,
    }
}

fn memory<A: normdrop::Activation>(case: &Case, input: &CapiInput, layer: &Layer<A>) -> Memory {
    let (function, entry) = (input.function, entry(input.function));
    let mut memory = Memory::new(case, entry, Lengths::AsGiven, scratch_len(case, entry, layer), 1);
    // What is merged into moments has their length, and their place is that of sums.
    let copy =
        |values: &[f64], name| Buffer::new(values, case.len(Lengths::AsGiven, name, values.len()), 1.0, case.place);
    match function {
        Function::MergeMoments => memory.sums = copy(&case.merged.moments, Name::Sums),
        Function::MergeSums => memory.moments = copy(&case.merged.sums, Name::Moments),
        _ => {}
    }
    let mask = case.mask_of_elements.as_deref();
    match (function, input.gates, mask) {
        (_, Gates::LeftOut, _) => {}
        (Function::Train | Function::Eval | Function::Apply, Gates::Over, Some(mask)) => {
            memory.add_gates(case, Lengths::AsGiven, Kept::InGates, mask);
        }
        (Function::Train | Function::Eval | Function::Apply, ..) => {
            memory.add_gates(case, Lengths::AsGiven, Kept::Mask, &[]);
        }
        // Any bits are gates to a backward call.
        (Function::Backward | Function::BackwardInPlace | Function::Reduce | Function::ApplyGradient, ..) => {
            memory.add_gates(case, Lengths::AsGiven, Kept::Gates, mask.unwrap_or_default());
        }
        _ => {}
    }
    memory
}

/// The call from Rust.
fn in_rust<A: normdrop::Activation>(
    memory: &mut Memory,
    case: &Case,
    function: Function,
    layer: &Layer<A>,
) -> Result<(), Error> {
    let parameters = Parameters { weight: memory.weight.as_deref(), bias: memory.bias.as_deref() };
    let running = Running {
        mean: &memory.running_mean,
        mean_tail: memory.running_mean_tail.as_deref(),
        var: &memory.running_var,
    };
    let eps = case.config.eps;
    let fold = match function {
        Function::CheckMoments => return layer.check_moments(&memory.moments),
        Function::FillMask => return layer.fill_mask(SEED, memory.mask.as_deref_mut().unwrap_or_default()).map(drop),
        Function::ApplyNoise => return layer.apply_noise(noise(case).1?, SEED, &mut memory.values),
        Function::AlphaDropout => {
            return layer.alpha_dropout(memory.mask.as_deref().unwrap_or_default(), &mut memory.values);
        }
        Function::AlphaDropoutBackward => {
            return layer.alpha_dropout_backward(memory.mask.as_deref().unwrap_or_default(), &mut memory.values);
        }
        Function::MergeMoments => return normdrop::merge_moments(&mut memory.moments, &memory.sums),
        Function::MergeSums => return normdrop::merge_sums(&mut memory.sums, &memory.moments),
        Function::FoldIntoPrevious => normdrop::fold_into_previous,
        Function::FoldIntoNext => normdrop::fold_into_next,
        Function::FoldPadding => {
            let padding = memory.grad_bias.as_deref_mut().unwrap_or_default();
            return normdrop::fold_padding(FoldPadding { parameters, running, eps, padding });
        }
        // A backward call of C with these gates would scale what this call does not.
        Function::Eval if memory.gates.is_some() && memory.mask.is_none() && case.config.p > 0.0 => {
            return Err(Error::DropoutUnset { p: case.config.p });
        }
        _ => return memory.call(case, entry(function), layer),
    };
    fold(Fold {
        parameters,
        running,
        eps,
        shape: fold_shape(case, function),
        weights: &mut memory.values,
        bias: memory.grad_bias.as_deref_mut(),
    })
}

/// The weights that have the place of the tensor, with the channels of the batch norm in the middle.
fn fold_shape(case: &Case, function: Function) -> WeightShape {
    let (outer, channels, taps) = (case.shape.outer(), case.shape.channels(), case.shape.inner());
    if function == Function::FoldIntoNext {
        WeightShape { order: WeightOrder::OutInTaps, outputs: outer, inputs: channels, taps, groups: 1 }
    } else {
        WeightShape { order: WeightOrder::InOutTaps, outputs: channels, inputs: outer, taps, groups: 1 }
    }
}

/// Noise as C and as Rust describe it: its law and width are any that the layer has constants for.
fn noise(case: &Case) -> (c::normdrop_noise, Result<Noise, Error>) {
    let (p, width) = (case.config.p, case.config.eps);
    let law = [c::NORMDROP_NOISE_LAW_GAUSSIAN, c::NORMDROP_NOISE_LAW_GAUSSIAN_DROPOUT, c::NORMDROP_NOISE_LAW_UNIFORM]
        [case.shape.len() % 3];
    let made = match law {
        c::NORMDROP_NOISE_LAW_GAUSSIAN => Noise::gaussian(width),
        c::NORMDROP_NOISE_LAW_GAUSSIAN_DROPOUT => Noise::gaussian_dropout(p),
        _ => Noise::uniform(width),
    };
    (c::normdrop_noise { version: c::NORMDROP_ABI_VERSION, law, p, width }, made)
}

/// Of masks that are drawn here.
const SEED: u64 = 0x0123_4567_89AB_CDEF;

/// What must come of a call through the C interface.
enum Expected {
    /// What comes of the same call from Rust.
    AsInRust,
    /// A refusal, because of one of these buffers or structs if there are any.
    Refused { status: c::normdrop_status, of: Vec<String> },
}

impl Expected {
    fn refused(status: c::normdrop_status, of: &[&str]) -> Self {
        Self::Refused { status, of: of.iter().map(|&name| name.to_owned()).collect() }
    }
}

/// A buffer as C has it.
#[derive(Debug, Clone, Copy)]
struct Pointer {
    name: Name,
    values: *mut u8,
    len: usize,
    /// Of a value, in bytes.
    size: usize,
    written: bool,
}

impl Pointer {
    fn bytes(&self) -> usize {
        self.len * self.size
    }
}

/// The buffers that a function is given.
fn buffers(case: &Case, function: Function, memory: &mut Memory) -> Vec<Pointer> {
    use Name::{
        Bias, Gates, GradBias, GradInput, GradOutput, GradResidual, GradWeight, Input, Mask, Moments, Output, Residual,
        RunningMean, RunningMeanTail, RunningVar, SavedInvStd, SavedMean, SavedMeanTail, Scratch, Sums, Values, Weight,
    };
    const PARAMETERS: &[Name] = &[Weight, Bias];
    const RUNNING: &[Name] = &[RunningMean, RunningMeanTail, RunningVar];
    const SAVED: &[Name] = &[SavedMean, SavedMeanTail, SavedInvStd];
    const FORWARD: &[Name] = &[Weight, Bias, Mask, Input, Residual];
    const BACKWARD: &[Name] = &[Weight, Bias, Mask, Gates, Input, Residual, GradOutput];
    const FORWARD_OF_BACKWARD: &[Name] = &[Weight, Bias, Mask, Gates, Input, Residual];
    const GRADIENTS: &[Name] = &[GradWeight, GradBias];
    let updated = if case.has_running { RUNNING } else { &[] };
    let given = if case.fixed_statistics { RUNNING } else { SAVED };
    let (read, written): (&[&[Name]], &[&[Name]]) = match function {
        Function::Train => (&[FORWARD], &[updated, SAVED, &[Gates, Output, Scratch]]),
        Function::Eval => (&[FORWARD, RUNNING], &[&[Gates, Output, Scratch]]),
        Function::EvalInPlace => (&[PARAMETERS, RUNNING, &[Mask, Residual]], &[&[Values, Scratch]]),
        Function::Backward => (&[BACKWARD, given], &[GRADIENTS, &[GradInput, GradResidual, Scratch]]),
        Function::BackwardInPlace => (&[FORWARD_OF_BACKWARD, given], &[GRADIENTS, &[Values, GradResidual, Scratch]]),
        Function::Moments => (&[&[Input]], &[&[Moments, Scratch]]),
        Function::CheckMoments => (&[&[Moments]], &[]),
        Function::Finish => (&[&[Moments]], &[updated, SAVED]),
        Function::Apply => (&[FORWARD, SAVED], &[&[Gates, Output, Scratch]]),
        Function::Reduce => (&[BACKWARD, given], &[&[Sums, Scratch]]),
        Function::FinishGradients => (&[&[Sums]], &[GRADIENTS]),
        Function::ApplyGradient => (&[BACKWARD, SAVED, &[Sums]], &[&[GradInput, GradResidual, Scratch]]),
        Function::FillMask => (&[], &[&[Mask]]),
        Function::ApplyNoise => (&[], &[&[Values]]),
        Function::AlphaDropout | Function::AlphaDropoutBackward => (&[&[Mask]], &[&[Values]]),
        Function::MergeMoments => (&[&[Sums]], &[&[Moments]]),
        Function::MergeSums => (&[&[Moments]], &[&[Sums]]),
        Function::FoldIntoPrevious | Function::FoldIntoNext => (&[PARAMETERS, RUNNING], &[&[Values, GradBias]]),
        Function::FoldPadding => (&[PARAMETERS, RUNNING], &[&[GradBias]]),
    };
    let (read, written) = (read.concat().into_iter(), written.concat().into_iter());
    let names = read.map(|name| (name, false)).chain(written.map(|name| (name, true)));
    let in_gates = memory.kept == Kept::InGates;
    let names = names.filter(|&(name, _)| !(in_gates && name == Mask));
    names.filter_map(|(name, written)| pointer(memory, name, written)).collect()
}

/// Where a buffer is, if there is one.
fn pointer(memory: &mut Memory, name: Name, written: bool) -> Option<Pointer> {
    fn of<T: Copy>(name: Name, written: bool, buffer: &mut Buffer<T>) -> Pointer {
        Pointer { name, values: buffer.as_mut_ptr().cast(), len: buffer.len(), size: size_of::<T>(), written }
    }
    let floats = match name {
        Name::SavedInvStd => return Some(of(name, written, &mut memory.saved_inv_std)),
        Name::Scratch => return Some(of(name, written, &mut memory.scratch)),
        Name::Moments => return Some(of(name, written, &mut memory.moments)),
        Name::Sums => return Some(of(name, written, &mut memory.sums)),
        Name::Mask => return memory.mask.as_mut().map(|mask| of(name, written, mask)),
        Name::Gates => return memory.gates.as_mut().map(|gates| of(name, written, gates)),
        Name::Input => Some(&mut memory.input),
        Name::Output => Some(&mut memory.output),
        Name::Values => Some(&mut memory.values),
        Name::GradOutput => Some(&mut memory.grad_output),
        Name::GradInput => memory.grad_input.as_mut(),
        Name::Residual => memory.residual.as_mut(),
        Name::GradResidual => memory.grad_residual.as_mut(),
        Name::Weight => memory.weight.as_mut(),
        Name::Bias => memory.bias.as_mut(),
        Name::GradWeight => memory.grad_weight.as_mut(),
        Name::GradBias => memory.grad_bias.as_mut(),
        Name::RunningMean => Some(&mut memory.running_mean),
        Name::RunningMeanTail => memory.running_mean_tail.as_mut(),
        Name::RunningVar => Some(&mut memory.running_var),
        Name::SavedMean => Some(&mut memory.saved_mean),
        Name::SavedMeanTail => Some(&mut memory.saved_mean_tail),
        _ => None,
    };
    floats.map(|buffer| of(name, written, buffer))
}

/// What C calls the buffers that one of a function is there.
fn names(function: Function, name: Name) -> Vec<String> {
    let names: &[&str] = match (function, name) {
        (Function::EvalInPlace, Name::Values) => &["output", "input"],
        (Function::BackwardInPlace, Name::Values) => &["grad_input", "grad_output"],
        (Function::FoldIntoPrevious | Function::FoldIntoNext, Name::Values | Name::FoldWeights) => &["weights"],
        (Function::FoldIntoPrevious | Function::FoldIntoNext, Name::GradBias | Name::FoldBias) => &["weights_bias"],
        (Function::FoldPadding, Name::GradBias | Name::FoldPadding) => &["padding"],
        (Function::MergeMoments, Name::Sums) => &["moments"],
        (Function::MergeSums, Name::Moments) => &["sums"],
        _ => return vec![name.name().replace(' ', "_")],
    };
    names.iter().map(|&name| name.to_owned()).collect()
}

/// A call through the C interface, right or not.
struct CallOfC {
    function: Function,
    fault: Fault,
    layer: c::normdrop_layer,
    /// The `eps` and the shape of a fold.
    fold: (f32, WeightShape),
    statistics: c::normdrop_statistics,
    noise: c::normdrop_noise,
    samples: f64,
    in_gates: bool,
    buffers: Vec<Pointer>,
    /// The tensors that are not those of `buffers`, but of halves.
    halves: Vec<HalfTensor>,
    /// Of a call over the valid positions of a padded batch.
    masked: Option<c::normdrop_masked>,
    batches: *mut u64,
}

impl CallOfC {
    fn has_layer(&self) -> bool {
        use Function::{FoldIntoNext, FoldIntoPrevious, FoldPadding, MergeMoments, MergeSums};
        !matches!(self.function, MergeMoments | MergeSums | FoldIntoPrevious | FoldIntoNext | FoldPadding)
    }

    fn has_struct(&self) -> bool {
        use Function::{
            AlphaDropout, AlphaDropoutBackward, ApplyNoise, CheckMoments, FillMask, FinishGradients, MergeMoments,
            MergeSums, Moments,
        };
        let others = matches!(self.function, AlphaDropout | AlphaDropoutBackward | ApplyNoise);
        !others
            && !matches!(self.function, CheckMoments | Moments | FinishGradients | FillMask | MergeMoments | MergeSums)
    }

    /// Makes the fault, and says what must come of it. Where a buffer that is read is moved into another one, the buffer of
    /// the call from Rust gets what is there.
    fn spoil(&mut self, input: &CapiInput, case: &Case, of_rust: &mut Memory) -> Expected {
        let wrong = 1 + u32::from(input.by);
        let refused = Expected::refused;
        match input.fault {
            Fault::Nothing | Fault::NullError | Fault::Momentum => Expected::AsInRust,
            Fault::VersionOfError => refused(c::NORMDROP_STATUS_VERSION, &[]),
            Fault::MisalignedError => refused(c::NORMDROP_STATUS_ALIGNMENT, &[]),
            Fault::NullBuffer
            | Fault::MisalignedBuffer
            | Fault::HugeBuffer
            | Fault::WrappingBuffer
            | Fault::Overlap => self.spoil_buffer(input, of_rust),
            Fault::NullCall if self.has_struct() => refused(c::NORMDROP_STATUS_NULL, &["call"]),
            Fault::MisalignedCall if self.has_struct() => refused(c::NORMDROP_STATUS_ALIGNMENT, &["call"]),
            Fault::VersionOfCall if self.has_struct() => refused(c::NORMDROP_STATUS_VERSION, &["call"]),
            Fault::Statistics
                if matches!(self.function, Function::Backward | Function::BackwardInPlace | Function::Reduce) =>
            {
                self.statistics = c::NORMDROP_STATISTICS_PREPARED + wrong;
                refused(c::NORMDROP_STATUS_STATISTICS, &["call"])
            }
            Fault::Shape if matches!(self.function, Function::FoldIntoPrevious | Function::FoldIntoNext) => {
                (self.fold.1.outputs, self.fold.1.inputs, self.fold.1.taps) = (usize::MAX, 2, 1);
                refused(c::NORMDROP_STATUS_SHAPE, &[])
            }
            Fault::NullCall | Fault::MisalignedCall | Fault::VersionOfCall | Fault::Statistics => Expected::AsInRust,
            _ if !self.has_layer() => Expected::AsInRust,
            Fault::NullLayer => refused(c::NORMDROP_STATUS_NULL, &["layer"]),
            Fault::MisalignedLayer => refused(c::NORMDROP_STATUS_ALIGNMENT, &["layer"]),
            Fault::VersionOfLayer => {
                self.layer.version += wrong;
                refused(c::NORMDROP_STATUS_VERSION, &["layer"])
            }
            Fault::Activation => {
                self.layer.activation = c::NORMDROP_ACTIVATION_SOFTPLUS + wrong;
                refused(c::NORMDROP_STATUS_ACTIVATION, &["layer"])
            }
            Fault::Slope => {
                self.layer.slope = f32::NAN;
                if self.layer.activation == c::NORMDROP_ACTIVATION_LEAKY_RELU {
                    refused(c::NORMDROP_STATUS_SLOPE, &[])
                } else {
                    Expected::AsInRust
                }
            }
            Fault::Alpha => {
                self.layer.alpha = f32::NAN;
                if self.layer.activation == c::NORMDROP_ACTIVATION_ELU {
                    refused(c::NORMDROP_STATUS_ALPHA, &[])
                } else {
                    Expected::AsInRust
                }
            }
            Fault::Granularity => {
                self.layer.granularity = c::NORMDROP_GRANULARITY_SAMPLE + wrong;
                refused(c::NORMDROP_STATUS_GRANULARITY, &["layer"])
            }
            Fault::RunningVariance => {
                self.layer.running_variance = c::NORMDROP_RUNNING_VARIANCE_BIASED + wrong;
                refused(c::NORMDROP_STATUS_RUNNING_VARIANCE, &["layer"])
            }
            Fault::Backend => {
                self.layer.backend = c::NORMDROP_BACKEND_AVX512 + wrong;
                refused(c::NORMDROP_STATUS_BACKEND, &["layer"])
            }
            Fault::Tasks => {
                self.layer.tasks = 1 + wrong;
                refused(c::NORMDROP_STATUS_TASKS, &["layer"])
            }
            Fault::Positions => {
                self.layer.positions = case.shape.outer() + 1 + usize::from(input.by);
                // One position is every layout's, and no rows are a multiple of any number.
                if self.layer.positions == 1 || (case.shape.outer() == 0 && case.shape.inner() == 1) {
                    Expected::AsInRust
                } else {
                    refused(c::NORMDROP_STATUS_POSITIONS, &["layer"])
                }
            }
            Fault::Shape => {
                let overflowing = (usize::MAX, 2, 1, 1);
                (self.layer.outer, self.layer.channels, self.layer.inner, self.layer.positions) = overflowing;
                refused(c::NORMDROP_STATUS_SHAPE, &[])
            }
            Fault::Eps => {
                self.layer.eps = f32::NAN;
                refused(c::NORMDROP_STATUS_EPS, &[])
            }
            Fault::Probability => {
                self.layer.p = f64::NAN;
                refused(c::NORMDROP_STATUS_PROBABILITY, &[])
            }
        }
    }

    fn spoil_buffer(&mut self, input: &CapiInput, of_rust: &mut Memory) -> Expected {
        let number = usize::from(input.buffer) % self.buffers.len().max(1);
        let others = self.buffers.clone();
        let Some(buffer) = self.buffers.get_mut(number) else { return Expected::AsInRust };
        let mut of = names(self.function, buffer.name);
        if self.in_gates && buffer.name == Name::Gates {
            // A null pointer is not that of the mask, which is looked at first.
            of.extend(names(self.function, Name::Mask));
        }
        let by = usize::from(input.by);
        match input.fault {
            Fault::NullBuffer if buffer.len > 0 => {
                buffer.values = ptr::null_mut();
                Expected::Refused { status: c::NORMDROP_STATUS_NULL, of }
            }
            Fault::MisalignedBuffer if buffer.size > 1 => {
                buffer.values = buffer.values.wrapping_add(1 + by % (buffer.size - 1));
                Expected::Refused { status: c::NORMDROP_STATUS_ALIGNMENT, of }
            }
            Fault::HugeBuffer => {
                buffer.len = isize::MAX.unsigned_abs() / buffer.size + 1 + by;
                Expected::Refused { status: c::NORMDROP_STATUS_SIZE, of }
            }
            Fault::WrappingBuffer => {
                // Sixteen bytes before the end of the address space.
                (buffer.values, buffer.len) = (ptr::without_provenance_mut(usize::MAX - 15), 16 + by);
                Expected::Refused { status: c::NORMDROP_STATUS_SIZE, of }
            }
            Fault::Overlap => {
                let other = others[usize::from(input.other) % others.len()];
                if other.name == buffer.name || buffer.len == 0 || other.len == 0 {
                    return Expected::AsInRust;
                }
                let offset = by % other.bytes() / buffer.size * buffer.size;
                let values = other.values.wrapping_add(offset);
                let swapped =
                    [(Name::Input, Name::Output), (Name::GradOutput, Name::GradInput), (Name::Mask, Name::Gates)];
                let in_place = swapped.iter().any(|&(read, written)| {
                    (buffer.name, other.name) == (read, written) || (buffer.name, other.name) == (written, read)
                });
                if in_place && offset == 0 && buffer.len == other.len {
                    return Expected::AsInRust;
                }
                if buffer.written || other.written {
                    buffer.values = values;
                    if values.addr().is_multiple_of(buffer.size) {
                        return Expected::Refused { status: c::NORMDROP_STATUS_OVERLAP, of: Vec::new() };
                    }
                    return Expected::Refused { status: c::NORMDROP_STATUS_ALIGNMENT, of };
                }
                // Two buffers that are read may share their memory.
                if buffer.size != other.size || offset + buffer.bytes() > other.bytes() {
                    return Expected::AsInRust;
                }
                buffer.values = values;
                if let Some(copy) = pointer(of_rust, buffer.name, false) {
                    // SAFETY: both are as long, by the check above, and in memories of their own.
                    unsafe { copy.values.copy_from_nonoverlapping(values, buffer.bytes()) };
                }
                Expected::AsInRust
            }
            _ => Expected::AsInRust,
        }
    }

    /// Copies tensors into halves, which take their place.
    fn store_as_halves(&mut self, input: &CapiInput) {
        for buffer in &self.buffers {
            let Some(element) = element(input, buffer.name) else { continue };
            // SAFETY: nothing is wrong with the call, and so the buffer is a tensor of so many values.
            let values = unsafe { std::slice::from_raw_parts(buffer.values.cast::<f32>(), buffer.len) };
            let mut bits: Vec<u16> = values.iter().map(|&value| rounded(value, element).0).collect();
            let values = bits.as_mut_ptr();
            self.halves.push(HalfTensor { name: buffer.name, element, bits, values });
        }
    }

    /// A tensor of halves that is read, or none.
    fn read_half(&self, name: Name) -> c::normdrop_halves {
        let c::normdrop_halves_mut { values, len, element } = self.write_half(name);
        c::normdrop_halves { values, len, element }
    }

    /// A tensor of halves that is written, or none.
    fn write_half(&self, name: Name) -> c::normdrop_halves_mut {
        let half = self.halves.iter().find(|half| half.name == name);
        half.map_or_else(Default::default, |half| c::normdrop_halves_mut {
            values: half.values,
            len: half.bits.len(),
            element: half.element,
        })
    }

    /// A buffer that is read, or none.
    fn read<T>(&self, name: Name) -> c::normdrop_slice<T> {
        let c::normdrop_slice_mut { values, len } = self.write(name);
        c::normdrop_slice { values, len }
    }

    /// A buffer that is written, or none.
    fn write<T>(&self, name: Name) -> c::normdrop_slice_mut<T> {
        let is_half = self.halves.iter().any(|half| half.name == name);
        match self.buffers.iter().find(|buffer| buffer.name == name && !is_half) {
            Some(buffer) => c::normdrop_slice_mut { values: buffer.values.cast(), len: buffer.len },
            None => c::normdrop_slice_mut { values: ptr::null_mut(), len: 0 },
        }
    }

    /// A buffer of statistics that are used, or one that nobody may look at.
    fn read_if<T>(&self, used: bool, name: Name) -> c::normdrop_slice<T> {
        if used {
            return self.read(name);
        }
        nobody_looks()
    }

    /// The mask, which may be in the gates that take its place.
    fn mask(&self) -> c::normdrop_slice<u8> {
        self.read(if self.in_gates { Name::Gates } else { Name::Mask })
    }

    /// The buffers of a call as they are handed over.
    fn handed_over<T>(&self, call: &T) -> *const T {
        match self.fault {
            Fault::NullCall => ptr::null(),
            Fault::MisalignedCall => ptr::from_ref(call).wrapping_byte_add(1),
            _ => call,
        }
    }

    /// Makes the call.
    fn run(&self, error: &mut c::normdrop_error) -> c::normdrop_status {
        use Name::{
            Bias, Gates, GradBias, GradInput, GradOutput, GradResidual, GradWeight, Input, Mask, Moments, Output,
            Residual, RunningMean, RunningMeanTail, RunningVar, SavedInvStd, SavedMean, SavedMeanTail, Scratch, Sums,
            Values, Weight,
        };
        let error = match self.fault {
            Fault::NullError => ptr::null_mut(),
            Fault::MisalignedError => ptr::from_mut(error).wrapping_byte_add(1),
            _ => ptr::from_mut(error),
        };
        let layer = match self.fault {
            Fault::NullLayer => ptr::null(),
            Fault::MisalignedLayer => (&raw const self.layer).wrapping_byte_add(1),
            _ => &raw const self.layer,
        };
        let version = c::NORMDROP_ABI_VERSION + u32::from(self.fault == Fault::VersionOfCall);
        let fixed = self.statistics == c::NORMDROP_STATISTICS_FIXED;
        let (input, output, grad_output, grad_input) = match self.function {
            Function::EvalInPlace => (Values, Values, GradOutput, GradInput),
            Function::BackwardInPlace => (Input, Output, Values, Values),
            _ => (Input, Output, GradOutput, GradInput),
        };
        // SAFETY: the buffers are there to their full lengths and nobody else uses them, and so are the structs; but for
        // faults, which the functions are there to find.
        unsafe {
            match self.function {
                Function::Train => {
                    let call = c::normdrop_train_call {
                        version,
                        weight: self.read(Weight),
                        bias: self.read(Bias),
                        running_mean: self.write(RunningMean),
                        running_mean_tail: self.write(RunningMeanTail),
                        running_var: self.write(RunningVar),
                        batches: self.batches,
                        mask: self.mask(),
                        gates: self.write(Gates),
                        input: self.read(Input),
                        residual: self.read(Residual),
                        output: self.write(Output),
                        saved_mean: self.write(SavedMean),
                        saved_mean_tail: self.write(SavedMeanTail),
                        saved_inv_std: self.write(SavedInvStd),
                        scratch: self.write(Scratch),
                        input_half: self.read_half(Input),
                        residual_half: self.read_half(Residual),
                        output_half: self.write_half(Output),
                    };
                    match &self.masked {
                        Some(masked) => c::normdrop_train_masked(layer, self.handed_over(&call), masked, error),
                        None => c::normdrop_train(layer, self.handed_over(&call), error),
                    }
                }
                Function::Eval | Function::EvalInPlace => {
                    let call = c::normdrop_eval_call {
                        version,
                        weight: self.read(Weight),
                        bias: self.read(Bias),
                        running_mean: self.read(RunningMean),
                        running_mean_tail: self.read(RunningMeanTail),
                        running_var: self.read(RunningVar),
                        mask: self.mask(),
                        gates: self.write(Gates),
                        input: self.read(input),
                        residual: self.read(Residual),
                        output: self.write(output),
                        scratch: self.write(Scratch),
                        prepared: c::normdrop_slice { values: ptr::null(), len: 0 },
                        input_half: self.read_half(input),
                        residual_half: self.read_half(Residual),
                        output_half: self.write_half(output),
                    };
                    match &self.masked {
                        Some(masked) => c::normdrop_eval_masked(layer, self.handed_over(&call), masked, error),
                        None => c::normdrop_eval(layer, self.handed_over(&call), error),
                    }
                }
                Function::Backward | Function::BackwardInPlace => {
                    let call = c::normdrop_backward_call {
                        version,
                        statistics: self.statistics,
                        weight: self.read(Weight),
                        bias: self.read(Bias),
                        running_mean: self.read_if(fixed, RunningMean),
                        running_mean_tail: self.read_if(fixed, RunningMeanTail),
                        running_var: self.read_if(fixed, RunningVar),
                        saved_mean: self.read_if(!fixed, SavedMean),
                        saved_mean_tail: self.read_if(!fixed, SavedMeanTail),
                        saved_inv_std: self.read_if(!fixed, SavedInvStd),
                        mask: self.read(Mask),
                        gates: self.read(Gates),
                        input: self.read(Input),
                        residual: self.read(Residual),
                        grad_output: self.read(grad_output),
                        grad_input: self.write(grad_input),
                        grad_residual: self.write(GradResidual),
                        grad_weight: self.write(GradWeight),
                        grad_bias: self.write(GradBias),
                        scratch: self.write(Scratch),
                        prepared: nobody_looks(),
                        input_half: self.read_half(input),
                        residual_half: self.read_half(Residual),
                        grad_output_half: self.read_half(grad_output),
                        grad_input_half: self.write_half(grad_input),
                        grad_residual_half: self.write_half(GradResidual),
                    };
                    match &self.masked {
                        Some(masked) => c::normdrop_backward_masked(layer, self.handed_over(&call), masked, error),
                        None => c::normdrop_backward(layer, self.handed_over(&call), error),
                    }
                }
                Function::Moments => {
                    let (moments, scratch) = (self.write(Moments), self.write(Scratch));
                    if self.halves.is_empty() {
                        c::normdrop_moments(layer, self.read(Input), moments, scratch, error)
                    } else {
                        c::normdrop_moments_half(layer, self.read_half(Input), moments, scratch, error)
                    }
                }
                Function::CheckMoments => c::normdrop_check_moments(layer, self.read(Moments), error),
                Function::Finish => {
                    let call = c::normdrop_finish_call {
                        version,
                        moments: self.read(Moments),
                        running_mean: self.write(RunningMean),
                        running_mean_tail: self.write(RunningMeanTail),
                        running_var: self.write(RunningVar),
                        batches: self.batches,
                        saved_mean: self.write(SavedMean),
                        saved_mean_tail: self.write(SavedMeanTail),
                        saved_inv_std: self.write(SavedInvStd),
                    };
                    c::normdrop_finish(layer, self.handed_over(&call), error)
                }
                Function::Apply => {
                    let call = c::normdrop_apply_call {
                        version,
                        weight: self.read(Weight),
                        bias: self.read(Bias),
                        saved_mean: self.read(SavedMean),
                        saved_mean_tail: self.read(SavedMeanTail),
                        saved_inv_std: self.read(SavedInvStd),
                        mask: self.mask(),
                        gates: self.write(Gates),
                        input: self.read(Input),
                        residual: self.read(Residual),
                        output: self.write(Output),
                        scratch: self.write(Scratch),
                        input_half: self.read_half(Input),
                        residual_half: self.read_half(Residual),
                        output_half: self.write_half(Output),
                    };
                    c::normdrop_apply(layer, self.handed_over(&call), error)
                }
                Function::Reduce => {
                    let call = c::normdrop_reduce_call {
                        version,
                        statistics: self.statistics,
                        weight: self.read(Weight),
                        bias: self.read(Bias),
                        running_mean: self.read_if(fixed, RunningMean),
                        running_mean_tail: self.read_if(fixed, RunningMeanTail),
                        running_var: self.read_if(fixed, RunningVar),
                        saved_mean: self.read_if(!fixed, SavedMean),
                        saved_mean_tail: self.read_if(!fixed, SavedMeanTail),
                        saved_inv_std: self.read_if(!fixed, SavedInvStd),
                        mask: self.read(Mask),
                        gates: self.read(Gates),
                        input: self.read(Input),
                        residual: self.read(Residual),
                        grad_output: self.read(GradOutput),
                        sums: self.write(Sums),
                        scratch: self.write(Scratch),
                        prepared: nobody_looks(),
                        input_half: self.read_half(Input),
                        residual_half: self.read_half(Residual),
                        grad_output_half: self.read_half(GradOutput),
                    };
                    c::normdrop_reduce(layer, self.handed_over(&call), error)
                }
                Function::FinishGradients => c::normdrop_finish_gradients(
                    layer,
                    self.read(Sums),
                    self.write(GradWeight),
                    self.write(GradBias),
                    error,
                ),
                Function::ApplyGradient => {
                    let call = c::normdrop_apply_gradient_call {
                        version,
                        weight: self.read(Weight),
                        bias: self.read(Bias),
                        saved_mean: self.read(SavedMean),
                        saved_mean_tail: self.read(SavedMeanTail),
                        saved_inv_std: self.read(SavedInvStd),
                        samples: self.samples,
                        sums: self.read(Sums),
                        mask: self.read(Mask),
                        gates: self.read(Gates),
                        input: self.read(Input),
                        residual: self.read(Residual),
                        grad_output: self.read(GradOutput),
                        grad_input: self.write(GradInput),
                        grad_residual: self.write(GradResidual),
                        scratch: self.write(Scratch),
                        input_half: self.read_half(Input),
                        residual_half: self.read_half(Residual),
                        grad_output_half: self.read_half(GradOutput),
                        grad_input_half: self.write_half(GradInput),
                        grad_residual_half: self.write_half(GradResidual),
                    };
                    c::normdrop_apply_gradient(layer, self.handed_over(&call), error)
                }
                Function::ApplyNoise => {
                    c::normdrop_apply_noise(layer, &raw const self.noise, SEED, self.write(Values), error)
                }
                Function::AlphaDropout => c::normdrop_alpha_dropout(layer, self.read(Mask), self.write(Values), error),
                Function::AlphaDropoutBackward => {
                    c::normdrop_alpha_dropout_backward(layer, self.read(Mask), self.write(Values), error)
                }
                Function::FillMask => c::normdrop_fill_mask(layer, SEED, self.write(Mask), error),
                Function::MergeMoments => c::normdrop_merge_moments(self.write(Moments), self.read(Sums), error),
                Function::MergeSums => c::normdrop_merge_sums(self.write(Sums), self.read(Moments), error),
                Function::FoldIntoPrevious | Function::FoldIntoNext | Function::FoldPadding => {
                    let (eps, WeightShape { order, outputs, inputs, taps, groups }) = self.fold;
                    let order = match order {
                        WeightOrder::OutInTaps => c::NORMDROP_WEIGHT_ORDER_OUT_IN_TAPS,
                        WeightOrder::OutTapsIn => c::NORMDROP_WEIGHT_ORDER_OUT_TAPS_IN,
                        WeightOrder::InOutTaps => c::NORMDROP_WEIGHT_ORDER_IN_OUT_TAPS,
                        WeightOrder::InTapsOut => c::NORMDROP_WEIGHT_ORDER_IN_TAPS_OUT,
                        WeightOrder::TapsInOut => c::NORMDROP_WEIGHT_ORDER_TAPS_IN_OUT,
                        WeightOrder::TapsOutIn => c::NORMDROP_WEIGHT_ORDER_TAPS_OUT_IN,
                    };
                    let call = c::normdrop_fold_call {
                        version,
                        eps,
                        order,
                        outputs,
                        inputs,
                        taps,
                        groups,
                        weight: self.read(Weight),
                        bias: self.read(Bias),
                        running_mean: self.read(RunningMean),
                        running_mean_tail: self.read(RunningMeanTail),
                        running_var: self.read(RunningVar),
                        weights: self.write(Values),
                        weights_bias: self.write(GradBias),
                    };
                    let call = self.handed_over(&call);
                    match self.function {
                        Function::FoldIntoPrevious => c::normdrop_fold_into_previous(call, error),
                        Function::FoldIntoNext => c::normdrop_fold_into_next(call, error),
                        _ => c::normdrop_fold_padding(call, self.write(GradBias), error),
                    }
                }
            }
        }
    }
}

/// The bits of every buffer but scratch, written or not.
fn contents(memory: &Memory) -> Vec<(Name, Vec<u64>)> {
    fn bits<T: Bits>(buffer: Option<&Buffer<T>>) -> Vec<u64> {
        buffer.into_iter().flat_map(|buffer| buffer.iter().map(|value| value.bits())).collect()
    }
    let mut contents = memory.contents();
    contents.extend([
        (Name::GradOutput, bits(Some(&memory.grad_output))),
        (Name::Weight, bits(memory.weight.as_ref())),
        (Name::Bias, bits(memory.bias.as_ref())),
        (Name::Mask, bits(memory.mask.as_ref())),
    ]);
    contents
}

fn no_error() -> c::normdrop_error {
    c::normdrop_error {
        version: c::NORMDROP_ABI_VERSION,
        status: c::NORMDROP_STATUS_OK,
        buffer: c::NORMDROP_BUFFER_NONE,
        other: c::NORMDROP_BUFFER_NONE,
        expected: 0,
        actual: 0,
        value: 0.0,
    }
}

/// An error of Rust as the C interface must tell it.
fn as_c_says(error: Error, function: Function) -> Refusal {
    let none = Refusal { status: c::NORMDROP_STATUS_OK, buffer: "none".to_owned(), expected: 0, actual: 0, value: 0 };
    match error {
        Error::Length { buffer, expected, actual } => Refusal {
            status: c::NORMDROP_STATUS_LENGTH,
            buffer: names(function, buffer).swap_remove(0),
            expected,
            actual,
            ..none
        },
        Error::LengthMultiple { buffer, fields, actual } => Refusal {
            status: c::NORMDROP_STATUS_MULTIPLE,
            buffer: names(function, buffer).swap_remove(0),
            expected: fields,
            actual,
            ..none
        },
        Error::Eps { eps } => Refusal { status: c::NORMDROP_STATUS_EPS, value: f64::from(eps).to_bits(), ..none },
        Error::SingleSample => Refusal { status: c::NORMDROP_STATUS_SINGLE_SAMPLE, ..none },
        Error::Momentum { momentum } => {
            Refusal { status: c::NORMDROP_STATUS_MOMENTUM, value: momentum.to_bits(), ..none }
        }
        Error::Count { channel, count } => {
            Refusal { status: c::NORMDROP_STATUS_COUNT, actual: channel, value: count.to_bits(), ..none }
        }
        Error::MissingBias { channel } => Refusal {
            status: c::NORMDROP_STATUS_MISSING_BIAS,
            buffer: "weights_bias".to_owned(),
            actual: channel,
            ..none
        },
        Error::Variance { channel, var } => Refusal {
            status: c::NORMDROP_STATUS_VARIANCE,
            buffer: "running_var".to_owned(),
            actual: channel,
            value: f64::from(var).to_bits(),
            ..none
        },
        Error::NotFinite { buffer, index } => Refusal {
            status: c::NORMDROP_STATUS_NOT_FINITE,
            buffer: names(function, buffer).swap_remove(0),
            actual: index,
            ..none
        },
        Error::DropoutUnset { p } => {
            Refusal { status: c::NORMDROP_STATUS_MASK_MISSING, buffer: "mask".to_owned(), value: p.to_bits(), ..none }
        }
        Error::GatesDirection => {
            Refusal { status: c::NORMDROP_STATUS_NOT_AN_ELEMENT_MASK, buffer: "gates".to_owned(), ..none }
        }
        Error::GatesActivation => Refusal { status: c::NORMDROP_STATUS_NO_GATES, buffer: "gates".to_owned(), ..none },
        Error::NoiseWidth { width } => Refusal {
            status: c::NORMDROP_STATUS_NOISE_WIDTH,
            buffer: "noise".to_owned(),
            value: f64::from(width).to_bits(),
            ..none
        },
        other => panic!("no call of a valid layer returns {other:?}"),
    }
}

/// What an error says, the buffer by its name.
#[derive(Debug, PartialEq)]
struct Refusal {
    status: c::normdrop_status,
    buffer: String,
    expected: usize,
    actual: usize,
    /// The bits of the value, which may be NaN.
    value: u64,
}

fn described_error(error: c::normdrop_error) -> Refusal {
    let c::normdrop_error { status, buffer, expected, actual, value, .. } = error;
    Refusal { status, buffer: name(buffer), expected, actual, value: value.to_bits() }
}

/// What C says of a status.
fn text(status: c::normdrop_status) -> String {
    // SAFETY: the texts are constants that end with a zero byte.
    unsafe { CStr::from_ptr(c::normdrop_status_text(status)) }.to_string_lossy().into_owned()
}

/// What C calls a buffer.
fn name(buffer: c::normdrop_buffer) -> String {
    // SAFETY: as above.
    unsafe { CStr::from_ptr(c::normdrop_buffer_name(buffer)) }.to_string_lossy().into_owned()
}
