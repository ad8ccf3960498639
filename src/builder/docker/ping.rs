//! Asks an engine which builder it prefers: the header of `/_ping` that says so is not in reach of the client library.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_util::task::AbortOnDropHandle;

use super::{EngineHost, Flavour};

const LIMIT: Duration = Duration::from_secs(10);

/// BuildKit when the engine names it, else the classic builder (Docker 20.10 says nothing).
///
/// # Errors
/// When nobody answers there in time.
pub async fn flavour(host: &EngineHost) -> io::Result<Flavour> {
    let asked = async {
        match host {
            EngineHost::Unix(path) => ask(UnixStream::connect(path).await?).await,
            EngineHost::Tcp(address) => ask(TcpStream::connect(address).await?).await,
        }
    };
    tokio::time::timeout(LIMIT, asked).await?
}

async fn ask<S>(stream: S) -> io::Result<Flavour>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    let request = Request::get("/_ping")
        .header("Host", "docker")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    // Beside the question, because the engine may close the connection with its answer.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await;
    let response = response.map_err(io::Error::other)?;
    match response.headers().get("Builder-Version") {
        Some(version) if version == "2" => Ok(Flavour::BuildKit),
        _ => Ok(Flavour::Classic),
    }
}
