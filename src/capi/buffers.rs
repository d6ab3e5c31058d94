//! From pointers to slices. Every buffer of a call is checked, by itself and against the other
//! buffers, before a slice of any buffer exists.
#![expect(unsafe_code, reason = "slices from a caller's pointers")]

use core::ptr::NonNull;

#[cfg(feature = "half-precision")]
use crate::element::{Bf16, F16, Values, ValuesMut};
#[cfg(feature = "half-precision")]
pub(super) use crate::storage::Mixed as Tensors;
#[cfg(not(feature = "half-precision"))]
pub(super) use crate::storage::Singles as Tensors;
use crate::storage::Storage;

/// A tensor of floats or of halves that is read.
pub(super) type Read<'a> = <Tensors as Storage>::Ref<'a>;
/// A tensor of floats or of halves that is written.
pub(super) type Write<'a> = <Tensors as Storage>::Mut<'a>;

use super::types::{
    NORMDROP_ABI_VERSION, NORMDROP_BUFFER_NONE, NORMDROP_ELEMENT_BF16, NORMDROP_ELEMENT_F16, NORMDROP_STATUS_ALIGNMENT,
    NORMDROP_STATUS_ELEMENT, NORMDROP_STATUS_NULL, NORMDROP_STATUS_OVERLAP, NORMDROP_STATUS_SIZE,
    NORMDROP_STATUS_TWO_BUFFERS, NORMDROP_STATUS_VERSION, normdrop_apply_call, normdrop_apply_gradient_call,
    normdrop_backward_call, normdrop_buffer, normdrop_element, normdrop_error, normdrop_eval_call,
    normdrop_finish_call, normdrop_fold_call, normdrop_halves, normdrop_halves_mut, normdrop_keep, normdrop_layer,
    normdrop_lengths, normdrop_masked, normdrop_noise, normdrop_prepare_call, normdrop_reduce_call, normdrop_slice,
    normdrop_slice_mut, normdrop_status, normdrop_stored, normdrop_train_call,
};

impl normdrop_error {
    pub(super) const fn new(status: normdrop_status) -> Self {
        Self {
            version: NORMDROP_ABI_VERSION,
            status,
            buffer: NORMDROP_BUFFER_NONE,
            other: NORMDROP_BUFFER_NONE,
            expected: 0,
            actual: 0,
            value: 0.0,
        }
    }

    pub(super) const fn of(self, buffer: normdrop_buffer) -> Self {
        Self { buffer, ..self }
    }

    pub(super) const fn counts(self, expected: usize, actual: usize) -> Self {
        Self { expected, actual, ..self }
    }
}

/// A struct that begins with its version, a `u32`.
///
/// # Safety
/// The struct is `repr(C)`, its first field is the version, and every bit pattern is a value of it.
pub(super) unsafe trait Versioned {}

