//! What can be wrong with a source's files, in words for its author.

use super::collect::{COMPONENT_BYTES, DEPTH, PATH_BYTES};

/// Why files cannot be a source. Each names the entry and the remedy.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArchiveError {
    #[error("the upload is no tar archive ({0}): send what `tar -c` writes")]
    NotTar(String),
    #[error("the upload is gzip-compressed: send the plain tar (`gunzip`, or `tar -c` without -z)")]
    Gzip,
    #[error("there is no file in it: add the function's code")]
    Empty,
    #[error("the archive is cut off {after}: send it again in full")]
    Cut { after: String },
    #[error("entry {0:?} lies outside of the source: use paths relative to its top, without `..`")]
    Outside(String),
    #[error("entry {0:?} has a name that is not UTF-8: rename it")]
    NotUtf8(String),
    #[error("entry {0:?} has a control character in its name: rename it")]
    Control(String),
    #[error(
        "what the archive says of entry {0:?} cannot be read, as with a line break in its name: rename it"
    )]
    Pax(String),
    #[error(
        "entry {0:?} has a part of over {COMPONENT_BYTES} bytes, or {PATH_BYTES} bytes in all: shorten it"
    )]
    LongName(String),
    #[error("entry {0:?} lies deeper than {DEPTH} directories: move it up")]
    Deep(String),
    #[error("entry {0:?} is there twice: keep one")]
    Duplicate(String),
    #[error("entry {0:?} is a file and a directory at once: rename one")]
    Conflict(String),
    #[error("entry {entry:?} is a {kind}: only regular files and directories are taken; {remedy}")]
    Kind {
        entry: String,
        kind: &'static str,
        remedy: &'static str,
    },
    #[error("link {link:?} leads to {target:?}, outside of {root:?}: copy the file instead")]
    LinkOutside {
        link: String,
        target: String,
        root: String,
    },
    #[error("more than {limit} files and directories: remove what the function does not need")]
    TooMany { limit: usize },
    #[error(
        "the files hold more than {limit} bytes (at {entry:?}): remove what the function does not need"
    )]
    TooLarge { entry: String, limit: u64 },
    #[error("{name}: {message}")]
    Ignore { name: &'static str, message: String },
    #[error("cannot read {path:?}: {message}")]
    Read { path: String, message: String },
}
