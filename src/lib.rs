//! `faas` turns a Function object into a URL.

pub mod builder;
pub mod directory;
pub mod function;
pub mod runtime;
pub mod store;
