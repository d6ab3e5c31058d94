//! Every public call of normdrop and of its C interface on small shapes: `.ci/miri` runs it in Miri, which stops at an access
//! past the end of a buffer, at a reference that must not be, at memory that nobody has written.
//!
//! Each buffer is an allocation of exactly its length. What the calls have written is printed as digests, and must be the same in
//! Miri, on a big-endian target, as on this machine.

mod c;
mod digest;
mod rust;

fn main() {
    if cfg!(feature = "self-test") {
        let values = [1.0_f32; 3];
        // SAFETY: none; the check must refuse it.
        println!("{}", unsafe { values.as_ptr().wrapping_add(values.len()).read() });
        return;
    }
    rust::every_call();
    c::every_call();
}
