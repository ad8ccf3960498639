//! Asks an engine which builder it prefers: the header of `/_ping` that says so is not in reach of the client library.

use std::{io, path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::Flavour;

const LIMIT: Duration = Duration::from_secs(10);

/// BuildKit when the engine names it, else the classic builder (Docker 20.10 says nothing).
///
/// # Errors
/// When nobody answers there in time.
pub async fn flavour(socket: &Path) -> io::Result<Flavour> {
    tokio::time::timeout(LIMIT, ask(socket)).await?
}

async fn ask(socket: &Path) -> io::Result<Flavour> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
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
