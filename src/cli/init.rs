//! `faas init`: the files of a new function. What is there already stays, unless it may be replaced.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
};

use clap::Args;

use super::{build, error::CliError, output};

/// Every file that a new function has.
const FILES: [(&str, &str); 2] = [("fn.yaml", FN_YAML), ("index.js", INDEX_JS)];

/// One line would do; the others show what may be said beside it.
const FN_YAML: &str = "\
language: node
# What else may be said, with its defaults:
# timeoutSeconds: 30
# network: none          # or internet
# resources: {cpu: 500m, memory: 128Mi}
# scale: {min: 0, max: 10}
# env: [{name: GREETING, value: hello}]
";

const INDEX_JS: &str = "\
// Put the function logic below.
// context contains the input data and the callback returns a result to the caller
module.exports = (context, cb) => {
  return cb({hello: \"world\"})
}
";

/// What was typed after `faas init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Replace files that are there already
    #[arg(long)]
    force: bool,
}

/// Writes the files.
pub fn run(args: &InitArgs) -> Result<(), CliError> {
    let (mut wrote, mut kept) = (Vec::new(), Vec::new());
    for (name, content) in FILES {
        match write(Path::new(name), content, args.force) {
            Ok(()) => wrote.push(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => kept.push(name),
            Err(error) => {
                return Err(CliError::Write {
                    path: name.into(),
                    error,
                });
            }
        }
    }
    if wrote.is_empty() {
        let message = format!(
            "{} are here already and were left alone; `faas init --force` replaces them",
            kept.join(" and ")
        );
        return Err(CliError::Failed(message));
    }
    report(&wrote, &kept)
}

fn write(path: &Path, content: &str, force: bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options.open(path)?.write_all(content.as_bytes())
}

fn report(wrote: &[&str], kept: &[&str]) -> Result<(), CliError> {
    let mut text = format!("Wrote {}\n", wrote.join(" and "));
    if !kept.is_empty() {
        text += &format!("Kept {}, which was here already\n", kept.join(" and "));
    }
    let name = build::name_here().map_or_else(|_| "NAME".to_owned(), |key| key.to_string());
    text += &format!("Next: edit index.js, then run `faas build` and `faas invoke {name}`\n");
    output::print(&text)
}
