//! PReLU, in place: values below 0 are multiplied by the slope of their channel; and its gradient.
//!
//! Forward 4 bytes are read and 4 written per element; backward 8 are read and 4 written.

use core::marker::PhantomData;

use crate::shape::Shape;
use crate::simd::{Kernel, LANES, Lanes, Machine, Simd, one_at_a_time};
use crate::slices::{range, range_mut, take_front};
use crate::storage::{Ahead, PIECE, Storage};

/// The formula by which a pass changes its values.
pub(crate) trait Formula {
    /// Whether another tensor is read beside the values.
    const READS: bool;

    fn of<S: Simd>(s: S, value: S::F32, other: S::F32, slope: S::F32) -> S::F32;
}

/// `y < 0 ? slope*y : y`. A dropped element stays +0.0, whatever the slope is.
pub(crate) struct Forward;

impl Formula for Forward {
    const READS: bool = false;

    #[inline(always)]
    fn of<S: Simd>(s: S, value: S::F32, _: S::F32, slope: S::F32) -> S::F32 {
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        // Only values below 0 are multiplied by the slope: the products of other values might overflow.
        value * s.select(s.unless_less(s.mask(u16::MAX), value, zero), one, slope)
    }
}

/// `y <= 0 ? slope*dy : dy`, in the place of `y`; NaN where `y` is NaN.
pub(crate) struct Gradient;

impl Formula for Gradient {
    const READS: bool = true;

    #[inline(always)]
    fn of<S: Simd>(s: S, value: S::F32, other: S::F32, slope: S::F32) -> S::F32 {
        let gradient = other * s.select(s.le(value, s.splat(0.0)), slope, s.splat(1.0));
        s.select(s.le(value, value), gradient, value)
    }
}

/// `y`, and the largest f32 of either sign in the place of infinity.
pub(crate) struct WithoutInfinity;

impl Formula for WithoutInfinity {
    const READS: bool = false;

    #[inline(always)]
    fn of<S: Simd>(s: S, value: S::F32, _: S::F32, _: S::F32) -> S::F32 {
        let value = s.select(s.le(s.splat(f32::INFINITY), value), s.splat(f32::MAX), value);
        s.select(s.le(value, s.splat(f32::NEG_INFINITY)), s.splat(f32::MIN), value)
    }
}

/// The other tensor from an element on, in vectors.
#[derive(Clone, Copy)]
struct Others<'a> {
    whole: &'a [Lanes<f32>],
    tail: &'a [f32],
}

impl<'a> Others<'a> {
    #[inline(always)]
    fn new(other: &'a [f32], len: usize) -> Self {
        let (whole, tail) = other.get(..len).unwrap_or_default().as_chunks();
        Self { whole, tail }
    }

    /// A whole vector, if the tensor is read.
    #[inline(always)]
    fn load<S: Simd, F: Formula>(&self, s: S, vector: usize) -> S::F32 {
        match self.whole.get(vector) {
            Some(other) if F::READS => s.load(other),
            _ => s.splat(0.0),
        }
    }

    /// The values after the last whole vector, if the tensor is read.
    #[inline(always)]
    fn load_tail<S: Simd, F: Formula>(&self, s: S) -> S::F32 {
        if F::READS { s.load_partial(self.tail) } else { s.splat(0.0) }
    }
}

/// The other tensor of a call, if it is read, and the rooms where a piece of it is f32.
struct Other<'a, T: Storage> {
    tensor: T::Ref<'a>,
    room: T::Room,
    /// The room of single lanes.
    copy: [f32; PIECE],
}

impl<'a, T: Storage> Other<'a, T> {
    #[inline(always)]
    fn new(tensor: T::Ref<'a>) -> Self {
        Self { tensor, room: T::room(), copy: [0.0; PIECE] }
    }

    /// The `len` neighbours from element `start` on: a piece at most, unless the tensor is f32.
    #[inline(always)]
    fn read<M: Machine, F: Formula>(&mut self, m: M, (start, len): (usize, usize)) -> &[f32] {
        if !F::READS {
            return &[];
        }
        if let Some(singles) = T::all_singles(T::shorter(self.tensor)) {
            return range(singles, start, len);
        }
        if let Some(s) = m.all() {
            return T::read(s, T::shorter(self.tensor), (start, len), Ahead::NOT, &mut self.room);
        }
        let copy = range_mut(&mut self.copy, 0, len);
        for (place, value) in copy.iter_mut().enumerate() {
            *value = T::at(self.tensor, start + place);
        }
        copy
    }
}

/// The slopes of all channels, or one for all.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slopes<'a> {
    One(f32),
    /// A slope for each channel, and the number of neighbours that belong to a channel.
    Each(&'a [f32], usize),
}

impl<'a> Slopes<'a> {
    /// Slopes whose number has been checked.
    pub(crate) fn new(shape: Shape, slopes: &'a [f32]) -> Self {
        match slopes {
            &[one] => Self::One(one),
            slopes => Self::Each(slopes, shape.inner()),
        }
    }

    /// The number of elements after a multiple of which a tensor may be cut.
    pub(crate) const fn unit(self) -> usize {
        match self {
            Self::One(_) => LANES,
            Self::Each(_, inner @ LANES..) => inner,
            Self::Each(slopes, inner) => slopes.len() * inner,
        }
    }
}

/// Changes the values of a tensor from element `first` on, a multiple of [`Slopes::unit`].
pub(crate) struct Prelu<'a, T: Storage, F> {
    pub(crate) formula: PhantomData<F>,
    pub(crate) slopes: Slopes<'a>,
    pub(crate) first: usize,
    /// The whole tensor, if it is read.
    pub(crate) other: T::Ref<'a>,
    pub(crate) values: &'a mut [f32],
}

