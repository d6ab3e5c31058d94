//! How the tensors of a call are stored, and the one place where halves are read and written.
//!
//! The kernels compute with f32 alone. They are compiled for two families of tensors: [`Singles`],
//! where every tensor is f32 and the kernels read and write it where it is, and [`Mixed`], where each
//! tensor has its type at run time. Of a mixed tensor a kernel gets some neighbours at a time as f32:
//! halves are widened into a *room* in the first cache and narrowed from one. A program that uses f32
//! alone has no code of mixed tensors.

use core::fmt::Debug;

use crate::bits::BITS;
use crate::element::{Bf16, Element, F16, Half, Values, ValuesMut};
use crate::simd::{LANES, Lanes, Simd, Work, load};
use crate::slices::{range, range_mut, take_front};

/// The elements whose mask bits are made at once, and that a room has place for.
pub(crate) const PIECE: usize = BITS * LANES;

/// The values of a page of memory, beyond which the hardware does not read ahead.
const PAGE: usize = 1024;
/// The values of a tensor that caches of the second level hold.
const CACHED_TENSOR: usize = 1 << 18;

/// Whether the rows of a matrix are best read one after the other, because they are shorter than a page and not in the
/// caches: the hardware reads ahead where it sees a sequence.
pub(crate) const fn in_sequence(width: usize, tensor_len: usize) -> bool {
    width < PAGE && tensor_len > CACHED_TENSOR
}

/// How many values ahead of a vector the first and the second cache are asked for others, if not 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    first: usize,
    second: usize,
}

impl Ahead {
    /// Not at all: the caches have them, or the hardware reads ahead.
    pub(crate) const NOT: Self = Self { first: 0, second: 0 };

    /// In rows of a matrix that follow each other in memory.
    pub(crate) const fn in_sequence(width: usize, tensor_len: usize) -> Self {
        if in_sequence(width, tensor_len) { Self { first: 128, second: 1024 } } else { Self::NOT }
    }

    /// In rows of a matrix, of which some columns are worked row by row: those of the next row.
    pub(crate) const fn next_row(width: usize, tensor_len: usize) -> Self {
        if tensor_len > CACHED_TENSOR { Self { first: 0, second: width } } else { Self::NOT }
    }

    /// So many values, for the second cache.
    pub(crate) const fn second(values: usize) -> Self {
        Self { first: 0, second: values }
    }

    #[inline(always)]
    pub(crate) fn prefetch<S: Simd, T>(self, s: S, from: &Lanes<T>) {
        if self.first != 0 {
            s.prefetch_first(from, self.first);
        }
        if self.second != 0 {
            s.prefetch_second(from, self.second);
        }
    }
}

/// An element that is loaded into lanes of f32.
pub(crate) trait Load: Element {
    fn load<S: Simd>(s: S, from: &Lanes<Self>) -> S::F32;
    /// Up to sixteen values, and +0.0 in the other lanes.
    fn load_partial<S: Simd>(s: S, from: &[Self]) -> S::F32;
    /// [`Self::load_partial`] of what may well be sixteen values.
    #[inline(always)]
    fn load_any<S: Simd>(s: S, from: &[Self]) -> S::F32 {
        match from.try_into() {
            Ok(lanes) => Self::load(s, lanes),
            Err(_) => Self::load_partial(s, from),
        }
    }
    fn single(self) -> f32;
}

impl Load for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &Lanes<Self>) -> S::F32 {
        s.load(from)
    }

    #[inline(always)]
    fn load_partial<S: Simd>(s: S, from: &[Self]) -> S::F32 {
        s.load_partial(from)
    }

    #[inline(always)]
    fn load_any<S: Simd>(s: S, from: &[Self]) -> S::F32 {
        load(s, from)
    }

    #[inline(always)]
    fn single(self) -> f32 {
        self
    }
}

