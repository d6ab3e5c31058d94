//! What a node computes: normdrop on parts of the tensor, which any threads may do in any order. The
//! bits are those of one call, because every element depends on its channel alone, and a mask can be
//! drawn in parts.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::slice;
use std::sync::Mutex;

use normdrop::{
    AnyActivation, Bernoulli, Config, Dropout, Elu, Error, EvalPrepared, EvalPreparedInPlace, Gelu, GeluTanh,
    Granularity, HardSwish, Identity, Layer, LeakyRelu, Mish, Parameters, Prepare, Relu, Relu6, Running, Selu, Shape,
    Sigmoid, Silu, Softplus, Tanh,
};

use crate::api::{Failure, elements};

/// The elements of a part. With a quarter of them the calls themselves take a fifth of the time more.
const PART: usize = 1 << 16;
/// From so many parts on, a tensor need not be divided further.
const ENOUGH_PARTS: usize = 64;
/// The groups of channels by which one sample is divided.
const CHANNEL_GROUPS: usize = 16;

/// The activation of this name.
pub(crate) fn activation(name: &str, alpha: Option<f32>) -> Result<AnyActivation, String> {
    let activation = match name {
        "leaky_relu" => {
            return LeakyRelu::new(alpha.unwrap_or(0.01)).map(Into::into).map_err(|error| error.to_string());
        }
        "elu" => return Elu::new(alpha.unwrap_or(1.0)).map(Into::into).map_err(|error| error.to_string()),
        "identity" => Identity.into(),
        "relu" => Relu.into(),
        "relu6" => Relu6.into(),
        "hard_swish" => HardSwish.into(),
        "sigmoid" => Sigmoid.into(),
        "tanh" => Tanh.into(),
        "silu" => Silu.into(),
        "gelu_tanh" => GeluTanh.into(),
        "gelu" => Gelu.into(),
        "selu" => Selu.into(),
        "mish" => Mish.into(),
        "softplus" => Softplus.into(),
        _ => return Err(format!("the attribute activation must not be {name:?}")),
    };
    match alpha {
        None => Ok(activation),
        Some(_) => Err(format!("the attribute alpha is for leaky_relu and elu, not for {name}")),
    }
}

/// A layer without its shape, which the input of a run has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    activation: AnyActivation,
    config: Config,
    keep: Bernoulli,
}

impl Settings {
    pub(crate) fn new(activation: AnyActivation, config: Config) -> Result<Self, Error> {
        let layer = Layer::new(Shape::nc(0, 0)?, activation, config)?;
        Ok(Self { activation, config, keep: layer.keep() })
    }

    fn layer(self, shape: Shape) -> Result<Layer<AnyActivation>, Error> {
        Layer::new(shape, self.activation, self.config)
    }

    /// Prepares statistics, for all channels and for groups of them.
    pub(crate) fn prepare(self, weight: &[f32], bias: &[f32], mean: &[f32], var: &[f32]) -> Result<Fixed, Failure> {
        let channels = weight.len();
        let lengths = [channels, bias.len(), mean.len(), var.len()];
        if lengths != [channels; 4] {
            let names = "scale, B, input_mean and input_var";
            return Err(Failure::Invalid(format!("{names} must have the same number of values, but have {lengths:?}")));
        }
        let whole = self.prepared(weight, bias, mean, var)?;
        let group = channels.div_ceil(CHANNEL_GROUPS).max(1);
        let groups = (0..channels).step_by(group).map(|first| {
            let of = |values| part(values, first, group.min(channels - first));
            self.prepared(of(weight), of(bias), of(mean), of(var))
        });
        Ok(Fixed { channels, whole, group, groups: groups.collect::<Result<_, _>>()? })
    }

    fn prepared(self, weight: &[f32], bias: &[f32], mean: &[f32], var: &[f32]) -> Result<Vec<f64>, Error> {
        let layer = self.layer(Shape::nc(1, weight.len())?)?;
        let mut prepared = vec![0.0; layer.prepared_len()];
        let parameters = Parameters::new(weight, bias);
        layer.prepare(Prepare { parameters, ..Prepare::new(Running::new(mean, var), &mut prepared) })?;
        Ok(prepared)
    }

