//! The phases of a layer: each is the order of a call from top to bottom, for a plan and arguments
//! that have been checked.

pub(crate) mod alpha;
mod backward;
mod eval;
pub(crate) mod masked;
mod moments;
pub(crate) mod prelu;
pub(crate) mod prepare;
mod train;

use crate::activation::Formula;
use crate::plan::{BackwardCall, ForwardCall, MomentsCall, Plan, TrainCall};
#[cfg(feature = "half-precision")]
use crate::storage::Mixed;
use crate::storage::{Singles, Storage};
pub(crate) use backward::parameter_gradients;
pub(crate) use train::finish;

/// The phases of calls with tensors of one family. No function is generic, so that each is compiled
/// once, in this crate, and a program has only the phases of the families that it uses.
pub(crate) trait Phases: Storage {
    fn train(plan: &Plan, formula: &Formula, call: TrainCall<'_, Self>);
    fn train_with_gates(plan: &Plan, formula: &Formula, call: TrainCall<'_, Self>, gates: &mut [u8]);
    fn forward(plan: &Plan, formula: &Formula, call: &mut ForwardCall<'_, Self>);
    fn forward_with_gates(plan: &Plan, formula: &Formula, call: &mut ForwardCall<'_, Self>, gates: &mut [u8]);
    fn forward_prepared(plan: &Plan, formula: &Formula, call: &mut ForwardCall<'_, Self>);
    fn backward(plan: &Plan, formula: &Formula, call: &mut BackwardCall<'_, Self>);
    fn moments(plan: &Plan, call: MomentsCall<'_, Self>);
}

macro_rules! phases {
    ($storage:ty) => {
        impl Phases for $storage {
            fn train(plan: &Plan, formula: &Formula, call: TrainCall<'_, Self>) {
                train::run::<Self, false>(plan, formula, call, None);
            }

            fn train_with_gates(plan: &Plan, formula: &Formula, call: TrainCall<'_, Self>, gates: &mut [u8]) {
                train::run::<Self, true>(plan, formula, call, Some(gates));
            }

            // The phases of evaluation are not inlined into the function that sets the
            // floating-point environment.
            #[inline(never)]
            fn forward(plan: &Plan, formula: &Formula, call: &mut ForwardCall<'_, Self>) {
                eval::run::<Self, false>(plan, formula, call, None);
            }

            #[inline(never)]
            fn forward_with_gates(plan: &Plan, formula: &Formula, call: &mut ForwardCall<'_, Self>, gates: &mut [u8]) {
                eval::run::<Self, true>(plan, formula, call, Some(gates));
            }

            #[inline(never)]
            fn forward_prepared(plan: &Plan, formula: &Formula, call: &mut ForwardCall<'_, Self>) {
                eval::run_prepared(plan, formula, call);
            }

            fn backward(plan: &Plan, formula: &Formula, call: &mut BackwardCall<'_, Self>) {
                backward::run(plan, formula, call);
            }

            fn moments(plan: &Plan, call: MomentsCall<'_, Self>) {
                moments::run(plan, call);
            }
        }
    };
}

phases!(Singles);
#[cfg(feature = "half-precision")]
phases!(Mixed);
