//! `faas logs`: what instances and builds wrote.

use clap::Args;

use super::{ServerArgs, client::Log, error::CliError, output};
use crate::function::FunctionKey;

/// What was typed after `faas logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The function, as NAME or NAME.NAMESPACE
    name: FunctionKey,

    /// Go on printing what is written
    #[arg(short, long)]
    follow: bool,

    /// Last lines of each instance
    #[arg(
        long,
        value_name = "LINES",
        default_value_t = 100,
        conflicts_with = "build"
    )]
    tail: u32,

    /// The log of the last build instead
    #[arg(long)]
    build: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// Prints the log as it comes.
pub async fn run(args: &LogsArgs) -> Result<(), CliError> {
    let client = args.server.client()?;
    let mut log = if args.build {
        client.build_log(&args.name, args.follow).await?
    } else {
        client.logs(&args.name, args.follow, args.tail).await?
    };
    if !copy(&mut log).await? && !args.follow {
        let what = if args.build {
            "The last build said nothing"
        } else {
            "No instance that runs has written anything"
        };
        output::say(&format!(
            "{what}; `faas describe {}` shows its state\n",
            args.name
        ));
    }
    Ok(())
}

/// Whether there was anything in it.
async fn copy(log: &mut Log) -> Result<bool, CliError> {
    let mut any = false;
    while let Some(piece) = log.next().await? {
        any |= !piece.is_empty();
        output::write(&piece)?;
    }
    Ok(any)
}
