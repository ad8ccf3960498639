//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    faas::cli::run(faas::cli::Cli::parse())
}
