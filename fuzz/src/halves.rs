//! Calls on tensors of halves: what the call on f32 gives for the widened values, rounded once where it is stored as a half.

use normdrop::{
    Average, Backward, BackwardInPlace, Bf16, Buffer as Name, Dropout, Element, Error, Eval, EvalInPlace, F16, Layer,
    ParameterGradients, Parameters, Running, RunningMut, Saved, SavedMut, Statistics, Train,
};

use crate::buffer::{Bits, Buffer};
use crate::calls::{Visitor, forward, on_backends, scratch_len, with_activation};
use crate::case::{Case, Entry, Lengths};
use crate::input::LayerInput;

/// A type of elements.
trait Stored: Element {
    fn narrow(value: f32) -> Self;
    fn wide(self) -> f32;
}

macro_rules! stored {
    ($($name:ident: $narrow:expr;)*) => {$(
        impl Stored for $name {
            fn narrow(value: f32) -> Self {
                $narrow(value)
            }

            fn wide(self) -> f32 {
                f32::from(self)
            }
        }
    )*};
}
stored! {
    f32: f32::from;
    F16: F16::from_f32;
    Bf16: Bf16::from_f32;
}

/// What a call has written: tensors of either type, widened, and the bits of everything else.
#[derive(Debug, Default)]
struct Written {
    x: Vec<(Name, Vec<f32>)>,
    y: Vec<(Name, Vec<f32>)>,
    same: Vec<(Name, Vec<u64>)>,
}

impl Written {
    /// The bits once the tensors are stored as `X` and `Y`.
    fn bits<X: Stored, Y: Stored>(self) -> Vec<(Name, Vec<u64>)> {
        let x = self.x.into_iter().map(|(name, values)| (name, bits_of(&values, |value| X::narrow(value).wide())));
        let y = self.y.into_iter().map(|(name, values)| (name, bits_of(&values, |value| Y::narrow(value).wide())));
        x.chain(y).chain(self.same).collect()
    }
}

fn bits_of(values: &[f32], stored: impl Fn(f32) -> f32) -> Vec<u64> {
    values.iter().map(|&value| stored(value).bits()).collect()
}

fn wide<E: Stored>(tensor: &[E]) -> Vec<f32> {
    tensor.iter().map(|value| value.wide()).collect()
}

/// One entry on tensors whose types depend on the input, on every backend.
pub(crate) fn check(input: &LayerInput, entry: Entry) {
    let mut case = Case::new(input);
    let types = input.outer ^ input.channels ^ input.inner ^ u16::from(input.x.class);
    let activation = case.activation;
    let case = &mut case;
    match types % 5 {
        0 => with_activation(activation, Call::<F16, F16>::new(case, entry)),
        1 => with_activation(activation, Call::<Bf16, Bf16>::new(case, entry)),
        2 => with_activation(activation, Call::<Bf16, f32>::new(case, entry)),
        3 => with_activation(activation, Call::<f32, F16>::new(case, entry)),
        _ => with_activation(activation, Call::<F16, Bf16>::new(case, entry)),
    }
}

/// A call with `x`, the residual and their gradients as `X`, and `y` and its gradient as `Y`.
struct Call<'a, X, Y> {
    case: &'a mut Case,
    entry: Entry,
    types: core::marker::PhantomData<(X, Y)>,
}

impl<'a, X, Y> Call<'a, X, Y> {
    fn new(case: &'a mut Case, entry: Entry) -> Self {
        Self { case, entry, types: core::marker::PhantomData }
    }
}

impl<X: Stored, Y: Stored> Visitor for Call<'_, X, Y> {
    type Result = ();

    fn visit<A: normdrop::Activation>(self, activation: A) {
        let Self { case, entry, .. } = self;
        // The values that the tensors can hold.
        case.x.iter_mut().for_each(|value| *value = X::narrow(*value).wide());
        case.residual.iter_mut().flatten().for_each(|value| *value = X::narrow(*value).wide());
        case.dy.iter_mut().for_each(|value| *value = Y::narrow(*value).wide());
        let layer = case.layer(activation);
        if matches!(entry, Entry::Backward | Entry::BackwardInPlace) {
            case.forward = forward(case, &layer);
        }
        let (expected, singles) = call::<A, f32, f32>(case, entry, &layer);
        let singles = singles.bits::<X, Y>();
        for layer in on_backends(&layer) {
            let (result, halves) = call::<A, X, Y>(case, entry, &layer);
            assert_eq!(result, expected, "halves are refused otherwise than f32");
            for ((name, expected), (_, found)) in singles.iter().zip(halves.bits::<X, Y>()) {
                let first = expected.iter().zip(&found).position(|(expected, found)| expected != found);
                let of = first.map(|first| (first, expected[first], found[first]));
                assert_eq!(of, None, "{} of {} and {}", name.name(), size_of::<X>(), size_of::<Y>());
            }
        }
    }
}

