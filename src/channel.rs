//! The arithmetic of the channels, in f64 and for sixteen channels at a time: their moments, their
//! normalisation, and the coefficients of their gradients. And the two formulas of an element, in
//! one place for lanes and for single values.

use core::ops::{Add, Mul, Sub};

use crate::args::{Parameters, RunningMut, Statistics};
use crate::config::RunningVariance;
use crate::prepared::{Field, Prepared, PreparedMut};
use crate::simd::{LANES, Lane, Lanes, Simd, first_lanes, load};
use crate::slices::{range, range_mut};

/// Up to sixteen channels, one per lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Channels {
    pub(crate) first: usize,
    pub(crate) len: usize,
}

impl Channels {
    /// One channel.
    pub(crate) const fn one(channel: usize) -> Self {
        Self { first: channel, len: 1 }
    }

    /// The values of these channels in a slice with one value per channel.
    #[inline(always)]
    pub(crate) fn of<T>(self, values: &[T]) -> &[T] {
        range(values, self.first, self.len)
    }

    /// [`Self::of`] of a mutable slice.
    #[inline(always)]
    pub(crate) fn of_mut<T>(self, values: &mut [T]) -> &mut [T] {
        range_mut(values, self.first, self.len)
    }

    /// The bits of the lanes that have a channel.
    #[inline(always)]
    const fn bits(self) -> u16 {
        first_lanes(self.len)
    }
}

/// The count, mean and sum of squared deviations of some values of one channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Moments {
    /// The number of values.
    pub(crate) count: f64,
    /// The mean of the values.
    pub(crate) mean: f64,
    /// The sum of the squared deviations of the values from the mean.
    pub(crate) m2: f64,
}

impl Moments {
    /// The moments of no values.
    pub(crate) const EMPTY: Self = Self { count: 0.0, mean: 0.0, m2: 0.0 };

    /// Merges the moments `other` of more values into these (Chan, Golub and LeVeque, *Updating
    /// formulae and a pairwise algorithm for computing sample variances*, 1979). `other` is not empty.
    #[inline(always)]
    pub(crate) fn merge(&mut self, other: Self) {
        self.merge_with(MergeWeights::new(self.count, other.count), other);
    }

    /// [`Self::merge`] with the factors `weights`.
    #[inline(always)]
    pub(crate) fn merge_with(&mut self, weights: MergeWeights, other: Self) {
        let delta = other.mean - self.mean;
        self.count = weights.count;
        self.mean += delta * weights.mean;
        self.m2 += other.m2 + delta * delta * weights.m2;
    }
}

/// The factors of a merge, which depend on the counts alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MergeWeights {
    /// The joint count.
    pub(crate) count: f64,
    /// The factor of the difference of the means.
    pub(crate) mean: f64,
    /// The factor of the squared difference of the means.
    pub(crate) m2: f64,
}

impl MergeWeights {
    #[inline(always)]
    pub(crate) fn new(count: f64, other: f64) -> Self {
        let total = count + other;
        let mean = other / total;
        Self { count: total, mean, m2: count * mean }
    }
}

/// The moments of a batch.
#[derive(Clone, Copy)]
pub(crate) struct BatchMoments<S: Simd> {
    pub(crate) count: S::F64,
    pub(crate) mean: S::F64,
    pub(crate) m2: S::F64,
}

impl<S: Simd> BatchMoments<S> {
    /// The moments of `channels`, with a mean and a sum of 0 in the lanes that have no channel. Such
    /// a lane may hold any number, and arithmetic with that number would raise flags.
    #[inline(always)]
    pub(crate) fn only(self, s: S, channels: Channels) -> Self {
        if !S::AT_ONCE || channels.len == LANES {
            return self;
        }
        let (mut mean, mut m2) = ([0.0; LANES], [0.0; LANES]);
        s.store_f64(self.mean, &mut mean);
        s.store_f64(self.m2, &mut m2);
        let (mean, m2) = (range(&mean, 0, channels.len), range(&m2, 0, channels.len));
        Self { mean: s.load_partial_f64(mean), m2: s.load_partial_f64(m2), ..self }
    }

