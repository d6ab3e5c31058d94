//! Owned buffers around the calls of the layer, so that a test reads as what it is about.
//!
//! Outputs are full of NaN before every call, so that what a call leaves unwritten shows. Every call is made twice, with
//! different contents of scratch and, where there is one, in the form that works in place: the bits must be the same.

use normdrop::{
    Activation, Average, Backward, BackwardInPlace, Config, Dropout, Elu, Error, Eval, EvalInPlace, EvalPrepared,
    EvalPreparedInPlace, Gelu, GeluTanh, Granularity, HardSwish, Identity, Layer, LeakyRelu, Mish, ParameterGradients,
    Parameters, Prepare, Relu, Relu6, Running, RunningMut, RunningVariance, Saved, SavedMut, Selu, Shape, Sigmoid,
    Silu, Softplus, Statistics, Tanh, Train,
};
use normdrop_reference::classes::{Class, class};
use normdrop_reference::layer as reference;
use normdrop_reference::mask;
use normdrop_reference::random::SplitMix64;

/// An activation of the crate and the same one of the reference.
pub(crate) trait Oracle: Activation + PartialEq {
    /// The value of the type.
    const ACTIVATION: Self;
    /// The same function in the reference.
    const REFERENCE: reference::Activation;

    /// Both with a slope or alpha, if the activation has one.
    fn with_slope(_slope: f32) -> (Self, reference::Activation) {
        (Self::ACTIVATION, Self::REFERENCE)
    }
}

/// The activations under test: type, value, and the same function in the reference. One line each.
macro_rules! table {
    ($($activation:ident: $value:expr, $reference:expr $(, { $($more:tt)* })?;)*) => {
        $(impl Oracle for $activation {
            const ACTIVATION: Self = $value;
            const REFERENCE: reference::Activation = $reference;
            $($($more)*)?
        })*

        /// The number of activations.
        pub(crate) const ACTIVATIONS: usize = [$(stringify!($activation)),*].len();

        /// Does something with one activation of the table.
        pub(crate) fn with_activation<V: Visitor>(number: usize, visitor: V) -> V::Result {
            let mut count = 0..;
            $(if count.next() == Some(number) {
                return visitor.visit::<$activation>();
            })*
            panic!("there is no activation number {number}");
        }
    };
}

table! {
    Identity: Self, reference::Activation::Identity;
    Relu: Self, reference::Activation::Relu;
    Relu6: Self, reference::Activation::Relu6;
    LeakyRelu: LEAKY, reference::Activation::LeakyRelu(SLOPE as f64), {
        fn with_slope(slope: f32) -> (Self, reference::Activation) {
            (Self::new(slope).expect("a finite slope"), reference::Activation::LeakyRelu(f64::from(slope)))
        }
    };
    HardSwish: Self, reference::Activation::HardSwish;
    Sigmoid: Self, reference::Activation::Sigmoid;
    Tanh: Self, reference::Activation::Tanh;
    Silu: Self, reference::Activation::Silu;
    GeluTanh: Self, reference::Activation::GeluTanh;
    Gelu: Self, reference::Activation::Gelu;
    Elu: ELU, reference::Activation::Elu(SLOPE as f64), {
        fn with_slope(alpha: f32) -> (Self, reference::Activation) {
            (Self::new(alpha).expect("a finite alpha"), reference::Activation::Elu(f64::from(alpha)))
        }
    };
    Selu: Self, reference::Activation::Selu;
    Mish: Self, reference::Activation::Mish;
    Softplus: Self, reference::Activation::Softplus;
}

/// Any slope will do, and any alpha.
const SLOPE: f32 = 0.2;

const LEAKY: LeakyRelu = match LeakyRelu::new(SLOPE) {
    Ok(leaky) => leaky,
    Err(_) => panic!("the slope is not finite"),
};

const ELU: Elu = match Elu::new(SLOPE) {
    Ok(elu) => elu,
    Err(_) => panic!("alpha is not finite"),
};

/// What is done with an activation.
pub(crate) trait Visitor {
    type Result;

    fn visit<A: Oracle>(self) -> Self::Result;
}

/// Does something with every activation.
pub(crate) fn every_activation<V: Visitor<Result = ()> + Clone>(visitor: &V) {
    (0..ACTIVATIONS).for_each(|number| with_activation(number, visitor.clone()));
}

