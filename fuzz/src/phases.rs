//! The target of the phases: a batch in parts, forward and backward, against the whole calls and the reference.

use normdrop::{Buffer as Name, Error, Layer, RunningVariance, merge_moments, merge_sums};
use normdrop_reference::layer::widened;

use crate::buffer::{Bits, Buffer, same_bits};
use crate::calls::{Visitor, alone, check_backward, check_train, on_every_backend, scales_z, with_activation};
use crate::case::{Case, Entry, ForwardResult, Lengths, Memory, Merged};
use crate::input::PhasesInput;

/// A training call and a backward call in phases.
///
/// Each phase is first called with the lengths of the input, right or wrong, on every backend, then with right ones, so that
/// the phases after it are reached. With one part the results are the bits of the whole calls, with
/// several they are within the same bounds.
pub(crate) fn phases(input: &PhasesInput) {
    let mut case = Case::new(&input.layer);
    // Saved statistics come from the phase before, and past fixed statistics there are no parts to put together.
    (case.foreign_saved, case.wants_input) = (false, true);
    let most = case.samples();
    let mut cuts = vec![0, most];
    for &cut in input.cuts.iter().take(usize::from(input.parts % 5).saturating_sub(1)) {
        cuts.push(usize::from(cut) % (most + 1));
    }
    cuts.sort_unstable();
    with_activation(case.activation, Phases { case, cuts });
}

struct Phases {
    case: Case,
    /// Where each part starts, and where the last one ends.
    cuts: Vec<usize>,
}

impl Visitor for Phases {
    type Result = ();

    fn visit<A: normdrop::Activation>(self, activation: A) {
        let Self { mut case, cuts } = self;
        let mut parts: Vec<Case> = cuts.windows(2).map(|ends| case.part(ends[0]..ends[1])).collect();
        let channels = case.shape.channels();
        let samples = if case.shape.is_empty() { 0.0 } else { case.shape.samples() as f64 };
        case.merged = Merged { moments: vec![0.0; 3 * channels], sums: vec![0.0; 2 * channels], samples };

        for part in &parts {
            let memory = phase(part, Entry::Moments, &part.layer(activation)).expect("any part has moments");
            merge(part, Name::Moments, &mut case.merged.moments, &memory.moments, merge_moments);
        }
        assert!(case.merged.moments[..channels].iter().all(|&count| count == samples), "values were miscounted");
        check_moments(&case, &case.layer(activation));
        let (whole, trained) = alone(&case, Entry::Train, &case.layer(activation));
        let Some(finished) = phase(&case, Entry::Finish, &case.layer(activation)) else {
            assert!(!trained, "a batch that can be trained on cannot be finished");
            return;
        };
        assert!(trained, "a batch that cannot be trained on was finished");
        let forward = ForwardResult {
            saved_mean: finished.saved_mean.to_vec(),
            saved_mean_tail: finished.saved_mean_tail.to_vec(),
            saved_inv_std: finished.saved_inv_std.to_vec(),
            z: Vec::new(),
        };
        let (mut y, mut z) = (Vec::new(), Vec::new());
        for part in &mut parts {
            part.forward = forward.clone();
            y.extend_from_slice(&right(part, Entry::Apply, &part.layer(activation)).output);
            z.extend(sides(part));
        }
        let mut together = Memory::new(&case, Entry::Train, Lengths::Right, 0, 0);
        together.output.copy_from_slice(&y);
        for (to, from) in [
            (&mut together.saved_mean, &finished.saved_mean),
            (&mut together.saved_mean_tail, &finished.saved_mean_tail),
            (&mut together.running_mean, &finished.running_mean),
            (&mut together.running_var, &finished.running_var),
        ] {
            to.copy_from_slice(from);
        }
        together.saved_inv_std.copy_from_slice(&finished.saved_inv_std);
        together.running_mean_tail.clone_from(&finished.running_mean_tail);
        if parts.len() == 1 {
            assert!(same_bits(&together.output, &whole.output), "the output differs from that of the whole call");
            assert!(same_bits(&finished.saved_mean, &whole.saved_mean), "another mean than the whole call's");
            assert!(same_bits(&finished.saved_mean_tail, &whole.saved_mean_tail), "another tail of the mean");
            assert!(same_bits(&finished.saved_inv_std, &whole.saved_inv_std), "another inv_std");
            assert!(same_bits(&finished.running_mean, &whole.running_mean), "another running mean");
            let tails = [&finished, &whole].map(|memory| memory.running_mean_tail.as_deref().unwrap_or_default());
            assert!(same_bits(tails[0], tails[1]), "another tail of the running mean");
            assert!(same_bits(&finished.running_var, &whole.running_var), "another running variance");
        }
        check_train(&case, &together);
        case.forward = ForwardResult { z, ..forward };
        backward(case, parts, activation);
    }
}