    /// The sum of squared deviations. Rounding may leave it a little below zero; NaN stays.
    #[inline(always)]
    fn squares(&self, s: S) -> S::F64 {
        s.larger(s.splat_f64(0.0), self.m2)
    }
}

/// How a call moves the running statistics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunningUpdate {
    /// The weight of the batch.
    pub(crate) momentum: f64,
    pub(crate) variance: RunningVariance,
}

impl RunningUpdate {
    /// Moves the running statistics of some channels towards a batch that has values in each.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(
        self,
        s: S,
        channels: Channels,
        running: &mut RunningMut<'_>,
        batch: &BatchMoments<S>,
    ) {
        // Nothing moves. The quotient below would raise a flag if it were 0/0: the unbiased variance of
        // one value, which is allowed with a momentum of 0.
        if self.momentum == 0.0 {
            return;
        }
        let RunningMut { mean, mean_tail, var, .. } = running;
        let divisor = match self.variance {
            RunningVariance::Unbiased => batch.count - s.splat_f64(1.0),
            RunningVariance::Biased => batch.count,
        };
        self.average(s, channels, mean, mean_tail.as_deref_mut(), batch.mean);
        let variance = batch.squares(s) / divisor;
        // At most the largest f32: an average that became infinite would stay infinite, however many
        // batches come after. NaN stays.
        let negative = s.larger(s.splat_f64(-f64::from(f32::MAX)), s.splat_f64(0.0) - variance);
        self.average(s, channels, var, None, s.splat_f64(0.0) - negative);
    }

    /// `(1 - momentum)*running + momentum*batch`, where a term of weight 0 does not count even if
    /// it is NaN. `tail` is the exact running value minus `running`, if the caller keeps it.
    #[inline(always)]
    #[expect(clippy::float_cmp, reason = "0 and 1 are exact cases")]
    fn average<S: Simd>(
        self,
        s: S,
        channels: Channels,
        running: &mut [f32],
        mut tail: Option<&mut [f32]>,
        batch: S::F64,
    ) {
        let running = channels.of_mut(running);
        let mut next = batch;
        if self.momentum != 1.0 {
            let mut old = s.widen(s.load_partial(running));
            if let Some(tail) = &tail {
                old = old + s.widen(s.load_partial(channels.of(tail)));
            }
            next = s.splat_f64(1.0 - self.momentum) * old + s.splat_f64(self.momentum) * batch;
        }
        let rounded = s.narrow(next);
        s.store_partial(rounded, running);
        if let Some(tail) = &mut tail {
            // An infinity has no tail: the difference would be NaN, and would make the mean NaN from
            // then on.
            let finite = s.mask(s.magnitude_between(s.widen(rounded), 0.0, f64::INFINITY));
            let left_out = s.keep(finite, s.narrow(next - s.widen(rounded)));
            s.store_partial(left_out, channels.of_mut(tail));
        }
    }
}

/// The numbers by which channels are centred and scaled, from batch or running statistics.
#[derive(Clone, Copy)]
pub(crate) struct Centre<S: Simd> {
    /// The mean, rounded to f32.
    pub(crate) mean: S::F32,
    /// The mean minus `mean`.
    pub(crate) tail: S::F32,
    /// `1/sqrt(var + eps)`.
    pub(crate) inv_std: S::F64,
    /// The tail in standard deviations.
    tail_xhat: S::F64,
}

impl<S: Simd> Centre<S> {
    /// The centre of a batch, whose moments are not empty: the mean split into two f32, each
    /// rounded to nearest.
    #[inline(always)]
    pub(crate) fn of_batch(s: S, moments: &BatchMoments<S>, eps: f32) -> Self {
        let mean = s.narrow(moments.mean);
        let tail = s.narrow(moments.mean - s.widen(mean));
        Self::saved(s, mean, tail, inv_std(s, moments.squares(s) / moments.count, eps))
    }

    #[inline(always)]
    fn saved(s: S, mean: S::F32, tail: S::F32, inv_std: S::F64) -> Self {
        Self { mean, tail, inv_std, tail_xhat: s.widen(tail) * inv_std }
    }

