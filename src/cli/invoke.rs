//! `faas invoke`: one call.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::{ServerArgs, error::CliError, output};
use crate::function::FunctionKey;

/// What a function gets that is called without input.
const NO_INPUT: &[u8] = b"{}";

/// What was typed after `faas invoke`.
#[derive(Debug, Args)]
pub struct InvokeArgs {
    /// The function, as NAME or NAME.NAMESPACE
    name: FunctionKey,

    /// File with the input; - reads standard input
    #[arg(short = 'd', value_name = "FILE", conflicts_with = "data")]
    file: Option<PathBuf>,

    /// The input itself
    #[arg(long, value_name = "JSON")]
    data: Option<String>,

    /// How to print the result
    #[arg(short, long, value_enum)]
    output: Option<Shape>,

    #[command(flatten)]
    server: ServerArgs,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// The result alone
    Raw,
}

/// Calls the function and prints what it answers.
pub async fn run(args: &InvokeArgs) -> Result<(), CliError> {
    let input = match (&args.file, &args.data) {
        (Some(file), _) => read(file)?,
        (None, Some(data)) => data.clone().into_bytes(),
        (None, None) => NO_INPUT.to_vec(),
    };
    let result = args.server.client()?.invoke(&args.name, input).await?;
    match args.output {
        None => output::print(&format!("Response: {result}\n")),
        Some(Shape::Raw) => output::print(&format!("{result}\n")),
    }
}

/// What a file holds, or standard input for `-`.
pub fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut content = Vec::new();
    let outcome = if path == Path::new("-") {
        io::stdin().lock().read_to_end(&mut content).map(drop)
    } else {
        std::fs::read(path).map(|read| content = read)
    };
    outcome.map_err(CliError::read(path))?;
    Ok(content)
}
