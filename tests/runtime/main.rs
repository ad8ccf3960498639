//! One contract for the runtimes, kept against the real things; and what only one of them promises.
//!
//! The Docker half needs an engine, and the process half a `node`; the first says so when there is none.

mod bench;
mod contract;
mod docker;
mod process;