    /// The centre of fixed statistics. Without a tail the mean needs no correction, not even if
    /// `inv_std` is infinite because `eps` and the variance are 0.
    #[inline(always)]
    fn fixed(s: S, mean: S::F32, inv_std: S::F64) -> Self {
        Self { mean, tail: s.splat(0.0), inv_std, tail_xhat: s.splat_f64(0.0) }
    }

    /// The largest power of two not above `inv_std`. A deviation times this power is about 1, and
    /// the product is exact.
    #[inline(always)]
    pub(crate) fn unit(&self, s: S) -> S::F64 {
        const EXPONENT: u64 = 0x7FF << 52;
        let mut inv_std = [0.0; LANES];
        s.store_f64(self.inv_std, &mut inv_std);
        let [unit] = s.lane_by_lane(LANES, |lane| {
            let inv_std = inv_std[lane % LANES];
            [if inv_std.is_normal() { f64::from_bits(inv_std.to_bits() & EXPONENT) } else { 1.0 }]
        });
        unit
    }
}

#[inline(always)]
fn inv_std<S: Simd>(s: S, var: S::F64, eps: f32) -> S::F64 {
    s.splat_f64(1.0) / s.sqrt(var + s.splat_f64(f64::from(eps)))
}

/// 2^-100.
const SMALL: f64 = 1.0 / LARGE;
/// 2^100.
const LARGE: f64 = (1u128 << 100) as f64;

/// 2^68, the bound of coefficients before they are multiplied by the dropout scale, which is at most
/// 2^32.
const UNSCALED: f64 = (1u128 << 68) as f64;

/// The number next below [`LARGE`].
const NEXT_BELOW: f64 = f64::from_bits(LARGE.to_bits() - 1);

/// The lanes whose number is too large for sums in f32, except for NaN and infinities, for which
/// f64 would not help.
#[inline(always)]
fn too_large<S: Simd>(s: S, number: S::F64) -> u16 {
    s.magnitude_between(number, NEXT_BELOW, f64::INFINITY)
}

/// The lanes whose coefficient cannot be rounded to f32 and multiplied there without leaving the
/// normal numbers. 2^±100 leaves room for the largest deviations, and NaN and infinities give the
/// same result either way.
#[inline(always)]
fn unusual<S: Simd>(s: S, coefficient: S::F64) -> u16 {
    s.magnitude_between(coefficient, 0.0, SMALL) | too_large(s, coefficient)
}

/// The parameters, statistics and scale by which the channels of a layer are normalised.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Normalisation<'a> {
    pub(crate) parameters: Parameters<'a>,
    pub(crate) statistics: Statistics<'a>,
    pub(crate) eps: f32,
    /// The dropout scale if it is folded into the normalisation, else 1.
    pub(crate) scale: f32,
}

