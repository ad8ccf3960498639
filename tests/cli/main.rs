//! The command line, typed into the real binary: what it prints, where, and how it exits; with a real server the dialogue
//! that the first users were promised.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod alone;
mod harness;
mod served;
