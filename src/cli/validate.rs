//! `faas validate`: the verdicts that a server would give, without one.

use std::{path::PathBuf, slice};

use clap::Args;

use super::{error::CliError, manifests, output};
use crate::function::manifest;

/// What was typed after `faas validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Manifests, or directories of them; - reads standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Prints a line for each Function that is valid, and one for each error.
pub fn run(args: &ValidateArgs) -> Result<(), CliError> {
    let mut wrong = false;
    for file in manifests::read(&args.files, manifest::parse) {
        let mut complaints = match &file.folder {
            Some(Ok(_)) => {
                let path = file.path.display();
                output::print(&format!(
                    "{path}: the fn.yaml of a function's directory, deployed with `faas build` there: valid\n"
                ))?;
                Vec::new()
            }
            Some(Err(error)) => file.told(1, "", error),
            None => file.complaints(),
        };
        for parsed in file
            .documents
            .iter()
            .filter(|parsed| parsed.verdict.is_ok())
        {
            let name = parsed
                .key
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            output::print(&format!("{}: {name} valid\n", file.path.display()))?;
        }
        // Files that are judged together need not belong together.
        complaints.extend(manifests::doubles(slice::from_ref(&file)));
        for complaint in complaints {
            wrong = true;
            output::say(&format!("{complaint}\n"));
        }
    }
    if wrong { Err(CliError::Told) } else { Ok(()) }
}
