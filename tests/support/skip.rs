//! Tests that cannot run on a machine say so to `scripts/test`, which tells it at the end.

use std::{fs::OpenOptions, io::Write};

/// Notes that `test` is skipped, and why.
pub fn skip(test: &str, why: &str) {
    let note = format!("skipped: {test}: {why}");
    eprintln!("{note}");
    #[expect(
        clippy::disallowed_methods,
        reason = "scripts/test names the file this way"
    )]
    let file = std::env::var_os("FAAS_TEST_SKIPS");
    if let Some(file) = file {
        let mut file = OpenOptions::new().append(true).open(file).unwrap();
        writeln!(file, "{note}").unwrap();
    }
}