/// What the layer says of merged moments is true: they fit an f32, or one mean or variance does
/// not.
fn check_moments<A: normdrop::Activation>(case: &Case, layer: &Layer<A>) {
    let moments = case.reference().moments(&widened(&case.x));
    let unbiased = case.config.running_var == RunningVariance::Unbiased && case.shape.samples() > 1;
    let bessel = if unbiased { case.shape.samples() as f64 / (case.shape.samples() - 1) as f64 } else { 1.0 };
    // Of what is almost too large, rounding decides.
    let (almost, most) = (f64::from(f32::MAX) * (1.0 - 1e-6), f64::from(f32::MAX) * (1.0 + 1e-6));
    let checked = layer.check_moments(&case.merged.moments);
    match checked {
        Ok(()) if case.shape.is_empty() => {}
        Ok(()) => {
            let mut sizes = moments.iter().flat_map(|of| [of.mean.rounded().abs(), bessel * of.var]);
            assert!(sizes.all(|size| size <= most), "moments fit that do not");
        }
        Err(Error::NotFinite { buffer: Name::RunningMean | Name::RunningVar, index }) => {
            let of = &moments[index];
            let fits = of.mean.rounded().is_finite() && bessel * of.var <= almost;
            assert!(!fits && !case.shape.is_empty(), "moments do not fit that do: {checked:?}");
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// The backward half: through the statistics of the batch, or past fixed ones.
fn backward<A: normdrop::Activation>(mut case: Case, mut parts: Vec<Case>, activation: A) {
    if case.fixed_statistics && case.variance_without_deviation().is_some() {
        let refused = parts
            .iter()
            .all(|part| part.shape.is_empty() || phase(part, Entry::Reduce, &part.layer(activation)).is_none());
        assert!(refused, "a running variance without a standard deviation was accepted");
        return;
    }
    for part in &parts {
        let memory = right(part, Entry::Reduce, &part.layer(activation));
        merge(part, Name::Sums, &mut case.merged.sums, &memory.sums, merge_sums);
    }
    let finished = right(&case, Entry::FinishGradients, &case.layer(activation));
    // Past fixed statistics the sums are those of the parameters' gradients alone.
    let last = if case.fixed_statistics { Entry::Backward } else { Entry::ApplyGradient };
    let (mut dx, mut d_residual) = (Vec::new(), Vec::new());
    for part in &mut parts {
        part.merged = case.merged.clone();
        let memory = right(part, last, &part.layer(activation));
        dx.extend_from_slice(memory.grad_input.as_deref().unwrap_or_default());
        d_residual.extend_from_slice(memory.grad_residual.as_deref().unwrap_or_default());
    }

    let (whole, _) = alone(&case, Entry::Backward, &case.layer(activation));
    let mut together = Memory::new(&case, Entry::Backward, Lengths::Right, 0, 0);
    for (name, to, from, of_whole) in [
        (Name::GradInput, &mut together.grad_input, Some(&dx[..]), &whole.grad_input),
        (Name::GradResidual, &mut together.grad_residual, Some(&d_residual[..]), &whole.grad_residual),
        (Name::GradWeight, &mut together.grad_weight, finished.grad_weight.as_deref(), &whole.grad_weight),
        (Name::GradBias, &mut together.grad_bias, finished.grad_bias.as_deref(), &whole.grad_bias),
    ] {
        let (Some(to), Some(from), Some(of_whole)) = (to, from, of_whole) else { continue };
        to.copy_from_slice(from);
        // One part has the same statistics; past fixed ones, so has every element in any part.
        let per_element = matches!(name, Name::GradInput | Name::GradResidual);
        if parts.len() == 1 || (case.fixed_statistics && per_element) {
            assert!(same_bits(to, of_whole), "{} differs from that of the whole call", name.name());
        }
    }
    if case.fixed_statistics {
        // Which side of a kink an element is on is that of evaluation, not of the training above.
        let (mask, identity) = (case.mask.clone(), case.layer(normdrop::Identity));
        case.mask = case.mask.filter(|_| scales_z(case.activation));
        case.forward.z = alone(&case, Entry::Eval, &identity).0.output.to_vec();
        case.mask = mask;
    }
    check_backward(&case, &together);
}

/// A phase on every backend with the lengths of the input, and what it writes with the right ones; nothing if those are
/// refused as well.
fn phase<A: normdrop::Activation>(case: &Case, entry: Entry, layer: &Layer<A>) -> Option<Memory> {
    let on_backends = on_every_backend(case, entry, layer);
    let (memory, accepted) = alone(case, entry, layer);
    assert!(accepted || on_backends.is_none(), "right lengths are refused and others are not");
    accepted.then_some(memory)
}

/// A phase that nothing but wrong lengths can stop, because an earlier one found nothing wrong with its batch.
fn right<A: normdrop::Activation>(case: &Case, entry: Entry, layer: &Layer<A>) -> Memory {
    phase(case, entry, layer).unwrap_or_else(|| panic!("{entry:?} was refused with the right lengths"))
}

/// What tells on which side of a kink the `z` of a part is: see [`ForwardResult::z`].
fn sides(part: &Case) -> Vec<f32> {
    let mut part = part.clone();
    part.mask = part.mask.filter(|_| scales_z(part.activation));
    let (memory, accepted) = alone(&part, Entry::Apply, &part.layer(normdrop::Identity));
    assert!(accepted, "another activation does not make arguments wrong");
    memory.output.to_vec()
}

/// Merges moments or sums, first with the lengths of the input: wrong ones must be refused and nothing written.
fn merge(case: &Case, name: Name, into: &mut [f64], from: &[f64], merge: fn(&mut [f64], &[f64]) -> Result<(), Error>) {
    let fields = if name == Name::Moments { 3 } else { 2 };
    let mut merged = Buffer::new(into, into.len(), f64::NAN, case.place);
    let given = Buffer::new(from, case.len(Lengths::AsGiven, name, from.len()), 1.0, case.place);
    let result = merge(&mut merged, &given);
    if given.len() != merged.len() {
        assert_eq!(result, Err(Error::Length { buffer: name, expected: merged.len(), actual: given.len() }));
        assert!(same_bits(&merged, into), "a refused merge wrote");
        // Two that agree and do not have as many values for every channel are no better.
        let mut alike = given.clone();
        let expected = match given.len() {
            len if len.is_multiple_of(fields) => Ok(()),
            actual => Err(Error::LengthMultiple { buffer: name, fields, actual }),
        };
        assert_eq!(merge(&mut alike, &given), expected);
        assert!(expected.is_ok() || same_bits(&alike, &given), "a refused merge wrote");
        assert_eq!(merge(&mut merged, from), Ok(()));
    } else {
        assert_eq!(result, Ok(()));
    }
    let mut again = into.to_vec();
    assert_eq!(merge(&mut again, from), Ok(()));
    assert!(again.iter().map(|value| value.bits()).eq(merged.iter().map(|value| value.bits())), "a merge is not pure");
    into.copy_from_slice(&merged);
}