/// One call, with lengths as the input gives them.
fn call<A: normdrop::Activation, X: Stored, Y: Stored>(
    case: &Case,
    entry: Entry,
    layer: &Layer<A>,
) -> (Result<(), Error>, Written) {
    let (elements, channels) = (case.shape.len(), case.shape.channels());
    let len = |name, right| case.len(Lengths::AsGiven, name, right);
    let of_x = |name, values: &[f32]| {
        let values: Vec<X> = values.iter().map(|&value| X::narrow(value)).collect();
        Buffer::new(&values, len(name, elements), X::narrow(f32::NAN), case.place)
    };
    let of_y = |name, values: &[f32]| {
        let values: Vec<Y> = values.iter().map(|&value| Y::narrow(value)).collect();
        Buffer::new(&values, len(name, elements), Y::narrow(f32::NAN), case.place)
    };
    let single = |name, values: &[f32]| Buffer::new(values, len(name, channels), f32::NAN, case.place);
    let optional = |name, values: &Option<Vec<f32>>| values.as_deref().map(|values| single(name, values));

    let input = of_x(Name::Input, &case.x);
    let residual = case.residual.as_deref().map(|residual| of_x(Name::Residual, residual));
    let residual = residual.as_deref();
    let (weight, bias) = (optional(Name::Weight, &case.weight), optional(Name::Bias, &case.bias));
    let parameters = Parameters { weight: weight.as_deref(), bias: bias.as_deref() };
    let mut mean = single(Name::RunningMean, &case.running_mean);
    let mut mean_tail = optional(Name::RunningMeanTail, &case.running_mean_tail);
    let mut var = single(Name::RunningVar, &case.running_var);
    let mask = case.mask.as_ref().map(|mask| Buffer::new(mask, len(Name::Mask, mask.len()), 0xFF, case.place));
    let dropout = mask.as_deref().map_or(Dropout::Off, Dropout::Mask);
    let scratch_len = len(Name::Scratch, scratch_len(case, entry, layer));
    let mut scratch = Buffer::new(&[], scratch_len, f64::NAN, case.place);
    let scratch = &mut *scratch;
    let mut saved_mean = single(Name::SavedMean, &case.forward.saved_mean);
    let mut saved_tail = single(Name::SavedMeanTail, &case.forward.saved_mean_tail);
    let mut saved_inv_std =
        Buffer::new(&case.forward.saved_inv_std, len(Name::SavedInvStd, channels), f64::NAN, case.place);

    let mut written = Written::default();
    let mut same = |name, values: &[f32]| written.same.push((name, bits_of(values, |value| value)));
    let result = match entry {
        Entry::Train => {
            let mut output = of_y(Name::Output, &[]);
            let running = RunningMut {
                mean: &mut mean,
                mean_tail: mean_tail.as_deref_mut(),
                var: &mut var,
                average: Average::Exponential,
            };
            let saved = SavedMut { mean: &mut saved_mean, mean_tail: &mut saved_tail, inv_std: &mut saved_inv_std };
            let running = case.has_running.then_some(running);
            let call = Train::new(&input, &mut output, saved, scratch);
            let result = layer.train(Train { parameters, running, dropout, residual, ..call });
            same(Name::RunningMean, &mean);
            same(Name::RunningMeanTail, mean_tail.as_deref().unwrap_or_default());
            same(Name::RunningVar, &var);
            same(Name::SavedMean, &saved_mean);
            same(Name::SavedMeanTail, &saved_tail);
            let inv_std = saved_inv_std.iter().map(|value| value.bits()).collect();
            written.same.push((Name::SavedInvStd, inv_std));
            written.y.push((Name::Output, wide(&output)));
            result
        }
        Entry::Eval | Entry::EvalInPlace => {
            let running = Running { mean: &mean, mean_tail: mean_tail.as_deref(), var: &var };
            if entry == Entry::Eval {
                let mut output = of_y(Name::Output, &[]);
                let call = Eval::new(running, &input, &mut output, scratch);
                let result = layer.eval(Eval { parameters, dropout, residual, ..call });
                written.y.push((Name::Output, wide(&output)));
                result
            } else {
                let mut values = of_x(Name::Values, &case.x);
                let call = EvalInPlace::new(running, &mut values, scratch);
                let result = layer.eval_in_place(EvalInPlace { parameters, dropout, residual, ..call });
                written.x.push((Name::Values, wide(&values)));
                result
            }
        }
        _ => {
            let running = Running { mean: &mean, mean_tail: mean_tail.as_deref(), var: &var };
            let saved = Saved { mean: &saved_mean, mean_tail: &saved_tail, inv_std: &saved_inv_std };
            let statistics = if case.fixed_statistics { Statistics::Fixed(running) } else { Statistics::Batch(saved) };
            let mut d_weight = case.wants_weight.then(|| single(Name::GradWeight, &[]));
            let mut d_bias = case.wants_bias.then(|| single(Name::GradBias, &[]));
            let mut d_residual = case.wants_residual.then(|| of_x(Name::GradResidual, &[]));
            let grad_parameters = ParameterGradients { weight: d_weight.as_deref_mut(), bias: d_bias.as_deref_mut() };
            let grad_residual = d_residual.as_deref_mut();
            let result = if entry == Entry::Backward {
                let grad_output = of_y(Name::GradOutput, &case.dy);
                let mut dx = case.wants_input.then(|| of_x(Name::GradInput, &[]));
                let call = Backward::new(statistics, &input, &grad_output, scratch);
                let grad_input = dx.as_deref_mut();
                let call =
                    Backward { parameters, dropout, residual, grad_input, grad_residual, grad_parameters, ..call };
                let result = layer.backward(call);
                written.x.push((Name::GradInput, wide(dx.as_deref().unwrap_or_default())));
                result
            } else {
                let mut values = of_y(Name::Values, &case.dy);
                let call = BackwardInPlace::new(statistics, &input, &mut values, scratch);
                let call = BackwardInPlace { parameters, dropout, residual, grad_residual, grad_parameters, ..call };
                let result = layer.backward_in_place(call);
                written.y.push((Name::Values, wide(&values)));
                result
            };
            let mut same = |name, values: &[f32]| written.same.push((name, bits_of(values, |value| value)));
            same(Name::GradWeight, d_weight.as_deref().unwrap_or_default());
            same(Name::GradBias, d_bias.as_deref().unwrap_or_default());
            written.x.push((Name::GradResidual, wide(d_residual.as_deref().unwrap_or_default())));
            result
        }
    };
    (result, written)
}
