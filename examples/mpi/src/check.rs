//! What must be true of the results: the bounds of the crate, and the bits of one rank.

use normdrop::{
    Backward, Dropout, Error, ParameterGradients, Parameters, RunningMut, Saved, SavedMut, Statistics, Train,
};
use normdrop_reference::case::{Case, Errors, Output};
use normdrop_reference::errors::{Differentiated, PROMISE};

use crate::batch::{Batch, CHANNELS, MASK_SEED};

/// All that a training step gives, of a whole batch.
#[derive(Default, Clone)]
pub(crate) struct Results {
    pub(crate) y: Vec<f32>,
    pub(crate) dx: Vec<f32>,
    pub(crate) shared: Shared,
}

/// What every rank has of it.
#[derive(Default, Clone)]
pub(crate) struct Shared {
    pub(crate) mean: Vec<f32>,
    pub(crate) var: Vec<f32>,
    pub(crate) grad_weight: Vec<f32>,
    pub(crate) grad_bias: Vec<f32>,
}

impl Shared {
    pub(crate) fn bits(&self) -> Vec<u32> {
        let Self { mean, var, grad_weight, grad_bias } = self;
        [mean, var, grad_weight, grad_bias].into_iter().flatten().map(|value| value.to_bits()).collect()
    }
}

impl Results {
    /// All bits.
    pub(crate) fn bits(&self) -> Vec<u32> {
        let elements = self.y.iter().chain(&self.dx).map(|value| value.to_bits());
        elements.chain(self.shared.bits()).collect()
    }

    /// FNV-1a (Fowler, Noll and Vo) of all bits.
    pub(crate) fn digest(&self) -> u64 {
        let bytes = self.bits().into_iter().flat_map(u32::to_le_bytes);
        bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
    }

    /// The whole batch in two plain calls.
    pub(crate) fn alone(batch: &Batch) -> Result<Self, Error> {
        let Case { weight, bias, x, dy, .. } = &batch.case;
        let layer = batch.layer(batch.rows)?;
        let zeros = vec![0.0; CHANNELS];
        let shared = Shared { mean: zeros.clone(), var: zeros.clone(), grad_weight: zeros.clone(), grad_bias: zeros };
        let elements = vec![0.0; x.len()];
        let mut results = Self { y: elements.clone(), dx: elements, shared };
        let (mut mean, mut mean_tail, mut inv_std) = ([0.0; CHANNELS], [0.0; CHANNELS], [0.0; CHANNELS]);
        let (mut mask, scratch) = (vec![0; layer.mask_len()], &mut vec![0.0; layer.scratch_len()]);
        layer.fill_mask(MASK_SEED, &mut mask)?;
        let parameters = Parameters { weight: Some(weight), bias: Some(bias) };
        let Shared { mean: running_mean, var, grad_weight, grad_bias } = &mut results.shared;
        layer.train(Train {
            parameters,
            running: Some(RunningMut::new(running_mean, var)),
            dropout: Dropout::Mask(&mask),
            input: x,
            residual: None,
            output: &mut results.y,
            saved: SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std },
            scratch,
        })?;
        layer.backward(Backward {
            parameters,
            statistics: Statistics::Batch(Saved { mean: &mean, mean_tail: &mean_tail, inv_std: &inv_std }),
            dropout: Dropout::Mask(&mask),
            input: x,
            residual: None,
            grad_output: dy,
            grad_input: Some(&mut results.dx),
            grad_residual: None,
            grad_parameters: ParameterGradients { weight: Some(grad_weight), bias: Some(grad_bias) },
            scratch,
        })?;
        Ok(results)
    }

    /// The largest errors against the exact results, each in units u = 2^-24 of the scale that its bound is stated in; or a
    /// sentence about one that is out of bounds.
    pub(crate) fn errors(&self, batch: &Batch) -> Result<Errors, String> {
        let Self { y, dx, shared: Shared { mean, var, grad_weight, grad_bias } } = self;
        let gradients = Differentiated { dx, d_residual: &[], d_weight: grad_weight, d_bias: grad_bias };
        let output = Output { statistics: Some((mean, var)), y: Some(y), gradients: Some(gradients), z: None };
        batch.case.check(output, &PROMISE)
    }
}
