//! tinyFaaS.
fn main() {}
