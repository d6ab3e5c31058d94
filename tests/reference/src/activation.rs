//! The activation functions as their formulas, their derivatives, and how far an error of `z` can carry.
//!
//! Everything is accurate to a few roundings of f64 for every argument, and is what it tends to at the infinities.

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `act(z) = z`.
    Identity,
    /// `act(z) = max(z, 0)`; NaN passes, in both directions, and the derivative at 0 is 0.
    Relu,
    /// `act(z) = min(max(z, 0), 6)`; the derivative at 0 and 6 is 0.
    Relu6,
    /// `act(z) = z > 0 ? z : slope*z`; the derivative at 0 is the slope.
    LeakyRelu(f64),
    /// `act(z) = z*min(max(z + 3, 0), 6)/6`; the derivative at -3 is 0 and at 3 it is 1.
    HardSwish,
    /// `act(z) = 1/(1 + exp(-z))`.
    Sigmoid,
    /// `act(z) = tanh(z)`.
    Tanh,
    /// `act(z) = z*sigmoid(z)`.
    Silu,
    /// `act(z) = z*sigmoid(2*sqrt(2/pi)*(z + 0.044715*z^3))`.
    GeluTanh,
    /// `act(z) = z*Φ(z)`, with the distribution function of the normal distribution.
    Gelu,
    /// `act(z) = z > 0 ? z : alpha*(exp(z) - 1)`; the derivative at 0 is alpha.
    Elu(f64),
    /// `act(z) = scale*(z > 0 ? z : alpha*(exp(z) - 1))` with the constants of the paper.
    Selu,
    /// `act(z) = z*tanh(ln(1 + exp(z)))`.
    Mish,
    /// `act(z) = ln(1 + exp(z))`.
    Softplus,
}

/// The scale of SELU, and its alpha.
const SELU: [f64; 2] = [1.050_700_987_355_480_5, 1.673_263_242_354_377_2];

/// The distribution function of the normal distribution: by its series next to 0, else by Laplace's continued fraction
/// (Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.2.11 and 26.2.14).
pub(crate) fn normal(z: f64) -> f64 {
    let a = z.abs();
    if a < 3.0 {
        let (mut sum, mut term, mut odd) = (z, z, 1.0);
        while term.abs() > 1e-17 * sum.abs() {
            odd += 2.0;
            term *= z * z / odd;
            sum += term;
        }
        return 0.5 + normal_density(z) * sum;
    }
    let fraction = (1..=80).rev().fold(a, |fraction, k| a + f64::from(k) / fraction);
    let tail = normal_density(a) / fraction;
    if z < 0.0 { tail } else { 1.0 - tail }
}

/// The density of the normal distribution.
pub(crate) fn normal_density(z: f64) -> f64 {
    (-0.5 * z * z).exp() * 0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2
}

/// `tanh(ln(1 + exp(z)))`, and 1 minus it.
fn tanh_of_softplus(z: f64) -> [f64; 2] {
    let exp = (-z.abs()).exp();
    let [one, two] = if z < 0.0 { [exp * (exp + 2.0), 2.0] } else { [1.0 + 2.0 * exp, 2.0 * exp * exp] };
    [one / (one + two), two / (one + two)]
}

/// The sigmoid function.
fn sigmoid(z: f64) -> f64 {
    let exp = (-z.abs()).exp();
    if z < 0.0 { exp / (1.0 + exp) } else { 1.0 / (1.0 + exp) }
}

/// The derivative of the sigmoid function.
fn sigmoid_derivative(z: f64) -> f64 {
    let exp = (-z.abs()).exp();
    exp / (1.0 + exp) / (1.0 + exp)
}

/// What GELU puts into the sigmoid function, and its derivative.
fn gelu_argument(z: f64) -> (f64, f64) {
    let factor = 2.0 * std::f64::consts::FRAC_2_PI.sqrt();
    (factor * z * (1.0 + 0.044_715 * z * z), factor * (1.0 + 3.0 * 0.044_715 * z * z))
}

/// Beyond this, the sigmoid function is 0 or 1 in f64, and so is that of GELU's argument.
const SATURATED: f64 = 800.0;