/// A half that is narrowed from lanes of f32.
trait Store: Load + Half {
    fn narrow<S: Simd>(s: S, value: S::F32) -> S::Halves;
    fn of_single(value: f32) -> Self;
}

/// The conversions of both halves.
macro_rules! load {
    ($half:ident, $widen:ident, $narrow:ident) => {
        impl Load for $half {
            #[inline(always)]
            fn load<S: Simd>(s: S, from: &Lanes<Self>) -> S::F32 {
                s.$widen(s.load_halves(from))
            }

            #[inline(always)]
            fn load_partial<S: Simd>(s: S, from: &[Self]) -> S::F32 {
                s.$widen(s.load_partial_halves(from))
            }

            #[inline(always)]
            fn single(self) -> f32 {
                self.to_f32()
            }
        }

        impl Store for $half {
            #[inline(always)]
            fn narrow<S: Simd>(s: S, value: S::F32) -> S::Halves {
                s.$narrow(value)
            }

            #[inline(always)]
            fn of_single(value: f32) -> Self {
                Self::from_f32(value)
            }
        }
    };
}

load!(F16, widen_f16, narrow_f16);
load!(Bf16, widen_bf16, narrow_bf16);

/// Work on a tensor whose elements are of one type.
pub(crate) trait OfOneType {
    type Output;
    fn run<E: Load>(self, tensor: &[E]) -> Self::Output;
}

