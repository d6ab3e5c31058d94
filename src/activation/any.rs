//! An activation that is chosen at run time.

use super::{
    Elu, Formula, Gelu, GeluTanh, HardSwish, Identity, Lanewise, LeakyRelu, Mish, Relu, Relu6, Selu, Sigmoid, Silu,
    Softplus, Tanh,
};

/// Makes the enum of all activations.
macro_rules! any_activation {
    ($($name:ident($activation:ty),)*) => {
        /// Any of the activations, chosen at run time: `Layer<AnyActivation>` for a program that reads
        /// its network from a file, or that keeps layers with different activations in one list.
        ///
        /// The bits are those of the layer with the activation's own type. The program carries the
        /// code of all activations; with the activations' own types it carries the code of those it names.
        ///
        /// ```
        /// use normdrop::{AnyActivation, Config, Eval, LeakyRelu, Layer, Relu, Running, Shape};
        ///
        /// let config = Config { eps: 0.0, ..Config::DEFAULT };
        /// let network: [AnyActivation; 2] = [Relu.into(), LeakyRelu::new(0.5)?.into()];
        /// let layers = network.map(|activation| Layer::new_const(Shape::nc(1, 2), activation, config));
        /// let (mut y, mut scratch) = ([0.0; 2], vec![0.0; layers[0].scratch_len()]);
        /// for (layer, expected) in layers.iter().zip([[3.0, 0.0], [3.0, -2.0]]) {
        ///     layer.eval(Eval::new(Running::new(&[0.0; 2], &[1.0; 2]), &[3.0, -4.0], &mut y, &mut scratch))?;
        ///     assert_eq!(y, expected);
        /// }
        /// # Ok::<(), normdrop::Error>(())
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq)]
        #[non_exhaustive]
        pub enum AnyActivation {
            $(
                #[doc = concat!("[`", stringify!($name), "`](crate::", stringify!($name), ").")]
                $name($activation),
            )*
        }

        $(impl From<$activation> for AnyActivation {
            fn from(activation: $activation) -> Self {
                Self::$name(activation)
            }
        })*

        impl Lanewise for AnyActivation {
            fn forward_formula(self) -> Formula {
                match self {
                    $(Self::$name(activation) => activation.forward_formula(),)*
                }
            }

            fn backward_formula(self) -> Formula {
                match self {
                    $(Self::$name(activation) => activation.backward_formula(),)*
                }
            }
        }
    };
}

any_activation! {
    Identity(Identity),
    Relu(Relu),
    Relu6(Relu6),
    LeakyRelu(LeakyRelu),
    HardSwish(HardSwish),
    Sigmoid(Sigmoid),
    Tanh(Tanh),
    Silu(Silu),
    GeluTanh(GeluTanh),
    Gelu(Gelu),
    Elu(Elu),
    Selu(Selu),
    Mish(Mish),
    Softplus(Softplus),
}
