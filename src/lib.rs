//! `faas` turns a Function object into a URL.

pub mod builder;
pub mod function;
pub mod runtime;
