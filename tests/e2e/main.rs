//! The binary from outside, on a real Docker engine: what its users were promised.
//!
//! Tests of a file share a server where they can. Each works with a Function of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of it is tests, helpers included"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "helpers are given JSON where it is written"
)]

mod access;
mod answer;
mod attack;
mod blame;
mod care;
mod cluster;
mod crash;
mod edge;
mod engine;
mod exits;
mod hostile;
mod limits;
mod lossless;
mod operate;
mod overload;
mod registry;
mod restart;
mod rollout;
mod scale;
mod seed;
mod soak;
mod state;
mod support;
