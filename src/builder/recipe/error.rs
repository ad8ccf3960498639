//! What can be wrong with a source's recipe, in words for its author.

/// Why files cannot become an image. Each names the file and the remedy.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecipeError {
    #[error("language {0:?} is not known: use node or dockerfile")]
    UnknownLanguage(String),
    #[error("spec.build.baseImage {0:?} is no image reference")]
    BadBaseImage(String),
    #[error(
        "build argument {0:?} is not allowed: use letters, digits and _, and no name of BuildKit's own (BUILDKIT_*)"
    )]
    BadArgument(String),
    #[error(
        "build argument {0:?} is the site's, given by `faas start --build-env`: engines do not look at it when they take a \
         step from the cache, so one Function's would decide about others"
    )]
    SitesArgument(String),
    #[error("{file} is missing: {remedy}")]
    Missing { file: String, remedy: &'static str },
    #[error("{file} cannot be read: {message}")]
    Unreadable { file: &'static str, message: String },
    #[error("Dockerfile line {line}: {message}")]
    Dockerfile { line: usize, message: String },
}
