//! The calls of a layer with PReLU, an activation whose slopes are learned.

#[cfg(feature = "alloc")]
use crate::activation::Formula;
use crate::activation::{Activation, Identity};
#[cfg(feature = "alloc")]
use crate::args::Masked;
use crate::args::{Backward, Eval, EvalInPlace, Train};
use crate::check;
use crate::element::Element;
use crate::error::Error;
use crate::layer::{Layer, by_family};
#[cfg(feature = "alloc")]
use crate::padding::Positions;
use crate::phase::prelu::{self, PreluPhases};
#[cfg(feature = "alloc")]
use crate::phase::{Phases, masked};
use crate::plan::{BackwardCall, ForwardCall, TrainCall};
use crate::simd::in_default;
#[cfg(feature = "half-precision")]
use crate::storage::Mixed;
use crate::storage::Singles;

impl Layer<Identity> {
    /// [`Layer::train`] with PReLU as the activation: `act(z) = z > 0 ? z : slope*z`, with a slope for
    /// each channel that is learned (He et al., *Delving deep into rectifiers*, 2015).
    ///
    /// `slope` has `C` values, one for each channel, or one value for all channels: PyTorch's
    /// `PReLU(C)` and `PReLU()`, whose slopes start at 0.25. A slope may be any number.
    ///
    /// The layer itself has no activation, because its activations have no data. The slopes are data,
    /// as weight and bias are:
    /// ```
    /// use normdrop::{Backward, Config, Identity, Layer, SavedArrays, Shape, Statistics, Train};
    ///
    /// const LAYER: Layer<Identity> = Layer::new_const(Shape::nc(2, 2), Identity, Config { eps: 1e-9, ..Config::DEFAULT });
    /// let (x, slope) = ([1.0, 10.0, 3.0, 30.0], [0.25, 0.5]);
    /// let (mut y, mut dx, mut grad_slope) = ([0.0; 4], [0.0; 4], [0.0; 2]);
    /// let (mut saved, mut scratch) = (SavedArrays::<2>::new(), [0.0; LAYER.prelu_scratch_len()]);
    ///
    /// LAYER.train_prelu(Train::new(&x, &mut y, saved.as_mut(), &mut scratch), &slope)?;
    /// assert_eq!(y, [-0.25, -0.5, 1.0, 1.0]);
    ///
    /// let call = Backward::new(Statistics::Batch(saved.as_saved()), &x, &[1.0, 2.0, 3.0, 4.0], &mut scratch);
    /// LAYER.backward_prelu(Backward { grad_input: Some(&mut dx), ..call }, &slope, Some(&mut grad_slope))?;
    /// // Where z is -1, the gradient of the slope is -dy.
    /// assert_eq!(grad_slope, [-1.0, -2.0]);
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    /// With equal slopes, `y` is that of [`LeakyRelu`](crate::LeakyRelu), except that `slope*(scale*z)`
    /// is rounded instead of `scale*(slope*z)` where there is a residual. `z` and `scale*z` are numbers of
    /// f32: a number that does not fit is infinite, even if its product with the slope would fit. With a
    /// slope of 0, −∞ gives NaN, as in PyTorch. A dropped element is +0.0 for every slope.
    ///
    /// Elements may be halves, see [`Element`]: all results are those of f32, rounded once.
    /// Scratch then has `prelu_half_scratch_len` values.
    ///
    /// Memory: as [`Layer::train`], and `y` is read and written once more.
    ///
    /// # Errors
    /// As [`Layer::train`], and [`Error::Length`] if `slope` has neither `C` values nor one.
    pub fn train_prelu<X: Element, Y: Element>(&self, call: Train<'_, X, Y>, slope: &[f32]) -> Result<(), Error> {
        by_family!(X, Y; Family => self.trained_prelu::<Family>(TrainCall::new(call), slope))
    }

    /// A training call.
    fn trained_prelu<T: PreluPhases>(&self, call: TrainCall<'_, T>, slope: &[f32]) -> Result<(), Error> {
        in_default(|| {
            check::train(&self.plan, &call, false)?;
            check::slope(&self.plan, slope)?;
            check::prelu_room::<T>(&self.plan, self.plan.train_scratch_len(), call.scratch.len())?;
            T::train_prelu(&self.plan, call, slope);
            Ok(())
        })
    }

    /// [`Layer::eval`] with PReLU as the activation, see [`Layer::train_prelu`].
    ///
    /// Memory: as [`Layer::eval`], and `y` is read and written once more.
    ///
    /// # Errors
    /// As [`Layer::eval`], and [`Error::Length`] if `slope` has neither `C` values nor one.
    pub fn eval_prelu<X: Element, Y: Element>(&self, call: Eval<'_, X, Y>, slope: &[f32]) -> Result<(), Error> {
        by_family!(X, Y; Family => self.forward_prelu::<Family>(ForwardCall::eval(&self.plan, call), slope))
    }