/// Everything that the calls of one layer are given.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) outer: usize,
    pub(crate) channels: usize,
    pub(crate) inner: usize,
    /// The positions of a sample that are part of `outer`; 1 unless `inner` is 1.
    pub(crate) positions: usize,
    pub(crate) config: Config,
    /// That of a leaky ReLU, or the alpha of an ELU.
    pub(crate) slope: f32,
    pub(crate) weight: Option<Vec<f32>>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) running_mean: Vec<f32>,
    pub(crate) running_mean_tail: Option<Vec<f32>>,
    pub(crate) running_var: Vec<f32>,
    pub(crate) residual: Option<Vec<f32>>,
    /// The batches so far, if the running statistics are the cumulative average.
    pub(crate) batches: Option<u64>,
    /// The mask, if dropout is on.
    pub(crate) mask: Option<Vec<u8>>,
    pub(crate) x: Vec<f32>,
    pub(crate) dy: Vec<f32>,
}

/// What a training call writes.
#[derive(Debug, Clone)]
pub(crate) struct Trained {
    pub(crate) y: Vec<f32>,
    pub(crate) running_mean: Vec<f32>,
    pub(crate) running_mean_tail: Option<Vec<f32>>,
    pub(crate) running_var: Vec<f32>,
    pub(crate) batches: Option<u64>,
    pub(crate) mean: Vec<f32>,
    pub(crate) mean_tail: Vec<f32>,
    pub(crate) inv_std: Vec<f64>,
}

/// What a backward call writes.
#[derive(Debug, Clone)]
pub(crate) struct Differentiated {
    pub(crate) dx: Vec<f32>,
    pub(crate) d_residual: Vec<f32>,
    pub(crate) d_weight: Vec<f32>,
    pub(crate) d_bias: Vec<f32>,
}

impl Trained {
    pub(crate) fn saved(&self) -> Saved<'_> {
        Saved { mean: &self.mean, mean_tail: &self.mean_tail, inv_std: &self.inv_std }
    }

    /// The bits of everything, to compare two results with.
    pub(crate) fn bits(&self) -> Vec<u64> {
        let singles = [&self.y, &self.running_mean, &self.running_var, &self.mean, &self.mean_tail];
        let singles = singles.into_iter().chain(&self.running_mean_tail);
        let singles = singles.flat_map(|values| bits(values)).map(u64::from);
        singles.chain(self.inv_std.iter().map(|value| canonical(*value))).chain(self.batches).collect()
    }
}

impl Differentiated {
    /// The bits of everything, to compare two results with.
    pub(crate) fn bits(&self) -> Vec<u32> {
        [&self.dx, &self.d_residual, &self.d_weight, &self.d_bias].into_iter().flat_map(|values| bits(values)).collect()
    }
}

/// The bits of values, with one and the same pattern for every NaN: payloads are not part of the contract.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