// SAFETY: see their definitions; pointers, integers and floats take every bit pattern.
unsafe impl Versioned for normdrop_error {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_layer {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_lengths {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_keep {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_train_call {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_eval_call {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_prepare_call {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_backward_call {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_finish_call {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_apply_call {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_reduce_call {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_apply_gradient_call {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_fold_call {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_noise {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_stored {}
// SAFETY: as above.
unsafe impl Versioned for normdrop_masked {}

/// Checks that a struct can be read or written as a `T`, and that this library knows its version.
///
/// # Safety
/// If it is not null and is aligned, `pointer` points to a `u32`, and if that is a known version,
/// to a whole `T`.
pub(super) unsafe fn check_struct<T: Versioned>(
    pointer: *const T,
    buffer: normdrop_buffer,
) -> Result<(), normdrop_error> {
    check_pointer(pointer, buffer)?;
    // SAFETY: not null and aligned; the caller promises that the version can be read.
    let version = unsafe { pointer.cast::<u32>().read() };
    if version != NORMDROP_ABI_VERSION {
        let versions = (NORMDROP_ABI_VERSION as usize, version as usize);
        return Err(normdrop_error::new(NORMDROP_STATUS_VERSION).of(buffer).counts(versions.0, versions.1));
    }
    Ok(())
}

/// A copy of a struct of the caller.
///
/// # Safety
/// As [`check_struct`].
pub(super) unsafe fn read_struct<T: Versioned>(
    pointer: *const T,
    buffer: normdrop_buffer,
) -> Result<T, normdrop_error> {
    // SAFETY: passed on; the check says that the struct can be read, and the trait that any bits
    // are a value. The struct owns nothing, so that a copy does no harm.
    unsafe {
        check_struct(pointer, buffer)?;
        Ok(pointer.read())
    }
}

/// Checks that a pointer is not null and is aligned.
pub(super) fn check_pointer<T>(pointer: *const T, buffer: normdrop_buffer) -> Result<(), normdrop_error> {
    if pointer.is_null() {
        return Err(normdrop_error::new(NORMDROP_STATUS_NULL).of(buffer));
    }
    check_alignment(pointer, buffer)
}

fn check_alignment<T>(pointer: *const T, buffer: normdrop_buffer) -> Result<(), normdrop_error> {
    if pointer.is_aligned() {
        return Ok(());
    }
    let off = pointer.addr() & (align_of::<T>() - 1);
    Err(normdrop_error::new(NORMDROP_STATUS_ALIGNMENT).of(buffer).counts(align_of::<T>(), off))
}

/// The memory of a buffer that can be a slice, as far as this buffer alone is concerned.
#[derive(Clone, Copy)]
pub(super) struct Region {
    buffer: normdrop_buffer,
    start: usize,
    /// The first address after the memory.
    end: usize,
    written: bool,
}

impl Region {
    /// No memory, which overlaps nothing.
    pub(super) const NONE: Self = Self { buffer: NORMDROP_BUFFER_NONE, start: 0, end: 0, written: false };

    fn new<T>(values: *const T, len: usize, buffer: normdrop_buffer, written: bool) -> Result<Self, normdrop_error> {
        if values.is_null() {
            return if len == 0 {
                Ok(Self::NONE)
            } else {
                Err(normdrop_error::new(NORMDROP_STATUS_NULL).of(buffer).counts(len, 0))
            };
        }
        check_alignment(values, buffer)?;
        // A slice must have at most `isize::MAX` bytes, none of them past the end of the address
        // space.
        let most = isize::MAX.unsigned_abs() / size_of::<T>();
        let start = values.addr();
        let end = if len <= most { start.checked_add(len * size_of::<T>()) } else { None };
        match end {
            Some(end) => Ok(Self { buffer, start, end, written }),
            None => Err(normdrop_error::new(NORMDROP_STATUS_SIZE).of(buffer).counts(most, len)),
        }
    }

    const fn overlaps(&self, other: &Self) -> bool {
        self.start < self.end && other.start < other.end && self.start < other.end && other.start < self.end
    }
}

/// Checks that no buffer which a call writes shares memory with any other buffer of the call.
pub(super) fn check_apart(regions: &[Region]) -> Result<(), normdrop_error> {
    let mut rest = regions;
    while let Some((region, others)) = rest.split_first() {
        check_apart_from(region, others)?;
        rest = others;
    }
    Ok(())
}

/// Checks that a buffer shares no memory with any other buffer, unless the call writes neither of the two.
pub(super) fn check_apart_from(region: &Region, others: &[Region]) -> Result<(), normdrop_error> {
    for other in others {
        if (region.written || other.written) && region.overlaps(other) {
            let (buffer, other) =
                if region.written { (region.buffer, other.buffer) } else { (other.buffer, region.buffer) };
            return Err(normdrop_error { other, ..normdrop_error::new(NORMDROP_STATUS_OVERLAP).of(buffer) });
        }
    }
    Ok(())
}

/// The value types that C has too. Every bit pattern is a value.
pub(super) trait Number {}
impl Number for f32 {}
impl Number for u16 {}
impl Number for f64 {}
impl Number for u64 {}
impl Number for u8 {}
impl Number for usize {}

/// A tensor that a call reads: of floats, or of halves.
#[derive(Clone, Copy)]
pub(super) struct Tensor {
    pub(super) single: normdrop_slice<f32>,
    pub(super) half: normdrop_halves,
}

/// A tensor that a call writes.
#[derive(Clone, Copy)]
pub(super) struct TensorMut {
    pub(super) single: normdrop_slice_mut<f32>,
    pub(super) half: normdrop_halves_mut,
}

/// Checks that halves have a type that this library has, and do not stand beside floats.
fn check_element(element: normdrop_element, has_single: bool, buffer: normdrop_buffer) -> Result<(), normdrop_error> {
    match element {
        _ if has_single => {
            let two = normdrop_error::new(NORMDROP_STATUS_TWO_BUFFERS).of(buffer);
            Err(normdrop_error { other: buffer, ..two })
        }
        NORMDROP_ELEMENT_F16 | NORMDROP_ELEMENT_BF16 if cfg!(feature = "half-precision") => Ok(()),
        other => Err(normdrop_error::new(NORMDROP_STATUS_ELEMENT).of(buffer).counts(0, other as usize)),
    }
}

impl Tensor {
    const fn bits(self) -> normdrop_slice<u16> {
        normdrop_slice { values: self.half.values, len: self.half.len }
    }

