//! Tells the linker what makes the program smaller.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if is_linux {
        // The addresses that a start has to adjust as a bitmap: 30 kB instead of 900. It wants
        // glibc 2.36 or later, as what is built beside one does anyway; an older linker ignores it.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
