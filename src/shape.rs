//! Tensor shapes: every common layout is `[outer, channels, inner]`, row-major.

use crate::error::Error;

/// A tensor shape `[outer, channels, inner]`, row-major, whose number of elements fits a `usize`.
///
/// | layout | constructor | `outer` | `inner` |
/// |---|---|---|---|
/// | NC | [`Shape::nc`] | n | 1 |
/// | NCL | [`Shape::ncl`] | n | l |
/// | NCHW | [`Shape::nchw`] | n | h·w |
/// | NCDHW | [`Shape::ncdhw`] | n | d·h·w |
/// | NLC | [`Shape::nlc`] | n·l | 1 |
/// | NHWC | [`Shape::nhwc`] | n·h·w | 1 |
/// | NDHWC | [`Shape::ndhwc`] | n·d·h·w | 1 |
///
/// A dimension may be zero. The tensor is then empty: a call that takes it checks its arguments, sets
/// moments, sums, the gradients of parameters and the statistics that training saves to zero, and writes
/// no other result.
///
/// ```
/// use normdrop::Shape;
/// let shape = Shape::nchw(32, 64, 56, 56)?;
/// assert_eq!((shape.outer(), shape.channels(), shape.inner()), (32, 64, 56 * 56));
/// assert_eq!(shape.samples(), 32 * 56 * 56);
/// # Ok::<(), normdrop::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    outer: usize,
    channels: usize,
    inner: usize,
    /// The number of positions of one sample that are part of `outer`; 0 only if the tensor is
    /// empty.
    positions: usize,
}

const fn product<const N: usize>(factors: [usize; N]) -> Result<usize, Error> {
    let mut product: usize = 1;
    let mut overflow = None;
    let mut i = 0;
    while i < N {
        // A zero dimension makes the tensor empty, whatever the other dimensions are.
        if factors[i] == 0 {
            return Ok(0);
        }
        match product.checked_mul(factors[i]) {
            Some(next) => product = next,
            None if overflow.is_none() => overflow = Some(Error::ShapeOverflow { product, dimension: factors[i] }),
            None => {}
        }
        i += 1;
    }
    match overflow {
        Some(error) => Err(error),
        None => Ok(product),
    }
}

impl Shape {
    /// A shape from its three dimensions.
    ///
    /// # Errors
    /// [`Error::ShapeOverflow`] if `outer * channels * inner` does not fit a `usize`.
    pub const fn new(outer: usize, channels: usize, inner: usize) -> Result<Self, Error> {
        match product([outer, channels, inner]) {
            Ok(_) => Ok(Self { outer, channels, inner, positions: 1 }),
            Err(error) => Err(error),
        }
    }

    const fn channels_first(n: usize, channels: usize, positions: Result<usize, Error>) -> Result<Self, Error> {
        match positions {
            Ok(positions) => Self::new(n, channels, positions),
            Err(error) => Err(error),
        }
    }

    const fn channels_last(n: usize, positions: Result<usize, Error>, channels: usize) -> Result<Self, Error> {
        let positions = match positions {
            Ok(positions) => positions,
            // With `n = 0` the tensor is empty, whatever the number of its positions is.
            Err(_) if n == 0 => 0,
            Err(error) => return Err(error),
        };
        match product([n, positions]) {
            Ok(outer) => match Self::new(outer, channels, 1) {
                Ok(shape) => Ok(Self { positions, ..shape }),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// `[n, c]`: features of fully connected layers.
    ///
    /// # Errors
    /// [`Error::ShapeOverflow`] if the product does not fit a `usize`.
    pub const fn nc(n: usize, c: usize) -> Result<Self, Error> {
        Self::new(n, c, 1)
    }

    /// `[n, c, l]`: sequences, channels first.
    ///
    /// # Errors
    /// [`Error::ShapeOverflow`] if the product does not fit a `usize`.
    pub const fn ncl(n: usize, c: usize, l: usize) -> Result<Self, Error> {
        Self::new(n, c, l)
    }

    /// `[n, c, h, w]`: images, channels first.
    ///
    /// # Errors
    /// [`Error::ShapeOverflow`] if the product does not fit a `usize`.
    pub const fn nchw(n: usize, c: usize, h: usize, w: usize) -> Result<Self, Error> {
        Self::channels_first(n, c, product([h, w]))
    }

    /// `[n, c, d, h, w]`: volumes, channels first.
    ///
    /// # Errors
    /// [`Error::ShapeOverflow`] if the product does not fit a `usize`.
    pub const fn ncdhw(n: usize, c: usize, d: usize, h: usize, w: usize) -> Result<Self, Error> {
        Self::channels_first(n, c, product([d, h, w]))
    }

    /// `[n, l, c]`: sequences, channels last.
    ///
    /// # Errors
    /// [`Error::ShapeOverflow`] if the product does not fit a `usize`.
    pub const fn nlc(n: usize, l: usize, c: usize) -> Result<Self, Error> {
        Self::channels_last(n, Ok(l), c)
    }

    /// `[n, h, w, c]`: images, channels last.
    ///
    /// # Errors
    /// [`Error::ShapeOverflow`] if the product does not fit a `usize`.
    pub const fn nhwc(n: usize, h: usize, w: usize, c: usize) -> Result<Self, Error> {
        Self::channels_last(n, product([h, w]), c)
    }

    /// `[n, d, h, w, c]`: volumes, channels last.
    ///
    /// # Errors
    /// [`Error::ShapeOverflow`] if the product does not fit a `usize`.
    pub const fn ndhwc(n: usize, d: usize, h: usize, w: usize, c: usize) -> Result<Self, Error> {
        Self::channels_last(n, product([d, h, w]), c)
    }

    /// The product of the dimensions before the channels.
    #[must_use]
    pub const fn outer(self) -> usize {
        self.outer
    }

    /// The number of positions of one sample that are part of `outer`: `l`, `h*w` or `d*h*w` in a
    /// channels-last shape, 1 in other shapes.
    ///
    /// One bit of a mask of [`Granularity::Channel`](crate::Granularity) or `Granularity::Sample`
    /// decides about all positions of a sample.
    #[must_use]
    pub const fn positions(self) -> usize {
        self.positions
    }

    /// The number of channels.
    #[must_use]
    pub const fn channels(self) -> usize {
        self.channels
    }

    /// The product of the dimensions after the channels.
    #[must_use]
    pub const fn inner(self) -> usize {
        self.inner
    }

    /// The number of elements of the tensor.
    #[must_use]
    pub const fn len(self) -> usize {
        if self.is_empty() { 0 } else { self.outer * self.channels * self.inner }
    }

    /// Whether a dimension is zero.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.outer == 0 || self.channels == 0 || self.inner == 0
    }

    /// The number of values per channel, `outer * inner`.
    #[must_use]
    pub const fn samples(self) -> usize {
        if self.outer == 0 || self.inner == 0 { 0 } else { self.outer.saturating_mul(self.inner) }
    }
}