    /// [`Layer::eval_prelu`] that overwrites its input; the results are the same bits.
    ///
    /// # Errors
    /// As [`Layer::eval_prelu`].
    pub fn eval_prelu_in_place<X: Element>(&self, call: EvalInPlace<'_, X>, slope: &[f32]) -> Result<(), Error> {
        by_family!(X; Family => self.forward_prelu::<Family>(ForwardCall::eval_in_place(&self.plan, call), slope))
    }

    /// A forward call with fixed statistics.
    fn forward_prelu<T: PreluPhases>(&self, call: ForwardCall<'_, T>, slope: &[f32]) -> Result<(), Error> {
        in_default(|| {
            check::forward_apart(&self.plan, &call)?;
            check::slope(&self.plan, slope)?;
            check::prelu_room::<T>(&self.plan, self.plan.eval_scratch_len(), call.scratch.len())?;
            T::forward_prelu(&self.plan, call, slope);
            Ok(())
        })
    }

    /// [`Layer::backward`] with PReLU as the activation, after [`Layer::train_prelu`] or
    /// [`Layer::eval_prelu`]. It computes the gradient of the slopes, too.
    ///
    /// Per channel, with `scale` and `keep` of dropout:
    /// ```text
    /// g       = keep ? (z > 0 ? dy : slope*dy)*scale : 0
    /// d_slope = sum(keep and z < 0 ? z*scale*dy : 0)
    /// ```
    /// The other gradients are made of `g`, as in [`Layer::backward`]. With one slope for all channels,
    /// its gradient is the sum over all of them. `grad_slope` has as many values as `slope`, and is
    /// overwritten; `None` if it is not needed.
    ///
    /// The derivative at 0 is the slope, as in PyTorch. With equal slopes, `dx` and the gradients of
    /// weight and bias have the bits of [`LeakyRelu`](crate::LeakyRelu). `d_slope` is summed in the order
    /// of the other sums; a sum that does not fit an f32 is infinite. Where a `z` of −∞ would make the
    /// sum NaN, by a `dy` of 0 or by a product of the other sign, that `z` counts as the largest f32 of
    /// its sign. So finite tensors never give a `d_slope` of NaN, as they do in PyTorch. A product
    /// `slope*dy` that does not fit an f32 is infinite, too.
    ///
    /// `grad_input` is needed: `y` before PReLU is computed again, and put there. So there is no call
    /// in place. Gates do not say what `z` was, and are refused.
    ///
    /// Memory: as [`Layer::backward`], and before it `x` is read and `dx` written, then `dx` and `dy` are
    /// read twice and `dx` is written.
    ///
    /// # Errors
    /// As [`Layer::backward`]; [`Error::Length`] also if there is no `grad_input`, if `slope` has neither
    /// `C` values nor one, if `grad_slope` does not have the length of `slope`, or if scratch is shorter
    /// than [`Layer::prelu_scratch_len`]; [`Error::GatesActivation`] if the dropout is gates.
    pub fn backward_prelu<X: Element, Y: Element>(
        &self,
        call: Backward<'_, X, Y>,
        slope: &[f32],
        grad_slope: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        by_family!(X, Y; Family => {
            self.differentiate_prelu::<Family>(BackwardCall::whole(&self.plan, call), slope, grad_slope)
        })
    }

    /// A backward call.
    fn differentiate_prelu<T: PreluPhases>(
        &self,
        call: BackwardCall<'_, T>,
        slope: &[f32],
        grad_slope: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        in_default(|| {
            check::backward_prelu(&self.plan, &call)?;
            check::grad_slope(&self.plan, slope, grad_slope.as_deref(), call.scratch.len())?;
            check::prelu_room::<T>(&self.plan, prelu::scratch_len(&self.plan), call.scratch.len())?;
            T::backward_prelu(&self.plan, call, slope, grad_slope);
            Ok(())
        })
    }
}

impl<A: Activation> Layer<A> {
    /// The number of f64 values of scratch that are enough for every call with PReLU, and for every
    /// other call of this layer that [`Layer::scratch_len`] is enough for: four values per channel
    /// more, on targets without vector registers too.
    #[must_use]
    pub const fn prelu_scratch_len(&self) -> usize {
        let (all, backward) = (self.scratch_len(), prelu::scratch_len(&self.plan));
        if all > backward { all } else { backward }
    }

    /// [`Layer::prelu_scratch_len`] for [`Layer::train_prelu`] and the other calls of its kind with
    /// tensors of halves: half a value per element more.
    ///
    /// In the additional values `y` before PReLU is kept as f32, so that it is not rounded twice. One
    /// scratch serves all layers of a network, one call at a time.
    #[cfg(feature = "half-precision")]
    #[must_use]
    pub const fn prelu_half_scratch_len(&self) -> usize {
        self.prelu_scratch_len().saturating_add(prelu::room_len(&self.plan))
    }

