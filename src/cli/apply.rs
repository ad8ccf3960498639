//! `faas apply`: manifests into the server's store.

use std::path::PathBuf;

use clap::Args;

use super::{
    ServerArgs,
    client::{Client, ClientError},
    error::CliError,
    manifests::{self, File},
    output,
};
use crate::function::manifest::{Parsed, parse_read_back};

/// What was typed after `faas apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Manifest, or directory of manifests; - reads standard input; may be given several times
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    server: ServerArgs,
}

/// Judges all manifests first: when one is wrong, nothing is applied.
pub async fn run(args: &ApplyArgs) -> Result<(), CliError> {
    let files = manifests::read(&args.files, parse_read_back);
    let mut complaints: Vec<_> = files.iter().flat_map(File::complaints).collect();
    complaints.extend(manifests::doubles(&files));
    if !complaints.is_empty() {
        return Err(CliError::Failed(format!(
            "nothing was applied:\n{}",
            complaints.join("\n")
        )));
    }
    let client = args.server.client()?;
    let mut refused = false;
    for parsed in files.iter().flat_map(|file| &file.documents) {
        match apply(&client, parsed).await {
            Err(CliError::Client(error @ ClientError::Refused { .. })) => {
                refused = true;
                let name = parsed
                    .key
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                output::say(&format!("faas: {name}: {error}\n"));
            }
            outcome => outcome?,
        }
    }
    if refused { Err(CliError::Told) } else { Ok(()) }
}

async fn apply(client: &Client, parsed: &Parsed) -> Result<(), CliError> {
    let (Some(key), Ok(function)) = (&parsed.key, &parsed.verdict) else {
        return Ok(());
    };
    let applied = client.apply(key, function).await?;
    output::print(&format!("{key} {applied}\n"))
}
