//! faas: declarative functions.

pub mod function;
