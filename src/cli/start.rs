//! `faas start`: the server.

use std::io::IsTerminal;

use super::error::CliError;
use crate::{app, config, config::StartArgs};

/// Runs the server until a signal ends it.
pub fn run(args: StartArgs) -> Result<(), CliError> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(config::log_filter()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let config = args.resolve()?;
    let runtime = tokio::runtime::Runtime::new().map_err(CliError::Threads)?;
    Ok(runtime.block_on(app::run(config))?)
}
