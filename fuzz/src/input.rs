//! The structured inputs of the targets: plain numbers and choices, each valid in every combination.

use crate::encode::structured;

structured! {
    /// How large a tensor may become: most inputs should be small, because small ones run often.
    pub enum Size {
        /// 32 elements.
        Tiny,
        /// 128 elements.
        Small,
        /// 1024 elements.
        Medium,
        /// 16384 elements.
        Large,
    }
}

structured! {
    /// The activation of a layer.
    pub enum Activation {
        /// `normdrop::Identity`.
        Identity,
        /// `normdrop::Relu`.
        Relu,
        /// `normdrop::Relu6`.
        Relu6,
        /// `normdrop::LeakyRelu` with a slope of 0.01.
        LeakyRelu,
        /// `normdrop::HardSwish`.
        HardSwish,
        /// `normdrop::Sigmoid`.
        Sigmoid,
        /// `normdrop::Tanh`.
        Tanh,
        /// `normdrop::Silu`.
        Silu,
        /// `normdrop::GeluTanh`.
        GeluTanh,
        /// `normdrop::Gelu`.
        Gelu,
        /// `normdrop::Elu` with an alpha of 1.
        Elu,
        /// `normdrop::Selu`.
        Selu,
        /// `normdrop::Mish`.
        Mish,
        /// `normdrop::Softplus`.
        Softplus,
    }
}

structured! {
    /// The `eps` of a layer.
    pub enum Eps {
        /// PyTorch's 1e-5.
        Usual,
        /// 0, which training refuses.
        Zero,
        /// The smallest f32 above 0.
        Smallest,
        /// Any finite number, from the bits beside the choice.
        Bits,
    }
}

structured! {
    /// A momentum or a probability to drop.
    pub enum Fraction {
        /// 0.1.
        Usual,
        /// 0.
        Zero,
        /// 1.
        One,
        /// 0.5, for which a mask costs one random bit an element.
        Half,
        /// `1 - 2^-32`: the smallest keep probability but 0, with the largest scale.
        AlmostOne,
        /// Any multiple of `2^-32`, from the bits beside the choice.
        Bits,
    }
}

structured! {
    /// The mask of a call.
    pub enum Mask {
        /// No dropout.
        Off,
        /// The one that the layer draws from the seed beside the choice.
        Drawn,
        /// Bits that have nothing to do with the probability, from the seed beside the choice.
        Random,
        /// Every element is kept.
        AllKept,
        /// Every element is dropped.
        AllDropped,
    }
}

structured! {
    /// The values of one tensor.
    pub struct Values {
        /// The number of the class of data; channel after channel takes the next one where `mixed` says so.
        pub class: u8,
        /// The seed of the class.
        pub seed: u16,
        /// The power of two that the values are multiplied by.
        pub exponent: i8,
        /// Whether every channel has a class of its own.
        pub mixed: bool,
    }
}

structured! {
    /// A buffer whose length is not what the shape asks for.
    pub struct WrongLength {
        /// The number of the buffer.
        pub buffer: u8,
        /// The length minus the right one; the largest and smallest value mean twice the right length and 0.
        pub by: i8,
    }
}

structured! {
    /// What is dropped as a whole.
    pub enum Granularity {
        /// An element.
        Element,
        /// A channel of a sample.
        Channel,
        /// A sample.
        Sample,
    }
}

structured! {
    /// Where the buffers of a call are.
    pub enum Guard {
        /// Each in a heap allocation of its own, which a sanitizer watches.
        Heap,
        /// Each right after an inaccessible page.
        Start,
        /// Each right before an inaccessible page.
        End,
    }
}

structured! {
    /// One value, bit by bit.
    pub struct Poke {
        /// The number of the tensor.
        pub tensor: u8,
        /// The element.
        pub index: u16,
        /// The bits of the f32.
        pub bits: u32,
    }
}

