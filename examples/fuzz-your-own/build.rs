//! Compiles the kernel.

fn main() {
    println!("cargo:rerun-if-changed=kernel");
    cc::Build::new().file("kernel/batch_norm.c").warnings_into_errors(true).compile("kernel");
}