impl Activation {
    /// `act(z)`.
    #[must_use]
    pub fn value(self, z: f64) -> f64 {
        match self {
            Self::Identity => z,
            Self::Relu if z <= 0.0 => 0.0,
            Self::Relu => z,
            Self::Relu6 if z <= 0.0 => 0.0,
            Self::Relu6 if z >= 6.0 => 6.0,
            Self::Relu6 => z,
            Self::LeakyRelu(slope) if z <= 0.0 => slope * z,
            Self::LeakyRelu(_) => z,
            Self::HardSwish if z <= -3.0 => 0.0,
            Self::HardSwish if z >= 3.0 => z,
            Self::HardSwish => z * (z + 3.0) / 6.0,
            Self::Sigmoid => sigmoid(z),
            Self::Tanh => z.tanh(),
            Self::Silu | Self::GeluTanh | Self::Gelu | Self::Mish if z <= -SATURATED => -0.0,
            Self::Silu | Self::GeluTanh | Self::Gelu | Self::Mish | Self::Softplus if z >= SATURATED => z,
            Self::Silu => z * sigmoid(z),
            Self::GeluTanh => z * sigmoid(gelu_argument(z).0),
            Self::Gelu => z * normal(z),
            Self::Elu(alpha) if z <= 0.0 => alpha * z.exp_m1(),
            Self::Elu(_) => z,
            Self::Selu if z <= 0.0 => SELU[0] * SELU[1] * z.exp_m1(),
            Self::Selu => SELU[0] * z,
            Self::Mish => z * tanh_of_softplus(z)[0],
            Self::Softplus => z.max(0.0) + (-z.abs()).exp().ln_1p(),
        }
    }

    /// `act'(z)`, or nothing where the gate is shut: a product with it is 0, even of infinities and NaN.
    #[must_use]
    pub fn derivative(self, z: f64) -> Option<f64> {
        match self {
            Self::Relu | Self::Relu6 if z <= 0.0 => None,
            Self::Relu6 if z >= 6.0 => None,
            Self::HardSwish if z <= -3.0 => None,
            Self::Identity | Self::Relu => Some(1.0),
            // Of the others, NaN has no derivative but NaN.
            _ if z.is_nan() => Some(z),
            Self::Relu6 => Some(1.0),
            Self::LeakyRelu(slope) if z <= 0.0 => Some(slope),
            Self::LeakyRelu(_) => Some(1.0),
            Self::HardSwish if z >= 3.0 => Some(1.0),
            Self::HardSwish => Some(z / 3.0 + 0.5),
            Self::Sigmoid => Some(sigmoid_derivative(z)),
            Self::Tanh => Some(4.0 * sigmoid_derivative(2.0 * z)),
            Self::Silu | Self::GeluTanh | Self::Gelu | Self::Mish if z <= -SATURATED => Some(0.0),
            Self::Silu | Self::GeluTanh | Self::Gelu | Self::Mish if z >= SATURATED => Some(1.0),
            Self::Silu => Some(sigmoid(z) + z * sigmoid_derivative(z)),
            Self::GeluTanh => {
                let (v, slope) = gelu_argument(z);
                Some(sigmoid(v) + z * slope * sigmoid_derivative(v))
            }
            Self::Gelu => Some(normal(z) + z * normal_density(z)),
            Self::Elu(alpha) if z <= 0.0 => Some(alpha * z.exp()),
            Self::Elu(_) => Some(1.0),
            Self::Selu if z <= 0.0 => Some(SELU[0] * SELU[1] * z.exp()),
            Self::Selu => Some(SELU[0]),
            Self::Mish => {
                let [tanh, rest] = tanh_of_softplus(z);
                Some(tanh + z * rest * (1.0 + tanh) * sigmoid(z))
            }
            Self::Softplus => Some(sigmoid(z)),
        }
    }

