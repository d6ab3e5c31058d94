//! Gates: a forward call that writes them, a backward call that is given them, and calls that must refuse them.

use normdrop::{Error, Layer};
use normdrop_reference::mask::keeps;

use crate::calls::{on_backends, scratch_len, sides};
use crate::case::{Case, Entry, Kept, Lengths, Memory, written};
use crate::input::Activation;

/// The call with gates on every backend, against the `plain` one without, which is nothing if that was refused.
pub(crate) fn check<A: normdrop::Activation>(case: &Case, entry: Entry, layer: &Layer<A>, plain: Option<&Memory>) {
    match entry {
        Entry::Train | Entry::Eval | Entry::Apply => forward(case, entry, layer, plain),
        Entry::Backward | Entry::BackwardInPlace | Entry::Reduce | Entry::ApplyGradient => {
            backward(case, entry, layer, plain);
        }
        Entry::EvalInPlace | Entry::Moments | Entry::Finish | Entry::FinishGradients => {}
    }
}

/// Gates beside the mask, or instead of none, and over it.
fn forward<A: normdrop::Activation>(case: &Case, entry: Entry, layer: &Layer<A>, plain: Option<&Memory>) {
    refuse_direction(case, entry, layer, &[Kept::InGates, Kept::Gates]);
    let over = case.mask_of_elements.as_deref().map(|mask| (Kept::InGates, mask));
    let z = case.has_gates().then(|| sides(&mut case.clone(), entry));
    for (kept, bytes) in std::iter::once((Kept::Mask, &[][..])).chain(over) {
        for (run, layer) in on_backends(layer).enumerate() {
            let mut memory = Memory::new(case, entry, Lengths::AsGiven, scratch_len(case, entry, &layer), run);
            memory.add_gates(case, Lengths::AsGiven, kept, bytes);
            if !call(case, entry, &layer, &mut memory, plain) {
                continue;
            }
            let z = z.as_deref().expect("gates of another activation are refused");
            let gates = memory.gates.as_deref().unwrap_or_default();
            for (element, z) in z.iter().enumerate() {
                // `z <= 0` is false for NaN, which a ReLU passes.
                let shut = case.activation == Activation::Relu && *z <= 0.0;
                let valid = case.padding.as_ref().is_none_or(|padding| padding.is_valid(element));
                let open = valid && case.keeps(element) && !shut;
                assert_eq!(keeps(gates, element), open, "the gate of {element}, whose z is {z:e}, {kept:?}");
            }
            // Bits past the last element: none, if there are as many elements as bits.
            let used = case.shape.len() % 8;
            let unused = used != 0 && gates.last().is_some_and(|last| last >> used != 0);
            assert!(!unused, "bits of no element are not 0");
        }
    }
}

/// The gates of the forward call in place of everything else that a backward call makes `z` of.
fn backward<A: normdrop::Activation>(case: &Case, entry: Entry, layer: &Layer<A>, plain: Option<&Memory>) {
    refuse_direction(case, entry, layer, &[Kept::InGates]);
    // The phases call it with what is saved, which may come from no training call.
    let of_forward = if case.is_batch(entry) { Entry::Apply } else { Entry::Eval };
    let mut made = Memory::new(case, of_forward, Lengths::Right, scratch_len(case, of_forward, layer), 1);
    made.add_gates(case, Lengths::Right, Kept::Mask, &[]);
    let accepted = made.call(case, of_forward, layer).is_ok();
    if !accepted && case.has_gates() {
        return;
    }
    for (run, layer) in on_backends(layer).enumerate() {
        let mut memory = Memory::new(case, entry, Lengths::AsGiven, scratch_len(case, entry, &layer), run);
        memory.add_gates(case, Lengths::AsGiven, Kept::Gates, made.gates.as_deref().unwrap_or_default());
        memory.residual = None;
        // A channel of a larger bias is computed in f64.
        memory.bias = memory.bias.filter(|bias| bias.iter().any(|bias| bias.abs() > (1u64 << 32) as f32));
        call(case, entry, &layer, &mut memory, plain);
    }
}

/// One call with gates: whether it succeeded. It must be refused for its arguments alone, and write nothing then, or give
/// the bits of the plain call.
fn call<A: normdrop::Activation>(
    case: &Case,
    entry: Entry,
    layer: &Layer<A>,
    memory: &mut Memory,
    plain: Option<&Memory>,
) -> bool {
    let before = memory.clone();
    let result = memory.call(case, entry, layer);
    let refusals = memory.refusals(case, entry, scratch_len(case, entry, layer));
    match result {
        Ok(()) => assert!(refusals.is_empty(), "the call with gates succeeded in spite of {refusals:?}"),
        Err(error) => {
            assert!(refusals.contains(&error), "with gates {error:?} is none of {refusals:?}");
            assert_eq!(memory.contents(), before.contents(), "a refused call with gates wrote");
            assert_eq!(memory.scratch_contents(), before.scratch_contents(), "a refused call with gates wrote scratch");
            return false;
        }
    }
    let Some(plain) = plain else { return true };
    let written = written(case, entry);
    let as_expected =
        memory.contents().into_iter().zip(plain.contents()).filter(|((name, _), _)| written.contains(name));
    for ((name, bits), (_, plain)) in as_expected {
        assert_eq!(bits, plain, "{} with gates differs from that of the plain call", name.name());
    }
    true
}

/// Calls of the right lengths that are given gates, or a mask in gates, where they have none.
fn refuse_direction<A: normdrop::Activation>(case: &Case, entry: Entry, layer: &Layer<A>, wrong: &[Kept]) {
    for &kept in wrong {
        let mut memory = Memory::new(case, entry, Lengths::Right, scratch_len(case, entry, layer), 1);
        memory.kept = kept;
        let before = memory.clone();
        let mut refusals = before.refusals(case, entry, scratch_len(case, entry, layer));
        refusals.push(Error::GatesDirection);
        let result = memory.call(case, entry, layer);
        assert!(result.is_err_and(|error| refusals.contains(&error)), "{entry:?} of {kept:?}: {result:?}");
        assert_eq!(memory.contents(), before.contents(), "a refused call wrote");
    }
}
