//! `faas start`, `faas controller` and `faas gateway`: the server, and its halves.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use tokio::runtime::Builder;

use super::error::CliError;
use crate::{app::AppError, config, config::ConfigError};

/// Threads for what waits for the disk. More would wait for the same disk.
const BLOCKING_THREADS: usize = 16;
/// How long what blocks may go on once the server has ended.
const LEFT: Duration = Duration::from_secs(1);

/// How long one of them stays without work: its memory is worth more to others.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Runs the server that `configure` makes until a signal ends it.
pub fn run<S>(configure: impl FnOnce() -> Result<S, ConfigError>) -> Result<(), CliError>
where
    S: Future<Output = Result<(), AppError>>,
{
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(config::log_filter()))
        .with_writer(|| Log)
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let server = configure()?;
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(KEEP_ALIVE)
        .build()
        .map_err(CliError::Threads)?;
    let outcome = runtime.block_on(server);
    // Whatever still blocks there, such as a file system that does not answer, is nobody's any more.
    runtime.shutdown_timeout(LEFT);
    Ok(outcome?)
}

/// Standard error while somebody reads it. A server whose log nobody reads any more goes on.
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(io::stderr().write(bytes).unwrap_or(bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