impl<T: Storage, F: Formula> Kernel for Prelu<'_, T, F> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let Self { slopes, first, other, mut values, .. } = self;
        let mut other = Other::<T>::new(other);
        match slopes {
            Slopes::One(slope) => of_one_channel::<_, T, F>(m, slope, &mut other, first, values),
            Slopes::Each(slopes, inner @ LANES..) => {
                let run = first.checked_div(inner).unwrap_or(0);
                let channel = run.checked_rem(slopes.len()).unwrap_or(0);
                let (mut start, mut channels) = (first, slopes.iter().cycle().skip(channel));
                while let (false, Some(&slope)) = (values.is_empty(), channels.next()) {
                    of_one_channel::<_, T, F>(m, slope, &mut other, start, take_front(&mut values, inner));
                    start += inner;
                }
            }
            Slopes::Each(slopes, inner) => of_columns::<_, T, F>(m, (slopes, inner), &mut other, first, values),
        }
    }
}

/// Rounds f32 values to the elements of a tensor.
pub(crate) struct Put<'a, T: Storage> {
    pub(crate) values: &'a [f32],
    pub(crate) to: T::Mut<'a>,
}

impl<T: Storage> Kernel for Put<'_, T> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let Self { values, mut to } = self;
        let Some(s) = m.all() else {
            for (element, &value) in values.iter().enumerate() {
                T::put(&mut to, element, value);
            }
            return;
        };
        let mut room = T::room();
        for (piece, values) in values.chunks(PIECE).enumerate() {
            let place = (piece * PIECE, values.len());
            for (to, &value) in T::place(&mut to, place, &mut room).iter_mut().zip(values) {
                *to = value;
            }
            T::finish(s, false, &mut to, place, &room);
        }
    }
}

/// Values with one slope, from an element on.
#[inline(always)]
fn of_one_channel<M: Machine, T: Storage, F: Formula>(
    m: M,
    slope: f32,
    other: &mut Other<'_, T>,
    mut start: usize,
    values: &mut [f32],
) {
    let piece = if T::DIRECT || !F::READS { values.len() } else { PIECE };
    for values in values.chunks_mut(piece.max(1)) {
        let other = other.read::<_, F>(m, (start, values.len()));
        for s in m.each(LANES) {
            of_one_slope::<_, F>(s, slope, other, values);
        }
        start += values.len();
    }
}

/// Values with one slope.
#[inline(always)]
fn of_one_slope<S: Simd, F: Formula>(s: S, slope: f32, other: &[f32], values: &mut [f32]) {
    let (slope, others) = (s.splat(slope), Others::new(other, values.len()));
    let (whole, tail) = values.as_chunks_mut();
    for (vector, values) in whole.iter_mut().enumerate() {
        one_at_a_time();
        s.store(F::of(s, s.load(values), others.load::<_, F>(s, vector), slope), values);
    }
    if !tail.is_empty() {
        // Where lanes are processed one at a time, there is a loop over the lanes around this code.
        one_at_a_time();
        s.store_partial(F::of(s, s.load_partial(tail), others.load_tail::<_, F>(s), slope), tail);
    }
}

/// Values of which fewer than sixteen neighbours have one slope: the slopes of some columns are laid out
/// once, for all rows of the matrix. Several short rows are processed as one.
#[inline(always)]
fn of_columns<M: Machine, T: Storage, F: Formula>(
    m: M,
    (slopes, inner): (&[f32], usize),
    other: &mut Other<'_, T>,
    base: usize,
    values: &mut [f32],
) {
    let period = slopes.len() * inner;
    let width = match PIECE.checked_div(period) {
        Some(rows @ 1..) => rows * period,
        _ => period,
    };
    let mut columns = slopes.iter().cycle().flat_map(|slope| core::iter::repeat_n(*slope, inner));
    let mut first = 0;
    while first < width {
        let len = PIECE.min(width - first);
        let mut strip = [0.0; PIECE];
        for (slope, value) in strip.iter_mut().take(len).zip(&mut columns) {
            *slope = value;
        }
        let mut start = first;
        while start < values.len() {
            let row = values.get_mut(start..).unwrap_or_default();
            let row_len = len.min(row.len());
            let row = row.get_mut(..row_len).unwrap_or_default();
            let other = other.read::<_, F>(m, (base + start, row_len));
            for s in m.each(LANES) {
                of_strip::<_, F>(s, &strip, other, row);
            }
            start = start.saturating_add(width);
        }
        first += len;
    }
}

/// Values with a slope each.
#[inline(always)]
fn of_strip<S: Simd, F: Formula>(s: S, slopes: &[f32; PIECE], other: &[f32], values: &mut [f32]) {
    let (slopes, others): (&[Lanes<f32>], _) = (slopes.as_chunks().0, Others::new(other, values.len()));
    let (whole, tail) = values.as_chunks_mut();
    let mut slopes = slopes.iter();
    for (vector, (values, slope)) in whole.iter_mut().zip(&mut slopes).enumerate() {
        one_at_a_time();
        s.store(F::of(s, s.load(values), others.load::<_, F>(s, vector), s.load(slope)), values);
    }
    if let (false, Some(slope)) = (tail.is_empty(), slopes.next()) {
        one_at_a_time();
        s.store_partial(F::of(s, s.load_partial(tail), others.load_tail::<_, F>(s), s.load(slope)), tail);
    }
}
