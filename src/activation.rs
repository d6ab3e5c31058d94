//! Activation functions, between normalisation and dropout.
//!
//! Each activation is a type of its own, and the layer is generic over it. So a program carries no
//! code of the activations that it does not use. The kernels are not generic over the activation.
//! They know a lower bound, which is enough for [`Identity`] and [`Relu`], and pointers to
//! functions of a strip of values, for all other activations. A new activation needs a type, an
//! implementation of [`Curve`], its name in the list of `activations!` and in that of [`AnyActivation`],
//! and a line in the tests' table.
//!
//! The activations that are not piecewise linear are within 2 ulp of the exact function for every
//! finite f32. The ulp is that of the exact result, and `2^-149` at least. Their derivatives are
//! within 7 u of `max(|act'|, 1/4)`, with `u = 2^-24`. The derivatives have the right limits at
//! both infinities and are finite for every finite `z`. A `z` or a product `act'(z)*dy` that does
//! not fit an f32 is infinite.
#![expect(private_bounds, reason = "the lane functions seal the trait")]

mod any;
mod exponential;
mod normal;

use core::marker::PhantomData;

use crate::error::Error;
use crate::simd::{Simd, Strip, StripFunctions};
pub use any::AnyActivation;
use exponential::{
    LEAST, LEAST_SLOPE, Logistic, Reduced, Slope, exp_above, exp_of, negative, negative_enough, product,
};

/// An activation function; implemented by the types of this module and by no others.
pub trait Activation: Lanewise + Copy + Send + Sync + core::fmt::Debug {}

impl<A: Lanewise + Copy + Send + Sync + core::fmt::Debug> Activation for A {}

/// An activation function as the layer uses it: a formula for each direction.
pub(crate) trait Lanewise: Sized {
    /// `act(z)` in the form that the kernels take.
    fn forward_formula(self) -> Formula;

    /// `act'(z) * dy` in the form that the kernels take.
    fn backward_formula(self) -> Formula;
}

/// An activation function or its derivative in the form that the kernels take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Formula {
    /// A `z` below this bound gives +0.0, and so does its gradient. Any other `z`, NaN included, and
    /// its gradient stay as they are, unless there is a curve. −∞ is no bound. (A bound that is NaN
    /// would not be one either, but to compare with it is an invalid operation on many CPUs, and
    /// raises a flag.)
    pub(crate) lower: f32,
    /// Whether `act(s*z) = s*act(z)` for every `s > 0`, so that the dropout scale can be folded
    /// into the normalisation instead of costing a multiplication and a rounding of its own.
    pub(crate) homogeneous: bool,
    /// The function that is applied to `z` or its gradient before the bound.
    pub(crate) curve: Option<FormulaCurve>,
}

/// A [`Curve`] or its derivative, as pointers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FormulaCurve {
    pub(crate) functions: &'static StripFunctions,
    pub(crate) parameter: f32,
}

impl FormulaCurve {
    /// `act(z)`, or `act'(z)*dy`, of one value.
    #[inline(always)]
    pub(crate) fn single(&self, z: f32, dy: f32) -> f32 {
        self.functions.single(self.parameter, z, dy)
    }
}

/// 2^-149, the smallest number above 0: a number below it is not above 0.
const SMALLEST: f32 = f32::from_bits(1);

impl Formula {
    /// The formula of [`Identity`]: any `z` stays as it is.
    pub(crate) const OPEN: Self = Self::bounded(f32::NEG_INFINITY);
    /// The formula of [`Relu`].
    pub(crate) const RELU: Self = Self::bounded(SMALLEST);

    /// The formula with the bound `lower` and without a curve.
    const fn bounded(lower: f32) -> Self {
        Self { lower, homogeneous: true, curve: None }
    }

    /// The formula with a curve, whose functions have the parameter `parameter`, and without a bound.
    const fn curved(functions: &'static StripFunctions, parameter: f32, homogeneous: bool) -> Self {
        Self { lower: f32::NEG_INFINITY, homogeneous, curve: Some(FormulaCurve { functions, parameter }) }
    }
}

/// An activation function that is applied to strips of `z` by a pointer.
pub(crate) trait Curve: Copy {
    /// [`Formula::homogeneous`].
    const HOMOGENEOUS: bool = false;

