//! Every public call of normdrop on one set of buffers.
//!
//! The rigs that make all calls (`digest`, `footprint`, `panic-free`, `miri`) each have buffers, options and data of their own, and
//! something that they look at after a call. What they share is here: how the buffers become the arguments of each call. A new call,
//! or a new field of an argument, is added here, and all rigs make it.
#![no_std]

use normdrop::{
    Activation, Apply, ApplyGradient, Average, Backward, BackwardInPlace, Dropout, Element, Error, Eval, EvalInPlace,
    EvalPrepared, EvalPreparedInPlace, Finish, Fold, FoldPadding, Identity, Layer, Masked, Moments, Noise,
    ParameterGradients, Parameters, Prepare, Reduce, Running, RunningMut, Saved, SavedMut, Statistics, Stored, Train,
    WeightShape, fold_padding, merge_moments, merge_sums,
};

/// The buffers and options of any call, with elements of one type. Each buffer has the length that the call asks for, or the call refuses it.
#[derive(Debug)]
pub struct Call<'a, E = f32> {
    /// The learned scale of each channel, if there is one.
    pub weight: Option<&'a [f32]>,
    /// The learned offset of each channel, if there is one.
    pub bias: Option<&'a [f32]>,
    /// The running mean, which training updates and evaluation reads.
    pub running_mean: &'a mut [f32],
    /// What the rounding of the running mean left out, if that is kept.
    pub running_mean_tail: Option<&'a mut [f32]>,
    /// The running variance.
    pub running_var: &'a mut [f32],
    /// Whether training and [`Layer::finish`] update the running statistics.
    pub updates_running: bool,
    /// The batches so far, if the running statistics are the average of all batches.
    pub batches: Option<u64>,
    /// The mask, if dropout is on.
    pub mask: Option<&'a [u8]>,
    /// The gates of the calls that write them or are given them.
    pub gates: &'a mut [u8],
    /// Whether the mask of a call that writes gates is in them.
    pub in_gates: bool,
    /// Whether gradients are those past fixed statistics.
    pub fixed: bool,
    /// The mean of the batch, saved for the backward call.
    pub saved_mean: &'a mut [f32],
    /// The tail of the saved mean.
    pub saved_mean_tail: &'a mut [f32],
    /// The saved inverse standard deviation.
    pub saved_inv_std: &'a mut [f64],
    /// The tensor that comes in.
    pub input: &'a [E],
    /// A tensor that is added before the activation, if there is one.
    pub residual: Option<&'a [E]>,
    /// The tensor that goes out. A call in place has its values here: the input, or the gradient with respect to the output.
    /// A fold has the weights of its layer here.
    pub output: &'a mut [E],
    /// The gradient with respect to the output.
    pub grad_output: &'a [E],
    /// The gradient with respect to the input, if it is asked for.
    pub grad_input: Option<&'a mut [E]>,
    /// The gradient with respect to the residual, if it is asked for. A fold has the bias of its layer here.
    pub grad_residual: Option<&'a mut [E]>,
    /// The gradient with respect to the weight, if it is asked for.
    pub grad_weight: Option<&'a mut [f32]>,
    /// The gradient with respect to the bias, if it is asked for.
    pub grad_bias: Option<&'a mut [f32]>,
    /// The moments or the sums of a part of a batch: room for the longer of them.
    pub part: &'a mut [f64],
    /// The moments or the sums of another part, which is merged into `part`.
    pub other: &'a mut [f64],
    /// Prepared statistics, of [`Layer::prepared_len`] values or more.
    pub prepared: &'a mut [f64],
    /// The values per channel of the whole batch, for [`Layer::apply_gradient`].
    pub samples: f64,
    /// The scratch of every call.
    pub scratch: &'a mut [f64],
}

/// The first `len` values of a buffer: all of them if it has fewer, and the call then says what is wrong.
#[must_use]
pub fn front<T>(buffer: &[T], len: usize) -> &[T] {
    buffer.get(..len).unwrap_or(buffer)
}

/// [`front`], to be written.
pub fn front_mut<T>(buffer: &mut [T], len: usize) -> &mut [T] {
    let len = len.min(buffer.len());
    buffer.get_mut(..len).unwrap_or_default()
}

