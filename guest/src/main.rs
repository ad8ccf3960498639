//! The init of every function container: it starts the program, reaps what is orphaned, passes signals on, carries the
//! unix socket to programs that know only TCP, and caps the rate of the log. One thread, one loop; see [`run`]. In a cluster
//! it also tells what a pod can reach, see [`reach`], and when nobody calls it any more, see [`idle`].
#![deny(unsafe_code)]

mod carry;
mod config;
mod confine;
mod idle;
mod log;
mod port;
mod program;
mod reach;
mod relay;
mod run;
mod sys;

use std::process::ExitCode;

use config::Orders;

fn main() -> ExitCode {
    match Orders::from_process()
        .map_err(run::Error::from)
        .and_then(follow)
    {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("faas-init: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn follow(orders: Orders) -> Result<u8, run::Error> {
    match orders {
        Orders::Run(config) => run::run(config),
        Orders::Reach(reach) => Ok(u8::from(!reach::is_so(&reach))),
        Orders::UntilIdle(until) => {
            idle::wait(&until);
            Ok(0)
        }
    }
}
