//! `faas crd`: the definition that `kubectl apply -f -` takes.

use super::{error::CliError, output};
use crate::function::crd::crd_yaml;

/// Prints the definition.
pub fn run() -> Result<(), CliError> {
    output::print(&crd_yaml())
}
