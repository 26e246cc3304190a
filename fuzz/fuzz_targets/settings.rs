//! Settings as people write them: sizes, times, shares of processors, hosts, origins, functions'
//! names. What is shown of a quantity is read as the same quantity.
#![no_main]

use faas::{Cors, FunctionName, HostPattern, quantity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(bytes) = quantity::bytes(text) {
        assert_eq!(quantity::bytes(&quantity::show_bytes(bytes)), Some(bytes));
    }
    if let Some(time) = quantity::time(text) {
        assert_eq!(quantity::time(&quantity::show_time(time)), Some(time));
    }
    let _millis = quantity::cpu_millis(text);
    let _switch = quantity::switch(text);
    let _name = text.parse::<FunctionName>();
    let _cors = text.parse::<Cors>();
    if let Ok(pattern) = text.parse::<HostPattern>() {
        let _allows = pattern.allows(text, 80, 80);
        // Nobody's pattern allows a name that only ends like its own.
        assert!(
            !pattern.allows("x", 80, 80) || text.trim_end_matches(":80").eq_ignore_ascii_case("x")
        );
    }
});
