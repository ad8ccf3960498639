//! What the init was told: the program with its arguments, and the two variables that it reads.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

const DEFAULT_PORT: u16 = 8080;

/// First argument of an init that is a child of `faas` and not of a container.
const CHILD: &str = "--child";

/// The init's orders.
#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    /// It runs beside `faas`, which holds the other end of its input: when that is closed, everything below ends at
    /// once. Nothing is carried.
    pub child: bool,
    /// The program and its arguments; never empty.
    pub command: Vec<OsString>,
    /// Where `faas` connects (`FAAS_SOCKET`); without it nothing is carried.
    pub socket: Option<PathBuf>,
    /// The TCP port of a program that knows only TCP (`PORT`).
    pub port: u16,
}

/// Orders that cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    NoProgram,
    BadPort(OsString),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram => write!(
                f,
                "no program was given; usage: init [--child] PROGRAM [ARGUMENT...]"
            ),
            Self::BadPort(value) => write!(
                f,
                "PORT is `{}`, but it must be a number from 1 to 65535",
                value.display()
            ),
        }
    }
}

impl Config {
    /// Reads the arguments and the environment of this process.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place of this program that reads the environment"
    )]
    pub fn from_process() -> Result<Self, Error> {
        Self::new(
            env::args_os().skip(1).collect(),
            env::var_os("FAAS_SOCKET"),
            env::var_os("PORT"),
        )
    }

    fn new(
        mut command: Vec<OsString>,
        socket: Option<OsString>,
        port: Option<OsString>,
    ) -> Result<Self, Error> {
        let child = command.first().is_some_and(|first| first == CHILD);
        if child {
            command.remove(0);
        }
        if command.is_empty() {
            return Err(Error::NoProgram);
        }
        Ok(Self {
            child,
            command,
            socket: socket
                .filter(|path| !path.is_empty() && !child)
                .map(PathBuf::from),
            port: port
                .filter(|port| !port.is_empty())
                .map_or(Ok(DEFAULT_PORT), parse_port)?,
        })
    }
}

fn parse_port(value: OsString) -> Result<u16, Error> {
    let port = value.to_str().and_then(|text| text.parse().ok());
    port.filter(|port| *port != 0).ok_or(Error::BadPort(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(command: &[&str], socket: Option<&str>, port: Option<&str>) -> Result<Config, Error> {
        Config::new(
            command.iter().map(OsString::from).collect(),
            socket.map(OsString::from),
            port.map(OsString::from),
        )
    }

    #[test]
    fn takes_program_socket_and_port() {
        let expected = Config {
            child: false,
            command: vec!["node".into(), "index.js".into()],
            socket: Some("/run/faas/fn.sock".into()),
            port: 3000,
        };
        assert_eq!(
            config(
                &["node", "index.js"],
                Some("/run/faas/fn.sock"),
                Some("3000")
            ),
            Ok(expected)
        );
    }

    #[test]
    fn defaults() {
        for empty in [None, Some("")] {
            let expected = Config {
                child: false,
                command: vec!["a".into()],
                socket: None,
                port: 8080,
            };
            assert_eq!(config(&["a"], empty, empty), Ok(expected));
        }
    }

    #[test]
    fn a_child_of_faas_carries_nothing() {
        let expected = Config {
            child: true,
            command: vec!["a".into(), CHILD.into()],
            socket: None,
            port: DEFAULT_PORT,
        };
        assert_eq!(config(&[CHILD, "a", CHILD], Some("/s"), None), Ok(expected));
        assert_eq!(config(&[CHILD], None, None), Err(Error::NoProgram));
    }

    #[test]
    fn refuses_what_it_cannot_follow() {
        assert_eq!(config(&[], None, None), Err(Error::NoProgram));
        for port in ["0", "65536", "-1", "http", "80 "] {
            assert_eq!(
                config(&["a"], None, Some(port)),
                Err(Error::BadPort(port.into()))
            );
        }
    }
}
