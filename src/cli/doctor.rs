//! `faas doctor`: whether this machine can run functions, and what to do where it cannot. Needs no server.

mod judge;
mod look;

use clap::Args;

use self::judge::{Check, Level};
use super::{error::CliError, output};
use crate::{builder::recipe::node::DEFAULT_BASE, config};

/// What was typed after `faas doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Base image of a language, as `faas start` would be told (node=REF); may be given several times
    #[arg(long = "base-image", value_name = "NAME=REF", value_parser = config::pair)]
    base_images: Vec<(String, String)>,
}

/// Prints a line for every check, as soon as it is known.
pub async fn run(args: DoctorArgs) -> Result<(), CliError> {
    let around = config::surroundings()?;
    let node = args
        .base_images
        .into_iter()
        .rfind(|(name, _)| name == "node");
    let base = node.map_or_else(|| DEFAULT_BASE.to_owned(), |(_, reference)| reference);
    let mut failed = 0;
    let mut tell = |checks: Vec<Check>| {
        failed += checks
            .iter()
            .filter(|check| check.level == Level::Fail)
            .count();
        output::print(&checks.iter().map(Check::line).collect::<String>())
    };
    match look::engine(&around.docker_socket).await {
        Err(check) => tell(vec![check])?,
        Ok(facts) => {
            tell(judge::engine(&facts))?;
            tell(vec![look::base_image(&around.docker_socket, &base).await])?;
        }
    }
    tell(vec![
        look::sockets(&around),
        look::node(&around.path).await,
        judge::internet(look::is_root()),
    ])?;
    if failed == 0 {
        return output::print("\nThis machine can run functions: begin with `faas start`\n");
    }
    output::print(&format!(
        "\n{failed} of the checks failed: functions cannot run in containers here before that is mended\n"
    ))?;
    Err(CliError::Told)
}
