//! What was typed: one file a command.

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{app, config, config::StartArgs};

/// Declarative functions that run the same on a laptop and in a cluster.
#[derive(Debug, Parser)]
#[command(name = "faas", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Start(StartArgs),
}

/// Carries a command out. 0 is success, 1 a failure, 2 a wrong call.
pub fn run(cli: Cli) -> ExitCode {
    let outcome = match cli.command {
        Command::Start(args) => start(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faas: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: StartArgs) -> Result<(), app::AppError> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(config::log_filter()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let config = args.resolve()?;
    let runtime = tokio::runtime::Runtime::new().map_err(app::AppError::Threads)?;
    runtime.block_on(app::run(config))
}