/// A family of tensors.
pub(crate) trait Storage: Copy + Debug + Send + Sync + 'static {
    /// Whether every tensor is f32, so that kernels read and write it where it is.
    const DIRECT: bool;
    /// The columns that are processed together in four rows of a matrix.
    const COLUMNS: usize;
    /// A tensor that is read.
    type Ref<'a>: Copy + Debug + Send + Sync;
    /// A tensor that is written.
    type Mut<'a>: Debug + Send;
    /// Where the values of a piece are f32 if they are not in the tensor.
    type Room;

    fn of<E: Element>(tensor: &[E]) -> Self::Ref<'_>;
    fn of_mut<E: Element>(tensor: &mut [E]) -> Self::Mut<'_>;
    fn room() -> Self::Room;

    fn len(tensor: Self::Ref<'_>) -> usize;
    fn len_mut(tensor: &Self::Mut<'_>) -> usize;
    /// The same tensor for a shorter time.
    fn shorter<'a: 'b, 'b>(tensor: Self::Ref<'a>) -> Self::Ref<'b>;
    fn as_ref<'b>(tensor: &'b Self::Mut<'_>) -> Self::Ref<'b>;
    fn reborrow<'b>(tensor: &'b mut Self::Mut<'_>) -> Self::Mut<'b>;
    /// Takes the first elements out of a tensor.
    fn take_front<'a>(tensor: &mut Self::Mut<'a>, len: usize) -> Self::Mut<'a>;
    /// +0.0 everywhere.
    fn clear(tensor: &mut Self::Mut<'_>);

    /// A value; callers have checked that it is there.
    fn at(tensor: Self::Ref<'_>, element: usize) -> f32;
    fn put(tensor: &mut Self::Mut<'_>, element: usize, value: f32);

    /// Some neighbours as f32: a piece at most.
    fn read<'b, S: Simd>(
        s: S,
        tensor: Self::Ref<'b>,
        place: (usize, usize),
        ahead: Ahead,
        room: &'b mut Self::Room,
    ) -> &'b [f32];
    /// The same columns of up to `ROWS` rows as f32, a room at most; the first row again for rows
    /// that are missing.
    fn read_rows<'b, S: Simd, const ROWS: usize>(
        s: S,
        tensor: Self::Ref<'b>,
        place: (usize, usize),
        rows: (usize, usize),
        ahead: Ahead,
        room: &'b mut Self::Room,
    ) -> [&'b [f32]; ROWS];
    /// Where the new values of some neighbours are put: [`Self::finish`] comes after it.
    fn place<'b>(tensor: &'b mut Self::Mut<'_>, place: (usize, usize), room: &'b mut Self::Room) -> &'b mut [f32];
    /// Narrows the values of a piece into a tensor, past the caches if `stream`.
    fn finish<S: Simd>(s: S, stream: bool, tensor: &mut Self::Mut<'_>, place: (usize, usize), room: &Self::Room);
    /// Whether a tensor is written where it is.
    fn is_direct(tensor: &Self::Mut<'_>) -> bool;
    /// Some neighbours to read and where to put what becomes of them. What is overwritten is copied
    /// first.
    fn pair<'b, S: Simd>(
        s: S,
        tensors: (Option<Self::Ref<'b>>, &'b mut Self::Mut<'_>, usize),
        place: (usize, usize),
        ahead: Ahead,
        rooms: (&'b mut [f32], &'b mut Self::Room, &'b mut Self::Room),
    ) -> (&'b [f32], &'b mut [f32]);
    /// Asks the caches for values ahead of some neighbours.
    fn prefetch<S: Simd>(s: S, tensor: Self::Ref<'_>, place: (usize, usize), ahead: Ahead);
    /// Runs work on a tensor.
    fn of_one_type<W: OfOneType>(tensor: Self::Ref<'_>, work: W) -> W::Output;

    /// Copies the input into the output, if a call channel by channel works in place from there on.
    fn begin(input: Option<Self::Ref<'_>>, output: &mut Self::Mut<'_>);
    /// What is still read from the input after [`Self::begin`]: nothing if that copies.
    fn left<'a>(input: Option<Self::Ref<'a>>) -> Option<Self::Ref<'a>>;
    /// Changes a value of the output; it comes from the input, if there is one.
    fn change(
        input: Option<Self::Ref<'_>>,
        output: &mut Self::Mut<'_>,
        element: usize,
        change: impl FnOnce(f32) -> f32,
    );
    /// The whole output, if it is f32.
    fn singles<'b>(tensor: &'b mut Self::Mut<'_>) -> Option<&'b mut [f32]>;
}

/// Tensors of f32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Singles;

impl Storage for Singles {
    const DIRECT: bool = true;
    const COLUMNS: usize = PIECE;
    type Ref<'a> = &'a [f32];
    type Mut<'a> = &'a mut [f32];
    type Room = ();

    #[inline(always)]
    fn of<E: Element>(tensor: &[E]) -> &[f32] {
        E::singles(tensor).unwrap_or_default()
    }

    #[inline(always)]
    fn of_mut<E: Element>(tensor: &mut [E]) -> &mut [f32] {
        E::singles_mut(tensor).unwrap_or_default()
    }

    #[inline(always)]
    fn room() {}

    #[inline(always)]
    fn len(tensor: &[f32]) -> usize {
        tensor.len()
    }

    #[inline(always)]
    fn len_mut(tensor: &&mut [f32]) -> usize {
        tensor.len()
    }

    #[inline(always)]
    fn shorter<'a: 'b, 'b>(tensor: &'a [f32]) -> &'b [f32] {
        tensor
    }

    #[inline(always)]
    fn as_ref<'b>(tensor: &'b &mut [f32]) -> &'b [f32] {
        tensor
    }

    #[inline(always)]
    fn reborrow<'b>(tensor: &'b mut &mut [f32]) -> &'b mut [f32] {
        tensor
    }

    #[inline(always)]
    fn take_front<'a>(tensor: &mut Self::Mut<'a>, len: usize) -> Self::Mut<'a> {
        take_front(tensor, len)
    }

    #[inline(always)]
    fn clear(tensor: &mut &mut [f32]) {
        tensor.fill(0.0);
    }

    #[inline(always)]
    fn at(tensor: &[f32], element: usize) -> f32 {
        tensor.get(element).copied().unwrap_or(0.0)
    }

    #[inline(always)]
    fn put(tensor: &mut &mut [f32], element: usize, value: f32) {
        if let Some(to) = tensor.get_mut(element) {
            *to = value;
        }
    }

    #[inline(always)]
    fn read<'b, S: Simd>(_: S, tensor: &'b [f32], (start, len): (usize, usize), _: Ahead, (): &'b mut ()) -> &'b [f32] {
        range(tensor, start, len)
    }

    #[inline(always)]
    fn read_rows<'b, S: Simd, const ROWS: usize>(
        _: S,
        tensor: &'b [f32],
        (first, columns): (usize, usize),
        (rows, width): (usize, usize),
        _: Ahead,
        (): &'b mut (),
    ) -> [&'b [f32]; ROWS] {
        rows_of(tensor, (first, columns), (rows, width))
    }

    #[inline(always)]
    fn place<'b>(tensor: &'b mut &mut [f32], (start, len): (usize, usize), (): &'b mut ()) -> &'b mut [f32] {
        range_mut(tensor, start, len)
    }

    #[inline(always)]
    fn finish<S: Simd>(_: S, _: bool, _: &mut &mut [f32], _: (usize, usize), (): &()) {}

    #[inline(always)]
    fn is_direct(_: &&mut [f32]) -> bool {
        true
    }

    #[inline(always)]
    fn pair<'b, S: Simd>(
        _: S,
        (read, write, base): (Option<&'b [f32]>, &'b mut &mut [f32], usize),
        (start, len): (usize, usize),
        _: Ahead,
        (copy, _, _): (&'b mut [f32], &'b mut (), &'b mut ()),
    ) -> (&'b [f32], &'b mut [f32]) {
        let write = range_mut(write, start - base, len);
        let read = match read {
            Some(read) => range(read, start, len),
            None => {
                let copy = copy.get_mut(..len).unwrap_or_default();
                for (copy, value) in copy.iter_mut().zip(&*write) {
                    *copy = *value;
                }
                copy
            }
        };
        (read, write)
    }

    #[inline(always)]
    fn prefetch<S: Simd>(s: S, tensor: &[f32], (start, len): (usize, usize), ahead: Ahead) {
        for vector in range(tensor, start, len).as_chunks().0 {
            ahead.prefetch(s, vector);
        }
    }

    #[inline(always)]
    fn of_one_type<W: OfOneType>(tensor: &[f32], work: W) -> W::Output {
        work.run(tensor)
    }

    #[inline(always)]
    fn begin(input: Option<&[f32]>, output: &mut &mut [f32]) {
        for (to, &from) in output.iter_mut().zip(input.unwrap_or_default()) {
            *to = from;
        }
    }

    #[inline(always)]
    fn left<'a>(_: Option<Self::Ref<'a>>) -> Option<Self::Ref<'a>> {
        None
    }

    #[inline(always)]
    fn change(_: Option<&[f32]>, output: &mut &mut [f32], element: usize, change: impl FnOnce(f32) -> f32) {
        if let Some(value) = output.get_mut(element) {
            *value = change(*value);
        }
    }

    #[inline(always)]
    fn singles<'b>(tensor: &'b mut &mut [f32]) -> Option<&'b mut [f32]> {
        Some(tensor)
    }
}