    /// Never in a library without halves, where [`Self::region`] refuses them.
    pub(super) fn is_of_halves(self) -> bool {
        cfg!(feature = "half-precision") && !self.bits().is_left_out()
    }

    /// Checks the tensor by itself.
    pub(super) fn region(self, buffer: normdrop_buffer) -> Result<Region, normdrop_error> {
        if self.bits().is_left_out() {
            return self.single.region(buffer);
        }
        check_element(self.half.element, !self.single.is_left_out(), buffer)?;
        self.bits().region(buffer)
    }

    /// Whether the call is asked to overwrite exactly the values of this tensor.
    pub(super) fn is(self, written: TensorMut) -> bool {
        match (self.is_of_halves(), written.is_of_halves()) {
            (false, false) => self.single.is(written.single),
            (true, true) => {
                let same_element = self.half.element == written.half.element;
                self.single.is_left_out() && self.bits().is(written.bits()) && same_element
            }
            _ => false,
        }
    }

    /// The values, or `None` if there is no buffer.
    ///
    /// # Safety
    /// As `normdrop_slice::optional`, with [`Self::region`].
    pub(super) unsafe fn optional<'a>(self) -> Option<Read<'a>> {
        // SAFETY: passed on.
        let single = unsafe { self.single.optional() };
        #[cfg(not(feature = "half-precision"))]
        {
            single
        }
        // SAFETY: passed on.
        #[cfg(feature = "half-precision")]
        match (unsafe { self.bits().optional() }, self.half.element) {
            (Some(bits), NORMDROP_ELEMENT_F16) => Some(Values::F16(F16::from_bits_slice(bits))),
            (Some(bits), _) => Some(Values::Bf16(Bf16::from_bits_slice(bits))),
            (None, _) => single.map(Values::F32),
        }
    }

    /// The values, an empty slice if there is no buffer.
    ///
    /// # Safety
    /// As [`Self::optional`].
    pub(super) unsafe fn get<'a>(self) -> Read<'a> {
        // SAFETY: passed on.
        unsafe { self.optional() }.unwrap_or(Tensors::of::<f32>(&[]))
    }
}

impl TensorMut {
    const fn bits(self) -> normdrop_slice_mut<u16> {
        normdrop_slice_mut { values: self.half.values, len: self.half.len }
    }

    /// Never in a library without halves, where [`Self::region`] refuses them.
    pub(super) fn is_of_halves(self) -> bool {
        cfg!(feature = "half-precision") && self.has_bits()
    }

    fn has_bits(self) -> bool {
        !self.half.values.is_null() || self.half.len != 0
    }

    /// Checks the tensor by itself.
    pub(super) fn region(self, buffer: normdrop_buffer) -> Result<Region, normdrop_error> {
        if !self.has_bits() {
            return self.single.region(buffer);
        }
        let has_single = !self.single.values.is_null() || self.single.len != 0;
        check_element(self.half.element, has_single, buffer)?;
        self.bits().region(buffer)
    }

