//! The inputs that a fuzzer found and that are kept, for the ordinary tests.

use std::fs;
use std::path::Path;

/// Feeds every kept input of a fuzz target to what the target calls.
pub(crate) fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
        check(&fs::read(entry.path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", folder.display());
}
