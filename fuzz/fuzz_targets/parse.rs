//! Any text: it is refused with a place, or its canonical form is read as the same graph.
#![no_main]

use lattice_artifact::{parse, status};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(graph) = parse(text) else {
        assert!(!status(text).valid);
        return;
    };
    let printed = graph.to_string();
    let again = parse(&printed).expect("what is printed is read");
    assert_eq!(again, graph);
    assert_eq!(again.to_string(), printed);
});