impl Normalisation<'_> {
    #[inline(always)]
    pub(crate) fn centre<S: Simd>(&self, s: S, channels: Channels) -> Centre<S> {
        match self.scaled() {
            Some(scaled) => scaled.centre(s, channels),
            None => self.centre_with(s, channels, self.inv_std(s, channels)),
        }
    }

    /// `1/sqrt(var + eps)`.
    #[inline(always)]
    fn inv_std<S: Simd>(&self, s: S, channels: Channels) -> S::F64 {
        match self.statistics {
            Statistics::Batch(saved) => s.load_partial_f64(channels.of(saved.inv_std)),
            Statistics::Fixed(running) => {
                let mut var = s.load_partial(channels.of(running.var));
                if S::AT_ONCE && channels.len < LANES {
                    // 1/0 in a lane without a channel would raise a flag.
                    var = var + flags(s, !channels.bits());
                }
                inv_std(s, s.widen(var), self.eps)
            }
            // Never used: `Scaled` has the numbers of prepared statistics.
            Statistics::Prepared(_) => s.splat_f64(0.0),
        }
    }

    #[inline(always)]
    fn centre_with<S: Simd>(&self, s: S, channels: Channels, inv_std: S::F64) -> Centre<S> {
        let load = |values| s.load_partial(channels.of(values));
        match self.statistics {
            Statistics::Batch(saved) => Centre::saved(s, load(saved.mean), load(saved.mean_tail), inv_std),
            Statistics::Fixed(running) => match running.mean_tail {
                Some(mean_tail) => Centre::saved(s, load(running.mean), load(mean_tail), inv_std),
                None => Centre::fixed(s, load(running.mean), inv_std),
            },
            // Never used: `Scaled` has the numbers of prepared statistics.
            Statistics::Prepared(_) => Centre::fixed(s, s.splat(0.0), inv_std),
        }
    }

    /// The centre of one channel.
    #[inline(always)]
    pub(crate) fn centre_of_channel(&self, channel: usize) -> Centre<Lane> {
        match self.scaled() {
            Some(scaled) => scaled.centre_of_channel(channel),
            None => self.centre_with(Lane::FIRST, Channels::one(channel), self.inv_std_of_channel(channel)),
        }
    }

    /// [`Self::inv_std`] of one channel, in a function of its own, so that its stack is free again
    /// afterwards.
    #[cold]
    #[inline(never)]
    fn inv_std_of_channel(&self, channel: usize) -> f64 {
        self.inv_std(Lane::FIRST, Channels::one(channel))
    }

    #[inline(always)]
    fn weight<S: Simd>(&self, s: S, channels: Channels) -> S::F64 {
        s.widen(self.parameters.weight.map_or(s.splat(1.0), |weight| load(s, channels.of(weight))))
    }

    /// `weight*inv_std`.
    #[inline(always)]
    fn unscaled_slope<S: Simd>(&self, s: S, channels: Channels, centre: &Centre<S>) -> S::F64 {
        match self.scaled() {
            Some(scaled) => scaled.field(s, channels, Field::Slope),
            None => self.weight(s, channels) * centre.inv_std,
        }
    }

    /// The normalisation of `channels`, for statistics that are not prepared.
    #[inline(always)]
    fn coefficients<S: Simd>(&self, s: S, channels: Channels, centre: &Centre<S>) -> Normalise<S> {
        let bias = self.parameters.bias.map_or(s.splat(0.0), |bias| load(s, channels.of(bias)));
        let (weight, bias, scale) = (self.weight(s, channels), s.widen(bias), s.splat_f64(f64::from(self.scale)));
        let unscaled = [weight * centre.inv_std, bias - weight * centre.tail_xhat];
        Normalise::new(s, channels, (unscaled, scale), centre.mean, centre.inv_std)
    }

    /// Prepared statistics, and the scale by which their slopes and shifts are multiplied; `None` for
    /// other statistics.
    #[inline(always)]
    pub(crate) const fn scaled(&self) -> Option<Scaled<'_>> {
        match self.statistics {
            Statistics::Prepared(prepared) => Some(Scaled { prepared: Prepared::of(prepared), scale: self.scale }),
            Statistics::Batch(_) | Statistics::Fixed(_) => None,
        }
    }

    /// The normalisation of `channels`.
    #[inline(always)]
    pub(crate) fn of_channels<S: Simd>(&self, s: S, channels: Channels) -> Normalise<S> {
        match self.scaled() {
            Some(scaled) => scaled.of_channels(s, channels),
            None => self.coefficients(s, channels, &self.centre(s, channels)),
        }
    }

    /// Writes one channel of prepared statistics. The scale must be 1.
    #[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
    pub(crate) fn prepare(&self, channel: usize, prepared: &mut PreparedMut<'_>) {
        let (s, channels, centre) = (Lane::FIRST, Channels::one(channel), self.centre_of_channel(channel));
        let Normalise { mean, slope, shift, exact } = self.coefficients(s, channels, &centre);
        let exact = if exact == 0 { 0.0 } else { 1.0 };
        let fields = [slope, shift, centre.inv_std, centre.tail_xhat];
        prepared.put(channel, [mean, slope as f32, shift as f32, exact], fields);
    }

    /// The normalisation of one channel in f64.
    #[cold]
    #[inline(never)]
    pub(crate) fn of_channel(&self, channel: usize) -> ChannelNormalise {
        match self.scaled() {
            Some(scaled) => scaled.of_channel(channel),
            None => self.computed_of_channel(channel),
        }
    }

    /// [`Self::of_channel`] of statistics that are not prepared. With this function a program without
    /// prepared statistics has no code for them.
    #[cold]
    #[inline(never)]
    pub(crate) fn computed_of_channel(&self, channel: usize) -> ChannelNormalise {
        self.of_channel_with(channel, self.inv_std_of_channel(channel))
    }

    #[cold]
    #[inline(never)]
    fn of_channel_with(&self, channel: usize, inv_std: f64) -> ChannelNormalise {
        let (s, channels) = (Lane::FIRST, Channels::one(channel));
        let centre = self.centre_with(s, channels, inv_std);
        ChannelNormalise::new(self.coefficients(s, channels, &centre))
    }
}

