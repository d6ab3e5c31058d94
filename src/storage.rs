//! How the tensors of a call are stored.
//!
//! The kernels compute with f32 alone. They are compiled for two families of tensors: [`Singles`], where
//! every tensor is f32 and the kernels read and write it where it is, and `Mixed`, where the type of
//! each tensor is known at run time. Loops over tensors of one half type widen and narrow in registers
//! ([`Storage::each_vector`], [`Storage::of_two`], [`Storage::of_one_type`]). Otherwise a kernel gets
//! some neighbours of a mixed tensor at a time as f32: halves are widened into a *room* in the first
//! cache and narrowed from one. Mixed tensors more than double the code of the kernels, and are compiled
//! with the feature `half-precision` alone.

#[cfg(feature = "half-precision")]
mod mixed;

use core::fmt::Debug;

use crate::bits::{BITS, FourBits, each_four};
use crate::element::Element;
use crate::simd::{LANES, Lanes, Simd, Work, load};
use crate::slices::{copy_values, range, range_mut, take_front};
use crate::walk::RowBlock;
#[cfg(feature = "half-precision")]
pub(crate) use mixed::Mixed;

/// The number of elements whose mask bits are made at once, and for which a room has place.
pub(crate) const PIECE: usize = BITS * LANES;

/// The values of a piece. They begin with a line of the caches: a vector that lies across two lines takes longer to load and to
/// store.
#[repr(align(64))]
pub(crate) struct AlignedPiece(pub(crate) [f32; PIECE]);

impl AlignedPiece {
    /// Zeros, made in their place.
    #[inline(always)]
    pub(crate) const fn zeros() -> Self {
        Self([0.0; PIECE])
    }
}

/// The number of values in a page of memory. The hardware does not read ahead beyond a page.
pub(crate) const PAGE: usize = 1024;
/// The number of values of the largest tensor that caches of the second level hold.
pub(crate) const CACHED_TENSOR: usize = 1 << 18;

/// Whether the rows of a matrix are best read one after the other, because they are shorter than a page and not in the
/// caches: the hardware reads ahead where it sees a sequence.
pub(crate) const fn in_sequence(width: usize, tensor_len: usize) -> bool {
    width < PAGE && tensor_len > CACHED_TENSOR
}

/// How far ahead of a vector the first and the second cache are asked for values: a number of values for
/// each cache, or 0 if it is not asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    first: usize,
    second: usize,
}

impl Ahead {
    /// No cache is asked: the caches have the values, or the hardware reads ahead.
    pub(crate) const NOT: Self = Self { first: 0, second: 0 };

    /// For rows of a matrix that follow each other in memory.
    pub(crate) const fn in_sequence(width: usize, tensor_len: usize) -> Self {
        if in_sequence(width, tensor_len) { Self { first: 128, second: 1024 } } else { Self::NOT }
    }

    /// For some columns of a matrix, which are processed row by row: the second cache is asked for these
    /// columns of the next row.
    pub(crate) const fn next_row(width: usize, tensor_len: usize) -> Self {
        if tensor_len > CACHED_TENSOR { Self { first: 0, second: width } } else { Self::NOT }
    }

    /// Asks the second cache for the values `values` further on.
    pub(crate) const fn second(values: usize) -> Self {
        Self { first: 0, second: values }
    }

