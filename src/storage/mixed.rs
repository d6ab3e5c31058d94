//! Tensors whose types are known at run time, and the one place where halves are read and written.
//! Only with the feature `half-precision`.

use super::{
    Ahead, AlignedPiece, By, EachFour, EachSingle, EachVector, Inputs, Load, OfOneType, OfTwo, PIECE, Singles, Storage,
    four_rows, load_four, rows_of, whole_vectors,
};
use crate::bits::{BITS, FourBits};
use crate::element::{Bf16, Element, F16, Half, Values, ValuesMut};
use crate::simd::{LANES, Lanes, Simd, Work};
use crate::slices::{copy_values, range, range_mut, take_front};
use crate::walk::RowBlock;

/// A half that is narrowed from lanes of f32.
trait Store: Load + Half {
    fn narrow<S: Simd>(s: S, value: S::F32) -> S::Halves;
    fn narrow_two<S: Simd>(s: S, values: [S::F32; 2]) -> [S::Halves; 2];
    fn of_single(value: f32) -> Self;
    /// A tensor, if it is of this type.
    fn of_values(values: Values<'_>) -> Option<&[Self]>;
    /// Some neighbours of a tensor; `None` if there is no tensor, or if it is of another type.
    #[inline(always)]
    fn input(values: Option<Values<'_>>, (start, len): (usize, usize)) -> Option<&[Self]> {
        Some(range(Self::of_values(values?)?, start, len))
    }
}

/// Implements the conversions of a half.
macro_rules! load {
    ($half:ident, $widen:ident, $narrow:ident, $narrow_two:ident) => {
        impl Load for $half {
            const ZEROS: &'static Lanes<Self> = &[Self::ZERO; LANES];

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
            fn narrow_two<S: Simd>(s: S, values: [S::F32; 2]) -> [S::Halves; 2] {
                s.$narrow_two(values)
            }

            #[inline(always)]
            fn of_single(value: f32) -> Self {
                Self::from_f32(value)
            }

            #[inline(always)]
            fn of_values(values: Values<'_>) -> Option<&[Self]> {
                match values {
                    Values::$half(values) => Some(values),
                    _ => None,
                }
            }
        }
    };
}

load!(F16, widen_f16, narrow_f16, narrow_two_f16);
load!(Bf16, widen_bf16, narrow_bf16, narrow_two_bf16);

/// Tensors of any types.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mixed;

/// The number of columns of four rows for which a room has place.
const ROOM_COLUMNS: usize = PIECE / 4;

/// The expression `$result`, for each type of a tensor. `$name` is the slice of its values.
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
    /// Made when it is first needed: to clear it takes longer than a small call.
    type Room = Option<AlignedPiece>;