/// Prepared statistics, and the dropout scale that belongs into their coefficients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scaled<'a> {
    prepared: Prepared<'a>,
    scale: f32,
}

impl Scaled<'_> {
    /// The numbers of `channels` in a field.
    #[inline(always)]
    fn field<S: Simd>(self, s: S, channels: Channels, field: Field) -> S::F64 {
        s.load_partial_f64(channels.of(self.prepared.field(field)))
    }

    /// The prepared statistics, if none of their channels needs f64.
    pub(crate) fn only_in_f32(&self) -> Option<Prepared<'_>> {
        (!self.prepared.needs_f64()).then_some(self.prepared)
    }

    /// [`Normalisation::centre`] of prepared statistics.
    #[inline(always)]
    fn centre<S: Simd>(self, s: S, channels: Channels) -> Centre<S> {
        Centre {
            mean: prepared_mean(s, channels, self.prepared),
            tail: s.splat(0.0),
            inv_std: self.field(s, channels, Field::InvStd),
            tail_xhat: self.field(s, channels, Field::TailXhat),
        }
    }

    /// [`Normalisation::centre_of_channel`] of prepared statistics.
    #[inline(never)]
    fn centre_of_channel(&self, channel: usize) -> Centre<Lane> {
        self.centre(Lane::FIRST, Channels::one(channel))
    }

    /// [`Normalisation::of_channel`] of prepared statistics.
    #[inline(never)]
    #[expect(clippy::float_cmp, reason = "a scale that changes nothing")]
    pub(crate) fn of_channel(&self, channel: usize) -> ChannelNormalise {
        let (s, channels) = (Lane::FIRST, Channels::one(channel));
        if self.scale == 1.0 {
            // The numbers are used as they are: a CPU without f64 takes long to multiply them by 1.
            let (slope, shift) = (self.field(s, channels, Field::Slope), self.field(s, channels, Field::Shift));
            let [mean, rounded_slope, rounded_shift, exact] = self.prepared.of_channel(channel);
            return ChannelNormalise {
                mean,
                slope,
                shift,
                rounded: [rounded_slope, rounded_shift],
                exact: exact != 0.0,
            };
        }
        ChannelNormalise::new(self.of_channels(s, channels))
    }

    /// [`Normalisation::of_channels`] of prepared statistics, which reads no slices of other statistics.
    #[inline(always)]
    pub(crate) fn of_channels<S: Simd>(&self, s: S, channels: Channels) -> Normalise<S> {
        let scale = s.splat_f64(f64::from(self.scale));
        let unscaled = [self.field(s, channels, Field::Slope), self.field(s, channels, Field::Shift)];
        let mean = prepared_mean(s, channels, self.prepared);
        Normalise::new(s, channels, (unscaled, scale), mean, self.field(s, channels, Field::InvStd))
    }
}

/// The means of some channels of prepared statistics, rounded to f32.
#[inline(always)]
fn prepared_mean<S: Simd>(s: S, channels: Channels, prepared: Prepared<'_>) -> S::F32 {
    if channels.first.is_multiple_of(LANES)
        && let Some([first, _]) = prepared.tiles().get(channels.first / LANES)
    {
        return s.load_pair(first).0;
    }
    let mut means = [0.0; LANES];
    for (mean, channel) in means.iter_mut().zip(channels.first..channels.first + channels.len) {
        [*mean, ..] = prepared.of_channel(channel);
    }
    s.load(&means)
}

