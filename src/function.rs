//! The Function: its identity, and the labels and annotations that belong to the platform.
//!
//! The object itself is [`crd::Function`]; [`manifest`] reads it from text, [`validate`] judges it, [`status`] writes its
//! conditions. Everything here is pure: no IO, no async, no clock.

pub mod crd;
pub mod folder;
pub mod manifest;
pub mod quantity;
pub mod status;
pub mod validate;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use crd::{Function, FunctionSpec, FunctionStatus};

/// API group of the object.
pub const GROUP: &str = "faas.dev";
/// `apiVersion` of the object.
pub const API_VERSION: &str = "faas.dev/v1alpha1";
/// `kind` of the object.
pub const KIND: &str = "Function";
/// Namespace of a Function that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Labels and annotations below this prefix are the platform's own; a user may not set them.
pub const RESERVED_PREFIX: &str = "faas.dev/";
/// Annotation: who manages the object, such as the watched directory.
pub const MANAGED_BY: &str = "faas.dev/managed-by";
/// Annotation: the file that defines the object.
pub const FILE: &str = "faas.dev/file";
/// Annotation: digest of the content of `spec.source.directory`.
pub const SOURCE_DIGEST: &str = "faas.dev/source-digest";
/// Annotation: why `spec.source.directory` cannot be read.
pub const SOURCE_ERROR: &str = "faas.dev/source-error";
/// Annotation: why the spec that a cluster has is not understood; what the object holds in its place is no spec.
pub const NOT_UNDERSTOOD: &str = "faas.dev/not-understood";

/// Longest name of a Function, in characters.
pub const MAX_NAME: usize = 50;
/// Longest namespace, in characters.
pub const MAX_NAMESPACE: usize = 63;

/// Why a text names no Function.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The name is no DNS label, or too long.
    #[error(
        "{0:?} is not a function name: use at most {MAX_NAME} lower case letters, digits and '-', beginning and ending with \
         a letter or digit"
    )]
    Name(String),
    /// The namespace is no DNS label, or too long.
    #[error(
        "{0:?} is not a namespace: use at most {MAX_NAMESPACE} lower case letters, digits and '-', beginning and ending \
         with a letter or digit"
    )]
    Namespace(String),
}

/// Identity of a Function. Both parts are DNS labels, by construction. Cheap to clone.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionKey {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl FunctionKey {
    /// # Errors
    /// When a part is no DNS label, or the name is longer than [`MAX_NAME`].
    pub fn new(namespace: &str, name: &str) -> Result<Self, KeyError> {
        if !is_dns_label(namespace, MAX_NAMESPACE) {
            return Err(KeyError::Namespace(namespace.to_owned()));
        }
        if !is_dns_label(name, MAX_NAME) {
            return Err(KeyError::Name(name.to_owned()));
        }
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// The namespace, never empty.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name, never empty.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Namespace and name, for maps that are copied often.
    #[must_use]
    pub fn shared(&self) -> (Arc<str>, Arc<str>) {
        (Arc::clone(&self.namespace), Arc::clone(&self.name))
    }

    /// As URLs write it: `name`, or `name.namespace` outside the default namespace.
    #[must_use]
    pub fn url_segment(&self) -> String {
        if &*self.namespace == DEFAULT_NAMESPACE {
            self.name.to_string()
        } else {
            format!("{}.{}", self.name, self.namespace)
        }
    }
}

/// `name` in the default namespace, else `namespace/name`.
impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if &*self.namespace != DEFAULT_NAMESPACE {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// Takes `name`, `name.namespace` as URLs write it, and `namespace/name` as messages do.
impl FromStr for FunctionKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text
            .split_once('/')
            .or_else(|| {
                text.split_once('.')
                    .map(|(name, namespace)| (namespace, name))
            })
            .unwrap_or((DEFAULT_NAMESPACE, text));
        Self::new(namespace, name)
    }
}

impl TryFrom<String> for FunctionKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<FunctionKey> for String {
    fn from(key: FunctionKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<&Function> for FunctionKey {
    type Error = KeyError;

    /// Fails only for objects that were not validated.
    fn try_from(function: &Function) -> Result<Self, Self::Error> {
        let metadata = &function.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        Self::new(namespace, metadata.name.as_deref().unwrap_or_default())
    }
}

/// Whether the text is a DNS label (RFC 1123) of at most `max` characters.
#[must_use]
pub fn is_dns_label(text: &str, max: usize) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=max).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Digest of everything that decides how an instance behaves: 16 hex digits. Fit for a label value and a part of a name.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[serde(try_from = "String", into = "String")]
pub struct Revision(Arc<str>);

/// Length of a [`Revision`], in hex digits.
const REVISION_DIGITS: usize = 16;

/// Why a text is no revision.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("{0:?} is not a revision: {REVISION_DIGITS} hex digits were expected")]
pub struct RevisionError(String);

impl Revision {
    /// The revision of these parts, in this order. Where one part ends and the next begins counts too.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let short = &hash.finalize()[..REVISION_DIGITS / 2];
        let hex = short.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        Self(
            hex.filter_map(|digit| char::from_digit(digit.into(), 16))
                .collect::<String>()
                .into(),
        )
    }

    /// The hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Revision {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == REVISION_DIGITS && text.bytes().all(hex) {
            Ok(Self(text.into()))
        } else {
            Err(RevisionError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Revision {
    type Error = RevisionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Revision> for String {
    fn from(revision: Revision) -> Self {
        revision.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_urls_and_messages_write_it() {
        for (text, namespace, name) in [
            ("sum", "default", "sum"),
            ("sum.team", "team", "sum"),
            ("team/sum", "team", "sum"),
            ("0", "default", "0"),
        ] {
            let key: FunctionKey = text.parse().unwrap();
            assert_eq!((key.namespace(), key.name()), (namespace, name), "{text}");
            assert_eq!(key.to_string().parse(), Ok(key.clone()));
            assert_eq!(key.url_segment().parse(), Ok(key));
        }
    }

    #[test]
    fn a_key_refuses_what_is_no_dns_label() {
        let long = "a".repeat(MAX_NAME + 1);
        for text in [
            "", "-a", "a-", "A", "a_b", "a b", "a.b.c", "a/b/c", "a.", ".a", "/a", "a/", "ä", &long,
        ] {
            assert!(text.parse::<FunctionKey>().is_err(), "{text:?}");
        }
        assert!("a".repeat(MAX_NAME).parse::<FunctionKey>().is_ok());
    }

    #[test]
    fn a_revision_depends_on_every_part_and_border() {
        let revision = |parts: &[&str]| Revision::of(parts.iter().map(|part| part.as_bytes()));
        assert_eq!(revision(&["a", "b"]), revision(&["a", "b"]));
        assert_ne!(revision(&["a", "b"]), revision(&["b", "a"]));
        assert_ne!(revision(&["ab", ""]), revision(&["a", "b"]));
        assert_eq!(revision(&["a"]).as_str().parse(), Ok(revision(&["a"])));
    }

    #[test]
    fn a_revision_refuses_what_is_no_digest() {
        for text in [
            "",
            "abc",
            "0123456789ABCDEF",
            "0123456789abcdef0",
            "0123456789abcdeg",
        ] {
            assert!(text.parse::<Revision>().is_err(), "{text:?}");
        }
    }
}
