//! `faas` turns a Function object into a URL.

pub mod access;
pub mod api;
pub mod app;
pub mod blocking;
pub mod builder;
pub mod cli;
pub mod config;
pub mod controller;
pub mod crash;
pub mod directory;
pub mod function;
pub mod gateway;

pub mod ingress;
pub mod kubernetes;
pub mod lender;
pub mod plan;
pub mod pool;
pub mod retry;
pub mod runtime;
pub mod store;
pub mod stream;
pub mod telemetry;
pub mod text;
pub mod workers;