/// The normalisation `z = (x - mean)*slope + shift`, for every kind of statistics.
///
/// The form `x*slope + shift` would be wrong: with a large mean the two terms cancel. The shift
/// corrects the rounding of the mean, which costs nothing per element.
#[derive(Clone, Copy)]
pub(crate) struct Normalise<S: Simd> {
    /// The mean, rounded to f32.
    pub(crate) mean: S::F32,
    /// `weight*inv_std*scale`.
    pub(crate) slope: S::F64,
    /// `(bias - tail*weight*inv_std)*scale`.
    pub(crate) shift: S::F64,
    /// The lanes whose numbers leave the range of f32 arithmetic and must be normalised in f64.
    pub(crate) exact: u16,
}

impl<S: Simd> Normalise<S> {
    /// The normalisation with the slope and the shift of `unscaled`, each multiplied by `scale`.
    #[inline(always)]
    fn new(s: S, channels: Channels, (unscaled, scale): ([S::F64; 2], S::F64), mean: S::F32, inv_std: S::F64) -> Self {
        let (slope, shift) = (unscaled[0] * scale, unscaled[1] * scale);
        // In f32 the product may overflow to the opposite of an infinite shift, and their sum would
        // be a NaN. The scale has no influence on `exact`, because a backward call with gates does not
        // know whether the scale was folded into the slope.
        let exact = s.magnitude_between(unscaled[0], 0.0, SMALL)
            | s.magnitude_between(unscaled[0], UNSCALED, f64::INFINITY)
            | unusual(s, inv_std)
            | too_large(s, s.widen(mean))
            | s.magnitude_above(unscaled[1], UNSCALED);
        Self { mean, slope, shift, exact: exact & channels.bits() }
    }

    /// The coefficients in f32, as pairs of vectors: mean and slope, shift and 1 where f64 is
    /// needed. In lanes that need f64, slope and shift are 0, so that no loop in f32 meets numbers that
    /// CPUs take long for.
    #[inline(always)]
    pub(crate) fn pairs(&self, s: S) -> [[S::F32; 2]; 2] {
        let (slope, shift) = (in_f32(s, self.exact, self.slope), in_f32(s, self.exact, self.shift));
        [[self.mean, slope], [shift, flags(s, self.exact)]]
    }
}

/// `z` of an element or of a vector in f32, from mean, slope and shift.
#[inline(always)]
pub(crate) fn normalised<F>([mean, slope, shift]: [F; 3], x: F) -> F
where
    F: Add<Output = F> + Mul<Output = F> + Sub<Output = F>,
{
    (x - mean) * slope + shift
}

/// `dx` of an element or of a vector in f32, from slope, tilt and offset. With fixed statistics
/// `dx` has no term of `x`, not even if `x` is not finite.
#[inline(always)]
pub(crate) fn differentiated<F>([slope, tilt, offset]: [F; 3], batch: bool, deviation: F, g: F) -> F
where
    F: Add<Output = F> + Mul<Output = F>,
{
    if batch { g * slope + (deviation * tilt + offset) } else { g * slope }
}

/// [`Normalise`] of one channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelNormalise {
    pub(crate) mean: f32,
    slope: f64,
    shift: f64,
    /// Slope and shift in f32.
    rounded: [f32; 2],
    pub(crate) exact: bool,
}

impl ChannelNormalise {
    fn new(Normalise { mean, slope, shift, exact }: Normalise<Lane>) -> Self {
        let rounded = [Lane::FIRST.narrow(slope), Lane::FIRST.narrow(shift)];
        Self { mean, slope, shift, rounded, exact: exact != 0 }
    }

    /// Slope and shift in f64.
    #[inline(always)]
    pub(crate) const fn wide(&self) -> [f64; 2] {
        [self.slope, self.shift]
    }

    /// `z` of one element, in f64 if it is needed. With a residual, f64 is also needed if the sum
    /// may be finite although one of its terms is not.
    #[inline(always)]
    pub(crate) fn z(&self, x: f32, residual: Option<f32>) -> f32 {
        let [slope, shift] = self.rounded;
        let z = normalised([self.mean, slope, shift], x);
        if self.exact || (residual.is_some() && !z.is_finite()) {
            return self.exactly(x, residual.unwrap_or(NOTHING));
        }
        z + residual.unwrap_or(NOTHING)
    }