    #[inline(always)]
    fn of<E: Element>(tensor: &[E]) -> Values<'_> {
        E::values(tensor)
    }

    #[inline(always)]
    fn of_mut<E: Element>(tensor: &mut [E]) -> ValuesMut<'_> {
        E::values_mut(tensor)
    }

    #[inline(always)]
    fn room() -> Self::Room {
        None
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
        room: &'b mut Self::Room,
    ) -> &'b [f32] {
        match tensor {
            Values::F32(values) => {
                Singles::prefetch(s, values, (start, len), ahead);
                range(values, start, len)
            }
            Values::F16(values) => widened(s, range(values, start, len), ahead, room),
            Values::Bf16(values) => widened(s, range(values, start, len), ahead, room),
        }
    }

    #[inline(always)]
    fn read_rows<'b, S: Simd, const ROWS: usize>(
        s: S,
        tensor: Values<'b>,
        (first, columns): (usize, usize),
        (rows, width): (usize, usize),
        ahead: Ahead,
        room: &'b mut Self::Room,
    ) -> [&'b [f32]; ROWS] {
        if let Values::F32(values) = tensor {
            for row in 0..rows.min(ROWS) {
                Singles::prefetch(s, values, (first + row * width, columns), ahead);
            }
            return rows_of(values, (first, columns), (rows, width));
        }
        let all = cleared(room).as_chunks_mut::<ROOM_COLUMNS>().0;
        for (row, to) in all.iter_mut().enumerate().take(rows.min(ROWS)) {
            let (start, to) = (first + row * width, &mut to[..]);
            match tensor {
                Values::F32(_) => {}
                Values::F16(values) => s.apart(Widen { from: range(values, start, columns), to, ahead }),
                Values::Bf16(values) => s.apart(Widen { from: range(values, start, columns), to, ahead }),
            }
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
        room: &'b mut Self::Room,
    ) -> &'b mut [f32] {
        match tensor {
            ValuesMut::F32(values) => range_mut(values, start, len),
            ValuesMut::F16(_) | ValuesMut::Bf16(_) => cleared(room).get_mut(..len).unwrap_or_default(),
        }
    }

    #[inline(always)]
    fn finish<S: Simd>(
        s: S,
        stream: bool,
        tensor: &mut ValuesMut<'_>,
        (start, len): (usize, usize),
        room: &Self::Room,
    ) {
        let Some(room) = room else { return };
        match tensor {
            ValuesMut::F32(_) => {}
            ValuesMut::F16(values) => s.apart(Narrow { from: &room.0, to: range_mut(values, start, len), stream }),
            ValuesMut::Bf16(values) => s.apart(Narrow { from: &room.0, to: range_mut(values, start, len), stream }),
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
        (copy, read_room, write_room): (&'b mut [f32], &'b mut Self::Room, &'b mut Self::Room),
    ) -> (&'b [f32], &'b mut [f32]) {
        let at = (start - base, len);
        let read = match (read, &*write) {
            (Some(read), _) => Self::read(s, read, (start, len), ahead, read_room),
            (None, ValuesMut::F32(values)) => {
                let copy = copy.get_mut(..len).unwrap_or_default();
                copy_values(range(values, at.0, len), copy);
                copy
            }
            (None, ValuesMut::F16(values)) => widened(s, range(values, at.0, len), ahead, read_room),
            (None, ValuesMut::Bf16(values)) => widened(s, range(values, at.0, len), ahead, read_room),
        };
        (read, Self::place(write, at, write_room))
    }

    #[inline(always)]
    fn each_vector<S: Simd>(
        s: S,
        inputs: Inputs<Values<'_>>,
        (output, base): (&mut ValuesMut<'_>, usize),
        (place, ahead): ((usize, usize), Ahead),
        By { copy, stream, rooms: [first, second, write] }: By<'_, Self>,
        (work, bits): (&mut Option<impl EachVector<S>>, &[[u8; 2]]),
    ) {
        let at = (place.0 - base, place.1);
        let halves = match output {
            ValuesMut::F32(_) => false,
            ValuesMut::F16(values) => each_half(s, inputs, (values, at), (place, ahead), stream, (&mut *work, bits)),
            ValuesMut::Bf16(values) => each_half(s, inputs, (values, at), (place, ahead), stream, (&mut *work, bits)),
        };
        if halves {
            return;
        }
        let first = input(s, inputs.0, (&*output, at), (place, ahead), first);
        let second = input(s, inputs.1, (&*output, at), (place, ahead), second);
        let stream_single = stream && Self::is_direct(output);
        let output_single = Self::place(output, at, write);
        s.apart(EachSingle {
            inputs: (first, second),
            output: output_single,
            ahead: Ahead::NOT,
            copy,
            stream: stream_single,
            work: (work, bits),
        });
        Self::finish(s, stream, output, at, write);
    }

    #[inline(always)]
    fn has_four_rows(inputs: [Values<'_>; 2], output: &ValuesMut<'_>) -> bool {
        matches!(
            (inputs, output),
            ([Values::F16(_), Values::F16(_)], ValuesMut::F16(_))
                | ([Values::Bf16(_), Values::Bf16(_)], ValuesMut::Bf16(_))
        )
    }

    #[inline(always)]
    fn four_rows<S: Simd>(
        s: S,
        [first, second]: [Values<'_>; 2],
        (output, base): (&mut ValuesMut<'_>, usize),
        rows: RowBlock,
        work: (impl EachFour<S>, &FourBits),
    ) {
        match (first, second, output) {
            (Values::F16(first), Values::F16(second), ValuesMut::F16(output)) => {
                s.apart(FourHalves { inputs: [first, second], output, base, rows, work });
            }
            (Values::Bf16(first), Values::Bf16(second), ValuesMut::Bf16(output)) => {
                s.apart(FourHalves { inputs: [first, second], output, base, rows, work });
            }
            _ => debug_assert!(false, "four rows of several types"),
        }
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

    /// Two tensors of f32 are left to the caller, because [`Storage::read`] gives them where they are,
    /// without a room.
    #[inline(always)]
    fn of_two<S: Simd>(s: S, tensors: [Values<'_>; 2], work: impl OfTwo<S>) -> bool {
        match tensors {
            [Values::F16(first), Values::F16(second)] => s.apart(Both { first, second, work }),
            [Values::Bf16(first), Values::Bf16(second)] => s.apart(Both { first, second, work }),
            _ => return false,
        }
        true
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
    fn all_singles<'b>(_: Self::Ref<'b>) -> Option<&'b [f32]> {
        None
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

/// Work on two tensors of one type.
struct Both<'a, H, W> {
    first: &'a [H],
    second: &'a [H],
    work: W,
}

impl<S: Simd, H: Load, W: OfTwo<S>> Work<S> for Both<'_, H, W> {
    #[inline(always)]
    fn run(self, s: S) {
        self.work.run(s, self.first, self.second);
    }
}

/// An input of [`Storage::each_vector`] as f32; `None` if it is overwritten and f32.
#[inline(always)]
fn input<'b, S: Simd>(
    s: S,
    tensor: Option<Values<'b>>,
    (output, (start, len)): (&ValuesMut<'_>, (usize, usize)),
    (place, ahead): ((usize, usize), Ahead),
    room: &'b mut Option<AlignedPiece>,
) -> Option<&'b [f32]> {
    match (tensor, output) {
        (Some(tensor), _) => Some(Mixed::read(s, tensor, place, ahead, room)),
        (None, ValuesMut::F32(_)) => None,
        (None, ValuesMut::F16(values)) => Some(widened(s, range(values, start, len), ahead, room)),
        (None, ValuesMut::Bf16(values)) => Some(widened(s, range(values, start, len), ahead, room)),
    }
}

/// [`Storage::each_vector`] for an output of the half type `H`, if the inputs are of this type, too.
/// Returns whether they are.
#[inline(always)]
fn each_half<S: Simd, H: Store>(
    s: S,
    inputs: Inputs<Values<'_>>,
    (output, at): (&mut [H], (usize, usize)),
    (place, ahead): ((usize, usize), Ahead),
    stream: bool,
    (work, bits): (&mut Option<impl EachVector<S>>, &[[u8; 2]]),
) -> bool {
    let of_type = (H::input(inputs.0, place), H::input(inputs.1, place));
    if of_type.0.is_some() != inputs.0.is_some() || of_type.1.is_some() != inputs.1.is_some() {
        return false;
    }
    let each = EachHalf { inputs: of_type, output: range_mut(output, at.0, at.1), ahead, stream, work, bits };
    // Inlined: the state of a function of its own goes through memory for each piece. A debug build would need more stack.
    if cfg!(debug_assertions) {
        s.apart(each);
    } else {
        each.run(s);
    }
    true
}

/// Stores two vectors of halves, past the caches if `stream`.
#[inline(always)]
fn put_two<S: Simd, H: Half>(s: S, stream: bool, [first, second]: [S::Halves; 2], to: &mut [Lanes<H>; 2]) {
    if stream {
        return s.stream_halves([first, second], to);
    }
    let [to_first, to_second] = to;
    s.store_halves(first, to_first);
    s.store_halves(second, to_second);
}

/// [`Storage::each_vector`] of one half type: some neighbours of two inputs and of the output.
struct EachHalf<'a, H, W> {
    inputs: Inputs<&'a [H]>,
    output: &'a mut [H],
    ahead: Ahead,
    stream: bool,
    work: &'a mut Option<W>,
    bits: &'a [[u8; 2]],
}

impl<S: Simd, H: Store, W: EachVector<S>> Work<S> for EachHalf<'_, H, W> {
    #[inline(always)]
    fn run(self, s: S) {
        self.each_vector(s);
    }
}

impl<H: Store, W> EachHalf<'_, H, W> {
    #[inline(always)]
    fn each_vector<S: Simd>(self, s: S)
    where
        W: EachVector<S>,
    {
        let Self { inputs, output, ahead, stream, work, bits } = self;
        let Some(mut this) = work.take() else { return };
        let mut room;
        let copy: &[H] = if inputs.0.is_none() || inputs.1.is_none() {
            room = [*H::ZEROS; BITS];
            copy_values(output, room.as_flattened_mut());
            room.as_flattened().get(..output.len()).unwrap_or_default()
        } else {
            &[]
        };
        let (first, second) = (inputs.0.unwrap_or(copy), inputs.1.unwrap_or(copy));
        let (first, first_rest) = first.as_chunks::<LANES>();
        let (second, second_rest) = second.as_chunks::<LANES>();
        let (output, output_rest) = output.as_chunks_mut::<LANES>();
        // Two vectors of halves are a cache line.
        let (firsts, first_last) = first.as_chunks();
        let (seconds, second_last) = second.as_chunks();
        let (outputs, output_last) = output.as_chunks_mut();
        let (pairs, mut rest) = (bits.as_chunks().0, bits.get(2 * firsts.len()..).unwrap_or_default().iter());
        for ((([a, b], [c, d]), to), &[bits_a, bits_b]) in firsts.iter().zip(seconds).zip(outputs).zip(pairs) {
            if !ahead.is_not() {
                ahead.prefetch(s, a);
                if W::TWO {
                    ahead.prefetch(s, c);
                }
            }
            let Some(one) = this.next(s, (H::load(s, a), H::load(s, c)), u16::from_le_bytes(bits_a)) else { break };
            let Some(other) = this.next(s, (H::load(s, b), H::load(s, d)), u16::from_le_bytes(bits_b)) else { break };
            let pair = H::narrow_two(s, [one, other]);
            put_two(s, stream, pair, to);
        }
        for (((a, c), to), &bits) in first_last.iter().zip(second_last).zip(output_last).zip(rest.by_ref()) {
            let Some(one) = this.next(s, (H::load(s, a), H::load(s, c)), u16::from_le_bytes(bits)) else { break };
            s.store_halves(H::narrow(s, one), to);
        }
        if let (false, Some(&bits)) = (output_rest.is_empty(), rest.next())
            && let Some(one) = this.next(
                s,
                (H::load_partial(s, first_rest), H::load_partial(s, second_rest)),
                u16::from_le_bytes(bits),
            )
        {
            s.store_partial_halves(H::narrow(s, one), output_rest);
        }
        *work = Some(this);
    }
}

/// [`Storage::four_rows`] of one half type.
struct FourHalves<'a, 'b, H, W> {
    inputs: [&'a [H]; 2],
    output: &'a mut [H],
    base: usize,
    rows: RowBlock,
    work: (W, &'b FourBits),
}

impl<S: Simd, H: Store, W: EachFour<S>> Work<S> for FourHalves<'_, '_, H, W> {
    #[inline(always)]
    fn run(self, s: S) {
        self.each_four(s);
    }
}

impl<H: Store, W> FourHalves<'_, '_, H, W> {
    #[inline(always)]
    fn each_four<S: Simd>(self, s: S)
    where
        W: EachFour<S>,
    {
        let Self { inputs: [first, second], output, base, rows, work: (mut work, bits) } = self;
        let ((first, _), (second, _)) = (whole_vectors(rows.array_of(first)), whole_vectors(rows.array_of(second)));
        let [a, b, c, d] = rows.four_rows_mut(output, base);
        let (a, b, c, d) = (a.as_chunks_mut().0, b.as_chunks_mut().0, c.as_chunks_mut().0, d.as_chunks_mut().0);
        // Two vectors of halves are a cache line.
        let (firsts, first_last) = (first.map(|row| row.as_chunks().0), first.map(|row| row.as_chunks::<2>().1));
        let (seconds, second_last) = (second.map(|row| row.as_chunks().0), second.map(|row| row.as_chunks::<2>().1));
        let ((a, a_last), (b, b_last)) = (a.as_chunks_mut(), b.as_chunks_mut());
        let ((c, c_last), (d, d_last)) = (c.as_chunks_mut(), d.as_chunks_mut());
        let bits_last = bits.each_ref().map(|row| row.get(2 * firsts[0].len()..).unwrap_or_default());
        let pairs = bits.each_ref().map(|row| row.as_chunks().0);
        let outputs = a.iter_mut().zip(b).zip(c.iter_mut().zip(d));
        for (((first, second), ((a, b), (c, d))), bits) in
            four_rows(firsts).zip(four_rows(seconds)).zip(outputs).zip(four_rows(pairs))
        {
            let (Some(one), Some(other)) = (&work.next(s), &work.next(s)) else { return };
            // All vectors are loaded before any is stored.
            let x = [load_four(s, vectors(first, 0)), load_four(s, vectors(first, 1))];
            let dy = if W::TWO { [load_four(s, vectors(second, 0)), load_four(s, vectors(second, 1))] } else { x };
            two_of_row(s, (&mut work, 0, [one, other]), ([x[0][0], x[1][0]], [dy[0][0], dy[1][0]]), bits[0], a);
            two_of_row(s, (&mut work, 1, [one, other]), ([x[0][1], x[1][1]], [dy[0][1], dy[1][1]]), bits[1], b);
            two_of_row(s, (&mut work, 2, [one, other]), ([x[0][2], x[1][2]], [dy[0][2], dy[1][2]]), bits[2], c);
            two_of_row(s, (&mut work, 3, [one, other]), ([x[0][3], x[1][3]], [dy[0][3], dy[1][3]]), bits[3], d);
        }
        // One vector of each row at most.
        let outputs = a_last.iter_mut().zip(b_last).zip(c_last.iter_mut().zip(d_last));
        for (((first, second), ((a, b), (c, d))), bits) in
            four_rows(first_last).zip(four_rows(second_last)).zip(outputs).zip(four_rows(bits_last))
        {
            let Some(of) = &work.next(s) else { return };
            one_of_row(s, (&mut work, 0, of), (first[0], second[0], *bits[0]), a);
            one_of_row(s, (&mut work, 1, of), (first[1], second[1], *bits[1]), b);
            one_of_row(s, (&mut work, 2, of), (first[2], second[2], *bits[2]), c);
            one_of_row(s, (&mut work, 3, of), (first[3], second[3], *bits[3]), d);
        }
    }
}

/// Vector `number` of each of four rows of two vectors.
#[inline(always)]
fn vectors<H>(rows: [&[Lanes<H>; 2]; 4], number: usize) -> [&Lanes<H>; 4] {
    [&rows[0][number % 2], &rows[1][number % 2], &rows[2][number % 2], &rows[3][number % 2]]
}

/// Writes two vectors of row `row` of four rows, past the caches.
#[inline(always)]
fn two_of_row<S: Simd, H: Store, W: EachFour<S>>(
    s: S,
    (work, row, of): (&mut W, usize, [&W::Coefficients; 2]),
    (first, second): ([S::F32; 2], [S::F32; 2]),
    bits: &[u16; 2],
    to: &mut [Lanes<H>; 2],
) {
    let one = work.of_row(s, row, of[0], (first[0], second[0]), bits[0]);
    let other = work.of_row(s, row, of[1], (first[1], second[1]), bits[1]);
    put_two(s, true, H::narrow_two(s, [one, other]), to);
}

/// Writes one vector of row `row` of four rows.
#[inline(always)]
fn one_of_row<S: Simd, H: Store, W: EachFour<S>>(
    s: S,
    (work, row, of): (&mut W, usize, &W::Coefficients),
    (first, second, bits): (&Lanes<H>, &Lanes<H>, u16),
    to: &mut Lanes<H>,
) {
    let one = work.of_row(s, row, of, (H::load(s, first), H::load(s, second)), bits);
    s.store_halves(H::narrow(s, one), to);
}

/// The values of a room, which is made if it was not there.
#[inline(always)]
fn cleared(room: &mut Option<AlignedPiece>) -> &mut [f32; PIECE] {
    &mut room.get_or_insert_with(AlignedPiece::zeros).0
}

/// Some neighbours, widened into a room.
#[inline(always)]
fn widened<'b, S: Simd, H: Store>(s: S, from: &[H], ahead: Ahead, room: &'b mut Option<AlignedPiece>) -> &'b [f32] {
    let room = cleared(room);
    s.apart(Widen { from, to: &mut *room, ahead });
    room.get(..from.len()).unwrap_or_default()
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
            let pair = H::narrow_two(s, [s.load(first), s.load(second)]);
            put_two(s, stream, pair, to);
        }
        // `zip` asks `last` first, so that the end of `last` does not take the vector of `from` that is
        // for `rest`.
        let mut from = from.iter();
        for (to, from) in last.iter_mut().zip(from.by_ref()) {
            s.store_halves(H::narrow(s, s.load(from)), to);
        }
        if let (false, Some(from)) = (rest.is_empty(), from.next()) {
            s.store_partial_halves(H::narrow(s, s.load(from)), rest);
        }
    }
}
