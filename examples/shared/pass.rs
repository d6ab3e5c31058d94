//! One forward call of normdrop's layer and what its backward call needs of it, on slices: what the layers of all
//! frameworks have in common.

use std::sync::Arc;

use normdrop::{
    Activation, Backward, Config, Dropout, Element, Error, Eval, EvalPrepared, Layer, ParameterGradients, Parameters,
    Prepare, Running, RunningMut, Saved, SavedMut, Shape, Statistics, Train, mask_len,
};

/// What a forward call leaves for its backward call.
#[derive(Debug)]
pub(crate) struct Pass<A> {
    layer: Layer<A>,
    kept: Kept,
}

/// The statistics of a call, and its bits: a gate for each element where the activation has gates, and the mask, if there is
/// one, where it has none. Gates take the place of the mask, and `z` is not computed again.
#[derive(Debug)]
enum Kept {
    Batch { mean: Vec<f32>, mean_tail: Vec<f32>, inv_std: Vec<f64>, bits: Option<Vec<u8>> },
    // A copy: the running statistics may have changed before the backward call.
    Fixed { mean: Vec<f32>, var: Vec<f32> },
}

/// What a backward call computes: the gradient of the input in the input's type.
#[derive(Debug)]
pub(crate) struct Gradients<E> {
    pub(crate) input: Option<Vec<E>>,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// The order in which a tensor `[N, C, ...]` is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// As its dimensions are.
    First,
    /// `[N, ..., C]`.
    Last,
}

impl Order {
    /// The order of the dimensions of `[N, C, ...]` in memory, of so many, at least two.
    pub(crate) fn of_memory(self, rank: usize) -> Vec<usize> {
        match self {
            Self::First => (0..rank).collect(),
            Self::Last => [0].into_iter().chain(2..rank).chain([1]).collect(),
        }
    }

    /// The order of the dimensions in memory that gives `[N, C, ...]` again.
    pub(crate) fn of_tensor(self, rank: usize) -> Vec<usize> {
        match self {
            Self::First => (0..rank).collect(),
            Self::Last => [0, rank - 1].into_iter().chain(1..rank - 1).collect(),
        }
    }
}

/// The shape of a tensor `[N, C, ...]` of these dimensions in this order in memory; none if there are fewer than two.
pub(crate) fn shape_of(dims: &[usize], order: Order) -> Option<Result<Shape, Error>> {
    let [samples, channels, positions @ ..] = dims else { return None };
    // A zero makes the tensor empty, whatever the others are.
    let inner = if positions.contains(&0) {
        Ok(0)
    } else {
        positions.iter().try_fold(1usize, |product, &dimension| {
            product.checked_mul(dimension).ok_or(Error::ShapeOverflow { product, dimension })
        })
    };
    Some(inner.and_then(|inner| match order {
        Order::First => Shape::new(*samples, *channels, inner),
        Order::Last => Shape::nlc(*samples, inner, *channels),
    }))
}

/// The running statistics and parameters of a layer in the form that calls compute with, for any shape of its channels.
pub(crate) fn prepare<A: Activation>(
    layer: &Layer<A>,
    parameters: Parameters<'_>,
    [mean, var]: [&[f32]; 2],
) -> Result<Arc<[f64]>, Error> {
    let mut prepared = vec![0.0; layer.prepared_len()];
    layer.prepare(Prepare { parameters, running: Running::new(mean, var), prepared: &mut prepared })?;
    Ok(prepared.into())
}

/// An evaluation with what [`prepare`] has made.
pub(crate) fn eval_prepared<A: Activation, E: Element>(
    layer: &Layer<A>,
    prepared: &[f64],
    input: &[E],
) -> Result<Vec<E>, Error> {
    let mut output = vec![E::default(); input.len()];
    let mut scratch = vec![0.0; layer.eval_scratch_len()];
    let call = EvalPrepared::new(prepared, input, &mut output, &mut scratch);
    layer.eval_prepared(EvalPrepared { dropout: Dropout::Off, ..call })?;
    Ok(output)
}

