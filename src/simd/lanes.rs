//! The lanes of the backends that are made of intrinsics.

/// Lanes in registers: a structure whose operators are one intrinsic per register.
macro_rules! lanes {
    ($(#[$doc:meta])* $name:ident([$register:ty; $n:literal]) $($trait:ident $method:ident $intrinsic:ident,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name([$register; $n]);
        $(
            impl $trait for $name {
                type Output = Self;
                #[inline(always)]
                fn $method(self, other: Self) -> Self {
                    let mut result = self.0;
                    for (value, other) in result.iter_mut().zip(other.0) {
                        // SAFETY: these lanes exist, so the CPU has the feature (see its module).
                        *value = unsafe { $intrinsic(*value, other) };
                    }
                    Self(result)
                }
            }
        )*
    };
}
