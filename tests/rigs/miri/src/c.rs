//! The calls through the C interface: each as it should be, and with each of its pointers spoilt in each way.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::ptr;

use normdrop::capi::{self as c, normdrop_slice as Slice, normdrop_slice_mut as SliceMut};

use crate::digest::{Digest, numbers};

const VERSION: u32 = c::NORMDROP_ABI_VERSION;
const OUTER: usize = 4;
const CHANNELS: usize = 3;
const LEN: usize = OUTER * CHANNELS;
/// Of a sample.
const POSITIONS: usize = 2;

/// The values of a buffer.
#[derive(Clone, PartialEq)]
enum Values {
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
    Bytes(Vec<u8>),
    Halves(Vec<u16>),
    Lengths(Vec<usize>),
}

impl Values {
    const fn is_empty(&self) -> bool {
        match self {
            Self::Floats(values) => values.is_empty(),
            Self::Doubles(values) => values.is_empty(),
            Self::Bytes(values) => values.is_empty(),
            Self::Halves(values) => values.is_empty(),
            Self::Lengths(values) => values.is_empty(),
        }
    }
}

/// The types of values.
trait Element: Sized {
    fn of(values: &mut Values) -> &mut Vec<Self>;
}

macro_rules! element {
    ($type:ty: $variant:ident) => {
        impl Element for $type {
            fn of(values: &mut Values) -> &mut Vec<Self> {
                match values {
                    Values::$variant(values) => values,
                    _ => panic!("the buffer has another type"),
                }
            }
        }
    };
}

element!(f32: Floats);
element!(f64: Doubles);
element!(u8: Bytes);
element!(u16: Halves);
element!(usize: Lengths);

/// What is wrong with a pointer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// NULL, and a length.
    Null,
    /// One byte further.
    Misaligned,
    /// More bytes than memory has.
    Huge,
    /// A value fewer than the call asks for, or a channel fewer.
    Short,
    /// Memory of the buffer named here.
    Overlap(&'static str),
}