    /// Whether nothing is asked for.
    #[inline(always)]
    pub(crate) const fn is_not(self) -> bool {
        self.first == 0 && self.second == 0
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
    const ZEROS: &'static Lanes<Self>;

    fn load<S: Simd>(s: S, from: &Lanes<Self>) -> S::F32;
    /// Up to sixteen values, and +0.0 in the other lanes.
    fn load_partial<S: Simd>(s: S, from: &[Self]) -> S::F32;
    /// [`Self::load_partial`] of values that may well be sixteen.
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
    const ZEROS: &'static Lanes<Self> = &[0.0; LANES];

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

/// The formula of an elementwise pass, for one vector after the other.
pub(crate) trait EachVector<S: Simd> {
    /// Whether the pass has a second input.
    const TWO: bool;

    /// The next vector of the output, from its mask bits and from the vectors of the inputs at its
    /// place. Without a second input, `inputs` has the vector of the first input twice.
    fn next(&mut self, s: S, inputs: (S::F32, S::F32), bits: u16) -> Option<S::F32>;
}

/// The formula of an elementwise pass, for four rows of a matrix: for sixteen columns of each row, then
/// for the next sixteen.
pub(crate) trait EachFour<S: Simd> {
    /// The coefficients of sixteen columns.
    type Coefficients: Copy;
    /// Whether the pass has a second input.
    const TWO: bool;

    /// The coefficients of the next sixteen columns, or `None` after the last.
    fn next(&mut self, s: S) -> Option<Self::Coefficients>;
    /// The output of sixteen columns in row `row`, from their coefficients `of`, their mask bits and the
    /// vectors of the inputs at their place. Without a second input, `inputs` has the vector of the
    /// first input twice.
    fn of_row(&mut self, s: S, row: usize, of: &Self::Coefficients, inputs: (S::F32, S::F32), bits: u16) -> S::F32;
}

/// Two inputs of an elementwise pass. `None` stands for an input that is overwritten: its values are in
/// the tensor of the output.
type Inputs<T> = (Option<T>, Option<T>);

/// The memory of an elementwise pass beside its tensors, and the way it stores.
pub(crate) struct By<'a, T: Storage> {
    /// Room for values that are overwritten, if any are.
    pub(crate) copy: &'a mut [f32],
    /// Whether the output is written past the caches.
    pub(crate) stream: bool,
    /// Rooms for the inputs and for the output.
    #[cfg_attr(not(feature = "half-precision"), expect(dead_code, reason = "f32 is read and written where it is"))]
    pub(crate) rooms: [&'a mut T::Room; 3],
}

/// Work on a tensor whose elements are of one type.
pub(crate) trait OfOneType {
    type Output;
    fn run<E: Load>(self, tensor: &[E]) -> Self::Output;
}

/// Work on two tensors whose elements are of one type.
pub(crate) trait OfTwo<S: Simd> {
    fn run<E: Load>(self, s: S, first: &[E], second: &[E]);
}

/// A family of tensors.
pub(crate) trait Storage: Copy + Debug + Send + Sync + 'static {
    /// Whether every tensor is f32, so that kernels read and write it where it is.
    const DIRECT: bool;
    /// The number of columns that are processed together in four rows of a matrix.
    const COLUMNS: usize;
    /// A tensor that is read.
    type Ref<'a>: Copy + Debug + Send + Sync;
    /// A tensor that is written.
    type Mut<'a>: Debug + Send;
    /// The room in which the values of a piece are f32 if the tensor has them as halves.
    type Room;

    fn of<E: Element>(tensor: &[E]) -> Self::Ref<'_>;
    fn of_mut<E: Element>(tensor: &mut [E]) -> Self::Mut<'_>;
    fn room() -> Self::Room;

    fn len(tensor: Self::Ref<'_>) -> usize;
    fn len_mut(tensor: &Self::Mut<'_>) -> usize;
    /// The tensor, borrowed for a shorter time.
    fn shorter<'a: 'b, 'b>(tensor: Self::Ref<'a>) -> Self::Ref<'b>;
    fn as_ref<'b>(tensor: &'b Self::Mut<'_>) -> Self::Ref<'b>;
    fn reborrow<'b>(tensor: &'b mut Self::Mut<'_>) -> Self::Mut<'b>;
    /// Takes the first elements out of a tensor.
    fn take_front<'a>(tensor: &mut Self::Mut<'a>, len: usize) -> Self::Mut<'a>;
    /// Sets all elements to +0.0.
    fn clear(tensor: &mut Self::Mut<'_>);

    /// The value of an element; callers have checked that the tensor has it.
    fn at(tensor: Self::Ref<'_>, element: usize) -> f32;
    fn put(tensor: &mut Self::Mut<'_>, element: usize, value: f32);

    /// Some neighbours as f32, a piece at most. `place` is their start and their length.
    fn read<'b, S: Simd>(
        s: S,
        tensor: Self::Ref<'b>,
        place: (usize, usize),
        ahead: Ahead,
        room: &'b mut Self::Room,
    ) -> &'b [f32];
    /// Some columns of up to `ROWS` rows as f32, a room at most. `place` is the first element and the
    /// number of columns, `rows` is the number of rows and their width. In place of rows that are
    /// missing, the result has the first row again.
    fn read_rows<'b, S: Simd, const ROWS: usize>(
        s: S,
        tensor: Self::Ref<'b>,
        place: (usize, usize),
        rows: (usize, usize),
        ahead: Ahead,
        room: &'b mut Self::Room,
    ) -> [&'b [f32]; ROWS];
    /// The place for the new values of some neighbours. [`Self::finish`] comes after they are written.
    fn place<'b>(tensor: &'b mut Self::Mut<'_>, place: (usize, usize), room: &'b mut Self::Room) -> &'b mut [f32];
    /// Narrows the values of a piece into a tensor, past the caches if `stream`.
    fn finish<S: Simd>(s: S, stream: bool, tensor: &mut Self::Mut<'_>, place: (usize, usize), room: &Self::Room);
    /// Whether a tensor is written where it is.
    fn is_direct(tensor: &Self::Mut<'_>) -> bool;
    /// The values of some neighbours, and the place for their new values. Values that are overwritten
    /// are copied first.
    fn pair<'b, S: Simd>(
        s: S,
        tensors: (Option<Self::Ref<'b>>, &'b mut Self::Mut<'_>, usize),
        place: (usize, usize),
        ahead: Ahead,
        rooms: (&'b mut [f32], &'b mut Self::Room, &'b mut Self::Room),
    ) -> (&'b [f32], &'b mut [f32]);
    /// Puts some neighbours of the inputs through `work`, and writes the results to their places in the
    /// output. `output` is this tensor and the number of its first element. Each vector has two bytes of
    /// mask bits. `work` is taken, and put back, because a value whose address a function has is not in
    /// registers.
    fn each_vector<S: Simd>(
        s: S,
        inputs: Inputs<Self::Ref<'_>>,
        output: (&mut Self::Mut<'_>, usize),
        place: ((usize, usize), Ahead),
        by: By<'_, Self>,
        work: (&mut Option<impl EachVector<S>>, &[[u8; 2]]),
    );
    /// Whether [`Self::four_rows`] serves these tensors: it serves the f32 of [`Singles`], and tensors
    /// of one half type.
    fn has_four_rows(inputs: [Self::Ref<'_>; 2], output: &Self::Mut<'_>) -> bool;
    /// Puts whole vectors of four rows of a matrix through `work`, from the inputs into the output, past
    /// the caches. `output` is this tensor and the number of its first element. Each vector of each row
    /// has sixteen mask bits.
    fn four_rows<S: Simd>(
        s: S,
        inputs: [Self::Ref<'_>; 2],
        output: (&mut Self::Mut<'_>, usize),
        rows: RowBlock,
        work: (impl EachFour<S>, &FourBits),
    );
    /// Asks the caches for values ahead of some neighbours.
    fn prefetch<S: Simd>(s: S, tensor: Self::Ref<'_>, place: (usize, usize), ahead: Ahead);
    /// Runs work on a tensor.
    fn of_one_type<W: OfOneType>(tensor: Self::Ref<'_>, work: W) -> W::Output;

    /// Runs work on two tensors of one type, and returns whether it did. It does not if the types
    /// differ; `Mixed` does not if both tensors are f32 either.
    fn of_two<S: Simd>(s: S, tensors: [Self::Ref<'_>; 2], work: impl OfTwo<S>) -> bool;

    /// Copies the input into the output, if a call channel by channel works in place from there on.
    fn begin(input: Option<Self::Ref<'_>>, output: &mut Self::Mut<'_>);
    /// The input, if it is still read after [`Self::begin`]; `None` if `begin` copies it.
    fn left<'a>(input: Option<Self::Ref<'a>>) -> Option<Self::Ref<'a>>;
    /// Puts one value through `change` into the output. The value comes from the input, if there is one,
    /// otherwise from the output.
    fn change(
        input: Option<Self::Ref<'_>>,
        output: &mut Self::Mut<'_>,
        element: usize,
        change: impl FnOnce(f32) -> f32,
    );
    /// The whole tensor, if every tensor of the family is f32.
    fn all_singles<'b>(tensor: Self::Ref<'b>) -> Option<&'b [f32]>;
    /// The whole output, if every tensor of the family is f32.
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
                copy_values(write, copy);
                copy
            }
        };
        (read, write)
    }

    #[inline(always)]
    fn each_vector<S: Simd>(
        s: S,
        inputs: Inputs<&[f32]>,
        (output, base): (&mut &mut [f32], usize),
        ((start, len), ahead): ((usize, usize), Ahead),
        By { copy, stream, .. }: By<'_, Self>,
        work: (&mut Option<impl EachVector<S>>, &[[u8; 2]]),
    ) {
        let of_place =
            (inputs.0.map(|tensor| range(tensor, start, len)), inputs.1.map(|tensor| range(tensor, start, len)));
        let each =
            EachSingle { inputs: of_place, output: range_mut(output, start - base, len), ahead, copy, stream, work };
        if cfg!(debug_assertions) { s.apart(each) } else { each.run(s) }
    }

    #[inline(always)]
    fn has_four_rows(_: [&[f32]; 2], _: &&mut [f32]) -> bool {
        true
    }

    #[inline(always)]
    fn four_rows<S: Simd>(
        s: S,
        inputs: [&[f32]; 2],
        (output, base): (&mut &mut [f32], usize),
        rows: RowBlock,
        (work, bits): (impl EachFour<S>, &FourBits),
    ) {
        four_singles(s, [rows.array_of(inputs[0]), rows.array_of(inputs[1])], (output, base), rows, (work, bits));
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
    fn of_two<S: Simd>(s: S, [first, second]: [&[f32]; 2], work: impl OfTwo<S>) -> bool {
        work.run(s, first, second);
        true
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
    fn all_singles<'b>(tensor: Self::Ref<'b>) -> Option<&'b [f32]> {
        Some(tensor)
    }

    #[inline(always)]
    fn singles<'b>(tensor: &'b mut &mut [f32]) -> Option<&'b mut [f32]> {
        Some(tensor)
    }
}

/// [`Storage::each_vector`] of f32. With [`Singles`] it is part of the loop over pieces, except in a
/// debug build, where each vector of a function has a place of its own on the stack.
pub(crate) struct EachSingle<'a, 'b, W> {
    pub(crate) inputs: Inputs<&'a [f32]>,
    pub(crate) output: &'a mut [f32],
    pub(crate) ahead: Ahead,
    pub(crate) copy: &'a mut [f32],
    pub(crate) stream: bool,
    pub(crate) work: (&'a mut Option<W>, &'b [[u8; 2]]),
}

impl<S: Simd, W: EachVector<S>> Work<S> for EachSingle<'_, '_, W> {
    #[inline(always)]
    fn run(self, s: S) {
        each_single(s, self);
    }
}

/// The loops of [`EachSingle`].
#[inline(always)]
fn each_single<S: Simd, W: EachVector<S>>(s: S, each: EachSingle<'_, '_, W>) {
    let EachSingle { inputs, output, ahead, copy, stream, work: (of_caller, bits) } = each;
    let Some(mut work) = of_caller.take() else { return };
    let (in_place, len) = ((inputs.0.is_none(), inputs.1.is_none()), output.len());
    if in_place.0 || in_place.1 {
        copy_values(output, copy);
    }
    let copy = copy.get(..len).unwrap_or_default();
    let (first, second) = (inputs.0.unwrap_or(copy), inputs.1.unwrap_or(copy));
    let ((first, first_rest), (second, second_rest)) = (first.as_chunks(), second.as_chunks());
    let (output, output_rest) = output.as_chunks_mut();
    let (last, vectors) = (bits.get(output.len()), first.iter().zip(second).zip(output).zip(bits));
    // The second loop alone would do. A debug build has only this one, and so has a backend with long loops.
    let optimised = !cfg!(debug_assertions) && !S::LEAN;
    if optimised && !stream && ahead.is_not() {
        // Tensors in the caches, where each instruction of the loop counts.
        for (((first, second), to), &bits) in vectors {
            let Some(value) = work.next(s, (s.load(first), s.load(second)), u16::from_le_bytes(bits)) else { break };
            s.store(value, to);
        }
    } else {
        for (((first, second), to), &bits) in vectors {
            ahead.prefetch(s, if in_place.0 { &*to } else { first });
            if W::TWO {
                ahead.prefetch(s, if in_place.1 { &*to } else { second });
            }
            let Some(value) = work.next(s, (s.load(first), s.load(second)), u16::from_le_bytes(bits)) else { break };
            if stream { s.stream(value, to) } else { s.store(value, to) }
        }
    }
    // If there is no rest, `work` takes no coefficients: the next ones are for the beginning of the next
    // piece.
    if let (false, Some(&bits)) = (output_rest.is_empty(), last)
        && let Some(value) =
            work.next(s, (s.load_partial(first_rest), s.load_partial(second_rest)), u16::from_le_bytes(bits))
    {
        s.store_partial(value, output_rest);
    }
    *of_caller = Some(work);
}

/// [`Storage::four_rows`] of f32.
#[inline(always)]
fn four_singles<S: Simd, W: EachFour<S>>(
    s: S,
    [first, second]: [[&[f32]; 4]; 2],
    (output, base): (&mut [f32], usize),
    rows: RowBlock,
    (mut work, bits): (W, &FourBits),
) {
    let ((first, _), (second, _)) = (whole_vectors(first), whole_vectors(second));
    let [a, b, c, d] = rows.four_rows_mut(output, base);
    let (a, b, c, d) = (a.as_chunks_mut().0, b.as_chunks_mut().0, c.as_chunks_mut().0, d.as_chunks_mut().0);
    let output = a.iter_mut().zip(b).zip(c.iter_mut().zip(d));
    for (((first, second), ((a, b), (c, d))), bits) in
        four_rows(first).zip(four_rows(second)).zip(output).zip(each_four(bits))
    {
        let Some(of) = work.next(s) else { break };
        // All vectors are loaded before any is stored.
        let first = load_four(s, first);
        let second = if W::TWO { load_four(s, second) } else { first };
        s.stream(work.of_row(s, 0, &of, (first[0], second[0]), bits[0]), a);
        s.stream(work.of_row(s, 1, &of, (first[1], second[1]), bits[1]), b);
        s.stream(work.of_row(s, 2, &of, (first[2], second[2]), bits[2]), c);
        s.stream(work.of_row(s, 3, &of, (first[3], second[3]), bits[3]), d);
    }
}

/// Four rows, an item of each at a time. Zips of zips keep one position for all rows.
#[inline(always)]
pub(crate) fn four_rows<T>([a, b, c, d]: [&[T]; 4]) -> impl Iterator<Item = [&T; 4]> {
    a.iter().zip(b).zip(c.iter().zip(d)).map(|((a, b), (c, d))| [a, b, c, d])
}

/// A vector of each of four rows. They are written out, because `map` and an iterator of an array would
/// move the vectors through memory.
#[inline(always)]
pub(crate) fn load_four<S: Simd, E: Load>(s: S, [a, b, c, d]: [&Lanes<E>; 4]) -> [S::F32; 4] {
    [E::load(s, a), E::load(s, b), E::load(s, c), E::load(s, d)]
}

/// The whole vectors of some rows, and the rest of each row.
#[inline(always)]
pub(crate) fn whole_vectors<T, const ROWS: usize>(rows: [&[T]; ROWS]) -> ([&[Lanes<T>]; ROWS], [&[T]; ROWS]) {
    let (mut whole, mut rest) = ([&[][..]; ROWS], [&[][..]; ROWS]);
    // A loop, because `map` is a function of its own in kernels.
    for ((whole, rest), row) in whole.iter_mut().zip(&mut rest).zip(rows) {
        (*whole, *rest) = row.as_chunks();
    }
    (whole, rest)
}

/// Some columns of up to `ROWS` rows: see [`Storage::read_rows`].
#[inline(always)]
pub(crate) fn rows_of<E, const ROWS: usize>(
    tensor: &[E],
    (first, columns): (usize, usize),
    (rows, width): (usize, usize),
) -> [&[E]; ROWS] {
    let mut array = [range(tensor, first, columns); ROWS];
    for (number, row) in array.iter_mut().enumerate().skip(1) {
        if number < rows {
            *row = range(tensor, first + number * width, columns);
        }
    }
    array
}
