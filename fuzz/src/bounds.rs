//! What errors are allowed, in units `u = 2^-24` of the scale that belongs to each result, and the comparison.

use std::collections::BTreeMap;
use std::sync::Mutex;

use normdrop_reference::units::{SMALLEST, units};

/// `y` with fixed statistics, in `|weight|*max(|xhat|, 1) + |bias|` times the dropout scale. Four roundings touch
/// `xhat` (of the deviation, the slope, their product and the sum), and two the bias, so this is what can be proved.
pub(crate) const Y_FIXED: f64 = 4.0 + 1e-5;
/// `y` with batch statistics, in the same scale: twice the bound that the data classes of the tests keep. A fuzzer
/// searches for rounding errors that all point one way and finds more than 4 (4.53 so far), where every mistake in a
/// formula costs thousands.
pub(crate) const Y_BATCH: f64 = 8.0;
/// `dx`, in the scale that [`normdrop_reference::layer::Gradients::dx_scale`] states; twice the bound of the tests.
pub(crate) const DX: f64 = 10.0;
/// The gradient of the residual, in the scale of its derivative; twice the bound of the tests.
pub(crate) const G: f64 = 6.0;
/// The gradients of weight and bias, in `sum(|g|*max(|xhat|, 1))` and `sum(|g|)`; twice the bound of the tests.
pub(crate) const SUMS: f64 = 10.0;
/// The variance, relative to itself.
pub(crate) const VAR: f64 = 8.0;
/// `1/sqrt(var + eps)`, relative to itself: half of the variance's error.
pub(crate) const INV_STD: f64 = VAR / 2.0;
/// The mean, in standard deviations.
pub(crate) const MEAN: f64 = 4.0;

/// What is rounded to f32 once, after roundings in f64, relative to itself.
pub(crate) const ROUNDED_ONCE: f64 = 1.0 + 1e-6;

/// Compares one kind of result with the reference.
#[derive(Debug)]
pub(crate) struct Comparison {
    what: &'static str,
    bound: f64,
    /// The most that underflow may take away.
    allowance: f64,
    /// Whether NaN and infinities must be those of the reference, not just as little finite.
    exact_placement: bool,
    worst: f64,
}

impl Comparison {
    pub(crate) fn new(what: &'static str, bound: f64) -> Self {
        Self { what, bound, allowance: 2.0 * SMALLEST, exact_placement: false, worst: 0.0 }
    }

    /// With NaN and infinities exactly where the reference has them.
    pub(crate) fn exactly_placed(self) -> Self {
        Self { exact_placement: true, ..self }
    }

    /// Takes one result, panics if it is wrong.
    pub(crate) fn add(&mut self, index: usize, actual: f64, expected: f64, scale: f64, allowance: f64) {
        let Self { what, bound, .. } = *self;
        if !expected.is_finite() {
            let placed = actual == expected || (actual.is_nan() && expected.is_nan());
            assert!(
                if self.exact_placement { placed } else { !actual.is_finite() },
                "{what}[{index}] is {actual:e} instead of {expected:e}"
            );
            return;
        }
        let error = units(actual, expected, scale, self.allowance + allowance);
        assert!(
            error <= bound,
            "{what}[{index}] is {actual:e} instead of {expected:e}: {error} u of {scale:e}, more than {bound}"
        );
        self.worst = self.worst.max(error);
    }
}

impl Drop for Comparison {
    fn drop(&mut self) {
        if std::env::var_os("NORMDROP_FUZZ_ERRORS").is_some() && !std::thread::panicking() {
            report(self.what, self.worst);
        }
    }
}

/// Prints an error that is the largest of its kind so far.
fn report(what: &'static str, error: f64) {
    static WORST: Mutex<BTreeMap<&str, f64>> = Mutex::new(BTreeMap::new());
    let mut worst = WORST.lock().expect("no thread panicked while it held the lock");
    let entry = worst.entry(what).or_insert(0.0);
    if error > *entry {
        *entry = error;
        eprintln!("largest error of {what} so far: {error:.3} u");
    }
}
