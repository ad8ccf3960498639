//! The real init with real programs below it.

mod carry;
mod harness;
mod log;
mod process;
