//! What can go wrong with a registry, in its own words and without any secret.

use super::super::{BuildError, archives::ArchivesError};
use crate::{runtime::docker::engine::NO_SPACE, text};

/// How much of a registry's words is repeated, in bytes.
const WORDS: usize = 512;

/// A registry did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum RegistryError {
    /// It does not answer, not in time, or has a bad day.
    #[error("registry {registry}: {what}: {message}")]
    Away {
        registry: String,
        what: String,
        message: String,
    },
    /// It does not want to.
    #[error("registry {registry} refuses: {what}: {status} {message}{}", remedy(*status))]
    Refused {
        registry: String,
        what: String,
        status: u16,
        message: String,
    },
    /// Its disk or quota is full.
    #[error("registry {registry}: {what}: {message}")]
    Full {
        registry: String,
        what: String,
        message: String,
    },
    /// The file of credentials is of no use.
    #[error("{0}")]
    Credentials(String),
}

/// What may help.
fn remedy(status: u16) -> &'static str {
    match status {
        401 | 403 => "; give credentials that may do this with --registry-auth FILE",
        404 => "; it may want repositories to be made beforehand",
        405 => "; allow it to delete, or collect what is unused yourself",
        413 => "; raise the limit of the registry, or of a proxy before it",
        _ => "",
    }
}

/// What may help where TLS comes to nothing, by what its library says.
fn remedy_of_tls(message: &str) -> &'static str {
    let known = [
        (
            "UnknownIssuer",
            "; if it is a registry of yours, name its authority's file by SSL_CERT_FILE",
        ),
        (
            "InvalidContentType",
            "; if it speaks plain HTTP, say so with --registry-plain-http",
        ),
    ];
    let found = known.into_iter().find(|(said, _)| message.contains(said));
    found.map_or("", |(_, remedy)| remedy)
}

impl RegistryError {
    /// From an answer that is no success.
    pub(super) fn answered(registry: &str, what: &str, status: u16, body: &[u8]) -> Self {
        let (registry, what) = (registry.to_owned(), what.to_owned());
        let message = words(body);
        if status == 507 || (status >= 500 && is_full(&message)) {
            return Self::Full {
                registry,
                what,
                message: format!("{status} {message}"),
            };
        }
        if status == 429 || status >= 500 {
            return Self::Away {
                registry,
                what,
                message: format!("{status} {message}"),
            };
        }
        Self::Refused {
            registry,
            what,
            status,
            message,
        }
    }

    /// From a request that got no answer. URLs may carry signatures, so they are left out.
    pub(super) fn unanswered(registry: &str, what: &str, error: reqwest::Error) -> Self {
        let message = if error.is_timeout() {
            "it did not answer in time".to_owned()
        } else {
            let message = text::quote(&chain(&error.without_url()), WORDS);
            let remedy = remedy_of_tls(&message);
            message + remedy
        };
        Self::odd(registry, what, &message)
    }

    /// From an answer that makes no sense.
    pub(super) fn odd(registry: &str, what: &str, message: &str) -> Self {
        Self::Away {
            registry: registry.to_owned(),
            what: what.to_owned(),
            message: message.to_owned(),
        }
    }

    /// Whether it is about this registry.
    pub(super) fn is_of(&self, name: &str) -> bool {
        match self {
            Self::Away { registry, .. }
            | Self::Refused { registry, .. }
            | Self::Full { registry, .. } => registry == name,
            Self::Credentials(_) => false,
        }
    }

    /// The status of a refusal.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// As an image that is asked for by its user cannot be had.
    pub(super) fn of_image(self, image: &str) -> BuildError {
        match self {
            Self::Refused { .. } => BuildError::Pull {
                image: image.to_owned(),
                message: self.to_string(),
            },
            other => other.into(),
        }
    }
}

impl From<RegistryError> for BuildError {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        match error {
            RegistryError::Away { .. } => Self::RegistryAway(message),
            RegistryError::Refused { .. } | RegistryError::Credentials(_) => {
                Self::RegistryRefused(message)
            }
            RegistryError::Full { .. } => Self::NoSpace(message),
        }
    }
}

impl From<RegistryError> for ArchivesError {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        match error {
            RegistryError::Full { .. } => Self::Full(message),
            _ => Self::Unavailable(message),
        }
    }
}

fn is_full(message: &str) -> bool {
    // ENOSPC, as registries written in Go tell it.
    message.contains(NO_SPACE) || message.contains("\"Err\":28")
}

/// What a registry says in its envelope, else as it said it.
fn words(body: &[u8]) -> String {
    let envelope: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let told: Vec<_> = envelope["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|error| {
            let part = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
            let detail = match &error["detail"] {
                serde_json::Value::Null => String::new(),
                detail => format!(" ({detail})"),
            };
            format!("{}: {}{detail}", part("code"), part("message"))
        })
        .collect();
    let told = if told.is_empty() {
        String::from_utf8_lossy(body).into_owned()
    } else {
        told.join(", ")
    };
    text::quote(&told, WORDS)
}

/// An error with its causes, which tell what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, body: &str) -> BuildError {
        RegistryError::answered("r.example", "put a manifest", status, body.as_bytes()).into()
    }

    #[test]
    fn a_refusal_a_bad_day_and_a_full_disk_are_told_apart_with_the_registrys_words() {
        let denied = r#"{"errors":[{"code":"DENIED","message":"not yours","detail":null}]}"#;
        let full = r#"{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{"Op":"mkdir","Err":28}}]}"#;
        assert_eq!(
            told(403, denied).to_string(),
            "registry r.example refuses: put a manifest: 403 DENIED: not yours; give credentials that may do this with \
             --registry-auth FILE"
        );
        for (status, body, kind) in [
            (401, "", "refused"),
            (404, "", "refused"),
            (405, "", "refused"),
            (413, "<html>too large</html>", "refused"),
            (429, "slow down", "away"),
            (500, "oops", "away"),
            (500, full, "full"),
            (502, "", "away"),
            (507, "", "full"),
        ] {
            let error = told(status, body);
            let found = match error {
                BuildError::RegistryRefused(_) => "refused",
                BuildError::RegistryAway(_) => "away",
                BuildError::NoSpace(_) => "full",
                _ => "other",
            };
            assert_eq!(found, kind, "{status} {body}: {error}");
            assert!(error.to_string().contains(&status.to_string()), "{error}");
        }
    }
}
