//! The real init with real programs below it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(
    clippy::disallowed_methods,
    reason = "the pause between two looks at a condition"
)]
#![allow(unsafe_code, reason = "kill takes plain numbers")]

mod carry;
mod harness;
mod idle;
mod log;
mod process;