// The bundles of arguments. Macros, because each borrows some fields of a `Call` while others are borrowed to be written.
macro_rules! parameters {
    ($call:ident) => {
        Parameters { weight: $call.weight, bias: $call.bias }
    };
}
macro_rules! running {
    ($call:ident) => {
        Running { mean: &*$call.running_mean, mean_tail: $call.running_mean_tail.as_deref(), var: &*$call.running_var }
    };
}
macro_rules! running_mut {
    ($call:ident) => {
        if $call.updates_running {
            Some(RunningMut {
                mean: &mut *$call.running_mean,
                mean_tail: $call.running_mean_tail.as_deref_mut(),
                var: &mut *$call.running_var,
                average: match &mut $call.batches {
                    Some(batches) => Average::Cumulative { batches },
                    None => Average::Exponential,
                },
            })
        } else {
            None
        }
    };
}
macro_rules! dropout {
    ($call:ident) => {
        $call.mask.map_or(Dropout::Off, Dropout::Mask)
    };
}
macro_rules! dropout_beside_gates {
    ($call:ident) => {
        if $call.in_gates { Dropout::InGates } else { dropout!($call) }
    };
}
macro_rules! saved {
    ($call:ident) => {
        Saved { mean: &*$call.saved_mean, mean_tail: &*$call.saved_mean_tail, inv_std: &*$call.saved_inv_std }
    };
}
macro_rules! saved_mut {
    ($call:ident) => {
        SavedMut {
            mean: &mut *$call.saved_mean,
            mean_tail: &mut *$call.saved_mean_tail,
            inv_std: &mut *$call.saved_inv_std,
        }
    };
}
macro_rules! statistics {
    ($call:ident) => {
        if $call.fixed { Statistics::Fixed(running!($call)) } else { Statistics::Batch(saved!($call)) }
    };
}
macro_rules! grad_parameters {
    ($call:ident) => {
        ParameterGradients { weight: $call.grad_weight.as_deref_mut(), bias: $call.grad_bias.as_deref_mut() }
    };
}
macro_rules! train {
    ($call:ident, $dropout:expr) => {
        Train {
            parameters: parameters!($call),
            running: running_mut!($call),
            dropout: $dropout,
            input: $call.input,
            residual: $call.residual,
            output: &mut *$call.output,
            saved: saved_mut!($call),
            scratch: &mut *$call.scratch,
        }
    };
}
macro_rules! eval {
    ($call:ident, $dropout:expr) => {
        Eval {
            parameters: parameters!($call),
            running: running!($call),
            dropout: $dropout,
            input: $call.input,
            residual: $call.residual,
            output: &mut *$call.output,
            scratch: &mut *$call.scratch,
        }
    };
}
macro_rules! eval_in_place {
    ($call:ident) => {
        EvalInPlace {
            parameters: parameters!($call),
            running: running!($call),
            dropout: dropout!($call),
            residual: $call.residual,
            values: &mut *$call.output,
            scratch: &mut *$call.scratch,
        }
    };
}
macro_rules! backward {
    ($call:ident) => {
        Backward {
            parameters: parameters!($call),
            statistics: statistics!($call),
            dropout: dropout!($call),
            input: $call.input,
            residual: $call.residual,
            grad_output: $call.grad_output,
            grad_input: $call.grad_input.as_deref_mut(),
            grad_residual: $call.grad_residual.as_deref_mut(),
            grad_parameters: grad_parameters!($call),
            scratch: &mut *$call.scratch,
        }
    };
}

