//! Lines of either end of the link between the proxy and the management service.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| control::fuzzing::read(data));