structured! {
    /// One call of a layer: forward or backward.
    pub struct LayerInput {
        /// The limit of the shape.
        pub size: Size,
        /// The dimension before the channels, up to the limit.
        pub outer: u16,
        /// The number of channels, up to what is left of the limit.
        pub channels: u16,
        /// The dimension after the channels, up to what is left of the limit.
        pub inner: u16,
        /// The positions of a sample that are part of the dimension before the channels, where there is none after them.
        pub positions: u8,
        /// The activation.
        pub activation: Activation,
        /// The addend of the variance.
        pub eps: Eps,
        /// Its bits, where they are wanted.
        pub eps_bits: u32,
        /// The weight of the new value in the running statistics.
        pub momentum: Fraction,
        /// Its bits, where they are wanted.
        pub momentum_bits: u32,
        /// The probability to drop.
        pub p: Fraction,
        /// Its bits, where they are wanted.
        pub p_bits: u32,
        /// What one bit of the mask decides about.
        pub granularity: Granularity,
        /// The mask.
        pub mask: Mask,
        /// The seed of the mask.
        pub mask_seed: u64,
        /// The input of the layer.
        pub x: Values,
        /// The gradient of its output.
        pub dy: Values,
        /// Whether there is a weight.
        pub has_weight: bool,
        /// The weight.
        pub weight: Values,
        /// Whether there is a bias.
        pub has_bias: bool,
        /// The bias.
        pub bias: Values,
        /// Whether there is a residual.
        pub has_residual: bool,
        /// The residual.
        pub residual: Values,
        /// Whether training has running statistics to update.
        pub has_running: bool,
        /// The running mean.
        pub running_mean: Values,
        /// Whether the running mean has a tail: of up to half a unit in its last place, as updates
        /// leave it.
        pub has_mean_tail: bool,
        /// The running variance.
        pub running_var: Values,
        /// Whether the biased variance goes into the running one.
        pub biased: bool,
        /// Whether the running statistics are the cumulative average, of as many batches as the bits of the momentum say.
        pub cumulative: bool,
        /// Whether the running variance may be negative.
        pub negative_var: bool,
        /// Whether backward is past fixed statistics.
        pub fixed_statistics: bool,
        /// Whether backward is given saved statistics that no forward call made: safety alone is promised then.
        pub foreign_saved: bool,
        /// Whether backward is asked for the input gradient.
        pub wants_input: bool,
        /// Whether backward is asked for the gradient of the weight.
        pub wants_weight: bool,
        /// Whether backward is asked for the gradient of the bias.
        pub wants_bias: bool,
        /// Whether backward is asked for the gradient of the residual.
        pub wants_residual: bool,
        /// Whether elements that the mask drops are replaced by NaN: in `dy`, and in `x` with fixed statistics.
        pub nan_under_dropped: bool,
        /// Where the buffers are.
        pub guard: Guard,
        /// How far they are from the start of their memory, if it is the heap's.
        pub misalign: u8,
        /// How much longer than needed scratch is.
        pub scratch_extra: u8,
        /// Buffers of wrong lengths; a difference of 0 is none.
        pub wrong: [WrongLength; 2],
        /// Single values that replace those of the classes.
        pub pokes: Vec<Poke>,
    }
}

structured! {
    /// A training and a backward call in phases, of a batch in parts.
    pub struct PhasesInput {
        /// How many parts, modulo 5 and at least 1.
        pub parts: u8,
        /// The samples between which they are cut, modulo one more than there are.
        pub cuts: [u16; 3],
        /// The whole.
        pub layer: LayerInput,
    }
}

structured! {
    /// How a wild dimension is made of its value.
    pub enum Dimension {
        /// The value.
        Value,
        /// The value modulo 6.
        Small,
        /// 2 to the power of the value modulo 64.
        PowerOfTwo,
        /// The largest number divided by the value modulo 8, or by 1.
        FractionOfMax,
    }
}

structured! {
    /// Five dimensions, most of them absurd.
    pub struct ShapeInput {
        /// How each is made.
        pub kinds: [Dimension; 5],
        /// Of which number.
        pub values: [u64; 5],
        /// The lengths of the buffers that a layer of the shape is called with.
        pub lengths: [u8; 4],
        /// Where they are.
        pub guard: Guard,
    }
}

structured! {
    /// The constants of a layer, valid or not.
    pub struct ConfigInput {
        /// The bits of the f32 `eps`.
        pub eps: u32,
        /// The bits of the f64 `momentum`.
        pub momentum: u64,
        /// The bits of the f64 `p`.
        pub p: u64,
    }
}