    /// The function with a parameter. Functions without a parameter ignore it.
    fn with(parameter: f32) -> Self;

    /// The parameter of the function, if it has one.
    fn parameter(self) -> f32 {
        0.0
    }

    /// `act(z)`.
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32;

    /// `act'(z) * dy`.
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32;
}

/// `act(z)` of a curve.
struct Value<C>(PhantomData<C>);

impl<C: Curve> Strip for Value<C> {
    const FACTORS: bool = false;

    #[inline(always)]
    fn vector<S: Simd>(s: S, parameter: f32, z: S::F32, _: S::F32) -> S::F32 {
        C::with(parameter).forward(s, z)
    }
}

/// `act'(z)*dy` of a curve.
struct Derivative<C>(PhantomData<C>);

impl<C: Curve> Strip for Derivative<C> {
    const FACTORS: bool = true;

    #[inline(always)]
    fn vector<S: Simd>(s: S, parameter: f32, z: S::F32, dy: S::F32) -> S::F32 {
        C::with(parameter).backward(s, z, dy)
    }
}

/// Makes activation functions from curves. The statics and the code to which they point belong to
/// this crate. In an implementation that is generic over the curve they would be compiled in the
/// crate that uses a layer.
macro_rules! activations {
    ($($curve:ty,)*) => {$(
        impl Lanewise for $curve {
            fn forward_formula(self) -> Formula {
                static FUNCTIONS: StripFunctions = StripFunctions::of::<Value<$curve>>();
                Formula::curved(&FUNCTIONS, self.parameter(), <$curve>::HOMOGENEOUS)
            }

            fn backward_formula(self) -> Formula {
                static FUNCTIONS: StripFunctions = StripFunctions::of::<Derivative<$curve>>();
                Formula::curved(&FUNCTIONS, self.parameter(), <$curve>::HOMOGENEOUS)
            }
        }
    )*};
}
activations!(Relu6, LeakyRelu, HardSwish, Sigmoid, Tanh, Silu, GeluTanh, Gelu, Elu, Selu, Mish, Softplus,);

/// `act(z) = z`: batch norm and dropout alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity;

impl Lanewise for Identity {
    fn forward_formula(self) -> Formula {
        Formula::OPEN
    }

    fn backward_formula(self) -> Formula {
        Formula::OPEN
    }
}

/// `act(z) = max(z, 0)`, the rectified linear unit. The derivative at 0 is 0. A NaN in `z` gives
/// NaN, forward and backward, as in PyTorch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relu;

impl Lanewise for Relu {
    fn forward_formula(self) -> Formula {
        Formula::RELU
    }

    fn backward_formula(self) -> Formula {
        Formula::RELU
    }
}

/// `act(z) = min(max(z, 0), 6)` (Krizhevsky, *Convolutional Deep Belief Networks on CIFAR-10*,
/// 2010).
///
/// The derivative is 1 between 0 and 6, and 0 elsewhere, at 0 and 6 too, as in PyTorch. A NaN in
/// `z` gives NaN, forward and backward. −0.0 becomes +0.0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relu6;

impl Curve for Relu6 {
    #[inline(always)]
    fn with(_: f32) -> Self {
        Self
    }

    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        let six = s.splat(6.0);
        s.drop(s.le(z, s.splat(0.0)), s.select(s.le(six, z), six, z))
    }

    #[inline(always)]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        let dy = s.drop(s.le(s.splat(6.0), z), s.drop(s.le(z, s.splat(0.0)), dy));
        unless_nan(s, z, dy)
    }
}

/// `act(z) = z > 0 ? z : slope*z` (Maas, Hannun and Ng, *Rectifier Nonlinearities Improve Neural
/// Network Acoustic Models*, 2013).
///
/// The derivative at 0 is the slope, as in PyTorch. A NaN in `z` gives NaN, forward and backward.
/// With a slope of 0, −∞ gives NaN, as in PyTorch; [`Relu`] gives 0.
///
/// ```
/// use normdrop::{Error, LeakyRelu};
/// const LEAKY: LeakyRelu = match LeakyRelu::new(0.2) {
///     Ok(leaky) => leaky,
///     Err(_) => panic!("the slope is not finite"),
/// };
/// assert_eq!(LEAKY.slope(), 0.2);
/// assert_eq!(LeakyRelu::new(f32::INFINITY), Err(Error::Slope { slope: f32::INFINITY }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeakyRelu {
    slope: f32,
}

