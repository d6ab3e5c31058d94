//! The memory of the machine, for the linker.

fn main() {
    println!("cargo:rerun-if-changed=memory.ld");
    println!("cargo:rustc-link-arg=-Timage.ld"); // of aarch64-rt
    println!("cargo:rustc-link-arg=-T{}/memory.ld", std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
}