structured! {
    /// A mask of a seed.
    pub struct MaskInput {
        /// The bits of the f64 `p`.
        pub p: u64,
        /// The seed.
        pub seed: u64,
        /// The first element.
        pub first: u64,
        /// The number of elements, up to 16384.
        pub elements: u16,
        /// The length of the mask minus the right one.
        pub wrong: i8,
        /// Where the mask is.
        pub guard: Guard,
        /// How far it is from the start of its memory, if that is the heap's.
        pub misalign: u8,
    }
}

structured! {
    /// A mask of a caller's own generator.
    pub struct MaskWithInput {
        /// The bits of the f64 `p`.
        pub p: u64,
        /// The number of elements, up to 16384.
        pub elements: u16,
        /// The length of the mask minus the right one.
        pub wrong: i8,
        /// Where the mask is.
        pub guard: Guard,
        /// How far it is from the start of its memory, if that is the heap's.
        pub misalign: u8,
        /// What the generator goes on with after its first words.
        pub seed: u64,
        /// The first words of the generator.
        pub words: Vec<u32>,
    }
}

structured! {
    /// A batch norm and the weights that it is folded into.
    pub struct FoldInput {
        /// Into the layer after the batch norm, not into the one before it.
        pub into_next: bool,
        /// The order of the dimensions of the weights, modulo 6.
        pub order: u8,
        /// The outputs and inputs of a group and the taps, each modulo 17.
        pub dims: [u8; 3],
        /// The number of groups, modulo 6.
        pub groups: u8,
        /// One output more than that, which the groups may not divide.
        pub uneven: bool,
        /// The bits of the f32 `eps`.
        pub eps: u32,
        /// Whether there is a weight, a bias, a bias of the layer that is folded into, and a tail
        /// of the running mean.
        pub has: [bool; 4],
        /// Weight, bias, running mean and variance, and the weights and the bias of the layer.
        pub values: [Values; 6],
        /// Whether the running variance may be negative.
        pub negative_var: bool,
        /// Where the buffers are.
        pub guard: Guard,
        /// How far they are from the start of their memory, if it is the heap's.
        pub misalign: u8,
        /// A buffer of a wrong length; a difference of 0 is none.
        pub wrong: WrongLength,
        /// Single values that replace those of the classes.
        pub pokes: Vec<Poke>,
    }
}

structured! {
    /// A function of the C interface.
    pub enum Function {
        /// `normdrop_train`.
        Train,
        /// `normdrop_eval`.
        Eval,
        /// `normdrop_eval` whose output is its input.
        EvalInPlace,
        /// `normdrop_backward`.
        Backward,
        /// `normdrop_backward` whose input gradient is its output gradient.
        BackwardInPlace,
        /// `normdrop_moments`.
        Moments,
        /// `normdrop_check_moments`.
        CheckMoments,
        /// `normdrop_finish`.
        Finish,
        /// `normdrop_apply`.
        Apply,
        /// `normdrop_reduce`.
        Reduce,
        /// `normdrop_finish_gradients`.
        FinishGradients,
        /// `normdrop_apply_gradient`.
        ApplyGradient,
        /// `normdrop_fill_mask`.
        FillMask,
        /// `normdrop_merge_moments`.
        MergeMoments,
        /// `normdrop_merge_sums`.
        MergeSums,
        /// `normdrop_fold_into_previous`.
        FoldIntoPrevious,
        /// `normdrop_fold_into_next`.
        FoldIntoNext,
        /// `normdrop_fold_padding`.
        FoldPadding,
        /// `normdrop_apply_noise`.
        ApplyNoise,
        /// `normdrop_alpha_dropout`.
        AlphaDropout,
        /// `normdrop_alpha_dropout_backward`.
        AlphaDropoutBackward,
    }
}

