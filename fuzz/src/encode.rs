//! Bytes that `arbitrary` reads back as a given value: how the checked-in seeds are written.
//!
//! The structured inputs have fields of a fixed size, then at most one list at their end, so the fuzzer's mutations of
//! one field leave the others where they are.

/// A value that can be written as the bytes which its [`arbitrary::Arbitrary`] implementation reads.
pub trait Encode {
    /// Appends the bytes.
    fn encode(&self, bytes: &mut Vec<u8>);

    /// The bytes of the value alone.
    fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }
}

macro_rules! encode_integers {
    ($($ty:ty)*) => {
        $(impl Encode for $ty {
            fn encode(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        })*
    };
}

encode_integers!(u8 i8 u16 u32 u64);

impl Encode for bool {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(*self));
    }
}

impl<T: Encode, const N: usize> Encode for [T; N] {
    fn encode(&self, bytes: &mut Vec<u8>) {
        for element in self {
            element.encode(bytes);
        }
    }
}

/// Only as the last field of an input: the list ends where the bytes do.
impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        for element in self {
            true.encode(bytes);
            element.encode(bytes);
        }
    }
}

/// Writes the number of a variant so that `arbitrary` chooses it among `count`.
pub(crate) fn encode_variant(index: usize, count: usize, bytes: &mut Vec<u8>) {
    let number = ((index as u64) << 32).div_ceil(count as u64);
    u32::try_from(number).unwrap_or(u32::MAX).encode(bytes);
}

/// Declares a structure, or an enumeration without data, that the fuzzer makes and that seeds are written from.
macro_rules! structured {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, arbitrary::Arbitrary)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl $crate::encode::Encode for $name {
            fn encode(&self, bytes: &mut Vec<u8>) {
                $($crate::encode::Encode::encode(&self.$field, bytes);)*
            }
        }
    };
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, arbitrary::Arbitrary)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
        }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
        }

        impl $crate::encode::Encode for $name {
            fn encode(&self, bytes: &mut Vec<u8>) {
                $crate::encode::encode_variant(*self as usize, Self::ALL.len(), bytes);
            }
        }
    };
}

pub(crate) use structured;