impl<A: Activation> Pass<A> {
    /// A training call: batch statistics, running statistics updated in place, dropout with the mask of this seed.
    pub(crate) fn train<E: Element>(
        layer: Layer<A>,
        mask_seed: u64,
        parameters: Parameters<'_>,
        [running_mean, running_var]: [&mut [f32]; 2],
        input: &[E],
    ) -> Result<(Self, Vec<E>), Error> {
        let channels = layer.shape().channels();
        let (mut mean, mut mean_tail, mut inv_std) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]);
        let mut mask = if layer.config().p > 0.0 {
            let mut mask = vec![0; layer.mask_len()];
            layer.fill_mask(mask_seed, &mut mask)?;
            Some(mask)
        } else {
            None
        };
        let mut output = vec![E::default(); input.len()];
        let mut scratch = vec![0.0; layer.train_scratch_len()];
        let saved = SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std };
        let running = Some(RunningMut::new(running_mean, running_var));
        let call = Train { parameters, running, ..Train::new(input, &mut output, saved, &mut scratch) };
        let bits = if layer.has_gates() {
            // In the place of the mask, if that has a bit for each element, too.
            let over = mask.take_if(|_| layer.mask_bits() == input.len());
            let dropout = if over.is_some() { Dropout::InGates } else { dropout(mask.as_deref()) };
            let mut gates = over.unwrap_or_else(|| vec![0; mask_len(input.len())]);
            layer.train_with_gates(Train { dropout, ..call }, &mut gates)?;
            Some(gates)
        } else {
            layer.train(Train { dropout: dropout(mask.as_deref()), ..call })?;
            mask
        };
        Ok((Self { layer, kept: Kept::Batch { mean, mean_tail, inv_std, bits } }, output))
    }

    /// An evaluation: the running statistics, nothing dropped.
    pub(crate) fn eval<E: Element>(
        layer: Layer<A>,
        parameters: Parameters<'_>,
        [mean, var]: [Vec<f32>; 2],
        input: &[E],
    ) -> Result<(Self, Vec<E>), Error> {
        let mut output = vec![E::default(); input.len()];
        layer.eval(Eval {
            parameters,
            running: Running::new(&mean, &var),
            dropout: Dropout::Off,
            input,
            residual: None,
            output: &mut output,
            scratch: &mut vec![0.0; layer.eval_scratch_len()],
        })?;
        Ok((Self { layer, kept: Kept::Fixed { mean, var } }, output))
    }

    /// The gradients of either call; that of the input only if it is wanted, which spares memory and time in a first layer.
    pub(crate) fn backward<E: Element>(
        &self,
        parameters: Parameters<'_>,
        input: &[E],
        grad_output: &[E],
        input_wanted: bool,
    ) -> Result<Gradients<E>, Error> {
        let (statistics, dropout) = match &self.kept {
            Kept::Batch { mean, mean_tail, inv_std, bits } => {
                let dropout = match bits {
                    Some(gates) if self.layer.has_gates() => Dropout::Gates(gates),
                    mask => dropout(mask.as_deref()),
                };
                (Statistics::Batch(Saved { mean, mean_tail, inv_std }), dropout)
            }
            // Most evaluations have no backward call, and write no gates for one.
            Kept::Fixed { mean, var } => (Statistics::Fixed(Running::new(mean, var)), Dropout::Off),
        };
        let channels = self.layer.shape().channels();
        let mut gradients = Gradients {
            input: input_wanted.then(|| vec![E::default(); input.len()]),
            weight: vec![0.0; channels],
            bias: vec![0.0; channels],
        };
        self.layer.backward(Backward {
            parameters,
            statistics,
            dropout,
            input,
            residual: None,
            grad_output,
            grad_input: gradients.input.as_deref_mut(),
            grad_residual: None,
            grad_parameters: ParameterGradients {
                weight: Some(&mut gradients.weight),
                bias: Some(&mut gradients.bias),
            },
            scratch: &mut vec![0.0; self.layer.backward_scratch_len()],
        })?;
        Ok(gradients)
    }
}

fn dropout(mask: Option<&[u8]>) -> Dropout<'_> {
    mask.map_or(Dropout::Off, Dropout::Mask)
}