structured! {
    /// What is wrong with a call through the C interface, beside lengths.
    pub enum Fault {
        /// Nothing.
        Nothing,
        /// A buffer is null and has a length.
        NullBuffer,
        /// A buffer is not aligned.
        MisalignedBuffer,
        /// A buffer has more bytes than memory can have.
        HugeBuffer,
        /// A buffer would end past the end of the address space.
        WrappingBuffer,
        /// A buffer lies in another one.
        Overlap,
        /// The layer is null.
        NullLayer,
        /// The layer is not aligned.
        MisalignedLayer,
        /// The layer has another version.
        VersionOfLayer,
        /// The buffers of the call are null.
        NullCall,
        /// The buffers of the call are not aligned.
        MisalignedCall,
        /// The buffers of the call have another version.
        VersionOfCall,
        /// There is nowhere to write an error, which is nothing wrong.
        NullError,
        /// The error is not aligned.
        MisalignedError,
        /// The error has another version.
        VersionOfError,
        /// A number that names no activation.
        Activation,
        /// A slope that is not finite, which matters to the leaky ReLU.
        Slope,
        /// An alpha that is not finite, which matters to the ELU.
        Alpha,
        /// A number that names no granularity.
        Granularity,
        /// A number that names no running variance.
        RunningVariance,
        /// A number that names no backend.
        Backend,
        /// Several tasks, without threads in the library.
        Tasks,
        /// A number that names no statistics.
        Statistics,
        /// More positions than there are rows.
        Positions,
        /// Dimensions whose product does not fit.
        Shape,
        /// An `eps` that is NaN.
        Eps,
        /// A momentum that is NaN, which matters where it is used.
        Momentum,
        /// A probability that is NaN.
        Probability,
    }
}

structured! {
    /// The gates of a call through the C interface, where it may have some.
    pub enum Gates {
        /// None.
        LeftOut,
        /// Beside the mask.
        Beside,
        /// In the place of the mask, if a forward call has one.
        Over,
    }
}

structured! {
    /// A call through the C interface.
    pub struct CapiInput {
        /// Of which function.
        pub function: Function,
        /// What is wrong with it.
        pub fault: Fault,
        /// The number of the buffer at fault, among those of the function.
        pub buffer: u8,
        /// The number of the buffer that it lies in.
        pub other: u8,
        /// How far in it, in bytes, or how wrong a number is.
        pub by: u16,
        /// The number of the backend, the fastest where this CPU does not have it.
        pub backend: u8,
        /// Whether it has gates.
        pub gates: Gates,
        /// The layer and the data.
        pub layer: LayerInput,
    }
}

impl Default for Values {
    /// Normal variates.
    fn default() -> Self {
        Self { class: 0, seed: 1, exponent: 0, mixed: false }
    }
}

impl Default for WrongLength {
    /// The right length.
    fn default() -> Self {
        Self { buffer: 0, by: 0 }
    }
}

impl Default for LayerInput {
    /// A layer of 3 x 5 x 7 normal variates with everything that a call can have, at PyTorch's constants.
    fn default() -> Self {
        Self {
            size: Size::Medium,
            outer: 3,
            channels: 5,
            inner: 7,
            positions: 1,
            activation: Activation::Relu,
            eps: Eps::Usual,
            eps_bits: 0,
            momentum: Fraction::Usual,
            momentum_bits: 0,
            p: Fraction::Usual,
            p_bits: 0,
            granularity: Granularity::Element,
            mask: Mask::Drawn,
            mask_seed: 42,
            x: Values::default(),
            dy: Values { seed: 2, ..Values::default() },
            has_weight: true,
            weight: Values { seed: 3, ..Values::default() },
            has_bias: true,
            bias: Values { seed: 4, ..Values::default() },
            has_residual: false,
            residual: Values { seed: 7, ..Values::default() },
            has_running: true,
            running_mean: Values { seed: 5, ..Values::default() },
            has_mean_tail: true,
            running_var: Values { seed: 6, ..Values::default() },
            biased: false,
            cumulative: false,
            negative_var: false,
            fixed_statistics: false,
            foreign_saved: false,
            wants_input: true,
            wants_weight: true,
            wants_bias: true,
            wants_residual: true,
            nan_under_dropped: false,
            guard: Guard::Heap,
            misalign: 0,
            scratch_extra: 0,
            wrong: [WrongLength::default(), WrongLength::default()],
            pokes: Vec::new(),
        }
    }
}