/// Buffers by their names in the structs of C.
struct Memory {
    values: BTreeMap<&'static str, Values>,
    /// Two buffers that overlap are here: room for both.
    shared: Vec<f64>,
    /// The buffers that a call has, and whether it writes each.
    asked: Vec<(&'static str, bool)>,
    fault: Option<(&'static str, Fault)>,
}

impl Memory {
    fn new(layer: &c::normdrop_layer) -> Self {
        let lengths = lengths(layer);
        let mut values = BTreeMap::new();
        for (seed, name) in (1..).zip(["weight", "bias", "running_mean", "weights_bias", "grad_weight", "grad_bias"]) {
            values.insert(name, Values::Floats(numbers(lengths.channels, seed, false)));
        }
        for (seed, name) in (11..).zip(["input", "residual", "output", "grad_output", "grad_input", "grad_residual"]) {
            values.insert(name, Values::Floats(numbers(lengths.elements, seed, false)));
        }
        for (seed, name) in (31_u16..).zip(["input_half", "output_half", "grad_output_half", "grad_input_half"]) {
            // Between 1 and 2 in bf16, and small numbers in f16.
            let bits = (0..lengths.elements).map(|index| 0x3F80 + u16::try_from(index).expect("small") * seed % 128);
            values.insert(name, Values::Halves(bits.collect()));
        }
        values.insert("weights", Values::Floats(numbers(lengths.elements, 21, false)));
        values.insert("weights_bias_next", Values::Floats(numbers(OUTER, 22, false)));
        for name in ["running_mean_tail", "running_var", "saved_mean", "saved_mean_tail"] {
            values.insert(name, Values::Floats(vec![0.5; lengths.channels]));
        }
        values.insert("saved_inv_std", Values::Doubles(vec![1.5; lengths.channels]));
        for name in ["mask", "gates"] {
            values.insert(name, Values::Bytes(vec![0x5A; lengths.mask]));
        }
        values.insert("lengths", Values::Lengths(vec![1; OUTER / POSITIONS]));
        values.insert("valid_lengths", Values::Lengths(vec![2, 1]));
        values.insert("validity", Values::Bytes(vec![0b1101]));
        values.insert("workspace", Values::Floats(vec![0.0; lengths.masked_workspace]));
        values.insert("some_bits", Values::Bytes(vec![0; 2]));
        let doubles = [
            ("moments", lengths.moments),
            ("sums", lengths.sums),
            ("scratch", lengths.scratch),
            ("masked_scratch", lengths.masked_scratch),
            ("prelu_scratch", lengths.prelu_scratch),
            ("prepared", lengths.prepared),
        ];
        for (name, len) in doubles {
            values.insert(name, Values::Doubles(vec![1.0; len]));
        }
        values.insert("other_moments", Values::Doubles(vec![2.0; lengths.moments]));
        values.insert("other_sums", Values::Doubles(vec![2.0; lengths.sums]));
        Self {
            values,
            shared: vec![0.0; 2 * lengths.masked_scratch.max(lengths.masked_workspace).max(lengths.prelu_scratch) + 2],
            asked: Vec::new(),
            fault: None,
        }
    }

    /// The pointer to a buffer and its length, with the fault if it is this buffer's.
    fn pointer<T: Element>(&mut self, name: &'static str, written: bool) -> (*mut T, usize) {
        self.asked.push((name, written));
        // A value further than the other one, so that neither is the other in place; a mask has too few bytes for that.
        let further = match self.fault {
            Some((of, Fault::Overlap(with))) => {
                usize::from([of, with].iter().all(|name| !matches!(self.values[name], Values::Bytes(_))))
            }
            _ => 0,
        };
        let values = T::of(self.values.get_mut(name).expect("the buffer is there"));
        let (pointer, len) = (values.as_mut_ptr(), values.len());
        match self.fault {
            Some((of, fault)) if of == name => match fault {
                Fault::Null => (ptr::null_mut(), len),
                Fault::Misaligned => (pointer.wrapping_byte_add(1), len),
                Fault::Huge => (pointer, usize::MAX / 2 / size_of::<T>() + 1),
                Fault::Short => (pointer, len - values_per_channel(name)),
                Fault::Overlap(_) => (self.shared.as_mut_ptr().cast(), len),
            },
            Some((_, Fault::Overlap(with))) if with == name => {
                (self.shared.as_mut_ptr().wrapping_add(further).cast(), len)
            }
            _ => (pointer, len),
        }
    }

    fn read<T: Element>(&mut self, name: &'static str) -> Slice<T> {
        let (values, len) = self.pointer(name, false);
        Slice { values, len }
    }

    fn write<T: Element>(&mut self, name: &'static str) -> SliceMut<T> {
        let (values, len) = self.pointer(name, true);
        SliceMut { values, len }
    }

    fn read_halves(&mut self, name: &'static str) -> c::normdrop_halves {
        let (values, len) = self.pointer(name, false);
        c::normdrop_halves { values, len, element: c::NORMDROP_ELEMENT_BF16 }
    }

    fn write_halves(&mut self, name: &'static str) -> c::normdrop_halves_mut {
        let (values, len) = self.pointer(name, true);
        c::normdrop_halves_mut { values, len, element: c::NORMDROP_ELEMENT_F16 }
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::new();
        for (_, values) in self
            .values
            .iter()
            .filter(|(name, _)| !["scratch", "masked_scratch", "prelu_scratch", "workspace"].contains(name))
        {
            match values {
                Values::Floats(values) => digest.floats(values),
                Values::Doubles(values) => digest.doubles(values),
                Values::Bytes(values) => digest.bytes(values),
                Values::Halves(values) => values.iter().for_each(|bits| digest.bytes(&bits.to_le_bytes())),
                Values::Lengths(values) => values.iter().for_each(|&len| digest.bytes(&(len as u64).to_le_bytes())),
            }
        }
        digest.finish()
    }
}

/// The values of a channel in moments and sums, whose lengths are multiples of it.
fn values_per_channel(name: &str) -> usize {
    match name {
        "moments" | "other_moments" => 3,
        "sums" | "other_sums" => 2,
        _ => 1,
    }
}

fn lengths(layer: &c::normdrop_layer) -> c::normdrop_lengths {
    let mut lengths = c::normdrop_lengths {
        version: VERSION,
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
    // SAFETY: both pointers are to what they say; there need be no error.
    let status = unsafe { c::normdrop_layer_lengths(layer, &raw mut lengths, ptr::null_mut()) };
    assert_eq!(status, c::NORMDROP_STATUS_OK);
    lengths
}

fn layer() -> c::normdrop_layer {
    let mut layer = std::mem::MaybeUninit::<c::normdrop_layer>::uninit();
    // SAFETY: the pointer is to a layer, which the call writes as a whole.
    let layer = unsafe {
        assert_eq!(c::normdrop_layer_init(layer.as_mut_ptr(), VERSION), c::NORMDROP_STATUS_OK);
        layer.assume_init()
    };
    let (activation, p) = (c::NORMDROP_ACTIVATION_SILU, 0.25);
    c::normdrop_layer { outer: OUTER, channels: CHANNELS, positions: POSITIONS, activation, p, ..layer }
}

unsafe extern "C" fn next(context: *mut c_void) -> u32 {
    // SAFETY: the calls below pass a number on that nobody else has meanwhile.
    let state = unsafe { &mut *context.cast::<u32>() };
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *state
}

type Function = fn(&mut Memory, &c::normdrop_layer, *mut c::normdrop_error) -> c::normdrop_status;

/// In an order in which each finds what it needs.
const FUNCTIONS: [(&str, Function); 44] = [
    // SAFETY of all of them: the pointers are to allocations that live as long as the call, nobody else uses them meanwhile, and
    // the ones that are spoilt are those that the interface promises to refuse.
    ("fill_mask", |m, layer, error| {
        let mask = m.write("mask");
        // SAFETY: as above.
        unsafe { c::normdrop_fill_mask(layer, 42, mask, error) }
    }),
    ("fill_mask_with", |m, layer, error| {
        let (mut state, mask) = (1_u32, m.write("mask"));
        // SAFETY: as above.
        unsafe { c::normdrop_fill_mask_with(layer, Some(next), (&raw mut state).cast(), mask, error) }
    }),
    ("drop_padding", |m, layer, error| {
        let (lengths, mask) = (m.read("lengths"), m.write("mask"));
        // SAFETY: as above.
        unsafe { c::normdrop_drop_padding(layer, lengths, mask, error) }
    }),
    ("clear_padding", |m, layer, error| {
        let (lengths, values) = (m.read("lengths"), m.write("input"));
        // SAFETY: as above.
        unsafe { c::normdrop_clear_padding(layer, lengths, values, error) }
    }),
    ("bernoulli_fill", |m, _, error| {
        let mask = m.write("some_bits");
        // SAFETY: as above.
        unsafe { c::normdrop_bernoulli_fill(0.25, 1, 5, 13, mask, error) }
    }),
    ("bernoulli_fill_with", |m, _, error| {
        let (mut state, mask) = (1_u32, m.write("some_bits"));
        // SAFETY: as above.
        unsafe { c::normdrop_bernoulli_fill_with(0.25, Some(next), (&raw mut state).cast(), 13, mask, error) }
    }),
    ("apply_noise", |m, layer, error| {
        let values = m.write("output");
        // SAFETY: as above.
        unsafe { c::normdrop_apply_noise(layer, &raw const NOISE, 42, values, error) }
    }),
    ("alpha_dropout", |m, layer, error| {
        let (mask, values) = (m.read("mask"), m.write("output"));
        // SAFETY: as above.
        unsafe { c::normdrop_alpha_dropout(layer, mask, values, error) }
    }),
    ("alpha_dropout_backward", |m, layer, error| {
        let (mask, values) = (m.read("mask"), m.write("output"));
        // SAFETY: as above.
        unsafe { c::normdrop_alpha_dropout_backward(layer, mask, values, error) }
    }),
    ("prelu", |m, layer, error| {
        let (slope, values) = (m.read("bias"), m.write("output"));
        // SAFETY: as above.
        unsafe { c::normdrop_prelu(layer, slope, values, error) }
    }),
    ("prelu_gradient", |m, layer, error| {
        let (slope, grad_output, values) = (m.read("bias"), m.read("grad_output"), m.write("output"));
        let (grad_slope, scratch) = (m.write("grad_bias"), m.write("prelu_scratch"));
        // SAFETY: as above.
        unsafe { c::normdrop_prelu_gradient(layer, slope, grad_output, values, grad_slope, scratch, error) }
    }),
    ("train", |m, layer, error| {
        let mask = m.read("mask");
        train(m, layer, error, mask, NOT_WRITTEN, None)
    }),
    ("train, masked", |m, layer, error| {
        let (mask, lengths) = (m.read("mask"), m.read("valid_lengths"));
        let masked = masked(m, lengths, NO_GATES);
        train(m, layer, error, mask, NOT_WRITTEN, Some(masked))
    }),
    ("train, gates beside the mask", |m, layer, error| {
        let (mask, gates) = (m.read("mask"), m.write("gates"));
        train(m, &with_gates(layer), error, mask, gates, None)
    }),
    ("train, gates over the mask", |m, layer, error| {
        let gates: SliceMut<u8> = m.write("gates");
        let mask = Slice { values: gates.values, len: gates.len };
        train(m, &with_gates(layer), error, mask, gates, None)
    }),
    ("eval", |m, layer, error| {
        let call = c::normdrop_eval_call {
            version: VERSION,
            weight: m.read("weight"),
            bias: m.read("bias"),
            running_mean: m.read("running_mean"),
            running_mean_tail: m.read("running_mean_tail"),
            running_var: m.read("running_var"),
            mask: m.read("mask"),
            gates: NOT_WRITTEN,
            input: m.read("input"),
            residual: m.read("residual"),
            output: m.write("output"),
            scratch: m.write("scratch"),
            prepared: LEFT_OUT,
            input_half: Default::default(),
            residual_half: Default::default(),
            output_half: Default::default(),
        };
        // SAFETY: as above.
        unsafe { c::normdrop_eval(layer, &raw const call, error) }
    }),
    ("train, halves", |m, layer, error| {
        let call = c::normdrop_train_call {
            version: VERSION,
            weight: m.read("weight"),
            bias: m.read("bias"),
            running_mean: m.write("running_mean"),
            running_mean_tail: m.write("running_mean_tail"),
            running_var: m.write("running_var"),
            batches: ptr::null_mut(),
            mask: m.read("mask"),
            gates: NOT_WRITTEN,
            input: NO_FLOATS,
            residual: m.read("residual"),
            output: NO_FLOATS_MUT,
            saved_mean: m.write("saved_mean"),
            saved_mean_tail: m.write("saved_mean_tail"),
            saved_inv_std: m.write("saved_inv_std"),
            scratch: m.write("scratch"),
            input_half: m.read_halves("input_half"),
            residual_half: Default::default(),
            output_half: m.write_halves("output_half"),
        };
        // SAFETY: as above.
        unsafe { c::normdrop_train(layer, &raw const call, error) }
    }),
    ("eval, halves in place", |m, layer, error| {
        let values = m.write_halves("output_half");
        let call = c::normdrop_eval_call {
            version: VERSION,
            weight: m.read("weight"),
            bias: m.read("bias"),
            running_mean: m.read("running_mean"),
            running_mean_tail: m.read("running_mean_tail"),
            running_var: m.read("running_var"),
            mask: m.read("mask"),
            gates: NOT_WRITTEN,
            input: NO_FLOATS,
            residual: m.read("residual"),
            output: NO_FLOATS_MUT,
            scratch: m.write("scratch"),
            prepared: LEFT_OUT,
            input_half: c::normdrop_halves { values: values.values, len: values.len, element: values.element },
            residual_half: Default::default(),
            output_half: values,
        };
        // SAFETY: as above.
        unsafe { c::normdrop_eval(layer, &raw const call, error) }
    }),
    ("moments, halves", |m, layer, error| {
        let (input, moments, scratch) = (m.read_halves("input_half"), m.write("moments"), m.write("scratch"));
        // SAFETY: as above.
        unsafe { c::normdrop_moments_half(layer, input, moments, scratch, error) }
    }),
    ("clear_padding, halves", |m, layer, error| {
        let (lengths, values) = (m.read("lengths"), m.write_halves("output_half"));
        // SAFETY: as above.
        unsafe { c::normdrop_clear_padding_half(layer, lengths, values, error) }
    }),
    ("eval, masked", |m, layer, error| {
        let call = c::normdrop_eval_call {
            version: VERSION,
            weight: m.read("weight"),
            bias: m.read("bias"),
            running_mean: m.read("running_mean"),
            running_mean_tail: m.read("running_mean_tail"),
            running_var: m.read("running_var"),
            mask: m.read("mask"),
            gates: NOT_WRITTEN,
            input: m.read("input"),
            residual: m.read("residual"),
            output: m.write("output"),
            scratch: m.write("masked_scratch"),
            prepared: LEFT_OUT,
            input_half: Default::default(),
            residual_half: Default::default(),
            output_half: Default::default(),
        };
        let validity = m.read("validity");
        let masked = masked(m, NO_LENGTHS, validity);
        // SAFETY: as above.
        unsafe { c::normdrop_eval_masked(layer, &raw const call, &raw const masked, error) }
    }),
    ("eval, in place", |m, layer, error| {
        let values: SliceMut<f32> = m.write("output");
        let call = c::normdrop_eval_call {
            version: VERSION,
            weight: m.read("weight"),
            bias: m.read("bias"),
            running_mean: m.read("running_mean"),
            running_mean_tail: m.read("running_mean_tail"),
            running_var: m.read("running_var"),
            mask: m.read("mask"),
            gates: NOT_WRITTEN,
            input: Slice { values: values.values, len: values.len },
            residual: m.read("residual"),
            output: values,
            scratch: m.write("scratch"),
            prepared: LEFT_OUT,
            input_half: Default::default(),
            residual_half: Default::default(),
            output_half: Default::default(),
        };
        // SAFETY: as above.
        unsafe { c::normdrop_eval(layer, &raw const call, error) }
    }),
    ("prepare", |m, layer, error| {
        let call = c::normdrop_prepare_call {
            version: VERSION,
            weight: m.read("weight"),
            bias: m.read("bias"),
            running_mean: m.read("running_mean"),
            running_mean_tail: m.read("running_mean_tail"),
            running_var: m.read("running_var"),
            prepared: m.write("prepared"),
        };
        // SAFETY: as above.
        unsafe { c::normdrop_prepare(layer, &raw const call, error) }
    }),
    ("eval, prepared", |m, layer, error| {
        let call = c::normdrop_eval_call {
            version: VERSION,
            weight: of(false, m, "weight"),
            bias: of(false, m, "bias"),
            running_mean: of(false, m, "running_mean"),
            running_mean_tail: of(false, m, "running_mean_tail"),
            running_var: of(false, m, "running_var"),
            mask: m.read("mask"),
            gates: NOT_WRITTEN,
            input: m.read("input"),
            residual: m.read("residual"),
            output: m.write("output"),
            scratch: m.write("scratch"),
            prepared: m.read("prepared"),
            input_half: Default::default(),
            residual_half: Default::default(),
            output_half: Default::default(),
        };
        // SAFETY: as above.
        unsafe { c::normdrop_eval(layer, &raw const call, error) }
    }),
    ("backward, prepared", |m, layer, error| {
        let (grad_output, grad_input) = (m.read("grad_output"), m.write("grad_input"));
        let bits = [m.read("mask"), NO_GATES];
        backward(m, layer, error, c::NORMDROP_STATISTICS_PREPARED, bits, (grad_output, grad_input), None)
    }),
    ("backward", |m, layer, error| {
        let (grad_output, grad_input) = (m.read("grad_output"), m.write("grad_input"));
        let bits = [m.read("mask"), NO_GATES];
        backward(m, layer, error, c::NORMDROP_STATISTICS_BATCH, bits, (grad_output, grad_input), None)
    }),
    ("backward, masked", |m, layer, error| {
        let (grad_output, grad_input) = (m.read("grad_output"), m.write("grad_input"));
        let (bits, validity) = ([m.read("mask"), NO_GATES], m.read("validity"));
        let masked = masked(m, NO_LENGTHS, validity);
        backward(m, layer, error, c::NORMDROP_STATISTICS_BATCH, bits, (grad_output, grad_input), Some(masked))
    }),
    ("backward, in place", |m, layer, error| {
        let values: SliceMut<f32> = m.write("grad_input");
        let grad_output = Slice { values: values.values, len: values.len };
        let bits = [m.read("mask"), NO_GATES];
        backward(m, layer, error, c::NORMDROP_STATISTICS_BATCH, bits, (grad_output, values), None)
    }),
    ("backward, gates", |m, layer, error| {
        let (grad_output, grad_input) = (m.read("grad_output"), m.write("grad_input"));
        let bits = [NO_GATES, m.read("gates")];
        backward(m, &with_gates(layer), error, c::NORMDROP_STATISTICS_BATCH, bits, (grad_output, grad_input), None)
    }),
    ("backward, fixed", |m, layer, error| {
        let (grad_output, grad_input) = (m.read("grad_output"), m.write("grad_input"));
        let bits = [m.read("mask"), NO_GATES];
        backward(m, layer, error, c::NORMDROP_STATISTICS_FIXED, bits, (grad_output, grad_input), None)
    }),
    ("moments", |m, layer, error| {
        let (input, moments, scratch) = (m.read("input"), m.write("moments"), m.write("scratch"));
        // SAFETY: as above.
        unsafe { c::normdrop_moments(layer, input, moments, scratch, error) }
    }),
    ("merge_moments", |m, _, error| {
        let (into, from) = (m.write("moments"), m.read("other_moments"));
        // SAFETY: as above.
        unsafe { c::normdrop_merge_moments(into, from, error) }
    }),
    ("finish", |m, layer, error| {
        let call = c::normdrop_finish_call {
            version: VERSION,
            moments: m.read("moments"),
            running_mean: m.write("running_mean"),
            running_mean_tail: m.write("running_mean_tail"),
            running_var: m.write("running_var"),
            batches: ptr::null_mut(),
            saved_mean: m.write("saved_mean"),
            saved_mean_tail: m.write("saved_mean_tail"),
            saved_inv_std: m.write("saved_inv_std"),
        };
        // SAFETY: as above.
        unsafe { c::normdrop_finish(layer, &raw const call, error) }
    }),
    ("apply", |m, layer, error| {
        let call = c::normdrop_apply_call {
            version: VERSION,
            weight: m.read("weight"),
            bias: m.read("bias"),
            saved_mean: m.read("saved_mean"),
            saved_mean_tail: m.read("saved_mean_tail"),
            saved_inv_std: m.read("saved_inv_std"),
            mask: m.read("mask"),
            gates: NOT_WRITTEN,
            input: m.read("input"),
            residual: m.read("residual"),
            output: m.write("output"),
            scratch: m.write("scratch"),
            input_half: Default::default(),
            residual_half: Default::default(),
            output_half: Default::default(),
        };
        // SAFETY: as above.
        unsafe { c::normdrop_apply(layer, &raw const call, error) }
    }),
    ("reduce", |m, layer, error| reduce(m, layer, error, c::NORMDROP_STATISTICS_BATCH)),
    ("reduce, fixed", |m, layer, error| reduce(m, layer, error, c::NORMDROP_STATISTICS_FIXED)),
    ("reduce, prepared", |m, layer, error| reduce(m, layer, error, c::NORMDROP_STATISTICS_PREPARED)),
    ("merge_sums", |m, _, error| {
        let (into, from) = (m.write("sums"), m.read("other_sums"));
        // SAFETY: as above.
        unsafe { c::normdrop_merge_sums(into, from, error) }
    }),
    ("finish_gradients", |m, layer, error| {
        let (sums, grad_weight, grad_bias) = (m.read("sums"), m.write("grad_weight"), m.write("grad_bias"));
        // SAFETY: as above.
        unsafe { c::normdrop_finish_gradients(layer, sums, grad_weight, grad_bias, error) }
    }),
    ("apply_gradient", |m, layer, error| {
        let call = c::normdrop_apply_gradient_call {
            version: VERSION,
            weight: m.read("weight"),
            bias: m.read("bias"),
            saved_mean: m.read("saved_mean"),
            saved_mean_tail: m.read("saved_mean_tail"),
            saved_inv_std: m.read("saved_inv_std"),
            samples: OUTER as f64,
            sums: m.read("sums"),
            mask: m.read("mask"),
            gates: NO_GATES,
            input: m.read("input"),
            residual: m.read("residual"),
            grad_output: m.read("grad_output"),
            grad_input: m.write("grad_input"),
            grad_residual: m.write("grad_residual"),
            scratch: m.write("scratch"),
            input_half: Default::default(),
            residual_half: Default::default(),
            grad_output_half: Default::default(),
            grad_input_half: Default::default(),
            grad_residual_half: Default::default(),
        };
        // SAFETY: as above.
        unsafe { c::normdrop_apply_gradient(layer, &raw const call, error) }
    }),
    ("fold_into_previous", |m, layer, error| {
        let call = fold(m, layer, c::NORMDROP_WEIGHT_ORDER_IN_OUT_TAPS, [CHANNELS, OUTER], "weights_bias");
        // SAFETY: as above.
        unsafe { c::normdrop_fold_into_previous(&raw const call, error) }
    }),
    ("fold_into_next", |m, layer, error| {
        let call = fold(m, layer, c::NORMDROP_WEIGHT_ORDER_OUT_IN_TAPS, [OUTER, CHANNELS], "weights_bias_next");
        // SAFETY: as above.
        unsafe { c::normdrop_fold_into_next(&raw const call, error) }
    }),
    ("fold_padding", |m, layer, error| {
        let call = c::normdrop_fold_call {
            version: VERSION,
            eps: layer.eps,
            order: 0,
            outputs: 0,
            inputs: 0,
            taps: 0,
            groups: 0,
            weight: m.read("weight"),
            bias: m.read("bias"),
            running_mean: m.read("running_mean"),
            running_mean_tail: m.read("running_mean_tail"),
            running_var: m.read("running_var"),
            weights: SliceMut { values: ptr::null_mut(), len: 0 },
            weights_bias: SliceMut { values: ptr::null_mut(), len: 0 },
        };
        let padding = m.write("weights_bias");
        // SAFETY: as above.
        unsafe { c::normdrop_fold_padding(&raw const call, padding, error) }
    }),
    ("into_running", |m, _, error| {
        let stored =
            c::normdrop_stored { version: VERSION, form: c::NORMDROP_STORED_FORM_SUMS, factor: 2.0, eps: 1e-5 };
        let (mean, spread, mut eps) = (m.write("weights_bias"), m.write("grad_bias"), 0.0);
        // SAFETY: as above.
        unsafe { c::normdrop_into_running(&raw const stored, mean, spread, &raw mut eps, error) }
    }),
];

/// The layer with an activation that has gates.
const fn with_gates(layer: &c::normdrop_layer) -> c::normdrop_layer {
    c::normdrop_layer { activation: c::NORMDROP_ACTIVATION_RELU, ..*layer }
}

fn train(
    m: &mut Memory,
    layer: &c::normdrop_layer,
    error: *mut c::normdrop_error,
    mask: Slice<u8>,
    gates: SliceMut<u8>,
    masked: Option<c::normdrop_masked>,
) -> c::normdrop_status {
    let mut batches = 1;
    let call = c::normdrop_train_call {
        version: VERSION,
        weight: m.read("weight"),
        bias: m.read("bias"),
        running_mean: m.write("running_mean"),
        running_mean_tail: m.write("running_mean_tail"),
        running_var: m.write("running_var"),
        batches: &raw mut batches,
        mask,
        gates,
        input: m.read("input"),
        residual: m.read("residual"),
        output: m.write("output"),
        saved_mean: m.write("saved_mean"),
        saved_mean_tail: m.write("saved_mean_tail"),
        saved_inv_std: m.write("saved_inv_std"),
        scratch: m.write(if masked.is_some() { "masked_scratch" } else { "scratch" }),
        input_half: Default::default(),
        residual_half: Default::default(),
        output_half: Default::default(),
    };
    // SAFETY: as above `FUNCTIONS`.
    unsafe {
        match masked {
            Some(masked) => c::normdrop_train_masked(layer, &raw const call, &raw const masked, error),
            None => c::normdrop_train(layer, &raw const call, error),
        }
    }
}

fn backward(
    m: &mut Memory,
    layer: &c::normdrop_layer,
    error: *mut c::normdrop_error,
    statistics: c::normdrop_statistics,
    [mask, gates]: [Slice<u8>; 2],
    (grad_output, grad_input): (Slice<f32>, SliceMut<f32>),
    masked: Option<c::normdrop_masked>,
) -> c::normdrop_status {
    let batch = statistics == c::NORMDROP_STATISTICS_BATCH;
    let fixed = statistics == c::NORMDROP_STATISTICS_FIXED;
    let call = c::normdrop_backward_call {
        version: VERSION,
        statistics,
        weight: m.read("weight"),
        bias: m.read("bias"),
        running_mean: of(fixed, m, "running_mean"),
        running_mean_tail: of(fixed, m, "running_mean_tail"),
        running_var: of(fixed, m, "running_var"),
        saved_mean: of(batch, m, "saved_mean"),
        saved_mean_tail: of(batch, m, "saved_mean_tail"),
        saved_inv_std: of(batch, m, "saved_inv_std"),
        mask,
        gates,
        input: m.read("input"),
        residual: m.read("residual"),
        grad_output,
        grad_input,
        grad_residual: m.write("grad_residual"),
        grad_weight: m.write("grad_weight"),
        grad_bias: m.write("grad_bias"),
        scratch: m.write(if masked.is_some() { "masked_scratch" } else { "scratch" }),
        prepared: of(statistics == c::NORMDROP_STATISTICS_PREPARED, m, "prepared"),
        input_half: Default::default(),
        residual_half: Default::default(),
        grad_output_half: Default::default(),
        grad_input_half: Default::default(),
        grad_residual_half: Default::default(),
    };
    // SAFETY: as above `FUNCTIONS`.
    unsafe {
        match masked {
            Some(masked) => c::normdrop_backward_masked(layer, &raw const call, &raw const masked, error),
            None => c::normdrop_backward(layer, &raw const call, error),
        }
    }
}

fn reduce(
    m: &mut Memory,
    layer: &c::normdrop_layer,
    error: *mut c::normdrop_error,
    statistics: c::normdrop_statistics,
) -> c::normdrop_status {
    let batch = statistics == c::NORMDROP_STATISTICS_BATCH;
    let fixed = statistics == c::NORMDROP_STATISTICS_FIXED;
    let call = c::normdrop_reduce_call {
        version: VERSION,
        statistics,
        weight: m.read("weight"),
        bias: m.read("bias"),
        running_mean: of(fixed, m, "running_mean"),
        running_mean_tail: of(fixed, m, "running_mean_tail"),
        running_var: of(fixed, m, "running_var"),
        saved_mean: of(batch, m, "saved_mean"),
        saved_mean_tail: of(batch, m, "saved_mean_tail"),
        saved_inv_std: of(batch, m, "saved_inv_std"),
        mask: m.read("mask"),
        gates: NO_GATES,
        input: m.read("input"),
        residual: m.read("residual"),
        grad_output: m.read("grad_output"),
        sums: m.write("sums"),
        scratch: m.write("scratch"),
        prepared: of(statistics == c::NORMDROP_STATISTICS_PREPARED, m, "prepared"),
        input_half: Default::default(),
        residual_half: Default::default(),
        grad_output_half: Default::default(),
    };
    // SAFETY: as above `FUNCTIONS`.
    unsafe { c::normdrop_reduce(layer, &raw const call, error) }
}

/// Which positions are valid, and the memory for their values.
fn masked(m: &mut Memory, lengths: Slice<usize>, validity: Slice<u8>) -> c::normdrop_masked {
    c::normdrop_masked { version: VERSION, lengths, validity, workspace: m.write("workspace") }
}

static NOISE: c::normdrop_noise =
    c::normdrop_noise { version: VERSION, law: c::NORMDROP_NOISE_LAW_GAUSSIAN, p: 0.0, width: 0.5 };
const NO_FLOATS: Slice<f32> = Slice { values: ptr::null(), len: 0 };
const NO_FLOATS_MUT: SliceMut<f32> = SliceMut { values: ptr::null_mut(), len: 0 };
const NO_LENGTHS: Slice<usize> = Slice { values: ptr::null(), len: 0 };

/// A buffer that a call is not given.
const LEFT_OUT: Slice<f64> = Slice { values: ptr::null(), len: 0 };

/// Gates that a forward call does not write; bits that a backward call does not get.
const NOT_WRITTEN: SliceMut<u8> = SliceMut { values: ptr::null_mut(), len: 0 };
const NO_GATES: Slice<u8> = Slice { values: ptr::null(), len: 0 };

/// A buffer if the call looks at it, else a pointer to nowhere.
fn of<T: Element>(looked_at: bool, m: &mut Memory, name: &'static str) -> Slice<T> {
    if looked_at { m.read(name) } else { Slice { values: ptr::without_provenance(1), len: 7 } }
}

fn fold(
    m: &mut Memory,
    layer: &c::normdrop_layer,
    order: c::normdrop_weight_order,
    [outputs, inputs]: [usize; 2],
    bias: &'static str,
) -> c::normdrop_fold_call {
    c::normdrop_fold_call {
        version: VERSION,
        eps: layer.eps,
        order,
        outputs,
        inputs,
        taps: 1,
        groups: 1,
        weight: m.read("weight"),
        bias: m.read("bias"),
        running_mean: m.read("running_mean"),
        running_mean_tail: m.read("running_mean_tail"),
        running_var: m.read("running_var"),
        weights: m.write("weights"),
        weights_bias: m.write(bias),
    }
}

const fn no_error() -> c::normdrop_error {
    c::normdrop_error { version: VERSION, status: 0, buffer: 0, other: 0, expected: 0, actual: 0, value: 0.0 }
}

fn text(status: c::normdrop_status) -> String {
    // SAFETY: the text is a constant of the library.
    unsafe { CStr::from_ptr(c::normdrop_status_text(status)) }.to_string_lossy().into_owned()
}

/// Every function as it should be, and then with each of its buffers spoilt.
pub(crate) fn every_call() {
    let layer = layer();
    let mut memory = Memory::new(&layer);
    let mut refused = 0;
    for (name, function) in FUNCTIONS {
        memory.asked.clear();
        let mut error = no_error();
        let status = function(&mut memory, &layer, &raw mut error);
        assert_eq!(status, c::NORMDROP_STATUS_OK, "{name}: {} of {}", text(status), error.buffer);
        println!("{name}: {:016x}", memory.digest());
        let asked = memory.asked.clone();
        let before = memory.values.clone();
        for &(of, written) in &asked {
            for (fault, expected) in faults(&memory, &asked, of, written) {
                memory.fault = Some((of, fault));
                let mut error = no_error();
                let status = function(&mut memory, &layer, &raw mut error);
                // Texts take an interpreter long, so that only a mistake is put into one.
                assert!(status == expected, "{name} with {of}: {fault:?}: {}, not {}", text(status), text(expected));
                assert!(error.status == status, "{name} with {of}: {fault:?}: another status in the error");
                refused += 1;
            }
        }
        memory.fault = None;
        assert!(memory.values == before, "a refused call of {name} wrote");
    }
    structs(&layer, &mut memory);
    first_min_pooled();
    println!("C: {} calls, {refused} refusals", FUNCTIONS.len());
}

/// The function whose buffer may have any length.
fn first_min_pooled() {
    let weights = [1.0, 0.5, -1.0];
    for len in 0..=weights.len() {
        // On the heap, so that a read past the end is found.
        let given = weights[..len].to_vec();
        let (slice, mut channel) = (Slice { values: given.as_ptr(), len }, 7);
        // SAFETY: the values and the number are there.
        let status = unsafe { c::normdrop_first_min_pooled(slice, &raw mut channel, ptr::null_mut()) };
        assert_eq!((status, channel), (c::NORMDROP_STATUS_OK, len.min(2)));
    }
}

/// What can be wrong with a buffer, and what the call must say.
fn faults(
    memory: &Memory,
    asked: &[(&'static str, bool)],
    of: &'static str,
    written: bool,
) -> Vec<(Fault, c::normdrop_status)> {
    // Without vector registers there is no scratch: nothing that could be spoilt.
    if memory.values[of].is_empty() {
        return Vec::new();
    }
    let mut faults = vec![
        (Fault::Null, c::NORMDROP_STATUS_NULL),
        (Fault::Huge, c::NORMDROP_STATUS_SIZE),
        (Fault::Short, c::NORMDROP_STATUS_LENGTH),
    ];
    if !matches!(memory.values[of], Values::Bytes(_)) {
        faults.push((Fault::Misaligned, c::NORMDROP_STATUS_ALIGNMENT));
    }
    // Gates may take the place of a mask.
    let bits = |name| matches!(memory.values[name], Values::Bytes(_));
    let other = asked.iter().find(|&&(name, also)| {
        name != of && (written || also) && !memory.values[name].is_empty() && !(bits(of) && bits(name))
    });
    if let Some(&(other, _)) = other {
        faults.push((Fault::Overlap(other), c::NORMDROP_STATUS_OVERLAP));
    }
    faults
}

/// Pointers to structs, and functions without buffers.
fn structs(layer: &c::normdrop_layer, memory: &mut Memory) {
    let mut keep = c::normdrop_keep { version: VERSION, scale: 0.0, threshold: 0, probability: 0.0 };
    let of_another_version = c::normdrop_layer { version: VERSION + 1, ..*layer };
    let mask: SliceMut<u8> = memory.write("mask");
    // SAFETY: the pointers are to what they say, or are those that the interface promises to refuse.
    let statuses = unsafe {
        [
            c::normdrop_bernoulli_keep(0.25, &raw mut keep, ptr::null_mut()),
            c::normdrop_bernoulli_keep(0.25, ptr::null_mut(), ptr::null_mut()),
            c::normdrop_fill_mask(ptr::null(), 1, mask, ptr::null_mut()),
            c::normdrop_fill_mask(&raw const of_another_version, 1, mask, ptr::null_mut()),
            c::normdrop_fill_mask(ptr::from_ref(layer).wrapping_byte_add(1), 1, mask, ptr::null_mut()),
            c::normdrop_fill_mask_with(layer, None, ptr::null_mut(), mask, ptr::null_mut()),
            c::normdrop_train(layer, ptr::null(), ptr::null_mut()),
            c::normdrop_layer_init(ptr::null_mut(), VERSION),
            c::normdrop_noise_apply(&raw const NOISE, 1, 7, memory.write("output"), ptr::null_mut()),
            c::normdrop_noise_apply(ptr::null(), 1, 7, memory.write("output"), ptr::null_mut()),
            c::normdrop_eval_masked(layer, ptr::null(), ptr::null(), ptr::null_mut()),
        ]
    };
    assert_eq!(
        statuses,
        [
            c::NORMDROP_STATUS_OK,
            c::NORMDROP_STATUS_NULL,
            c::NORMDROP_STATUS_NULL,
            c::NORMDROP_STATUS_VERSION,
            c::NORMDROP_STATUS_ALIGNMENT,
            c::NORMDROP_STATUS_NULL,
            c::NORMDROP_STATUS_NULL,
            c::NORMDROP_STATUS_NULL,
            c::NORMDROP_STATUS_OK,
            c::NORMDROP_STATUS_NULL,
            c::NORMDROP_STATUS_NULL,
        ]
    );
    assert_eq!(c::normdrop_mask_len(LEN), LEN.div_ceil(8));
    let mut digest = Digest::new();
    for number in 0..40 {
        for name in [c::normdrop_buffer_name(number), c::normdrop_backend_name(number)] {
            // SAFETY: the names are constants of the library.
            digest.bytes(unsafe { CStr::from_ptr(name) }.to_bytes());
        }
        digest.bytes(text(number.cast_signed()).as_bytes());
    }
    // SAFETY: as above.
    digest.bytes(unsafe { CStr::from_ptr(c::normdrop_version()) }.to_bytes());
    digest.bytes(&c::normdrop_abi_version().to_le_bytes());
    println!("names: {:016x}, keep {}", digest.finish(), keep.threshold);
}