#[expect(clippy::missing_errors_doc, reason = "the errors are those of the call of the same name")]
impl<E: Element> Call<'_, E> {
    /// [`Layer::train`].
    pub fn train<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.train(train!(self, dropout!(self)))
    }

    /// [`Layer::train_with_gates`].
    pub fn train_with_gates<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.train_with_gates(train!(self, dropout_beside_gates!(self)), self.gates)
    }

    /// [`Layer::eval_with_gates`].
    pub fn eval_with_gates<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.eval_with_gates(eval!(self, dropout_beside_gates!(self)), self.gates)
    }

    /// [`Layer::eval`].
    pub fn eval<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.eval(eval!(self, dropout!(self)))
    }

    /// [`Layer::eval_in_place`], of the output.
    pub fn eval_in_place<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.eval_in_place(eval_in_place!(self))
    }

    /// [`Layer::prepare`].
    pub fn prepare<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.prepare(Prepare {
            parameters: parameters!(self),
            running: running!(self),
            prepared: front_mut(self.prepared, layer.prepared_len()),
        })
    }

    /// [`Layer::eval_prepared`].
    pub fn eval_prepared<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.eval_prepared(EvalPrepared {
            prepared: front(self.prepared, layer.prepared_len()),
            dropout: dropout!(self),
            input: self.input,
            residual: self.residual,
            output: &mut *self.output,
            scratch: &mut *self.scratch,
        })
    }

    /// [`Layer::eval_prepared_in_place`], of the output.
    pub fn eval_prepared_in_place<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.eval_prepared_in_place(EvalPreparedInPlace {
            prepared: front(self.prepared, layer.prepared_len()),
            dropout: dropout!(self),
            residual: self.residual,
            values: &mut *self.output,
            scratch: &mut *self.scratch,
        })
    }

    /// [`Layer::backward`] with prepared statistics.
    pub fn backward_prepared<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.backward(Backward {
            parameters: Parameters::default(),
            statistics: Statistics::Prepared(front(self.prepared, layer.prepared_len())),
            ..backward!(self)
        })
    }

    /// [`Layer::backward`].
    pub fn backward<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.backward(backward!(self))
    }

    /// [`Layer::backward_in_place`], of the output, which has the gradient with respect to the output in it.
    pub fn backward_in_place<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.backward_in_place(BackwardInPlace {
            parameters: parameters!(self),
            statistics: statistics!(self),
            dropout: dropout!(self),
            input: self.input,
            residual: self.residual,
            values: &mut *self.output,
            grad_residual: self.grad_residual.as_deref_mut(),
            grad_parameters: grad_parameters!(self),
            scratch: &mut *self.scratch,
        })
    }

    /// [`Layer::backward`] with gates, without the residual and the bias.
    pub fn backward_with_gates<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.backward(Backward {
            parameters: Parameters { weight: self.weight, bias: None },
            dropout: Dropout::Gates(&*self.gates),
            residual: None,
            ..backward!(self)
        })
    }

    /// [`Layer::moments`].
    pub fn moments<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.moments(Moments {
            input: self.input,
            moments: front_mut(self.part, layer.moments_len()),
            scratch: &mut *self.scratch,
        })
    }

    /// [`Layer::moments`] of another part of the batch, the first values of the input.
    pub fn moments_of_other<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.moments(Moments {
            input: front(self.input, layer.shape().len()),
            moments: front_mut(self.other, layer.moments_len()),
            scratch: &mut *self.scratch,
        })
    }

    /// [`merge_moments`].
    pub fn merge_moments<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        let len = layer.moments_len();
        merge_moments(front_mut(self.part, len), front(self.other, len))
    }

    /// [`Layer::finish`].
    pub fn finish<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.finish(Finish {
            moments: front(self.part, layer.moments_len()),
            running: running_mut!(self),
            saved: saved_mut!(self),
        })
    }

    /// [`Layer::apply`].
    pub fn apply<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.apply(Apply {
            parameters: parameters!(self),
            saved: saved!(self),
            dropout: dropout!(self),
            input: self.input,
            residual: self.residual,
            output: &mut *self.output,
            scratch: &mut *self.scratch,
        })
    }

    /// [`Layer::apply_with_gates`].
    pub fn apply_with_gates<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        let apply = Apply {
            parameters: parameters!(self),
            saved: saved!(self),
            dropout: dropout_beside_gates!(self),
            input: self.input,
            residual: self.residual,
            output: &mut *self.output,
            scratch: &mut *self.scratch,
        };
        layer.apply_with_gates(apply, self.gates)
    }

    /// [`Layer::reduce`].
    pub fn reduce<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.reduce(Reduce {
            parameters: parameters!(self),
            statistics: statistics!(self),
            dropout: dropout!(self),
            input: self.input,
            residual: self.residual,
            grad_output: self.grad_output,
            sums: front_mut(self.part, layer.sums_len()),
            scratch: &mut *self.scratch,
        })
    }

    /// [`merge_sums`].
    pub fn merge_sums<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        let len = layer.sums_len();
        merge_sums(front_mut(self.part, len), front(self.other, len))
    }

    /// [`Layer::finish_gradients`].
    pub fn finish_gradients<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.finish_gradients(front(self.part, layer.sums_len()), grad_parameters!(self))
    }

    /// [`Layer::apply_gradient`].
    pub fn apply_gradient<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.apply_gradient(ApplyGradient {
            parameters: parameters!(self),
            saved: saved!(self),
            samples: self.samples,
            sums: front(self.part, layer.sums_len()),
            dropout: dropout!(self),
            input: self.input,
            residual: self.residual,
            grad_output: self.grad_output,
            grad_input: self.grad_input.as_deref_mut().unwrap_or_default(),
            grad_residual: self.grad_residual.as_deref_mut(),
            scratch: &mut *self.scratch,
        })
    }

    /// [`Layer::train_prelu`].
    pub fn train_prelu(&mut self, layer: &Layer<Identity>, slope: &[f32]) -> Result<(), Error> {
        layer.train_prelu(train!(self, dropout!(self)), slope)
    }

    /// [`Layer::eval_prelu`].
    pub fn eval_prelu(&mut self, layer: &Layer<Identity>, slope: &[f32]) -> Result<(), Error> {
        layer.eval_prelu(eval!(self, dropout!(self)), slope)
    }

    /// [`Layer::eval_prelu_in_place`], of the output.
    pub fn eval_prelu_in_place(&mut self, layer: &Layer<Identity>, slope: &[f32]) -> Result<(), Error> {
        layer.eval_prelu_in_place(eval_in_place!(self), slope)
    }

    /// [`Layer::backward_prelu`].
    pub fn backward_prelu(
        &mut self,
        layer: &Layer<Identity>,
        slope: &[f32],
        grad_slope: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        layer.backward_prelu(backward!(self), slope, grad_slope)
    }
}