/// The same columns of some rows.
#[inline(always)]
fn rows_of<const ROWS: usize>(
    tensor: &[f32],
    (first, columns): (usize, usize),
    (rows, width): (usize, usize),
) -> [&[f32]; ROWS] {
    let mut array = [range(tensor, first, columns); ROWS];
    for (number, row) in array.iter_mut().enumerate().skip(1) {
        if number < rows {
            *row = range(tensor, first + number * width, columns);
        }
    }
    array
}

/// Tensors of any types.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mixed;

/// The columns of four rows that a room has place for.
const ROOM_COLUMNS: usize = PIECE / 4;

/// The same for each type of a tensor.
macro_rules! each_type {
    ($values:ident, $tensor:expr, $name:ident => $result:expr) => {
        match $tensor {
            $values::F32($name) => $result,
            $values::F16($name) => $result,
            $values::Bf16($name) => $result,
        }
    };
}

impl Storage for Mixed {
    const DIRECT: bool = false;
    const COLUMNS: usize = ROOM_COLUMNS;
    type Ref<'a> = Values<'a>;
    type Mut<'a> = ValuesMut<'a>;
    type Room = [f32; PIECE];

    #[inline(always)]
    fn of<E: Element>(tensor: &[E]) -> Values<'_> {
        E::values(tensor)
    }

    #[inline(always)]
    fn of_mut<E: Element>(tensor: &mut [E]) -> ValuesMut<'_> {
        E::values_mut(tensor)
    }

    #[inline(always)]
    fn room() -> [f32; PIECE] {
        [0.0; PIECE]
    }

    #[inline(always)]
    fn len(tensor: Values<'_>) -> usize {
        each_type!(Values, tensor, values => values.len())
    }

    #[inline(always)]
    fn len_mut(tensor: &ValuesMut<'_>) -> usize {
        each_type!(ValuesMut, tensor, values => values.len())
    }

    #[inline(always)]
    fn shorter<'a: 'b, 'b>(tensor: Values<'a>) -> Values<'b> {
        tensor
    }

    #[inline(always)]
    fn as_ref<'b>(tensor: &'b ValuesMut<'_>) -> Values<'b> {
        match tensor {
            ValuesMut::F32(values) => Values::F32(values),
            ValuesMut::F16(values) => Values::F16(values),
            ValuesMut::Bf16(values) => Values::Bf16(values),
        }
    }

    #[inline(always)]
    fn reborrow<'b>(tensor: &'b mut ValuesMut<'_>) -> ValuesMut<'b> {
        match tensor {
            ValuesMut::F32(values) => ValuesMut::F32(values),
            ValuesMut::F16(values) => ValuesMut::F16(values),
            ValuesMut::Bf16(values) => ValuesMut::Bf16(values),
        }
    }

    #[inline(always)]
    fn take_front<'a>(tensor: &mut Self::Mut<'a>, len: usize) -> Self::Mut<'a> {
        match tensor {
            ValuesMut::F32(values) => ValuesMut::F32(take_front(values, len)),
            ValuesMut::F16(values) => ValuesMut::F16(take_front(values, len)),
            ValuesMut::Bf16(values) => ValuesMut::Bf16(take_front(values, len)),
        }
    }

    fn clear(tensor: &mut ValuesMut<'_>) {
        each_type!(ValuesMut, tensor, values => values.fill(Default::default()));
    }

    #[inline(never)]
    fn at(tensor: Values<'_>, element: usize) -> f32 {
        each_type!(Values, tensor, values => values.get(element).map_or(0.0, |value| value.single()))
    }

    #[inline(never)]
    fn put(tensor: &mut ValuesMut<'_>, element: usize, value: f32) {
        match tensor {
            ValuesMut::F32(values) => put(values, element, value),
            ValuesMut::F16(values) => put(values, element, F16::of_single(value)),
            ValuesMut::Bf16(values) => put(values, element, Bf16::of_single(value)),
        }
    }

    #[inline(always)]
    fn read<'b, S: Simd>(
        s: S,
        tensor: Values<'b>,
        (start, len): (usize, usize),
        ahead: Ahead,
        room: &'b mut [f32; PIECE],
    ) -> &'b [f32] {
        match tensor {
            Values::F32(values) => {
                Singles::prefetch(s, values, (start, len), ahead);
                return range(values, start, len);
            }
            Values::F16(values) => s.apart(Widen { from: range(values, start, len), to: &mut *room, ahead }),
            Values::Bf16(values) => s.apart(Widen { from: range(values, start, len), to: &mut *room, ahead }),
        }
        room.get(..len).unwrap_or_default()
    }

    #[inline(always)]
    fn read_rows<'b, S: Simd, const ROWS: usize>(
        s: S,
        tensor: Values<'b>,
        (first, columns): (usize, usize),
        (rows, width): (usize, usize),
        ahead: Ahead,
        room: &'b mut [f32; PIECE],
    ) -> [&'b [f32]; ROWS] {
        let all = room.as_chunks_mut::<ROOM_COLUMNS>().0;
        for (row, to) in all.iter_mut().enumerate().take(rows.min(ROWS)) {
            let (start, to) = (first + row * width, &mut to[..]);
            match tensor {
                Values::F32(values) => Singles::prefetch(s, values, (start, columns), ahead),
                Values::F16(values) => s.apart(Widen { from: range(values, start, columns), to, ahead }),
                Values::Bf16(values) => s.apart(Widen { from: range(values, start, columns), to, ahead }),
            }
        }
        if let Values::F32(values) = tensor {
            return rows_of(values, (first, columns), (rows, width));
        }
        let mut array = [&[][..]; ROWS];
        for (number, row) in array.iter_mut().enumerate() {
            let of_room = all.get(if number < rows { number } else { 0 }).map(|row| &row[..]);
            *row = of_room.and_then(|row| row.get(..columns)).unwrap_or_default();
        }
        array
    }

    #[inline(always)]
    fn place<'b>(
        tensor: &'b mut ValuesMut<'_>,
        (start, len): (usize, usize),
        room: &'b mut [f32; PIECE],
    ) -> &'b mut [f32] {
        match tensor {
            ValuesMut::F32(values) => range_mut(values, start, len),
            ValuesMut::F16(_) | ValuesMut::Bf16(_) => room.get_mut(..len).unwrap_or_default(),
        }
    }

    #[inline(always)]
    fn finish<S: Simd>(
        s: S,
        stream: bool,
        tensor: &mut ValuesMut<'_>,
        (start, len): (usize, usize),
        room: &[f32; PIECE],
    ) {
        match tensor {
            ValuesMut::F32(_) => {}
            ValuesMut::F16(values) => s.apart(Narrow { from: room, to: range_mut(values, start, len), stream }),
            ValuesMut::Bf16(values) => s.apart(Narrow { from: room, to: range_mut(values, start, len), stream }),
        }
    }

    #[inline(always)]
    fn is_direct(tensor: &ValuesMut<'_>) -> bool {
        matches!(tensor, ValuesMut::F32(_))
    }

    #[inline(always)]
    fn pair<'b, S: Simd>(
        s: S,
        (read, write, base): (Option<Values<'b>>, &'b mut ValuesMut<'_>, usize),
        (start, len): (usize, usize),
        ahead: Ahead,
        (copy, read_room, write_room): (&'b mut [f32], &'b mut [f32; PIECE], &'b mut [f32; PIECE]),
    ) -> (&'b [f32], &'b mut [f32]) {
        let at = (start - base, len);
        let read = match (read, &*write) {
            (Some(read), _) => Self::read(s, read, (start, len), ahead, read_room),
            (None, ValuesMut::F32(values)) => {
                let copy = copy.get_mut(..len).unwrap_or_default();
                for (copy, value) in copy.iter_mut().zip(range(values, at.0, len)) {
                    *copy = *value;
                }
                copy
            }
            (None, ValuesMut::F16(values)) => {
                s.apart(Widen { from: range(values, at.0, len), to: &mut *read_room, ahead });
                read_room.get(..len).unwrap_or_default()
            }
            (None, ValuesMut::Bf16(values)) => {
                s.apart(Widen { from: range(values, at.0, len), to: &mut *read_room, ahead });
                read_room.get(..len).unwrap_or_default()
            }
        };
        (read, Self::place(write, at, write_room))
    }

    #[inline(always)]
    fn prefetch<S: Simd>(s: S, tensor: Values<'_>, (start, len): (usize, usize), ahead: Ahead) {
        each_type!(Values, tensor, values => for vector in range(values, start, len).as_chunks::<LANES>().0 {
            ahead.prefetch(s, vector);
        });
    }

    #[inline(always)]
    fn of_one_type<W: OfOneType>(tensor: Values<'_>, work: W) -> W::Output {
        each_type!(Values, tensor, values => work.run(values))
    }

    #[inline(always)]
    fn begin(_: Option<Values<'_>>, _: &mut ValuesMut<'_>) {}

    #[inline(always)]
    fn left<'a>(input: Option<Self::Ref<'a>>) -> Option<Self::Ref<'a>> {
        input
    }

    #[inline(always)]
    fn change(input: Option<Values<'_>>, output: &mut ValuesMut<'_>, element: usize, change: impl FnOnce(f32) -> f32) {
        let value = Self::at(input.unwrap_or(Self::as_ref(output)), element);
        Self::put(output, element, change(value));
    }

    #[inline(always)]
    fn singles<'b>(_: &'b mut ValuesMut<'_>) -> Option<&'b mut [f32]> {
        None
    }
}

