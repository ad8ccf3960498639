//! Normalised files of a source.

/// See [`super::BuildJob`].
#[derive(Debug)]
pub struct Context;
