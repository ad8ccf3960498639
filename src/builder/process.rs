//! To come on its branch.

use std::path::{Path, PathBuf};

/// Where an image is laid out.
#[must_use]
pub fn image_dir(root: &Path, image: &str) -> PathBuf {
    root.join(image.replace(['/', ':'], "_"))
}