    /// Divides a tensor of these dimensions into parts.
    pub(crate) fn parts<'a>(&'a self, dims: &[i64], fixed: &'a Fixed) -> Result<Parts<'a>, Failure> {
        let len = elements(dims)?;
        let size = |dim: &i64| usize::try_from(*dim).unwrap_or(0);
        let (outer, channels) = match dims {
            [] => return Err(Failure::Invalid("X must have at least one dimension".into())),
            [n] => (size(n), 1),
            [n, c, ..] => (size(n), size(c)),
        };
        if channels != fixed.channels {
            let values = fixed.channels;
            let message =
                format!("X has {channels} channels in its dimensions {dims:?}, but the statistics have {values}");
            return Err(Failure::Invalid(message));
        }
        let inner = if len == 0 { 0 } else { len / (outer * channels) };
        let wanted = (len / PART).clamp(1, ENOUGH_PARTS);
        let division = if outer < wanted { Division::Groups } else { Division::Rows(outer.div_ceil(wanted).max(1)) };
        Ok(Parts { settings: self, fixed, outer, inner, len, division })
    }
}

/// Prepared statistics.
#[derive(Debug)]
pub(crate) struct Fixed {
    channels: usize,
    whole: Vec<f64>,
    /// The channels of a group. The last one may have fewer.
    group: usize,
    groups: Vec<Vec<f64>>,
}

/// Some of the values.
fn part(values: &[f32], first: usize, len: usize) -> &[f32] {
    // normdrop refuses the empty slice.
    values.get(first..first + len).unwrap_or(&[])
}

/// How a tensor is divided.
#[derive(Debug, Clone, Copy)]
enum Division {
    /// Into so many samples each.
    Rows(usize),
    /// Into groups of channels of one sample each.
    Groups,
}

/// A tensor that is divided.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    settings: &'a Settings,
    fixed: &'a Fixed,
    outer: usize,
    inner: usize,
    len: usize,
    division: Division,
}

/// Where a part is.
struct Place<'a> {
    row: usize,
    rows: usize,
    channel: usize,
    channels: usize,
    prepared: &'a [f64],
}

impl<'a> Parts<'a> {
    fn count(&self) -> usize {
        match self.division {
            _ if self.len == 0 => 0,
            Division::Rows(rows) => self.outer.div_ceil(rows),
            Division::Groups => self.outer * self.fixed.groups.len(),
        }
    }

    fn place(&self, index: usize) -> Place<'a> {
        let all = self.fixed.channels;
        match self.division {
            Division::Rows(rows) => {
                let row = index * rows;
                Place { row, rows: rows.min(self.outer - row), channel: 0, channels: all, prepared: &self.fixed.whole }
            }
            Division::Groups => {
                let (row, group) = (index / self.fixed.groups.len(), index % self.fixed.groups.len());
                let channel = group * self.fixed.group;
                let channels = self.fixed.group.min(all - channel);
                Place { row, rows: 1, channel, channels, prepared: &self.fixed.groups[group] }
            }
        }
    }

    /// Computes all parts. `for_each` calls its second argument with each number below the first one, on any threads.
    pub(crate) fn run(
        &self,
        tensors: &Tensors<'_>,
        seed: Option<u64>,
        for_each: impl FnOnce(usize, &(dyn Fn(usize) + Sync)) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.run_all(self.count(), tensors, seed, for_each)
    }

    fn run_all(
        &self,
        count: usize,
        tensors: &Tensors<'_>,
        seed: Option<u64>,
        for_each: impl FnOnce(usize, &(dyn Fn(usize) + Sync)) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let outcome: Mutex<Option<Result<Error, Box<dyn Any + Send>>>> = Mutex::new(None);
        let work = |index| {
            // A panic must not reach the thread of ONNX Runtime.
            let failed = match catch_unwind(AssertUnwindSafe(|| self.part(index, tensors, seed))) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => Ok(error),
                Err(payload) => Err(payload),
            };
            if let Ok(mut outcome) = outcome.lock() {
                outcome.get_or_insert(failed);
            }
        };
        match count {
            0 => {}
            1 => work(0),
            count => for_each(count, &work)?,
        }
        match outcome.into_inner() {
            Ok(None) => Ok(()),
            Ok(Some(Ok(error))) => Err(error.into()),
            Ok(Some(Err(payload))) => resume_unwind(payload),
            Err(_) => Err(Failure::Invalid("a part of the tensor was not computed".into())),
        }
    }

    fn part(&self, index: usize, tensors: &Tensors<'_>, seed: Option<u64>) -> Result<(), Error> {
        let Place { row, rows, channel, channels, prepared } = self.place(index);
        let settings = self.settings;
        let layer = settings.layer(Shape::new(rows, channels, self.inner)?)?;
        let start = (row * self.fixed.channels + channel) * self.inner;
        let (mut mask, mut scratch) = (Vec::new(), vec![0.0; layer.eval_scratch_len()]);
        let dropout = match seed {
            Some(seed) if settings.config.p != 0.0 => {
                let first = match settings.config.granularity {
                    Granularity::Element => start,
                    Granularity::Channel => row * self.fixed.channels + channel,
                    Granularity::Sample => row,
                };
                mask.resize(layer.mask_len(), 0);
                settings.keep.fill(seed, first as u64, layer.mask_bits(), &mut mask)?;
                Dropout::Mask(&mask)
            }
            _ => Dropout::Off,
        };
        let len = layer.shape().len();
        let residual = tensors.residual.map(|residual| part(residual, start, len));
        let scratch = &mut scratch;
        // SAFETY: no two parts overlap, and each is done once.
        match unsafe { tensors.part(start, len) } {
            Values::InPlace(values) => {
                layer.eval_prepared_in_place(EvalPreparedInPlace { prepared, dropout, residual, values, scratch })
            }
            Values::Apart(input, output) => {
                layer.eval_prepared(EvalPrepared { prepared, dropout, residual, input, output, scratch })
            }
        }
    }
}

