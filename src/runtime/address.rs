//! Where an instance listens, and how anyone connects there.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::sockopt;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_util::either::Either;

use super::socket;

/// Longest wait for a pod to accept a connection: one whose node has gone answers nothing at all.
const CONNECT: Duration = Duration::from_secs(3);

/// After this silence a pod's node is asked whether it is still there, ...
const SILENCE: Duration = Duration::from_secs(5);
/// ... again after this without an answer, ...
const PROBE: Duration = Duration::from_secs(2);
/// ... and this often at most.
const PROBES: u32 = 3;

/// Where an instance listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// A unix socket in a directory of the instance's own.
    Socket(PathBuf),
    /// A pod. Its address may be another one's by the time of a call, so the call names the pod that it is for.
    Pod { at: SocketAddr, uid: String },
}

/// A connection to an instance.
pub type Link = Either<UnixStream, TcpStream>;

impl Address {
    /// Connects, and to nothing else than the instance where that can be seen: see [`socket::connect`].
    ///
    /// # Errors
    /// When nobody listens there, or what is there is no socket.
    pub async fn connect(&self) -> io::Result<Link> {
        match self {
            Self::Socket(path) => socket::connect(path).await.map(Either::Left),
            Self::Pod { at, .. } => {
                let late = |_| io::Error::from(io::ErrorKind::TimedOut);
                let stream = timeout(CONNECT, TcpStream::connect(at))
                    .await
                    .map_err(late)??;
                // A small request must not wait for the acknowledgement of the one before.
                stream.set_nodelay(true)?;
                // Nor may an answer be waited for that cannot come.
                sockopt::set_tcp_keepidle(&stream, SILENCE)?;
                sockopt::set_tcp_keepintvl(&stream, PROBE)?;
                sockopt::set_tcp_keepcnt(&stream, PROBES)?;
                sockopt::set_socket_keepalive(&stream, true)?;
                Ok(Either::Right(stream))
            }
        }
    }

    /// The socket's path, if it is one.
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Self::Socket(path) => Some(path),
            Self::Pod { .. } => None,
        }
    }

    /// Of which pod a call must be sure that it is the one that listens.
    pub fn uid(&self) -> Option<&str> {
        match self {
            Self::Socket(_) => None,
            Self::Pod { uid, .. } => Some(uid),
        }
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Self::Socket(path)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Pod { at, .. } => write!(f, "{at}"),
        }
    }
}
