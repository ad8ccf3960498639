//! `faas doctor`: whether this machine can run functions, and what to do where it cannot.

use super::error::CliError;
use clap::Args;

/// What was typed after `faas doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// Looks at everything.
pub async fn run(_args: DoctorArgs) -> Result<(), CliError> {
    Ok(())
}
