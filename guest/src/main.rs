//! The init of every function container: it starts the program, reaps what is orphaned, passes signals on, carries the
//! unix socket to programs that know only TCP, and caps the rate of the log. One thread, one loop; see [`run`].
#![deny(unsafe_code)]

mod carry;
mod config;
mod confine;
mod log;
mod port;
mod program;
mod relay;
mod run;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    match config::Config::from_process()
        .map_err(run::Error::from)
        .and_then(run::run)
    {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("faas-init: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