fn canonical(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

impl Problem {
    /// A problem of a shape, with the default constants, without parameters and dropout, and with the running
    /// statistics that a new layer starts with. `x` and `dy` are 0.
    pub(crate) fn new(outer: usize, channels: usize, inner: usize) -> Self {
        let len = outer * channels * inner;
        Self {
            outer,
            channels,
            inner,
            positions: 1,
            config: Config::DEFAULT,
            slope: SLOPE,
            weight: None,
            bias: None,
            running_mean: vec![0.0; channels],
            running_mean_tail: None,
            running_var: vec![1.0; channels],
            residual: None,
            batches: None,
            mask: None,
            x: vec![0.0; len],
            dy: vec![0.0; len],
        }
    }

    /// A problem whose channels hold data of one class each, with normal gradients, random parameters, and running
    /// statistics that are those of the data where an f32 can hold them; `momentum` is 1.
    pub(crate) fn random([outer, channels, inner]: [usize; 3], class_of: impl Fn(usize) -> Class, seed: u64) -> Self {
        let mut problem = Self::new(outer, channels, inner);
        let mut random = SplitMix64::new(seed);
        let (shape, samples) = (problem.reference_shape(), outer * inner);
        let seeds: Vec<u64> = (0..channels).map(|_| random.next_u64()).collect();
        problem.x = shape.tensor(|channel| class_of(channel).values(seeds[channel], samples));
        problem.dy = class("normal").values(random.next_u64(), shape.len());
        problem.config.momentum = 1.0;
        let trained = problem.train::<Identity>();
        let usable = |value: f32, otherwise: f32| if value.is_finite() { value } else { otherwise };
        problem.running_mean = trained.running_mean.iter().map(|&mean| usable(mean, 0.5)).collect();
        problem.running_var = trained.running_var.iter().map(|&var| usable(var, 2.0)).collect();
        problem.weight = Some(per_channel(&mut random, channels, 2.0));
        problem.bias = Some(per_channel(&mut random, channels, 2.0));
        problem
    }

    pub(crate) fn layer<A: Oracle>(&self) -> Layer<A> {
        let Self { outer, channels, inner, positions, .. } = *self;
        let shape = match inner {
            1 => Shape::nlc(outer / positions, positions, channels),
            _ => Shape::ncl(outer, channels, inner),
        };
        let shape = shape.expect("a shape that fits memory");
        assert_eq!(shape.outer(), outer, "a whole number of samples");
        Layer::new(shape, A::with_slope(self.slope).0, self.config).expect("constants in their ranges")
    }

    /// The reference of the layer.
    pub(crate) fn reference<A: Oracle>(&self) -> reference::Layer {
        reference::Layer {
            shape: self.reference_shape(),
            eps: self.config.eps,
            momentum: self.config.momentum,
            running_var: match self.config.running_var {
                RunningVariance::Unbiased => reference::RunningVariance::Unbiased,
                RunningVariance::Biased => reference::RunningVariance::Biased,
            },
            threshold: mask::threshold(self.config.p),
            activation: A::with_slope(self.slope).1,
        }
    }

    /// The average that the next batch goes into.
    pub(crate) fn reference_average(&self) -> reference::Average {
        let cumulative = |batches: u64| reference::Average::Cumulative(batches.saturating_add(1));
        self.batches.map_or(reference::Average::Exponential, cumulative)
    }

    pub(crate) fn reference_shape(&self) -> reference::Shape {
        reference::Shape { outer: self.outer, channels: self.channels, inner: self.inner }
    }

    /// The mask of every element, if dropout is on.
    pub(crate) fn mask_of_elements(&self) -> Option<Vec<u8>> {
        let (shape, granularity) = ([self.channels, self.inner, self.positions], self.granularity());
        self.mask.as_ref().map(|mask| mask::expanded(mask, self.x.len(), shape, granularity))
    }

    fn granularity(&self) -> mask::Granularity {
        match self.config.granularity {
            Granularity::Element => mask::Granularity::Element,
            Granularity::Channel => mask::Granularity::Channel,
            Granularity::Sample => mask::Granularity::Sample,
        }
    }

    /// Keeps a tail of the running mean, with the part of the batch mean that the running mean of
    /// [`Self::random`] has lost.
    pub(crate) fn with_running_mean_tail(mut self) -> Self {
        let zeros = Some(vec![0.0; self.channels]);
        let replacing = Self { running_mean_tail: zeros, batches: Some(0), mask: None, ..self.clone() };
        let trained = replacing.train::<Identity>();
        let lost = |(tail, mean): (f32, &f32)| if mean.is_finite() { tail } else { 0.0 };
        let tails = trained.running_mean_tail.into_iter().flatten().zip(&trained.running_mean);
        self.running_mean_tail = Some(tails.map(lost).collect());
        self
    }

    /// Adds a residual of one class of data.
    pub(crate) fn with_residual(mut self, class: Class, seed: u64) -> Self {
        self.residual = Some(class.values(seed, self.x.len()));
        self
    }

    /// Drops whole channels or samples.
    pub(crate) fn with_granularity(mut self, granularity: Granularity, positions: usize) -> Self {
        self.config.granularity = granularity;
        self.positions = positions;
        self
    }

    /// Turns dropout on.
    pub(crate) fn with_mask(mut self, p: f64, seed: u64) -> Self {
        self.config.p = p;
        let layer = self.layer::<Identity>();
        let mut mask = vec![0; layer.mask_len()];
        layer.fill_mask(seed, &mut mask).expect("a mask of the right length");
        self.mask = Some(mask);
        self
    }

    pub(crate) fn parameters(&self) -> Parameters<'_> {
        Parameters { weight: self.weight.as_deref(), bias: self.bias.as_deref() }
    }

    pub(crate) fn dropout(&self) -> Dropout<'_> {
        self.mask.as_deref().map_or(Dropout::Off, Dropout::Mask)
    }

    pub(crate) fn running(&self) -> Running<'_> {
        Running { mean: &self.running_mean, mean_tail: self.running_mean_tail.as_deref(), var: &self.running_var }
    }

    /// Whether an element is dropped.
    pub(crate) fn drops(&self, index: usize) -> bool {
        let bit = mask::bit(index, [self.channels, self.inner, self.positions], self.granularity());
        self.mask.as_ref().is_some_and(|mask| self.config.p == 1.0 || !mask::keeps(mask, bit))
    }

    fn train_with_scratch<A: Oracle>(&self, contents: f64) -> Result<Trained, Error> {
        let layer = self.layer::<A>();
        let mut trained = Trained {
            y: vec![f32::NAN; self.x.len()],
            running_mean: self.running_mean.clone(),
            running_mean_tail: self.running_mean_tail.clone(),
            running_var: self.running_var.clone(),
            batches: self.batches,
            mean: vec![f32::NAN; self.channels],
            mean_tail: vec![f32::NAN; self.channels],
            inv_std: vec![f64::NAN; self.channels],
        };
        let Trained { y, running_mean, running_mean_tail, running_var, batches, mean, mean_tail, inv_std } =
            &mut trained;
        let average = batches.as_mut().map_or(Average::Exponential, |batches| Average::Cumulative { batches });
        layer.train(Train {
            parameters: self.parameters(),
            running: Some(RunningMut {
                mean: running_mean,
                mean_tail: running_mean_tail.as_deref_mut(),
                var: running_var,
                average,
            }),
            dropout: self.dropout(),
            input: &self.x,
            output: y,
            saved: SavedMut { mean, mean_tail, inv_std },
            residual: self.residual.as_deref(),
            scratch: &mut vec![contents; layer.train_scratch_len()],
        })?;
        Ok(trained)
    }

    pub(crate) fn try_train<A: Oracle>(&self) -> Result<Trained, Error> {
        let trained = self.train_with_scratch::<A>(f64::NAN)?;
        let again = self.train_with_scratch::<A>(0.0)?;
        assert_eq!(trained.bits(), again.bits(), "the contents of scratch influence training");
        Ok(trained)
    }

    pub(crate) fn train<A: Oracle>(&self) -> Trained {
        self.try_train::<A>().expect("a training call without faults")
    }

    pub(crate) fn eval<A: Oracle>(&self) -> Vec<f32> {
        let layer = self.layer::<A>();
        let mut y = vec![f32::NAN; self.x.len()];
        let mut scratch = vec![f64::NAN; layer.eval_scratch_len()];
        let (parameters, running, dropout) = (self.parameters(), self.running(), self.dropout());
        layer
            .eval(Eval {
                parameters,
                running,
                dropout,
                input: &self.x,
                output: &mut y,
                residual: self.residual.as_deref(),
                scratch: &mut scratch,
            })
            .expect("an evaluation call without faults");
        let mut values = self.x.clone();
        scratch.fill(0.0);
        layer
            .eval_in_place(EvalInPlace {
                parameters,
                running,
                dropout,
                values: &mut values,
                residual: self.residual.as_deref(),
                scratch: &mut scratch,
            })
            .expect("an evaluation call without faults");
        assert_eq!(bits(&values), bits(&y), "in place is not the same as out of place");
        // A call for an empty tensor takes statistics that cannot be prepared.
        if !self.x.is_empty() {
            assert_eq!(bits(&self.eval_prepared(&layer)), bits(&y), "prepared is not the same as unprepared");
        }
        y
    }

    /// What [`Layer::prepare`] makes of the running statistics and parameters.
    pub(crate) fn try_prepare<A: Oracle>(&self, layer: &Layer<A>) -> Result<Vec<f64>, Error> {
        let mut prepared = vec![f64::NAN; layer.prepared_len()];
        layer.prepare(Prepare { parameters: self.parameters(), running: self.running(), prepared: &mut prepared })?;
        Ok(prepared)
    }

    /// Evaluation with prepared statistics, out of place and in place.
    pub(crate) fn eval_prepared<A: Oracle>(&self, layer: &Layer<A>) -> Vec<f32> {
        let prepared = self.try_prepare(layer).expect("statistics that an evaluation call takes");
        let (residual, dropout) = (self.residual.as_deref(), self.dropout());
        let mut y = vec![f32::NAN; self.x.len()];
        let mut scratch = vec![f64::NAN; layer.eval_scratch_len()];
        layer
            .eval_prepared(EvalPrepared {
                prepared: &prepared,
                dropout,
                input: &self.x,
                residual,
                output: &mut y,
                scratch: &mut scratch,
            })
            .expect("an evaluation call without faults");
        let mut values = self.x.clone();
        scratch.fill(0.0);
        layer
            .eval_prepared_in_place(EvalPreparedInPlace {
                prepared: &prepared,
                dropout,
                residual,
                values: &mut values,
                scratch: &mut scratch,
            })
            .expect("an evaluation call without faults");
        assert_eq!(bits(&values), bits(&y), "in place is not the same as out of place");
        y
    }

    /// What tells the reference on which side of a kink a `z` is: the output of the same layer without an activation. It
    /// is `z`, times the dropout scale where that is folded into the normalisation, which is where 0 is the only kink.
    pub(crate) fn sides<A: Oracle>(&self) -> Self {
        let folded = matches!(A::REFERENCE, reference::Activation::Relu | reference::Activation::LeakyRelu(_));
        Self { mask: self.mask.clone().filter(|_| folded), ..self.clone() }
    }

    pub(crate) fn try_backward<A: Oracle>(&self, statistics: Statistics<'_>) -> Result<Differentiated, Error> {
        let layer = self.layer::<A>();
        let result = self.backward_of(&layer, self.parameters(), statistics)?;
        if let Statistics::Fixed(running) = statistics {
            let mut prepared = vec![f64::NAN; layer.prepared_len()];
            let call = Prepare { parameters: self.parameters(), running, prepared: &mut prepared };
            // A call for an empty tensor takes statistics that cannot be prepared.
            if layer.prepare(call).is_ok() {
                let again = self.backward_of(&layer, Parameters::default(), Statistics::Prepared(&prepared))?;
                assert_eq!(again.bits(), result.bits(), "prepared is not the same as unprepared");
            }
        }
        Ok(result)
    }

    fn backward_of<A: Oracle>(
        &self,
        layer: &Layer<A>,
        parameters: Parameters<'_>,
        statistics: Statistics<'_>,
    ) -> Result<Differentiated, Error> {
        let mut result = Differentiated {
            dx: vec![f32::NAN; self.x.len()],
            d_residual: self.residual.iter().flat_map(|residual| vec![f32::NAN; residual.len()]).collect(),
            d_weight: vec![f32::NAN; self.channels],
            d_bias: vec![f32::NAN; self.channels],
        };
        let mut in_place = Differentiated { dx: self.dy.clone(), ..result.clone() };
        let mut scratch = vec![f64::NAN; layer.backward_scratch_len()];
        layer.backward(Backward {
            parameters,
            statistics,
            dropout: self.dropout(),
            input: &self.x,
            grad_output: &self.dy,
            grad_input: Some(&mut result.dx),
            grad_parameters: ParameterGradients { weight: Some(&mut result.d_weight), bias: Some(&mut result.d_bias) },
            residual: self.residual.as_deref(),
            grad_residual: self.residual.as_ref().map(|_| &mut result.d_residual[..]),
            scratch: &mut scratch,
        })?;
        scratch.fill(0.0);
        layer.backward_in_place(BackwardInPlace {
            parameters,
            statistics,
            dropout: self.dropout(),
            input: &self.x,
            values: &mut in_place.dx,
            grad_parameters: ParameterGradients {
                weight: Some(&mut in_place.d_weight),
                bias: Some(&mut in_place.d_bias),
            },
            residual: self.residual.as_deref(),
            grad_residual: self.residual.as_ref().map(|_| &mut in_place.d_residual[..]),
            scratch: &mut scratch,
        })?;
        assert_eq!(in_place.bits(), result.bits(), "in place is not the same as out of place");
        Ok(result)
    }

    pub(crate) fn backward<A: Oracle>(&self, statistics: Statistics<'_>) -> Differentiated {
        self.try_backward::<A>(statistics).expect("a backward call without faults")
    }
}

/// Values per channel in `[-scale, scale]`, some of them 0.
fn per_channel(random: &mut SplitMix64, channels: usize, scale: f32) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "rounded to f32")]
    let value = |_| if random.next_below(8) == 0 { 0.0 } else { (2.0 * random.next_unit() - 1.0) as f32 * scale };
    (0..channels).map(value).collect()
}