    /// `z` of one element in f64.
    #[cold]
    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
    fn exactly(&self, x: f32, residual: f32) -> f32 {
        let z = (f64::from(x) - f64::from(self.mean)) * self.slope + self.shift;
        (z + f64::from(residual)) as f32
    }
}

/// −0.0, which can be added to any number without a change, even of the sign of zero.
const NOTHING: f32 = -0.0;

/// The sums over one channel from which every gradient is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GradientSums {
    /// The sum of `g`, without the dropout scale.
    pub(crate) g: f64,
    /// The sum of `g*(x - mean)*unit`, without the dropout scale, with the mean rounded to f32.
    pub(crate) g_deviation: f64,
}

impl GradientSums {
    /// The sums over nothing.
    pub(crate) const ZERO: Self = Self { g: 0.0, g_deviation: 0.0 };

    #[inline(always)]
    pub(crate) fn are_finite(self) -> bool {
        self.g.is_finite() && self.g_deviation.is_finite()
    }
}

/// The sums from which the gradients are made. Here `g` has the dropout scale.
#[derive(Clone, Copy)]
pub(crate) struct Sums<S: Simd> {
    /// The sums of `g`.
    pub(crate) g: S::F64,
    /// The sums of `g*xhat`.
    pub(crate) g_xhat: S::F64,
}

impl<S: Simd> Sums<S> {
    /// Computed from the sums of `g` and `g*(x - mean)*unit` without the dropout scale. This
    /// function corrects the rounding of the mean.
    #[inline(always)]
    pub(crate) fn finish(s: S, [g, g_deviation]: [S::F64; 2], centre: &Centre<S>, scale: f32) -> Self {
        let scale = s.splat_f64(f64::from(scale));
        let g_xhat = g_deviation * (centre.inv_std / centre.unit(s)) - centre.tail_xhat * g;
        Self { g: g * scale, g_xhat: g_xhat * scale }
    }
}

/// The gradient of the elements that a call computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Differential {
    /// `dx` through batch statistics.
    Batch,
    /// `dx` with fixed statistics.
    Fixed,
    /// The gradient of the residual in place of the gradient of the input.
    Residual,
}

/// The inputs of an element's gradient, except for the sums.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Differentiation<'a> {
    pub(crate) normalisation: &'a Normalisation<'a>,
    pub(crate) differential: Differential,
    /// The dropout scale.
    pub(crate) scale: f32,
    /// The number of values per channel of the whole batch.
    pub(crate) samples: f64,
}

impl Differentiation<'_> {
    #[inline(always)]
    pub(crate) fn coefficients<S: Simd>(
        &self,
        s: S,
        channels: Channels,
        centre: &Centre<S>,
        sums: Sums<S>,
    ) -> Differentiate<S> {
        let scale = s.splat_f64(f64::from(self.scale));
        let (zero, unscaled) = (s.splat_f64(0.0), self.normalisation.unscaled_slope(s, channels, centre));
        match self.differential {
            Differential::Residual => Differentiate { slope: scale, tilt: zero, offset: zero, exact: 0 },
            Differential::Fixed => {
                let slope = unscaled * scale;
                Differentiate { slope, tilt: zero, offset: zero, exact: unusual(s, slope) & channels.bits() }
            }
            // One value is its own mean, and its output is the bias: the gradient of the input
            // is 0.
            #[expect(clippy::float_cmp, reason = "a count")]
            Differential::Batch if self.samples == 1.0 => {
                Differentiate { slope: zero, tilt: zero, offset: zero, exact: 0 }
            }
            Differential::Batch => {
                let samples = s.splat_f64(self.samples);
                let (mean_g, mean_g_xhat) = (sums.g / samples, sums.g_xhat / samples);
                let (slope, negative) = (unscaled * scale, unscaled * s.splat_f64(-1.0));
                let tilt = negative * centre.inv_std * mean_g_xhat;
                let offset = negative * (mean_g - centre.tail_xhat * mean_g_xhat);
                // No deviation exceeds sqrt(samples) standard deviations, so this bounds every (x -
                // mean)*tilt.
                let largest = unscaled * mean_g_xhat * samples;
                let exact = unusual(s, slope)
                    | unusual(s, tilt)
                    | too_large(s, offset)
                    | too_large(s, largest)
                    | too_large(s, s.widen(centre.mean));
                Differentiate { slope, tilt, offset, exact: exact & channels.bits() }
            }
        }
    }

    /// The gradient of one channel in f64, from its sums of `g` and of `g*xhat`.
    #[cold]
    #[inline(never)]
    pub(crate) fn of_channel(
        &self,
        channel: usize,
        centre: &Centre<Lane>,
        [g, g_xhat]: [f64; 2],
    ) -> ChannelDifferentiate {
        let (s, channels) = (Lane::FIRST, Channels::one(channel));
        let differentiate = self.coefficients(s, channels, centre, Sums { g, g_xhat });
        let Differentiate { slope, tilt, offset, exact } = differentiate;
        ChannelDifferentiate { mean: centre.mean, slope, tilt, offset, exact: exact != 0 }
    }
}