    /// Where the derivative jumps.
    #[must_use]
    pub fn kinks(self) -> &'static [f64] {
        match self {
            Self::Relu | Self::LeakyRelu(_) | Self::Elu(_) | Self::Selu => &[0.0],
            Self::Relu6 => &[0.0, 6.0],
            Self::HardSwish => &[-3.0, 3.0],
            Self::Identity
            | Self::Sigmoid
            | Self::Tanh
            | Self::Silu
            | Self::GeluTanh
            | Self::Gelu
            | Self::Mish
            | Self::Softplus => &[],
        }
    }

    /// The most that `act` can stretch a difference: the largest `|act'|`, rounded up.
    #[must_use]
    pub fn steepest(self) -> f64 {
        match self {
            Self::Identity | Self::Relu | Self::Relu6 | Self::Tanh | Self::Softplus => 1.0,
            Self::LeakyRelu(slope) => slope.abs().max(1.0),
            Self::Elu(alpha) => alpha.abs().max(1.0),
            Self::Selu => SELU[0] * SELU[1],
            Self::Mish => 1.09,
            Self::HardSwish => 1.5,
            Self::Sigmoid => 0.25,
            Self::Silu => 1.1,
            Self::GeluTanh | Self::Gelu => 1.13,
        }
    }

    /// The largest `|act''|` between the kinks, rounded up.
    #[must_use]
    pub fn curvature(self) -> f64 {
        match self {
            Self::Identity | Self::Relu | Self::Relu6 | Self::LeakyRelu(_) => 0.0,
            Self::HardSwish => 1.0 / 3.0,
            Self::Sigmoid => 0.0963,
            Self::Tanh => 0.77,
            Self::Silu => 0.5,
            Self::GeluTanh | Self::Gelu => 0.8,
            Self::Elu(alpha) => alpha.abs(),
            Self::Selu => SELU[0] * SELU[1],
            Self::Mish => 0.645,
            Self::Softplus => 0.25,
        }
    }

    /// What an error of `act(z)` is measured in: `steepest * z_scale`, and, where computing `act` rounds, as much as leaves
    /// it 5 u of its value (2 ulp are 4 u at most, and dropout's scale is another one) where 4 u of the whole are allowed.
    #[must_use]
    pub fn value_scale(self, z: f64, z_scale: f64) -> f64 {
        let own = 1.25 * self.value(z).abs();
        match self {
            Self::Identity | Self::Relu => z_scale,
            // Where z is infinite, it is so exactly.
            _ if z.is_infinite() => own,
            _ => self.steepest() * z_scale + own,
        }
    }

    /// What an error of `act'(z)` is measured in: its size; where computing it rounds, as much as leaves it 7 u of
    /// `max(|act'|, 1/4)` where 3 u of the whole are allowed; and what an error of `z`, 4 u of its scale, comes to.
    #[must_use]
    pub fn derivative_scale(self, z: f64, z_scale: f64) -> f64 {
        let size = self.derivative(z).unwrap_or(0.0).abs();
        match self {
            Self::Identity | Self::Relu | Self::Relu6 => size,
            // One product.
            Self::LeakyRelu(_) => size * 4.0 / 3.0,
            // Where z is infinite, it is so exactly.
            _ if z.is_infinite() => size + 7.0 / 3.0 * size.max(0.25),
            _ => size + 7.0 / 3.0 * size.max(0.25) + self.curvature() * z_scale * 4.0 / 3.0,
        }
    }

    /// How many of the smallest f32 above zero underflow may take away from `act(z)`, beside what it takes from `z`.
    #[must_use]
    pub fn underflow(self) -> f64 {
        match self {
            Self::Identity | Self::Relu => 0.0,
            _ => self.steepest() + 2.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Activation; 16] = [
        Activation::Identity,
        Activation::Relu,
        Activation::Relu6,
        Activation::LeakyRelu(0.01),
        Activation::LeakyRelu(-2.0),
        Activation::HardSwish,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Silu,
        Activation::GeluTanh,
        Activation::Gelu,
        Activation::Elu(1.0),
        Activation::Elu(-2.0),
        Activation::Selu,
        Activation::Mish,
        Activation::Softplus,
    ];

    /// Multiples of 1/64 in [-20, 20], half a step beside the kinks.
    fn points() -> impl Iterator<Item = f64> {
        (-1280..1280).map(|step| f64::from(step) / 64.0 + 1.0 / 128.0)
    }

    #[test]
    fn derivatives_and_curvatures_are_differences_and_within_their_bounds() {
        const STEP: f64 = 1.0 / 4096.0;
        for activation in ALL {
            let derivative = |z| activation.derivative(z).unwrap_or(0.0);
            let (mut steepest, mut curvature) = (0.0f64, 0.0f64);
            for z in points() {
                let slope = (activation.value(z + STEP) - activation.value(z - STEP)) / (2.0 * STEP);
                assert!((derivative(z) - slope).abs() < 1e-6, "{activation:?} at {z}");
                steepest = steepest.max(derivative(z).abs());
                curvature = curvature.max((derivative(z + STEP) - derivative(z - STEP)).abs() / (2.0 * STEP));
            }
            for (bound, found) in [(activation.steepest(), steepest), (activation.curvature(), curvature)] {
                assert!(found <= bound + 1e-9 && found >= 0.98 * bound, "{activation:?}: {found}, not {bound}");
            }
        }
    }

    #[test]
    fn sums_and_products_that_cancel_are_as_good_as_the_textbook_ones() {
        for z in points() {
            assert!((Activation::Sigmoid.value(z) - 0.5 * (1.0 + (0.5 * z).tanh())).abs() < 1e-15);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (z + 0.044_715 * z.powi(3));
            assert!((Activation::GeluTanh.value(z) - 0.5 * z * (1.0 + inner.tanh())).abs() < 1e-14);
            assert!((Activation::Silu.value(z) - z / (1.0 + (-z).exp())).abs() < 1e-14);
            assert!((Activation::Mish.value(z) - z * (1.0 + z.exp()).ln().tanh()).abs() < 1e-14);
            assert!((Activation::Softplus.value(z) - (1.0 + z.exp()).ln()).abs() < 1e-14);
        }
    }

    #[test]
    fn the_normal_distribution_is_that_of_another_implementation() {
        // From mpmath.
        for (z, expected) in [
            (-0.5, 0.308_537_538_725_986_9),
            (1.0, 0.841_344_746_068_542_9),
            (-2.5, 0.006_209_665_325_776_132),
            (-3.5, 2.326_290_790_355_250_4e-4),
            (-10.0, 7.619_853_024_160_526e-24),
            (-14.0, 7.793_536_819_192_798e-45),
            (3.0, 0.998_650_101_968_369_9),
        ] {
            assert!((normal(z) / expected - 1.0).abs() < 1e-13, "{z}: {}", normal(z));
        }
        assert!((normal(3.0f64.next_down()) - normal(3.0)).abs() < 1e-15);
    }

    #[test]
    fn limits_and_nan() {
        let (inf, neg) = (f64::INFINITY, f64::NEG_INFINITY);
        for (activation, at_neg, at_inf, slope_at_neg, slope_at_inf) in [
            (Activation::Relu, 0.0, inf, None, Some(1.0)),
            (Activation::Relu6, 0.0, 6.0, None, None),
            (Activation::LeakyRelu(0.5), neg, inf, Some(0.5), Some(1.0)),
            (Activation::HardSwish, 0.0, inf, None, Some(1.0)),
            (Activation::Sigmoid, 0.0, 1.0, Some(0.0), Some(0.0)),
            (Activation::Tanh, -1.0, 1.0, Some(0.0), Some(0.0)),
            (Activation::Silu, 0.0, inf, Some(0.0), Some(1.0)),
            (Activation::GeluTanh, 0.0, inf, Some(0.0), Some(1.0)),
            (Activation::Gelu, 0.0, inf, Some(0.0), Some(1.0)),
            (Activation::Elu(0.5), -0.5, inf, Some(0.0), Some(1.0)),
            (Activation::Selu, -SELU[0] * SELU[1], inf, Some(0.0), Some(SELU[0])),
            (Activation::Mish, 0.0, inf, Some(0.0), Some(1.0)),
            (Activation::Softplus, 0.0, inf, Some(0.0), Some(1.0)),
        ] {
            assert_eq!((activation.value(neg), activation.value(inf)), (at_neg, at_inf), "{activation:?}");
            let derivatives = (activation.derivative(neg), activation.derivative(inf));
            assert_eq!(derivatives, (slope_at_neg, slope_at_inf), "{activation:?}");
            assert!(activation.value(f64::NAN).is_nan());
            let of_nan = activation.derivative(f64::NAN);
            assert!(of_nan.is_some_and(f64::is_nan) != (activation == Activation::Relu), "{activation:?}");
        }
    }

    #[test]
    fn the_derivative_at_a_kink_is_that_of_its_documentation() {
        for (activation, kink, derivative) in [
            (Activation::Relu, 0.0, None),
            (Activation::Relu6, 0.0, None),
            (Activation::Relu6, 6.0, None),
            (Activation::LeakyRelu(0.5), 0.0, Some(0.5)),
            (Activation::HardSwish, -3.0, None),
            (Activation::HardSwish, 3.0, Some(1.0)),
            (Activation::Elu(0.5), 0.0, Some(0.5)),
            (Activation::Selu, 0.0, Some(SELU[0] * SELU[1])),
        ] {
            assert_eq!(activation.derivative(kink), derivative, "{activation:?} at {kink}");
            assert!(activation.kinks().contains(&kink));
        }
    }
}
