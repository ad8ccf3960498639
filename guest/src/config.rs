//! What the init was told: the program with its arguments, and the two variables that it reads.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const DEFAULT_PORT: u16 = 8080;

/// First argument of an init that is a child of `faas` and not of a container.
const CHILD: &str = "--child";

/// First argument of an init that runs no program, but tries for a while whether a server is `open` or `shut` to it.
const REACH: &str = "--reach";

/// First argument of an init that runs no program, but waits until nobody has a connection to a port of another's program.
const UNTIL_IDLE: &str = "--until-idle";

/// What this process is for.
#[derive(Debug, PartialEq, Eq)]
pub enum Orders {
    Run(Config),
    Reach(Reach),
    UntilIdle(UntilIdle),
}

/// Until nobody speaks with a program.
#[derive(Debug, PartialEq, Eq)]
pub struct UntilIdle {
    pub port: u16,
    /// Not longer than this.
    pub limit: Duration,
}

/// Whether a server can be reached from here.
#[derive(Debug, PartialEq, Eq)]
pub struct Reach {
    pub is_expected: bool,
    pub server: SocketAddr,
}

/// How a program is run.
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
    BadReach,
    BadUntilIdle,
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
            Self::BadReach => write!(
                f,
                "what is to be reached is not clear; usage: init {REACH} open|shut, with its address in \
                 KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT"
            ),
            Self::BadUntilIdle => write!(
                f,
                "what is to be idle is not clear; usage: init {UNTIL_IDLE} PORT SECONDS"
            ),
        }
    }
}

impl Orders {
    /// Reads the arguments and the environment of this process.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place of this program that reads the environment"
    )]
    pub fn from_process() -> Result<Self, Error> {
        let words: Vec<_> = env::args_os().skip(1).collect();
        if words.first().is_some_and(|first| first == REACH) {
            let host = env::var("KUBERNETES_SERVICE_HOST");
            let port = env::var("KUBERNETES_SERVICE_PORT");
            return Reach::new(&words[1..], host.ok(), port.ok()).map(Self::Reach);
        }
        if words.first().is_some_and(|first| first == UNTIL_IDLE) {
            return UntilIdle::new(&words[1..]).map(Self::UntilIdle);
        }
        let (socket, port) = (env::var_os("FAAS_SOCKET"), env::var_os("PORT"));
        Config::new(words, socket, port).map(Self::Run)
    }
}

impl UntilIdle {
    fn new(words: &[OsString]) -> Result<Self, Error> {
        let [port, seconds] = words else {
            return Err(Error::BadUntilIdle);
        };
        let seconds = seconds.to_str().and_then(|seconds| seconds.parse().ok());
        Ok(Self {
            port: parse_port(port.clone())?,
            limit: seconds
                .map(Duration::from_secs)
                .ok_or(Error::BadUntilIdle)?,
        })
    }
}

impl Reach {
    fn new(words: &[OsString], host: Option<String>, port: Option<String>) -> Result<Self, Error> {
        let [expected] = words else {
            return Err(Error::BadReach);
        };
        let is_expected = match expected.to_str() {
            Some("open") => true,
            Some("shut") => false,
            _ => return Err(Error::BadReach),
        };
        let host = host.and_then(|host| host.parse().ok());
        let port = port.and_then(|port| port.parse().ok());
        host.zip(port)
            .map(|(host, port)| Self {
                is_expected,
                server: SocketAddr::new(host, port),
            })
            .ok_or(Error::BadReach)
    }
}

impl Config {
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
    fn what_is_to_be_reached_is_an_address_of_the_cluster() {
        let reach = |words: &[&str], host: Option<&str>, port: Option<&str>| {
            let words: Vec<_> = words.iter().map(OsString::from).collect();
            Reach::new(&words, host.map(str::to_owned), port.map(str::to_owned))
        };
        for (word, is_expected) in [("open", true), ("shut", false)] {
            let server = "[fd00::1]:443".parse().unwrap();
            let expected = Reach {
                is_expected,
                server,
            };
            assert_eq!(reach(&[word], Some("fd00::1"), Some("443")), Ok(expected));
        }
        for (words, host, port) in [
            (&["open"][..], None, Some("443")),
            (&["open"], Some("10.0.0.1"), None),
            (&["open"], Some("kubernetes"), Some("443")),
            (&["maybe"], Some("10.0.0.1"), Some("443")),
            (&["open", "shut"], Some("10.0.0.1"), Some("443")),
            (&[], Some("10.0.0.1"), Some("443")),
        ] {
            assert_eq!(reach(words, host, port), Err(Error::BadReach));
        }
    }

    #[test]
    fn what_is_to_be_idle_is_a_port_for_a_time() {
        let until = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(OsString::from).collect();
            UntilIdle::new(&words)
        };
        let expected = UntilIdle {
            port: 8080,
            limit: Duration::from_secs(30),
        };
        assert_eq!(until(&["8080", "30"]), Ok(expected));
        assert_eq!(until(&["0", "30"]), Err(Error::BadPort("0".into())));
        for words in [&["8080"][..], &["8080", "-1"], &["8080", "30", "x"], &[]] {
            assert_eq!(until(words), Err(Error::BadUntilIdle));
        }
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
