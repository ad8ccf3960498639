//! The contract of the builder, and of uploads, against a real registry.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod archives;
mod bad_days;
mod bench;
mod engine;
mod images;
mod proxy;
#[allow(dead_code, reason = "tests of the whole server use the rest")]
mod server;
