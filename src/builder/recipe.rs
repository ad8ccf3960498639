//! How files become an image.

/// See [`super::BuildJob`].
#[derive(Clone, Debug)]
pub struct Recipe;
