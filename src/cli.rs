//! What was typed: one file a command. All but `start` and what needs no server speak to a server over HTTP (`client.rs`).

mod age;
mod apply;
mod build;
mod client;
mod completions;
mod crd;
mod credentials;
mod delete;
mod describe;
mod doctor;
mod error;
mod init;
mod invoke;
mod list;
mod logs;
mod manifests;
mod output;
mod report;
mod start;
mod status;
mod table;
mod token;
mod validate;
mod watch;

use std::{future::Future, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use self::error::CliError;
use crate::{
    app,
    config::roles::{ControllerArgs, GatewayArgs, StartArgs},
    text,
};

/// Declarative functions that run the same on a laptop and in a cluster.
#[derive(Debug, Parser)]
#[command(name = "faas", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Start(Box<StartArgs>),
    /// Run the half of a server that controls the functions of a cluster; calls come to gateways
    Controller(Box<ControllerArgs>),
    /// Run the half that answers calls, with what a controller lends it
    Gateway(GatewayArgs),
    /// Begin a function in this directory: fn.yaml and index.js
    Init(init::InitArgs),
    /// Deploy the function in this directory
    Build(build::BuildArgs),
    /// Call a function
    Invoke(invoke::InvokeArgs),
    /// Create or change functions as manifests say
    Apply(apply::ApplyArgs),
    /// Show functions
    List(list::ListArgs),
    /// Show everything about one function
    Describe(describe::DescribeArgs),
    /// Print what a function, or its last build, wrote
    Logs(logs::LogsArgs),
    /// Delete functions, and wait until they are gone
    Delete(delete::DeleteArgs),
    /// Show what the server is doing for each function
    Status(status::StatusArgs),
    /// Make, show and revoke the tokens of a server on this machine
    Token(token::TokenArgs),
    /// Judge manifests as the server would; needs no server
    Validate(validate::ValidateArgs),
    /// Print the custom resource definition for Kubernetes
    Crd,
    /// Check whether this machine can run functions; needs no server
    Doctor(doctor::DoctorArgs),
    /// Print a completion script, for example: `source <(faas completions bash)`
    Completions(completions::CompletionsArgs),
}

/// Where the server is.
#[derive(Debug, Args)]
struct ServerArgs {
    /// The server's URL [default: `$FAAS_URL`, or `http://127.0.0.1:5555`]
    #[arg(long, value_name = "URL")]
    server: Option<String>,

    #[command(flatten)]
    credentials: credentials::Credentials,
}

impl ServerArgs {
    fn client(&self) -> Result<client::Client, CliError> {
        Ok(client::Client::new(self.server.clone(), &self.credentials)?)
    }
}

/// Carries a command out. 0 is success, 1 a failure, 2 a wrong call (which the parser has refused before).
pub fn run(cli: Cli) -> ExitCode {
    match carry_out(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has read enough: `faas list | head -1`.
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(CliError::Told) => ExitCode::FAILURE,
        Err(error) => {
            output::say(&format!("faas: {}\n", text::plain(&error.to_string())));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> Result<(), CliError> {
    match command {
        Command::Start(args) => start::run(|| Ok(app::run(args.resolve()?))),
        Command::Controller(args) => start::run(|| Ok(app::run(args.resolve()?))),
        Command::Gateway(args) => start::run(|| Ok(app::gateway::run(args.resolve()?))),
        Command::Init(args) => init::run(&args),
        Command::Build(args) => wait(build::run(&args)),
        Command::Invoke(args) => wait(invoke::run(&args)),
        Command::Apply(args) => wait(apply::run(&args)),
        Command::List(args) => wait(list::run(&args)),
        Command::Describe(args) => wait(describe::run(&args)),
        Command::Logs(args) => wait(logs::run(&args)),
        Command::Delete(args) => wait(delete::run(&args)),
        Command::Status(args) => wait(status::run(&args)),
        Command::Token(args) => wait(token::run(args)),
        Command::Validate(args) => validate::run(&args),
        Command::Crd => crd::run(),
        Command::Doctor(args) => wait(doctor::run(args)),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Runs what speaks to a server; one thread is enough for that.
fn wait(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(CliError::Threads)?.block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn every_command_and_flag_is_well_formed() {
        Cli::command().debug_assert();
    }
}
