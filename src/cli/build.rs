//! `faas build`: deploys the directory one stands in, and tells how it goes.

mod progress;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;

use self::progress::Progress;
use super::{ServerArgs, error::CliError, output};
use crate::{
    builder::archive::{ArchiveError, Context, Limits},
    function::{
        FunctionKey, MAX_NAME,
        folder::{self, FN_YAML},
    },
};

/// What was typed after `faas build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The function's name, as NAME or NAME.NAMESPACE [default: that of a manifest in fn.yaml, or the directory's]
    #[arg(long)]
    name: Option<FunctionKey>,

    /// Print what the build says, as it says it
    #[arg(short, long)]
    verbose: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// Uploads the directory and waits until the function answers. The URL goes to standard output, the rest beside it.
pub async fn run(args: &BuildArgs) -> Result<(), CliError> {
    let key = args.name.clone().map_or_else(name_here, Ok)?;
    let client = args.server.client()?;
    let context = pack(&here()?)?;
    let began = Instant::now();
    let mut progress = Progress::begin(&client, &key, &context, args.verbose).await?;
    let outcome = tokio::select! {
        outcome = client.deploy(&key, context.tar()) => outcome,
        Err(error) = progress.follow() => return Err(error),
    };
    let took = began.elapsed().as_secs_f64();
    match outcome {
        Ok(url) => {
            progress.end(&format!("ready in {took:.1}s")).await?;
            output::print(&format!("{url}\n"))
        }
        Err(error) => {
            progress.end(&format!("failed after {took:.1}s")).await?;
            Err(error.into())
        }
    }
}

/// Same limits and rules as for a watched directory.
fn pack(dir: &Path) -> Result<Context, CliError> {
    let begun = |context: &Context| {
        ["fn.yaml", "index.js", "package.json", "Dockerfile"]
            .into_iter()
            .any(|name| context.contains(name))
    };
    match Context::from_directory(dir, dir, &Limits::default()) {
        Ok(context) if begun(&context) => Ok(context),
        Ok(_) | Err(ArchiveError::Empty) => Err(CliError::Failed(format!(
            "there is no function in {}: begin one with `faas init`",
            dir.display()
        ))),
        Err(error) => Err(error.into()),
    }
}

/// The name that a function in this directory gets: what its `fn.yaml` says, or the directory's own.
pub fn name_here() -> Result<FunctionKey, CliError> {
    let dir = here()?;
    if let Ok(text) = fs::read(dir.join(FN_YAML))
        && let Some(key) = folder::name(&text)
    {
        return Ok(key);
    }
    let name = dir
        .file_name()
        .map(|name| label(&name.to_string_lossy()))
        .unwrap_or_default();
    name.parse().map_err(|_| {
        CliError::Failed(format!(
            "{} does not give a function name: say one with --name",
            dir.display()
        ))
    })
}

fn here() -> Result<PathBuf, CliError> {
    std::env::current_dir().map_err(CliError::read("."))
}

/// The nearest DNS label: lower case, what may not be in one becomes `-`.
fn label(text: &str) -> String {
    let dashed: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let start = dashed.trim_start_matches('-');
    start[..start.len().min(MAX_NAME)]
        .trim_end_matches('-')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_the_nearest_name() {
        let long = "x".repeat(60);
        for (directory, name) in [
            ("examplefn", "examplefn"),
            ("My Function", "my-function"),
            ("sum.v2", "sum-v2"),
            ("_private_", "private"),
            ("größe", "gr--e"),
            ("...", ""),
            (long.as_str(), &long[..50]),
        ] {
            assert_eq!(label(directory), name, "{directory:?}");
        }
    }
}
