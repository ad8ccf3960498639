//! `faas` turns a Function object into a URL.

pub mod builder;
pub mod controller;
pub mod function;
pub mod ingress;
pub mod plan;
pub mod pool;
pub mod retry;
pub mod runtime;
pub mod store;
pub mod telemetry;