#[inline(always)]
fn put<T>(values: &mut [T], element: usize, value: T) {
    if let Some(to) = values.get_mut(element) {
        *to = value;
    }
}

/// Widens some neighbours into a room, whose length is whole vectors.
struct Widen<'a, H> {
    from: &'a [H],
    to: &'a mut [f32],
    ahead: Ahead,
}

impl<S: Simd, H: Store> Work<S> for Widen<'_, H> {
    #[inline(always)]
    fn run(self, s: S) {
        self.each_vector(s);
    }
}

impl<H: Store> Widen<'_, H> {
    #[inline(always)]
    fn each_vector<S: Simd>(self, s: S) {
        let Self { from, to, ahead } = self;
        let ((from, rest), mut to) = (from.as_chunks(), to.as_chunks_mut().0.iter_mut());
        for (from, to) in from.iter().zip(to.by_ref()) {
            ahead.prefetch(s, from);
            s.store(H::load(s, from), to);
        }
        if let (false, Some(to)) = (rest.is_empty(), to.next()) {
            s.store(H::load_partial(s, rest), to);
        }
    }
}

/// Narrows the first values of a room into some neighbours.
struct Narrow<'a, H> {
    from: &'a [f32],
    to: &'a mut [H],
    stream: bool,
}

impl<S: Simd, H: Store> Work<S> for Narrow<'_, H> {
    #[inline(always)]
    fn run(self, s: S) {
        self.each_vector(s);
    }
}

impl<H: Store> Narrow<'_, H> {
    #[inline(always)]
    fn each_vector<S: Simd>(self, s: S) {
        let Self { from, to, stream } = self;
        let (mut from, (to, rest)) = (from.as_chunks().0, to.as_chunks_mut());
        let (pairs, last) = to.as_chunks_mut();
        for to in pairs {
            let Some(([first, second], others)) = from.split_first_chunk() else { break };
            from = others;
            let pair = [H::narrow(s, s.load(first)), H::narrow(s, s.load(second))];
            if stream {
                s.stream_halves(pair, to);
            } else {
                let ([first, second], [to_first, to_second]) = (pair, to);
                s.store_halves(first, to_first);
                s.store_halves(second, to_second);
            }
        }
        // What is written first: its end must not take a vector from the rest.
        let mut from = from.iter();
        for (to, from) in last.iter_mut().zip(from.by_ref()) {
            s.store_halves(H::narrow(s, s.load(from)), to);
        }
        if let (false, Some(from)) = (rest.is_empty(), from.next()) {
            s.store_partial_halves(H::narrow(s, s.load(from)), rest);
        }
    }
}
