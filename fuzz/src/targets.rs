//! One function per fuzz target; it panics where the crate breaks a promise.

use crate::case::Entry;
use crate::input::{CapiInput, ConfigInput, FoldInput, LayerInput, MaskInput, MaskWithInput, PhasesInput, ShapeInput};
use crate::{calls, capi, constants, folds, masks, phases, prelu};

/// The constructors of `Shape`, and `Layer::train` with short buffers.
pub fn shape(input: &ShapeInput) {
    constants::shape(input);
}

/// `Layer::new`, `Bernoulli::new`, `Layer::with_backend`.
pub fn config(input: &ConfigInput) {
    constants::config(input);
}

/// `Bernoulli::fill`, `Layer::fill_mask`, `drop_padding` and `clear_padding`.
pub fn mask(input: &MaskInput) {
    masks::mask(input);
}

/// `Bernoulli::fill_with`, `Layer::fill_mask_with` and `seed_from`.
pub fn mask_with(input: &MaskWithInput) {
    masks::mask_with(input);
}

/// `fold_into_previous`, `fold_into_next`, `fold_padding`, `first_min_pooled` and `Stored`.
pub fn fold(input: &FoldInput) {
    folds::fold(input);
}

/// `Layer::train`.
pub fn train(input: &LayerInput) {
    calls::entry(Entry::Train, input);
}

/// `Layer::eval`.
pub fn eval(input: &LayerInput) {
    calls::entry(Entry::Eval, input);
}

/// `Layer::eval_in_place`.
pub fn eval_in_place(input: &LayerInput) {
    calls::entry(Entry::EvalInPlace, input);
}

/// `Layer::backward`.
pub fn backward(input: &LayerInput) {
    calls::entry(Entry::Backward, input);
}

/// `Layer::backward_in_place`.
pub fn backward_in_place(input: &LayerInput) {
    calls::entry(Entry::BackwardInPlace, input);
}

/// The phases: `Layer::moments`, `merge_moments`, `Layer::check_moments`, `Layer::finish`,
/// `Layer::apply`, `Layer::reduce`, `merge_sums`, `Layer::finish_gradients` and
/// `Layer::apply_gradient`.
pub fn phases(input: &PhasesInput) {
    phases::phases(input);
}

/// `Layer::train_prelu`, `eval_prelu`, `eval_prelu_in_place`, `backward_prelu`, `prelu` and `prelu_gradient`.
pub fn prelu(input: &LayerInput) {
    prelu::check(input);
}

/// The functions of the C interface that have buffers, and `normdrop_layer_init` and `normdrop_layer_lengths`.
pub fn capi(input: &CapiInput) {
    capi::capi(input);
}
