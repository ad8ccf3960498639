//! Where images lie: names of images as people write them, and the repositories of one installation. (pure)

use std::{fmt, str::FromStr};

use super::super::recipe::image_prefix;
use crate::function::FunctionKey;

/// What `docker.io/node` means.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

/// A name that is none, or a place where nothing can be kept.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    #[error(
        "{0:?} is no name of an image: write REPOSITORY[:TAG], HOST/REPOSITORY[:TAG] or HOST/REPOSITORY@sha256:DIGEST"
    )]
    Image(String),
    #[error(
        "{0:?} is no place in a registry: write HOST[:PORT]/PREFIX, such as registry.example:5000/faas"
    )]
    Place(String),
}

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repository {
    /// Host, with the port if there is one.
    pub registry: String,
    pub name: String,
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

/// An image of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub repository: Repository,
    /// A tag, or a digest.
    pub version: String,
}

impl FromStr for Reference {
    type Err = NameError;

    /// As Docker reads them: what has a dot, a colon or is `localhost` before the first slash is a host, and a digest counts
    /// more than a tag.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Image(text.to_owned());
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (registry, rest) = match name.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            _ => (HUB, name),
        };
        let (path, tag) = rest.split_once(':').unwrap_or((rest, "latest"));
        let name = if registry == HUB && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        let version = digest.unwrap_or(tag);
        let fits = digest.map_or_else(|| is_tag(tag), is_digest);
        if !is_host(registry) || !is_path(&name) || !fits {
            return Err(wrong());
        }
        let registry = if registry == HUB { HUB_HOST } else { registry };
        Ok(Self {
            repository: Repository {
                registry: registry.to_owned(),
                name,
            },
            version: version.to_owned(),
        })
    }
}

/// A host and what all repositories there begin with: `registry.example:5000/faas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    registry: String,
    prefix: String,
}

impl FromStr for Place {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let place = text.split_once('/').map(|(registry, prefix)| Self {
            registry: registry.to_owned(),
            prefix: prefix.to_owned(),
        });
        place
            .filter(|place| is_host(&place.registry) && is_path(&place.prefix))
            .ok_or_else(|| NameError::Place(text.to_owned()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.prefix)
    }
}

impl Place {
    /// The host, with its port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Copies of base images.
    pub(super) fn bases(&self) -> Repository {
        self.repository("base")
    }

    /// What tells where everything of an owner is.
    pub(super) fn index(&self) -> Repository {
        self.repository("index")
    }

    /// What engines built, on its way to be an image.
    pub(super) fn steps(&self) -> Repository {
        self.repository("steps")
    }

    /// Images of a Function.
    pub(super) fn images(&self, function: &FunctionKey) -> Repository {
        self.repository(&format!("{}/{}", function.namespace(), function.name()))
    }

    /// Uploads of a namespace.
    pub(super) fn archives(&self, namespace: &str) -> Repository {
        self.repository(&format!("{namespace}/archives"))
    }

    /// What [`Self::within`] told, if it is the name of a repository.
    pub(super) fn below(&self, name: &str) -> Option<Repository> {
        is_path(name).then(|| self.repository(name))
    }

    fn repository(&self, below: &str) -> Repository {
        Repository {
            registry: self.registry.clone(),
            name: format!("{}/{below}", self.prefix),
        }
    }

    /// The rest of a repository's name behind this place.
    pub(super) fn within<'a>(&self, repository: &'a Repository) -> Option<&'a str> {
        let name = repository.name.strip_prefix(&self.prefix)?;
        name.strip_prefix('/')
            .filter(|_| repository.registry == self.registry)
    }
}

/// The digest in the name of an image of this owner.
pub(super) fn digest_of<'a>(owner: &str, image: &'a str) -> Option<&'a str> {
    let digest = image.strip_prefix(&image_prefix(owner))?;
    is_hex(digest).then_some(digest)
}

/// Whether it is `sha256:` and 64 hex digits.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex)
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, "0"),
    };
    let plain = |host: &str| {
        let ends = [host.bytes().next(), host.bytes().last()];
        ends.iter()
            .all(|b| b.is_some_and(|b| b.is_ascii_alphanumeric()))
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
    };
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let six = bracketed.is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok());
    port.parse::<u16>().is_ok() && (plain(host) || six)
}

fn is_path(text: &str) -> bool {
    text.len() <= 200
        && text.split('/').all(|part| {
            let ends = [part.bytes().next(), part.bytes().last()];
            ends.iter().all(|b| b.is_some_and(is_alphanumeric))
                && part
                    .bytes()
                    .all(|b| is_alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
        })
}

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with(['.', '-'])
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let by_digest = format!("[::1]:5000/a/b:tag@{digest}");
        for (text, registry, name, version) in [
            ("node", HUB_HOST, "library/node", "latest"),
            ("node:22-slim", HUB_HOST, "library/node", "22-slim"),
            ("docker.io/team/x:1", HUB_HOST, "team/x", "1"),
            ("localhost/x", "localhost", "x", "latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000", "a/b", "c"),
            (&by_digest, "[::1]:5000", "a/b", &digest),
        ] {
            let read: Reference = text.parse().unwrap();
            let repository = &read.repository;
            assert_eq!(
                (&*repository.registry, &*repository.name, &*read.version),
                (registry, name, version),
                "{text}"
            );
        }
        for wrong in [
            "",
            "Node",
            "a b",
            "x:",
            "x@sha256:12",
            "h:port/x",
            "../x",
            "x/",
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_place_knows_what_lies_there() {
        let place: Place = "registry.example:5000/team/faas".parse().unwrap();
        let function: FunctionKey = "sum.shop".parse().unwrap();
        let images = place.images(&function);
        assert_eq!(
            images.to_string(),
            "registry.example:5000/team/faas/shop/sum"
        );
        assert_eq!(place.within(&images), Some("shop/sum"));
        let elsewhere: Place = "registry.example:5000/team".parse().unwrap();
        assert_eq!(place.within(&elsewhere.images(&function)), None);
        for wrong in [
            "registry.example",
            "h/",
            "h/UP",
            "h/a//b",
            "http://h/x",
            "u:p@h/x",
        ] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