/// The tensors of a run.
#[derive(Debug)]
pub(crate) struct Tensors<'a> {
    x: *const f32,
    y: *mut f32,
    residual: Option<&'a [f32]>,
}

// SAFETY: `part`, which alone reads the pointers, asks its caller for parts that do not overlap.
unsafe impl Sync for Tensors<'_> {}

enum Values<'a> {
    InPlace(&'a mut [f32]),
    Apart(&'a [f32], &'a mut [f32]),
}

impl<'a> Tensors<'a> {
    /// # Safety
    /// `x` and `y` have the elements of the dimensions that were divided, and live as long as `'a`. Either they are the same, or they
    /// do not overlap, and `y` does not overlap the residual.
    pub(crate) const unsafe fn new(x: *const f32, y: *mut f32, residual: Option<&'a [f32]>) -> Self {
        Self { x, y, residual }
    }

    /// # Safety
    /// The elements are in the tensor, and nobody else has them.
    unsafe fn part(&self, start: usize, len: usize) -> Values<'a> {
        // SAFETY: the caller's promise, and that to `new`.
        unsafe {
            let y = slice::from_raw_parts_mut(self.y.add(start), len);
            if self.x == self.y.cast_const() {
                Values::InPlace(y)
            } else {
                Values::Apart(slice::from_raw_parts(self.x.add(start), len), y)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use normdrop::mask_len;

    use super::*;

    const P: f64 = 0.3;

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i % 1013) as f32 / 64.0 - 7.0).collect()
    }

    fn settings(granularity: Granularity) -> Settings {
        Settings::new(Gelu.into(), Config { p: P, granularity, ..Config::DEFAULT }).unwrap()
    }

    /// One call of normdrop, and the parts from the last to the first one.
    #[test]
    fn parts_have_the_bits_of_one_call() {
        let shapes: [(&[i64], usize); 9] = [
            (&[3, 4], 1),
            (&[1, 100, 90, 30], 15),
            (&[2, 33, 50, 80], 2 * 11),
            (&[70, 3, 40, 40], 5),
            (&[7, 5, 20, 20, 40], 35),
            (&[3000, 100], 4),
            (&[1, 1, 140_001], 1),
            (&[200_001], 3),
            (&[129, 2, 4100], 15),
        ];
        for (dims, parts) in shapes {
            let channels = if dims.len() == 1 { 1 } else { usize::try_from(dims[1]).unwrap() };
            let len = elements(dims).unwrap();
            let outer = usize::try_from(dims[0]).unwrap();
            let (x, residual) = (values(len), values(len + 5)[5..].to_vec());
            let of = |first| values(channels + first)[first..].to_vec();
            let (weight, bias, mean) = (of(1), of(2), of(3));
            let var: Vec<f32> = of(9).iter().map(|value| value.abs()).collect();
            for granularity in [Granularity::Element, Granularity::Channel, Granularity::Sample] {
                let settings = settings(granularity);
                let fixed = settings.prepare(&weight, &bias, &mean, &var).unwrap();
                let whole = settings.layer(Shape::new(outer, channels, len / (outer * channels)).unwrap()).unwrap();
                let (mut mask, mut scratch) = (vec![0; whole.mask_len()], vec![0.0; whole.eval_scratch_len()]);
                let dropout = whole.fill_mask(9, &mut mask).unwrap();
                let mut expected = vec![0.0; len];
                let call = EvalPrepared::new(&fixed.whole, &x, &mut expected, &mut scratch);
                whole.eval_prepared(EvalPrepared { dropout, residual: Some(&residual), ..call }).unwrap();

                let divided = settings.parts(dims, &fixed).unwrap();
                assert_eq!(divided.count(), parts, "{dims:?}");
                for in_place in [false, true] {
                    let mut y = if in_place { x.clone() } else { vec![0.0; len] };
                    let from = if in_place { y.as_ptr() } else { x.as_ptr() };
                    let calls = AtomicUsize::new(0);
                    // SAFETY: the buffers have the elements of `dims`.
                    let tensors = unsafe { Tensors::new(from, y.as_mut_ptr(), Some(&residual)) };
                    divided
                        .run(&tensors, Some(9), |count, work| {
                            calls.store(count, Ordering::Relaxed);
                            (0..count).rev().for_each(work);
                            Ok(())
                        })
                        .unwrap();
                    assert_eq!(calls.into_inner(), if parts == 1 { 0 } else { parts });
                    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                    assert!(bits(&y) == bits(&expected), "{dims:?} {granularity:?}");
                }
                assert_eq!(mask.len(), mask_len(whole.mask_bits()));
            }
        }
    }

    #[test]
    fn an_error_in_a_part_is_returned_and_a_panic_goes_on_here() {
        let settings = settings(Granularity::Element);
        let fixed = settings.prepare(&[1.0; 2], &[0.0; 2], &[0.0; 2], &[1.0; 2]).unwrap();
        let (x, mut y) = (values(1 << 18), vec![0.0; 1 << 18]);
        // A residual that is too short, which `Node::compute` refuses before.
        let short = [0.0; 3];
        // SAFETY: the buffers have the elements of the dimensions.
        let tensors = unsafe { Tensors::new(x.as_ptr(), y.as_mut_ptr(), Some(&short)) };
        let parts = settings.parts(&[4, 2, 1 << 15], &fixed).unwrap();
        let serial = |count: usize, work: &(dyn Fn(usize) + Sync)| {
            (0..count).for_each(work);
            Ok(())
        };
        assert!(matches!(parts.run(&tensors, None, serial), Err(Failure::Invalid(text)) if text.contains("residual")));

        let broken = settings.prepare(&[1.0; 2], &[0.0; 2], &[0.0; 2], &[1.0; 2]).unwrap();
        let broken = Fixed { groups: vec![], ..broken };
        let parts = Parts { fixed: &broken, division: Division::Groups, ..parts };
        let beyond = |_: usize, work: &(dyn Fn(usize) + Sync)| {
            work(0);
            Ok(())
        };
        // Two rows of no groups are no parts: one is asked for all the same.
        let run = || parts.run_all(2, &tensors, None, beyond);
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }

    #[test]
    fn empty_tensors_are_left_alone() {
        let settings = settings(Granularity::Element);
        let fixed = settings.prepare(&[1.0; 2], &[0.0; 2], &[0.0; 2], &[1.0; 2]).unwrap();
        for dims in [&[0, 2, 3][..], &[3, 2, 0], &[0, 2]] {
            assert_eq!(settings.parts(dims, &fixed).unwrap().count(), 0);
        }
        assert!(settings.parts(&[3, 3], &fixed).is_err());
        assert!(settings.parts(&[], &fixed).is_err());
    }
}