impl LeakyRelu {
    /// A leaky ReLU with `slope`, the factor of negative `z`, which PyTorch calls `negative_slope`.
    ///
    /// # Errors
    /// [`Error::Slope`] if it is infinite or NaN.
    pub const fn new(slope: f32) -> Result<Self, Error> {
        if slope.is_finite() { Ok(Self { slope }) } else { Err(Error::Slope { slope }) }
    }

    /// The factor of negative `z`.
    #[must_use]
    pub const fn slope(self) -> f32 {
        self.slope
    }
}

impl Default for LeakyRelu {
    /// A slope of 0.01, PyTorch's default.
    fn default() -> Self {
        Self { slope: 0.01 }
    }
}

impl Curve for LeakyRelu {
    const HOMOGENEOUS: bool = true;

    #[inline(always)]
    fn with(slope: f32) -> Self {
        Self { slope }
    }

    fn parameter(self) -> f32 {
        self.slope
    }

    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        s.select(s.le(z, s.splat(0.0)), z * s.splat(self.slope), z)
    }

    #[inline(always)]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        unless_nan(s, z, s.select(s.le(z, s.splat(0.0)), dy * s.splat(self.slope), dy))
    }
}

/// `act(z) = z*min(max(z + 3, 0), 6)/6` (Howard et al., *Searching for `MobileNetV3`*, 2019),
/// within 2 ulp of the exact function.
///
/// It is +0.0 for −∞ and all `z <= -3`. The derivative is 0 for `z <= -3`, 1 for `z >= 3` and
/// `z/3 + 1/2` between them. At exactly −3 and 3 the function has no derivative, and libraries and
/// their versions differ. A NaN in `z` gives NaN, forward and backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HardSwish;

impl Curve for HardSwish {
    #[inline(always)]
    fn with(_: f32) -> Self {
        Self
    }

    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        let (three, six) = (s.splat(3.0), s.splat(6.0));
        let shifted = z + three;
        let part = s.select(s.le(six, shifted), six, shifted) / six;
        s.drop(s.le(z, s.splat(-3.0)), part * z)
    }

    #[inline(always)]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        let between = (z * s.splat(1.0 / 3.0) + s.splat(0.5)) * dy;
        s.drop(s.le(z, s.splat(-3.0)), s.select(s.le(s.splat(3.0), z), dy, between))
    }
}

/// `act(z) = 1/(1 + exp(-z))`, the logistic function, within 2 ulp of the exact function.
///
/// It is 0 for −∞ and 1 for ∞. A NaN in `z` gives NaN, forward and backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sigmoid;

impl Curve for Sigmoid {
    #[inline(always)]
    fn with(_: f32) -> Self {
        Self
    }

    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        let smaller = Logistic::new(s, Reduced::new(s, negative_enough(s, z))).value(s);
        s.select(s.le(z, s.splat(0.0)), smaller, s.splat(1.0) - smaller)
    }

    #[inline(always)]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        Slope::new(s, z, s.le(z, s.splat(0.0))).derivative * dy
    }
}

/// `act(z) = tanh(z)`, within 2 ulp of the exact function.
///
/// It is −1 for −∞, 1 for ∞, and never outside of `[-1, 1]`. −0.0 stays −0.0. A NaN in `z` gives
/// NaN, forward and backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tanh;

impl Curve for Tanh {
    #[inline(always)]
    fn with(_: f32) -> Self {
        Self
    }

    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        exponential::tanh(s, z)
    }

    #[inline(always)]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        // tanh(z) = 2*sigmoid(2*z) - 1.
        (s.splat(4.0) * Slope::new(s, z + z, s.le(z, s.splat(0.0))).derivative) * dy
    }
}

/// `act(z) = z/(1 + exp(-z))`, the sigmoid linear unit (Elfwing, Uchibe and Doya, 2018;
/// Ramachandran, Zoph and Le, *Searching for Activation Functions*, 2017, as Swish), within 2 ulp
/// of the exact function.
///
/// It is −0.0 for −∞ and ∞ for ∞, and 0 or −0.0 gives a zero. A NaN in `z` gives NaN, forward and
/// backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Silu;

