// A handler that tells in which floating-point environment XLA calls handlers: the smallest normal number, halved.
#include <cstdint>
#include <cstring>

#include <xla/ffi/api/ffi.h>

namespace ffi = xla::ffi;

static ffi::Error keeps(ffi::Result<ffi::Buffer<ffi::F32>> result) {
    volatile float smallest = 1.17549435e-38f;
    volatile float half = smallest * 0.5f;
    std::uint32_t bits;
    const float copy = half;
    std::memcpy(&bits, &copy, 4);
    // As a number, because whoever looks at it may flush it, too.
    result->typed_data()[0] = bits == 0 ? 0.0f : 1.0f;
    return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(keeps_subnormals, keeps, ffi::Ffi::Bind().Ret<ffi::Buffer<ffi::F32>>());