    /// Checks a backward call before anything is computed for it. With `masked` it is one over the valid
    /// positions of a padded batch.
    #[cfg(feature = "alloc")]
    pub(crate) fn check_backward(&self, call: &mut Backward<'_>, masked: Option<&Masked<'_>>) -> Result<(), Error> {
        let (plan, formula) = (&self.plan, &self.activation.backward_formula());
        let call = BackwardCall::<Singles>::whole(plan, call.reborrow());
        match masked {
            Some(masked) => check::backward_masked(plan, formula, &call, masked),
            None => check::backward(plan, formula, &call),
        }
    }

    /// Computes again, without the activation, the output of the forward call that belongs to a backward
    /// call. The backward call has been checked.
    #[cfg(feature = "alloc")]
    pub(crate) fn forward_again(&self, call: &mut Backward<'_>, masked: Option<Masked<'_>>, output: &mut [f32]) {
        let plan = &self.plan;
        let &mut Backward { parameters, statistics, dropout, input, residual, .. } = call;
        let normalisation = plan.normalisation(parameters, statistics);
        let scratch = &mut *call.scratch;
        let mut call = ForwardCall { normalisation, dropout, residual, input: Some(input), output, scratch };
        in_default(|| match masked.map(|masked| (Positions::valid(plan.shape, masked.validity), masked.workspace)) {
            Some((valid, workspace)) if !valid.is_all() => {
                masked::forward::<false>(plan, &Formula::OPEN, valid, call, None, workspace);
            }
            _ => Singles::forward(plan, &Formula::OPEN, &mut call),
        });
    }

    /// PReLU of a tensor of this shape, in place: `y` becomes `y < 0 ? slope*y : y`.
    ///
    /// It follows any forward call of a layer with [`Identity`], with dropout or without: prepared,
    /// masked, of a part of a batch. Dropout may come first because `act(scale*z) = scale*act(z)` and
    /// `act(0) = 0`. [`Layer::train_prelu`] is the two calls in one.
    ///
    /// `slope` has `C` values or one. NaN stays NaN, and +0.0 and −0.0 stay as they are.
    /// ```
    /// use normdrop::{Config, Identity, Layer, Shape};
    ///
    /// let layer = Layer::new(Shape::nc(2, 3)?, Identity, Config::DEFAULT)?;
    /// let mut y = [-4.0, -4.0, 4.0, 1.0, -1.0, 0.0];
    /// layer.prelu(&[0.25, 0.5, 0.75], &mut y)?;
    /// assert_eq!(y, [-1.0, -2.0, 4.0, 1.0, -0.5, 0.0]);
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Length`] if `slope` has neither `C` values nor one, or `values` not the elements of the
    /// shape.
    pub fn prelu(&self, slope: &[f32], values: &mut [f32]) -> Result<(), Error> {
        in_default(|| {
            check::prelu(&self.plan, slope, values)?;
            prelu::activate(&self.plan, slope, values);
            Ok(())
        })
    }

    /// The gradient of [`Layer::prelu`], in place: `values` has `y` before PReLU and gets the gradient
    /// `y > 0 ? dy : slope*dy`, and `grad_slope` gets the sums of `y*dy` where `y` is below 0.
    ///
    /// `y` is computed again as it was in the forward call, dropout included. Afterwards the backward
    /// call of a layer with [`Identity`] takes `values` for its `grad_output`, with the same dropout.
    /// [`Layer::backward_prelu`] is all of this in one call. In a batch that is computed in parts, the
    /// gradients of the slopes of all parts are added.
    ///
    /// Where `y` is NaN, the gradient is NaN. An infinite `y` counts as the largest f32 of its sign in a sum
    /// that would be NaN.
    /// ```
    /// use normdrop::{Config, Identity, Layer, Shape};
    ///
    /// let layer = Layer::new(Shape::nc(2, 2)?, Identity, Config::DEFAULT)?;
    /// let (slope, dy) = ([0.25, 0.5], [1.0, 2.0, 3.0, 4.0]);
    /// let (mut values, mut grad_slope) = ([-1.0, 7.0, -2.0, -1.0], [0.0; 2]);
    /// let mut scratch = vec![0.0; layer.prelu_scratch_len()];
    /// layer.prelu_gradient(&slope, &dy, &mut values, Some(&mut grad_slope), &mut scratch)?;
    /// assert_eq!((values, grad_slope), ([0.25, 2.0, 0.75, 2.0], [-7.0, -4.0]));
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Length`] if a buffer does not have its length: `slope` has `C` values or one, `grad_slope`
    /// as many as `slope`, `grad_output` and `values` the elements of the shape, and `scratch` at least
    /// [`Layer::prelu_scratch_len`].
    pub fn prelu_gradient(
        &self,
        slope: &[f32],
        grad_output: &[f32],
        values: &mut [f32],
        grad_slope: Option<&mut [f32]>,
        scratch: &mut [f64],
    ) -> Result<(), Error> {
        in_default(|| {
            check::prelu_gradient(&self.plan, grad_output, values)?;
            check::grad_slope(&self.plan, slope, grad_slope.as_deref(), scratch.len())?;
            prelu::differentiate::<Singles>(&self.plan, slope, grad_output, values, grad_slope, scratch);
            Ok(())
        })
    }
}