impl Curve for Silu {
    #[inline(always)]
    fn with(_: f32) -> Self {
        Self
    }

    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        let v = negative_enough(s, z);
        gated(s, z, Logistic::new(s, Reduced::new(s, v)).times(s, v))
    }

    #[inline(always)]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        let (v, below) = (negative_enough(s, z), s.le(z, s.splat(0.0)));
        let sigmoid = Slope::new(s, z, below);
        let z = s.select(below, v, s.splat(0.0) - v);
        (sigmoid.value + z * sigmoid.derivative) * dy
    }
}

/// `act(z) = z/(1 + exp(-v))` with `v = 2*sqrt(2/π)*(z + 0.044715*z³)`, the tanh form of the Gaussian
/// error linear unit (Hendrycks and Gimpel, *Gaussian Error Linear Units*, 2016), within 2 ulp of the
/// exact function of this form.
///
/// It is PyTorch's `approximate="tanh"`, and differs by up to 0.0005 from [`Gelu`], PyTorch's
/// default. It is −0.0 for −∞ and ∞ for ∞, and 0 or −0.0 gives a zero. A NaN in `z` gives NaN,
/// forward and backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GeluTanh;

impl GeluTanh {
    /// `2*sqrt(2/π)`, and `2*sqrt(2/π)*0.044715`.
    const CUBIC: [f64; 2] = [1.595_769_121_605_730_8, 1.595_769_121_605_730_8 * 0.044_715];
    /// For `z` below `LEAST` the result rounds to zero.
    const LEAST: f32 = -11.0;
}

impl Curve for GeluTanh {
    #[inline(always)]
    fn with(_: f32) -> Self {
        Self
    }

    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        let by = negative(s, z, Self::LEAST);
        let wide = s.widen(by);
        let v = wide * (s.splat_f64(Self::CUBIC[0]) + s.splat_f64(Self::CUBIC[1]) * (wide * wide));
        gated(s, z, Logistic::new(s, Reduced::of_f64(s, v)).times(s, by))
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        const LINEAR: f32 = GeluTanh::CUBIC[0] as f32;
        const CUBIC: f32 = GeluTanh::CUBIC[1] as f32;
        const CUBIC_TIMES_3: f32 = (3.0 * GeluTanh::CUBIC[1]) as f32;
        let (by, below) = (negative(s, z, Self::LEAST), s.le(z, s.splat(0.0)));
        let square = by * by;
        let v = by * (s.splat(LINEAR) + s.splat(CUBIC) * square);
        let sigmoid = Slope::new(s, v, below);
        let z = s.select(below, by, s.splat(0.0) - by);
        let z_times_slope_of_v = z * (s.splat(LINEAR) + s.splat(CUBIC_TIMES_3) * square);
        (sigmoid.value + z_times_slope_of_v * sigmoid.derivative) * dy
    }
}

/// `act(z) = z*Φ(z)`, the Gaussian error linear unit with the distribution function of the normal
/// distribution, `Φ(z) = (1 + erf(z/sqrt(2)))/2` (Hendrycks and Gimpel, *Gaussian Error Linear Units*,
/// 2016), within 2 ulp of the exact function.
///
/// It is PyTorch's default, `approximate="none"`. [`GeluTanh`] is the other form. It is −0.0 for −∞
/// and ∞ for ∞, and 0 or −0.0 gives a zero. A NaN in `z` gives NaN, forward and backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gelu;

impl Curve for Gelu {
    #[inline(always)]
    fn with(_: f32) -> Self {
        Self
    }

    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        gated(s, z, normal::below(s, z))
    }

    #[inline(always)]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        normal::slope(s, z) * dy
    }
}

