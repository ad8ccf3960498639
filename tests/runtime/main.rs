//! One contract for the runtimes, kept against the real things; and what only one of them promises.
//!
//! The Docker half needs an engine, and the process half a `node`; the first says so when there is none.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of it is tests, helpers included"
)]

mod bench;
mod contract;
mod docker;
mod process;
