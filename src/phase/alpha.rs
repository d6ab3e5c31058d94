//! Alpha dropout, forward and backward.

use crate::args::Dropout;
use crate::pass::keep::Gates;
use crate::pass::noise::Alpha;
use crate::plan::Plan;

/// The limit of SELU on the left, with the sign turned: `scale*alpha`, in the digits of PyTorch.
const ALPHA: f64 = 1.758_099_340_847_376_6;

/// `slope*x + shift` of kept elements, and the value of dropped elements.
struct Coefficients {
    slope: f64,
    shift: f64,
    dropped: f64,
}

impl Coefficients {
    /// The coefficients that leave a mean of 0 and a variance of 1 as they are, for a keep probability
    /// `kept` above 0.
    fn new(kept: f64) -> Self {
        let p = 1.0 - kept;
        let slope = 1.0 / libm::sqrt((ALPHA * ALPHA * p + 1.0) * kept);
        // Where nothing is dropped, adding -0.0 leaves every value as it is, -0.0 included.
        let shift = if p == 0.0 { -0.0 } else { ALPHA * slope * p };
        Self { slope, shift, dropped: -ALPHA * slope * kept }
    }
}

/// Alpha dropout of a tensor, in place.
pub(crate) fn forward(plan: &Plan, mask: &[u8], values: &mut [f32]) {
    run(plan, mask, values, |forward| forward);
}

/// The gradient of alpha dropout, in place.
pub(crate) fn backward(plan: &Plan, mask: &[u8], values: &mut [f32]) {
    run(plan, mask, values, |forward| Coefficients { shift: -0.0, dropped: 0.0, ..forward });
}

/// Runs alpha dropout with the coefficients that `of_forward` makes of the forward call's coefficients.
/// All lengths have been checked.
#[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
fn run(plan: &Plan, mask: &[u8], values: &mut [f32], of_forward: impl FnOnce(Coefficients) -> Coefficients) {
    // Where everything is dropped there are no coefficients: they would divide by 0.
    let Some((gates, _)) = plan.gates_of(Dropout::Mask(mask)).filter(|_| !values.is_empty()) else {
        return values.fill(0.0);
    };
    let Coefficients { slope, shift, dropped } = of_forward(Coefficients::new(plan.keep.keep_probability()));
    let [slope, shift, dropped] = [slope as f32, shift as f32, dropped as f32];
    let (tasks, gates): (_, &Gates<'_>) = (plan.tasks(), &gates);
    let step = values.len().div_ceil(tasks.for_elements(values.len()));
    let pieces = values.chunks_mut(step.max(1)).enumerate();
    tasks.each(pieces, |(number, values)| {
        tasks.run(Alpha { keep: gates.keep(1.0), slope, shift, dropped, first: number * step, values });
    });
}