/// Refuses constants that no training call would take, so that a mistake is found where the layer is made.
pub(crate) fn check(channels: usize, activation: impl Activation, config: Config) -> Result<(), Error> {
    if config.eps == 0.0 {
        return Err(Error::Eps { eps: config.eps });
    }
    // The crate refuses a momentum where it is used. These layers train, and say so before the first batch.
    if !(0.0..=1.0).contains(&config.momentum) {
        return Err(Error::Momentum { momentum: config.momentum });
    }
    Layer::new(Shape::nc(2, channels)?, activation, config).map(|_| ())
}

/// The seed of the mask of one step on one rank.
///
/// Each number is added to the state of a SplitMix64 generator and goes through its output function before the next one
/// comes in, so that neighbouring seeds, ranks and steps have nothing in common and no sum of them counts.
pub(crate) fn mask_seed(seed: u64, rank: u64, step: u64) -> u64 {
    [seed, rank, step].into_iter().fold(0, |state: u64, number| {
        let mut z = state.wrapping_add(number).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use normdrop::{Gelu, Granularity, Identity, Relu};

    /// A batch of the layer, with a kink at about half of its values.
    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.7).sin() + (i % 7) as f32 * 0.1).collect()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// A training pass against the plain calls with a mask. The graph keeps gates where the activation has them.
    fn check<A: Activation>(activation: A, p: f64, granularity: Granularity) {
        // The bits of channels and samples are in as many bytes as those of elements in the second shape.
        for shape in [Shape::new(5, 3, 7).unwrap(), Shape::new(2, 3, 1).unwrap(), Shape::new(3, 1, 2).unwrap()] {
            let layer = Layer::new(shape, activation, Config { p, granularity, ..Config::DEFAULT }).unwrap();
            let (x, dy, channels) = (values(shape.len()), values(shape.len() + 3)[3..].to_vec(), shape.channels());
            let (weight, bias) = (vec![1.5; channels], vec![0.1; channels]);
            let parameters = Parameters::new(&weight, &bias);
            let (mut mean, mut var) = (vec![0.0; channels], vec![1.0; channels]);
            let (pass, y) = Pass::train(layer, 9, parameters, [&mut mean, &mut var], &x).unwrap();
            let gradients = pass.backward(parameters, &x, &dy, true).unwrap();

            let mut mask = vec![0; layer.mask_len()];
            layer.fill_mask(9, &mut mask).unwrap();
            let mask = Dropout::Mask(&mask);
            let (mut output, mut scratch) = (vec![0.0; x.len()], vec![0.0; layer.scratch_len()]);
            let (mut mean, mut tail, mut inv_std) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]);
            let saved = SavedMut { mean: &mut mean, mean_tail: &mut tail, inv_std: &mut inv_std };
            let call = Train::new(&x, &mut output, saved, &mut scratch);
            layer.train(Train { parameters, dropout: mask, ..call }).unwrap();
            let statistics = Statistics::Batch(Saved::new(&mean, &tail, &inv_std));
            let mut dx = vec![0.0; x.len()];
            let call = Backward::new(statistics, &x, &dy, &mut scratch);
            layer.backward(Backward { parameters, dropout: mask, grad_input: Some(&mut dx), ..call }).unwrap();
            assert_eq!(bits(&y), bits(&output));
            assert_eq!(bits(&gradients.input.unwrap()), bits(&dx));

            let Kept::Batch { bits, .. } = &pass.kept else {
                panic!("a training pass keeps the statistics of the batch")
            };
            let Some(kept) = bits else {
                assert!(!layer.has_gates() && p == 0.0);
                continue;
            };
            if layer.has_gates() {
                assert_eq!(kept.len(), mask_len(x.len()));
                let open = kept.iter().map(|byte| byte.count_ones()).sum::<u32>() as usize;
                let passed = output.iter().filter(|&&y| y != 0.0).count();
                assert_eq!(open, passed, "an element is open if something passes");
            } else {
                assert_eq!(kept.len(), layer.mask_len());
            }
        }
    }

    #[test]
    fn gates_in_the_place_of_the_mask_give_the_same_bits() {
        for granularity in [Granularity::Element, Granularity::Channel, Granularity::Sample] {
            for p in [0.0, 0.4] {
                check(Relu, p, granularity);
                check(Identity, p, granularity);
                check(Gelu, p, granularity);
            }
        }
    }
}
