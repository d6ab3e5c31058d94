//! One forward call of normdrop's layer and what its backward call needs of it, on slices: what the layers of all
//! frameworks have in common.

use normdrop::{
    Activation, Backward, Config, Dropout, Error, Eval, Layer, ParameterGradients, Parameters, Running, RunningMut,
    Saved, SavedMut, Shape, Statistics, Train,
};

/// What a forward call leaves for its backward call.
#[derive(Debug)]
pub(crate) struct Pass<A> {
    layer: Layer<A>,
    kept: Kept,
}

/// The statistics of a call, and its mask of one bit per element if it had one.
#[derive(Debug)]
enum Kept {
    Batch { mean: Vec<f32>, mean_tail: Vec<f32>, inv_std: Vec<f64>, mask: Option<Vec<u8>> },
    // A copy: the running statistics may have changed before the backward call.
    Fixed { mean: Vec<f32>, var: Vec<f32> },
}

/// What a backward call computes.
#[derive(Debug)]
pub(crate) struct Gradients {
    pub(crate) input: Option<Vec<f32>>,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// The shape of a tensor `[N, C, ...]` of these dimensions; none if there are fewer than two.
pub(crate) fn shape_of(dims: &[usize]) -> Option<Result<Shape, Error>> {
    let [samples, channels, positions @ ..] = dims else { return None };
    // A zero makes the tensor empty, whatever the others are.
    let inner = if positions.contains(&0) {
        Ok(0)
    } else {
        positions.iter().try_fold(1usize, |product, &dimension| {
            product.checked_mul(dimension).ok_or(Error::ShapeOverflow { product, dimension })
        })
    };
    Some(inner.and_then(|inner| Shape::new(*samples, *channels, inner)))
}

impl<A: Activation> Pass<A> {
    /// A training call: batch statistics, running statistics updated in place, dropout with the mask of this seed.
    pub(crate) fn train(
        layer: Layer<A>,
        mask_seed: u64,
        parameters: Parameters<'_>,
        [running_mean, running_var]: [&mut [f32]; 2],
        input: &[f32],
    ) -> Result<(Self, Vec<f32>), Error> {
        let channels = layer.shape().channels();
        let (mut mean, mut mean_tail, mut inv_std) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]);
        let mask = if layer.config().p > 0.0 {
            let mut mask = vec![0; layer.mask_len()];
            layer.fill_mask(mask_seed, &mut mask)?;
            Some(mask)
        } else {
            None
        };
        let mut output = vec![0.0; input.len()];
        layer.train(Train {
            parameters,
            running: Some(RunningMut::new(running_mean, running_var)),
            dropout: dropout(mask.as_deref()),
            input,
            residual: None,
            output: &mut output,
            saved: SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std },
            scratch: &mut vec![0.0; layer.train_scratch_len()],
        })?;
        Ok((Self { layer, kept: Kept::Batch { mean, mean_tail, inv_std, mask } }, output))
    }

    /// An evaluation: the running statistics, nothing dropped.
    pub(crate) fn eval(
        layer: Layer<A>,
        parameters: Parameters<'_>,
        [mean, var]: [Vec<f32>; 2],
        input: &[f32],
    ) -> Result<(Self, Vec<f32>), Error> {
        let mut output = vec![0.0; input.len()];
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
    pub(crate) fn backward(
        &self,
        parameters: Parameters<'_>,
        input: &[f32],
        grad_output: &[f32],
        input_wanted: bool,
    ) -> Result<Gradients, Error> {
        let (statistics, mask) = match &self.kept {
            Kept::Batch { mean, mean_tail, inv_std, mask } => {
                (Statistics::Batch(Saved { mean, mean_tail, inv_std }), mask.as_deref())
            }
            Kept::Fixed { mean, var } => (Statistics::Fixed(Running::new(mean, var)), None),
        };
        let channels = self.layer.shape().channels();
        let mut gradients = Gradients {
            input: input_wanted.then(|| vec![0.0; input.len()]),
            weight: vec![0.0; channels],
            bias: vec![0.0; channels],
        };
        self.layer.backward(Backward {
            parameters,
            statistics,
            dropout: dropout(mask),
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