/// The gradient of an element: `dx = g*slope + ((x - mean)*tilt + offset)`.
#[derive(Clone, Copy)]
pub(crate) struct Differentiate<S: Simd> {
    /// `weight*inv_std*scale`.
    pub(crate) slope: S::F64,
    /// `-weight*inv_std^2*sum(g*xhat)/samples`, 0 with fixed statistics.
    pub(crate) tilt: S::F64,
    /// `-weight*inv_std*(sum(g) - tail*inv_std*sum(g*xhat))/samples`, 0 with fixed statistics.
    pub(crate) offset: S::F64,
    /// The lanes whose numbers leave the range of f32 arithmetic.
    pub(crate) exact: u16,
}

impl<S: Simd> Differentiate<S> {
    /// The coefficients in f32, as pairs of vectors: slope and tilt, offset and 1 where f64 is needed.
    /// In lanes that need f64 the coefficients are 0, as in [`Normalise::pairs`].
    #[inline(always)]
    pub(crate) fn pairs(&self, s: S) -> [[S::F32; 2]; 2] {
        let (slope, tilt) = (in_f32(s, self.exact, self.slope), in_f32(s, self.exact, self.tilt));
        [[slope, tilt], [in_f32(s, self.exact, self.offset), flags(s, self.exact)]]
    }
}

/// [`Differentiate`] of one channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelDifferentiate {
    mean: f32,
    slope: f64,
    tilt: f64,
    offset: f64,
    exact: bool,
}

impl ChannelDifferentiate {
    /// Slope, tilt and offset in f64.
    #[inline(always)]
    pub(crate) const fn wide(&self) -> [f64; 3] {
        [self.slope, self.tilt, self.offset]
    }

    /// `dx` of one element, in f64 if it is needed.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
    pub(crate) fn dx(&self, batch: bool, x: f32, g: f32) -> f32 {
        let Self { mean, slope, tilt, offset, exact } = *self;
        match (exact, batch) {
            (true, true) => (f64::from(g) * slope + ((f64::from(x) - f64::from(mean)) * tilt + offset)) as f32,
            (true, false) => (f64::from(g) * slope) as f32,
            (false, _) => differentiated([slope as f32, tilt as f32, offset as f32], batch, x - mean, g),
        }
    }
}

/// A coefficient rounded to f32, and 0 in the lanes that need f64.
#[inline(always)]
fn in_f32<S: Simd>(s: S, exact: u16, coefficient: S::F64) -> S::F32 {
    s.keep(s.mask(!exact), s.narrow(coefficient))
}

/// Sixteen lanes of ones and zeros: 1 where a lane's bit is set.
#[inline(always)]
pub(crate) fn flags<S: Simd>(s: S, bits: u16) -> S::F32 {
    s.keep(s.mask(bits), s.splat(1.0))
}

/// Whether any of sixteen flags is not 0.
#[inline(always)]
pub(crate) fn any<S: Simd>(s: S, flags: S::F32) -> bool {
    s.bits(s.le(s.splat(1.0), flags)) != 0
}

/// The value of one lane.
#[inline(always)]
pub(crate) fn lane_of<T: Copy>(lanes: &Lanes<T>, lane: usize) -> T {
    // The remainder is the lane itself. It makes the check of the index unnecessary.
    lanes[lane % LANES]
}