#[expect(clippy::missing_errors_doc, reason = "the errors are those of the call of the same name")]
impl Call<'_> {
    /// [`Layer::train_masked`].
    pub fn train_masked<A: Activation>(&mut self, layer: &Layer<A>, masked: Masked<'_>) -> Result<(), Error> {
        layer.train_masked(train!(self, dropout!(self)), masked)
    }

    /// [`Layer::train_masked_with_gates`], with the mask in the gates.
    pub fn train_masked_with_gates<A: Activation>(
        &mut self,
        layer: &Layer<A>,
        masked: Masked<'_>,
        gates: &mut [u8],
    ) -> Result<(), Error> {
        layer.train_masked_with_gates(train!(self, Dropout::InGates), masked, gates)
    }

    /// [`Layer::eval_masked`].
    pub fn eval_masked<A: Activation>(&mut self, layer: &Layer<A>, masked: Masked<'_>) -> Result<(), Error> {
        layer.eval_masked(eval!(self, dropout!(self)), masked)
    }

    /// [`Layer::eval_masked_with_gates`], with the mask in the gates.
    pub fn eval_masked_with_gates<A: Activation>(
        &mut self,
        layer: &Layer<A>,
        masked: Masked<'_>,
        gates: &mut [u8],
    ) -> Result<(), Error> {
        layer.eval_masked_with_gates(eval!(self, Dropout::InGates), masked, gates)
    }

    /// [`Layer::backward_masked`].
    pub fn backward_masked<A: Activation>(&mut self, layer: &Layer<A>, masked: Masked<'_>) -> Result<(), Error> {
        layer.backward_masked(backward!(self), masked)
    }

    /// [`normdrop::fold_into_previous`] or [`normdrop::fold_into_next`]: the weights of the other layer are the output, and its
    /// bias is the first values, one per output, of the gradient with respect to the residual.
    pub fn fold(&mut self, fold: fn(Fold<'_>) -> Result<(), Error>, shape: WeightShape, eps: f32) -> Result<(), Error> {
        fold(Fold {
            parameters: parameters!(self),
            running: running!(self),
            eps,
            shape,
            weights: &mut *self.output,
            bias: self.grad_residual.as_deref_mut().map(|bias| front_mut(bias, shape.outputs)),
        })
    }

    /// [`normdrop::fold_padding`]: the padding is the first values, one per channel, of the output.
    pub fn fold_padding(&mut self, eps: f32) -> Result<(), Error> {
        let channels = self.running_mean.len();
        fold_padding(FoldPadding {
            parameters: parameters!(self),
            running: running!(self),
            eps,
            padding: front_mut(self.output, channels),
        })
    }

    /// [`Layer::apply_noise`], of the output.
    pub fn apply_noise<A: Activation>(&mut self, layer: &Layer<A>, noise: Noise, seed: u64) -> Result<(), Error> {
        layer.apply_noise(noise, seed, self.output)
    }

    /// [`Layer::alpha_dropout`], of the output. Without a mask it refuses, unless the mask has no bits.
    pub fn alpha_dropout<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.alpha_dropout(self.mask.unwrap_or_default(), self.output)
    }

    /// [`Layer::alpha_dropout_backward`], of the output.
    pub fn alpha_dropout_backward<A: Activation>(&mut self, layer: &Layer<A>) -> Result<(), Error> {
        layer.alpha_dropout_backward(self.mask.unwrap_or_default(), self.output)
    }

    /// [`Layer::prelu`], of the output.
    pub fn prelu<A: Activation>(&mut self, layer: &Layer<A>, slope: &[f32]) -> Result<(), Error> {
        layer.prelu(slope, self.output)
    }

    /// [`Layer::prelu_gradient`], of the output.
    pub fn prelu_gradient<A: Activation>(
        &mut self,
        layer: &Layer<A>,
        slope: &[f32],
        grad_slope: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        layer.prelu_gradient(slope, self.grad_output, self.output, grad_slope, self.scratch)
    }

    /// [`Stored::into_running`], of the running statistics.
    pub fn stored(&mut self, stored: Stored) -> Result<(), Error> {
        stored.into_running(self.running_mean, self.running_var).map(drop)
    }
}