/// `act(z) = z > 0 ? z : alpha*(exp(z) - 1)`, the exponential linear unit (Clevert, Unterthiner and
/// Hochreiter, *Fast and Accurate Deep Network Learning by Exponential Linear Units*, 2015), within 2
/// ulp of the exact function.
///
/// It is `-alpha` for −∞ and ∞ for ∞. The derivative at 0 is `alpha`, as in PyTorch. A NaN in `z`
/// gives NaN, forward and backward.
///
/// ```
/// use normdrop::{Elu, Error};
/// const ELU: Elu = match Elu::new(0.5) {
///     Ok(elu) => elu,
///     Err(_) => panic!("alpha is not finite"),
/// };
/// assert_eq!(ELU.alpha(), 0.5);
/// assert_eq!(Elu::default().alpha(), 1.0);
/// assert_eq!(Elu::new(f32::INFINITY), Err(Error::Alpha { alpha: f32::INFINITY }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elu {
    alpha: f32,
}

impl Elu {
    /// An ELU with `alpha`, the negative of its limit at −∞.
    ///
    /// # Errors
    /// [`Error::Alpha`] if it is infinite or NaN.
    pub const fn new(alpha: f32) -> Result<Self, Error> {
        if alpha.is_finite() { Ok(Self { alpha }) } else { Err(Error::Alpha { alpha }) }
    }

    /// The negative of the limit at −∞.
    #[must_use]
    pub const fn alpha(self) -> f32 {
        self.alpha
    }
}

impl Default for Elu {
    /// An alpha of 1, PyTorch's default.
    fn default() -> Self {
        Self { alpha: 1.0 }
    }
}

impl Curve for Elu {
    #[inline(always)]
    fn with(alpha: f32) -> Self {
        Self { alpha }
    }

    fn parameter(self) -> f32 {
        self.alpha
    }

    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        exponential_below(s, z, self.alpha, z)
    }

    #[inline(always)]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        let slope = exp_of(s, z, self.alpha);
        unless_nan(s, z, s.select(s.le(z, s.splat(0.0)), slope * dy, dy))
    }
}

/// `act(z) = scale*(z > 0 ? z : alpha*(exp(z) - 1))` with `scale = 1.0507009873554805` and
/// `alpha = 1.6732632423543772`, the scaled exponential linear unit (Klambauer, Unterthiner, Mayr and
/// Hochreiter, *Self-Normalizing Neural Networks*, 2017), within 2 ulp of the exact function.
///
/// It is `-scale*alpha` for −∞ and ∞ for ∞. The derivative at 0 is `scale*alpha`, as in PyTorch. A
/// NaN in `z` gives NaN, forward and backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selu;

impl Selu {
    /// `scale` and `scale*alpha`, each rounded to the nearest f32.
    const SCALE: f32 = 1.050_701;
    const SCALE_TIMES_ALPHA: f32 = 1.758_099_3;
}

impl Curve for Selu {
    #[inline(always)]
    fn with(_: f32) -> Self {
        Self
    }

    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        exponential_below(s, z, Self::SCALE_TIMES_ALPHA, z * s.splat(Self::SCALE))
    }

    #[inline(always)]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        let below = exp_of(s, z, Self::SCALE_TIMES_ALPHA);
        unless_nan(s, z, s.select(s.le(z, s.splat(0.0)), below, s.splat(Self::SCALE)) * dy)
    }
}

/// `act(z) = z*tanh(ln(1 + exp(z)))` (Misra, *Mish: A Self Regularized Non-Monotonic Activation
/// Function*, 2019), within 2 ulp of the exact function.
///
/// It is −0.0 for −∞ and ∞ for ∞, and 0 or −0.0 gives a zero. A NaN in `z` gives NaN, forward and
/// backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mish;

impl Mish {
    /// For `z` above `MOST`, the function rounds to `z`, and its derivative to 1.
    const MOST: f32 = 20.0;

    /// `z`, but not above [`Self::MOST`] and not below `least`; and the lanes whose `z` is not below
    /// [`Self::MOST`].
    #[inline(always)]
    fn clamped<S: Simd>(s: S, z: S::F32, least: f32) -> (S::F32, S::Mask) {
        let (most, above) = (s.splat(Self::MOST), s.le(s.splat(Self::MOST), z));
        (s.select(above, most, s.select(s.le(z, s.splat(0.0)), negative(s, z, least), z)), above)
    }
}

impl Curve for Mish {
    #[inline(always)]
    fn with(_: f32) -> Self {
        Self
    }

