//! Where an engine listens.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use bollard::Docker;

use super::{super::BuildError, ANSWER_SECONDS, errors};

/// The address of a Docker engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineHost {
    /// A socket of this machine.
    Unix(PathBuf),
    /// Host and port. Whoever reaches it is root there, so it is for a loopback address or a network of its own.
    Tcp(String),
}

impl FromStr for EngineHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let tcp = text.strip_prefix("tcp://").filter(|address| {
            let parts = address.rsplit_once(':');
            parts.is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
            })
        });
        let unix = text
            .strip_prefix("unix://")
            .filter(|path| path.starts_with('/'));
        match (tcp, unix) {
            (Some(address), _) => Ok(Self::Tcp(address.to_owned())),
            (_, Some(path)) => Ok(Self::Unix(path.into())),
            _ => Err("must be tcp://HOST:PORT or unix:///path/to/docker.sock".to_owned()),
        }
    }
}

impl From<&Path> for EngineHost {
    fn from(socket: &Path) -> Self {
        Self::Unix(socket.to_owned())
    }
}

impl fmt::Display for EngineHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl EngineHost {
    /// A client that has asked nobody yet.
    pub(super) fn client(&self) -> Result<Docker, BuildError> {
        let version = bollard::API_DEFAULT_VERSION;
        match self {
            Self::Unix(path) => {
                Docker::connect_with_unix(&path.display().to_string(), ANSWER_SECONDS, version)
            }
            Self::Tcp(address) => Docker::connect_with_http(address, ANSWER_SECONDS, version),
        }
        .map_err(errors::engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_reached_by_a_socket_or_a_port() {
        let read = |text: &str| text.parse::<EngineHost>();
        assert_eq!(read("unix:///run/x"), Ok(EngineHost::Unix("/run/x".into())));
        assert_eq!(read("tcp://h:2375"), Ok(EngineHost::Tcp("h:2375".into())));
        for wrong in [
            "h:2375",
            "tcp://h",
            "tcp://h:x",
            "unix://x",
            "https://h:1",
            "ssh://h",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
