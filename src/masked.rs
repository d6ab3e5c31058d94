//! The calls of a layer over the valid positions of a padded batch: sequences of different lengths in
//! one tensor.

use crate::activation::Activation;
use crate::args::{Backward, Eval, Masked, Train};
use crate::check;
use crate::error::Error;
use crate::layer::Layer;
use crate::padding::Positions;
use crate::phase::{Phases, masked};
use crate::plan::{BackwardCall, ForwardCall, TrainCall};
use crate::simd::in_default;
use crate::storage::Singles;

impl<A: Activation> Layer<A> {
    /// The number of f64 values of scratch that are enough for every call of this layer over the
    /// valid positions of a padded batch ([`Layer::train_masked`] and the other calls with a
    /// [`Masked`]): at least [`Layer::scratch_len`].
    #[must_use]
    pub const fn masked_scratch_len(&self) -> usize {
        masked::scratch_len(&self.plan)
    }

    /// The number of f32 values of the workspace of every call of this layer over the valid positions
    /// of a padded batch, see [`Masked::workspace`]: 16,384, or four times the elements of a smaller
    /// tensor.
    #[must_use]
    pub const fn masked_workspace_len(&self) -> usize {
        masked::workspace_len(self.plan.shape)
    }

    /// [`Layer::train`] over the valid positions of a padded batch: statistics of the valid values
    /// alone, and +0.0 in `y` where a position is padding.
    ///
    /// Per channel, with `valid` values at valid positions:
    /// ```text
    /// mean = sum(valid x)/valid     var = sum((valid x - mean)^2)/valid
    /// y    = as in Layer::train at valid positions, +0.0 elsewhere
    /// ```
    /// The running statistics take these means and variances; the unbiased variance is
    /// `var*valid/(valid - 1)`. The mask of dropout has the bits of the whole tensor, in memory
    /// order, as in every other call. The bits of the padding do not matter.
    ///
    /// The padding of the tensors is never read. It may hold anything, NaN and
    /// infinities too, and no result depends on it.
    ///
    /// A batch without a valid position is like an empty tensor: the running statistics stay as they
    /// are, the saved statistics become 0, and `y` becomes +0.0.
    ///
    /// If every position is valid, the results are the bits of [`Layer::train`]. Otherwise `y` is, to
    /// the bit, the output of [`Layer::apply`] with the same statistics, and the order in which the
    /// statistics are added up depends on the shape and on the valid positions alone. The statistics
    /// are as accurate as those of [`Layer::train`].
    ///
    /// Memory: as [`Layer::train`] for the valid positions, and `y` is written once in the padding.
    /// Values that do not lie side by side are copied, a few thousand at a time. The statistics are made
    /// on the calling thread; what comes after them is shared by tasks where many valid values lie side by
    /// side. A batch without padding is a plain call.
    ///
    /// ```
    /// use normdrop::{Config, Identity, Layer, Masked, SavedArrays, Shape, Train, Validity};
    ///
    /// // Two sequences of at most three positions, [n, l, c] with one channel: 1, 3 and 5.
    /// const LAYER: Layer<Identity> = Layer::new_const(Shape::nlc(2, 3, 1), Identity, Config::DEFAULT);
    /// let x = [1.0, 3.0, f32::NAN, 5.0, f32::INFINITY, f32::NAN];
    /// let (mut y, mut saved) = ([f32::NAN; 6], SavedArrays::<1>::new());
    /// let mut scratch = [0.0; LAYER.masked_scratch_len()];
    /// let mut workspace = [0.0; LAYER.masked_workspace_len()];
    ///
    /// let masked = Masked::new(Validity::Lengths(&[2, 1]), &mut workspace);
    /// LAYER.train_masked(Train::new(&x, &mut y, saved.as_mut(), &mut scratch), masked)?;
    /// assert_eq!(saved.as_saved().mean, [3.0]);
    /// assert_eq!(y, [-1.2247425, 0.0, 0.0, 1.2247425, 0.0, 0.0]);
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Layer::train`], with [`Layer::masked_scratch_len`] as the length of scratch and the number of
    /// valid positions as the number of values per channel. [`Error::Length`] also if the validity is
    /// not one length for each sample or one bit for each position, or if the workspace is too short;
    /// [`Error::SequenceLength`] if a length is larger than the positions of a sample. The validity of
    /// an empty tensor is not checked.
    pub fn train_masked(&self, call: Train<'_>, masked: Masked<'_>) -> Result<(), Error> {
        in_default(|| {
            check::train_masked(&self.plan, &call, &masked, false)?;
            let formula = self.activation.forward_formula();
            let valid = Positions::valid(self.plan.shape, masked.validity);
            if valid.is_all() {
                Singles::train(&self.plan, &formula, TrainCall::new(call));
            } else {
                masked::train::<false>(&self.plan, &formula, valid, call, None, masked.workspace);
            }
            Ok(())
        })
    }

    /// [`Layer::train_masked`] that writes the gates for the backward call, too, as
    /// [`Layer::train_with_gates`] does. The gates of the padding are 0.
    ///
    /// # Errors
    /// As [`Layer::train_masked`], and for gates as [`Layer::train_with_gates`].
    pub fn train_masked_with_gates(&self, call: Train<'_>, masked: Masked<'_>, gates: &mut [u8]) -> Result<(), Error> {
        in_default(|| {
            let formula = self.activation.forward_formula();
            check::train_masked(&self.plan, &call, &masked, true)?;
            check::written_gates(&self.plan, &formula, call.dropout, gates)?;
            let valid = Positions::valid(self.plan.shape, masked.validity);
            if valid.is_all() {
                Singles::train_with_gates(&self.plan, &formula, TrainCall::new(call), gates);
            } else {
                masked::train::<true>(&self.plan, &formula, valid, call, Some(gates), masked.workspace);
            }
            Ok(())
        })
    }

    /// [`Layer::eval`] over the valid positions of a padded batch: `y` is +0.0 where a position is
    /// padding, and the padding of the tensors is never read. At valid positions the results are the
    /// bits of [`Layer::eval`].
    ///
    /// # Errors
    /// As [`Layer::eval`], and for the validity, scratch and workspace as [`Layer::train_masked`].
    pub fn eval_masked(&self, call: Eval<'_>, masked: Masked<'_>) -> Result<(), Error> {
        in_default(|| {
            check::eval_masked(&self.plan, &call, &masked, false)?;
            let formula = self.activation.forward_formula();
            let valid = Positions::valid(self.plan.shape, masked.validity);
            let mut call = ForwardCall::<Singles>::eval(&self.plan, call);
            if valid.is_all() {
                Singles::forward(&self.plan, &formula, &mut call);
            } else {
                masked::forward::<false>(&self.plan, &formula, valid, call, None, masked.workspace);
            }
            Ok(())
        })
    }

    /// [`Layer::eval_masked`] that writes the gates for the backward call, too, as
    /// [`Layer::eval_with_gates`] does: for frozen statistics. The gates of the padding are 0.
    ///
    /// # Errors
    /// As [`Layer::eval_masked`], and for gates as [`Layer::eval_with_gates`].
    pub fn eval_masked_with_gates(&self, call: Eval<'_>, masked: Masked<'_>, gates: &mut [u8]) -> Result<(), Error> {
        in_default(|| {
            let formula = self.activation.forward_formula();
            check::eval_masked(&self.plan, &call, &masked, true)?;
            check::written_gates(&self.plan, &formula, call.dropout, gates)?;
            let valid = Positions::valid(self.plan.shape, masked.validity);
            let mut call = ForwardCall::<Singles>::eval(&self.plan, call);
            if valid.is_all() {
                Singles::forward_with_gates(&self.plan, &formula, &mut call, gates);
            } else {
                masked::forward::<true>(&self.plan, &formula, valid, call, Some(gates), masked.workspace);
            }
            Ok(())
        })
    }

    /// [`Layer::backward`] over the valid positions of a padded batch, after [`Layer::train_masked`] or
    /// [`Layer::eval_masked`].
    ///
    /// The sums of [`Layer::backward`] are taken over valid positions, and `samples` is their number.
    /// `dx` and the gradient of the residual are +0.0 where a position is padding, and the padding of
    /// the tensors is never read, `dy` included. Without a valid position all gradients are +0.0.
    ///
    /// If every position is valid, the results are the bits of [`Layer::backward`]. Otherwise they are
    /// the bits of [`Layer::apply_gradient`] with the same sums.
    ///
    /// ```
    /// use normdrop::{Backward, Config, Identity, Layer, Masked, SavedArrays, Shape, Statistics, Train, Validity};
    ///
    /// const LAYER: Layer<Identity> = Layer::new_const(Shape::ncl(2, 1, 3), Identity, Config::DEFAULT);
    /// let (x, mut y, mut dx) = ([1.0, 3.0, 9.9, 5.0, 9.9, 9.9], [0.0; 6], [f32::NAN; 6]);
    /// let (mut saved, mut scratch) = (SavedArrays::<1>::new(), vec![0.0; LAYER.masked_scratch_len()]);
    /// let (validity, mut workspace) = (Validity::Bitmap(&[0b001_011]), vec![0.0; LAYER.masked_workspace_len()]);
    ///
    /// let masked = Masked::new(validity, &mut workspace);
    /// LAYER.train_masked(Train::new(&x, &mut y, saved.as_mut(), &mut scratch), masked)?;
    ///
    /// let statistics = Statistics::Batch(saved.as_saved());
    /// let call = Backward::new(statistics, &x, &[1.0; 6], &mut scratch);
    /// let masked = Masked::new(validity, &mut workspace);
    /// LAYER.backward_masked(Backward { grad_input: Some(&mut dx), ..call }, masked)?;
    /// // Equal gradients move the mean of the three valid values, and nothing else.
    /// assert_eq!(dx, [0.0; 6]);
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Layer::backward`], and for the validity, scratch and workspace as [`Layer::train_masked`].
    pub fn backward_masked(&self, call: Backward<'_>, masked: Masked<'_>) -> Result<(), Error> {
        in_default(|| {
            let formula = self.activation.backward_formula();
            let mut call = BackwardCall::<Singles>::whole(&self.plan, call);
            check::backward_masked(&self.plan, &formula, &call, &masked)?;
            let valid = Positions::valid(self.plan.shape, masked.validity);
            if valid.is_all() {
                Singles::backward(&self.plan, &formula, &mut call);
            } else {
                masked::backward(&self.plan, &formula, valid, call, masked.workspace);
            }
            Ok(())
        })
    }
}