    /// With `e = exp(z)` and `n = e*(e + 2)`, the function is `z*n/(n + 2)`.
    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        // Below `LEAST` the function rounds to zero.
        let (v, above) = Self::clamped(s, z, LEAST);
        let (exp, two) = (Reduced::new(s, v).exp_f64(s), s.splat_f64(2.0));
        let n = exp * (exp + two);
        s.select(above, z, s.narrow(s.widen(v) * n / (n + two)))
    }

    /// The derivative is `(n + 4*z*e*(e + 1)/(n + 2))/(n + 2)`.
    #[inline(always)]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        let (v, above) = Self::clamped(s, z, LEAST_SLOPE);
        let (exp, one, two) = (exp_above(s, v, LEAST_SLOPE, 1.0), s.splat(1.0), s.splat(2.0));
        let n = exp * (exp + two);
        let reciprocal = one / (n + two);
        let rest = (s.splat(4.0) * v) * ((exp * (exp + one)) * reciprocal);
        s.select(above, one, (n + rest) * reciprocal) * dy
    }
}

/// `act(z) = ln(1 + exp(z))` (Dugas, Bengio, Bélisle, Nadeau and Garcia, *Incorporating Second-Order
/// Functional Knowledge for Better Option Pricing*, 2000), within 2 ulp of the exact function.
///
/// It is PyTorch's `Softplus` with its default `beta`, 1. It needs no `threshold`: above 20, PyTorch's
/// threshold, the function rounds to `z` by itself. It is 0 for −∞ and ∞ for ∞. A NaN in `z` gives
/// NaN, forward and backward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Softplus;

impl Curve for Softplus {
    #[inline(always)]
    fn with(_: f32) -> Self {
        Self
    }

    #[inline(always)]
    fn forward<S: Simd>(self, s: S, z: S::F32) -> S::F32 {
        let rest = exponential::ln_1p_exp(s, Reduced::new(s, negative_enough(s, z)));
        gated(s, z, rest)
    }

    #[inline(always)]
    fn backward<S: Simd>(self, s: S, z: S::F32, dy: S::F32) -> S::F32 {
        Slope::new(s, z, s.le(z, s.splat(0.0))).value * dy
    }
}

/// `factor*(exp(z) - 1)` for `z` that is not above 0, and `above` elsewhere, also where `z` is NaN.
#[inline(always)]
fn exponential_below<S: Simd>(s: S, z: S::F32, factor: f32, above: S::F32) -> S::F32 {
    // From -17.4 on, the f32 nearest to exp(z) - 1 is -1.
    let (value, rest) = exponential::exp_m1(s, negative(s, z, -20.0));
    s.select(s.le(z, s.splat(0.0)), product(s, value, rest, s.splat(factor)), above)
}

/// `z*sigmoid(v)` from `below = -|z|*sigmoid(-|v|)`: because `sigmoid(v) = 1 - sigmoid(-v)`, it is
/// `z + below` above 0.
#[inline(always)]
fn gated<S: Simd>(s: S, z: S::F32, below: S::F32) -> S::F32 {
    s.select(s.le(z, s.splat(0.0)), below, z + below)
}

/// `value`, or NaN where `z` is NaN.
#[inline(always)]
fn unless_nan<S: Simd>(s: S, z: S::F32, value: S::F32) -> S::F32 {
    s.select(s.le(z, z), value, z)
}

#[cfg(test)]
mod tests {
    use super::{Curve, Elu};
    use crate::simd::Lane;

    /// With a large alpha, derivatives count where `exp(z)` alone would be taken for 0.
    #[test]
    fn numeric_contract_the_derivative_of_a_steep_elu_is_right_far_below_0() {
        let elu = Elu::with(1e30);
        for z in [-69.0_f32, -71.0, -80.0, -109.0] {
            let exact = libm::exp(f64::from(z)) * f64::from(elu.alpha);
            let derivative = f64::from(elu.backward(Lane::FIRST, z, 1.0));
            assert!((derivative - exact).abs() <= 4.0 * f64::from(f32::EPSILON) * exact, "{derivative:e} at {z}");
        }
        assert_eq!(elu.backward(Lane::FIRST, -111.0, 1.0).to_bits(), 0);
    }
}
