//! `faas delete`: Functions go, with everything that runs of them.

use std::time::Duration;

use clap::Args;

use super::{
    ServerArgs,
    client::{Client, ClientError},
    error::CliError,
    output,
};
use crate::function::FunctionKey;

/// Between two looks at what is going.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long nothing is said about waiting: five looks.
const QUIET_LOOKS: u32 = 5;

/// What was typed after `faas delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The functions, as NAME or NAME.NAMESPACE
    #[arg(required = true, value_name = "NAME")]
    names: Vec<FunctionKey>,

    #[command(flatten)]
    server: ServerArgs,
}

/// Asks for all deletions at once and then waits for each. What cannot be deleted does not keep the others.
pub async fn run(args: &DeleteArgs) -> Result<(), CliError> {
    let client = args.server.client()?;
    let (mut going, mut refused) = (Vec::new(), false);
    for name in &args.names {
        match client.delete(name).await {
            Ok(()) => going.push(name),
            Err(error @ ClientError::Refused { .. }) => {
                refused = true;
                output::say(&format!("faas: {error}\n"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    for name in going {
        until_gone(&client, name).await?;
        output::print(&format!("{name} deleted\n"))?;
    }
    if refused { Err(CliError::Told) } else { Ok(()) }
}

/// Calls that run may be finished first, for as long as the function's timeout allows.
async fn until_gone(client: &Client, name: &FunctionKey) -> Result<(), CliError> {
    for look in 0_u32.. {
        match client.get(name).await {
            Err(error) if error.is_not_found() => break,
            Err(error) => return Err(error.into()),
            // Made anew meanwhile: the one that was deleted is gone.
            Ok(function) if function.metadata.deletion_timestamp.is_none() => break,
            Ok(_) if look == QUIET_LOOKS => {
                output::say(&format!("Waiting for the last calls of {name} ...\n"));
            }
            Ok(_) => {}
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}