    /// The values, or `None` if there is no buffer.
    ///
    /// # Safety
    /// As `normdrop_slice_mut::optional`, with [`Self::region`].
    pub(super) unsafe fn optional<'a>(self) -> Option<Write<'a>> {
        // SAFETY: passed on.
        let single = unsafe { self.single.optional() };
        #[cfg(not(feature = "half-precision"))]
        {
            single
        }
        // SAFETY: passed on.
        #[cfg(feature = "half-precision")]
        match (unsafe { self.bits().optional() }, self.half.element) {
            (Some(bits), NORMDROP_ELEMENT_F16) => Some(ValuesMut::F16(F16::from_bits_slice_mut(bits))),
            (Some(bits), _) => Some(ValuesMut::Bf16(Bf16::from_bits_slice_mut(bits))),
            (None, _) => single.map(ValuesMut::F32),
        }
    }

    /// The values, an empty slice if there is no buffer.
    ///
    /// # Safety
    /// As [`Self::optional`].
    pub(super) unsafe fn get<'a>(self) -> Write<'a> {
        // SAFETY: passed on.
        unsafe { self.optional() }.unwrap_or(Tensors::of_mut::<f32>(&mut []))
    }
}

impl<T> normdrop_slice<T> {
    /// Checks the buffer by itself.
    pub(super) fn region(self, buffer: normdrop_buffer) -> Result<Region, normdrop_error> {
        Region::new(self.values, self.len, buffer, false)
    }

    /// Whether the caller has left the buffer out.
    pub(super) fn is_left_out(self) -> bool {
        self.values.is_null() && self.len == 0
    }

    /// Whether the call is asked to overwrite exactly the values of this buffer.
    pub(super) fn is(self, written: normdrop_slice_mut<T>) -> bool {
        self.values == written.values.cast_const() && self.len == written.len && !self.values.is_null()
    }

    /// The values, or `None` if there is no buffer.
    ///
    /// # Safety
    /// [`check_apart`] has accepted the buffer's [`Self::region`]. The caller of the C function
    /// promises that the memory exists, and that nobody writes it while the call lasts.
    pub(super) unsafe fn optional<'a>(self) -> Option<&'a [T]>
    where
        T: Number,
    {
        let values = NonNull::new(self.values.cast_mut())?;
        // SAFETY: `region` has checked that it is not null, aligned and not too large; the rest is
        // the contract of this function. Memory that comes from outside is initialised as far as
        // Rust can know, and any bits are a value.
        Some(unsafe { NonNull::slice_from_raw_parts(values, self.len).as_ref() })
    }

    /// The values, an empty slice if there is no buffer.
    ///
    /// # Safety
    /// As [`Self::optional`].
    pub(super) unsafe fn get<'a>(self) -> &'a [T]
    where
        T: Number,
    {
        // SAFETY: passed on.
        unsafe { self.optional() }.unwrap_or_default()
    }
}

impl<T> normdrop_slice_mut<T> {
    /// Checks the buffer by itself.
    pub(super) fn region(self, buffer: normdrop_buffer) -> Result<Region, normdrop_error> {
        Region::new(self.values.cast_const(), self.len, buffer, true)
    }

    /// The values, or `None` if there is no buffer.
    ///
    /// # Safety
    /// [`check_apart`] has accepted the buffer's [`Self::region`], and this function is called
    /// once. The caller of the C function promises that the memory exists, and that nobody else
    /// uses it while the call lasts.
    pub(super) unsafe fn optional<'a>(self) -> Option<&'a mut [T]>
    where
        T: Number,
    {
        let values = NonNull::new(self.values)?;
        // SAFETY: as in `normdrop_slice::optional`; and no other slice of the call has any of the
        // memory, by `check_apart`.
        Some(unsafe { NonNull::slice_from_raw_parts(values, self.len).as_mut() })
    }

    /// The values, an empty slice if there is no buffer.
    ///
    /// # Safety
    /// As [`Self::optional`].
    pub(super) unsafe fn get<'a>(self) -> &'a mut [T]
    where
        T: Number,
    {
        // SAFETY: passed on.
        unsafe { self.optional() }.unwrap_or_default()
    }
}
