//! Calls: whole ones, streaming ones, and ones byte by byte.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::SOON;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub async fn of(response: reqwest::Response) -> Self {
        Self::whole(response).await.unwrap()
    }

    /// Unless it breaks off.
    pub async fn whole(response: reqwest::Response) -> reqwest::Result<Self> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        Ok(Self {
            status,
            headers,
            text,
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header's value, empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// Fails unless the status is this one.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// Fails unless the platform made this answer, with this code.
    pub fn refused(self, status: u16, code: &str) -> Self {
        let reply = self.expect(status);
        assert_eq!(reply.header("x-faas-error"), code, "{reply:?}");
        assert_eq!(reply.json()["code"], code, "{reply:?}");
        reply
    }

    /// What the function answered, out of its envelope.
    pub fn response(self) -> Value {
        let reply = self.expect(200);
        let response = reply.json()["response"].as_str().map(str::to_owned);
        serde_json::from_str(&response.unwrap_or_else(|| panic!("no envelope: {reply:?}"))).unwrap()
    }
}

/// Of clients that could speak TLS, too.
pub fn builder() -> reqwest::ClientBuilder {
    // Whoever was first has done it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// A client that uses no proxy. One for a test: its connections belong to the test's runtime.
pub fn client() -> reqwest::Client {
    let builder = builder().no_proxy();
    builder.timeout(Duration::from_secs(120)).build().unwrap()
}

/// An answer that is read piece by piece.
pub struct Streaming(pub reqwest::Response);

impl Streaming {
    /// Reads until the text so far ends with `end`.
    pub async fn until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let piece = timeout(SOON, self.0.chunk()).await;
            let piece: Option<Bytes> = piece
                .unwrap_or_else(|_| panic!("{text:?}, and no {end:?}"))
                .unwrap();
            let piece = piece.unwrap_or_else(|| panic!("ended without {end:?}: {text:?}"));
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        text
    }

    /// Whether it comes to its end, with whatever is said until then.
    pub async fn ended(&mut self) -> bool {
        let end = async { while let Ok(Some(_)) = self.0.chunk().await {} };
        timeout(SOON, end).await.is_ok()
    }
}

/// Sends bytes as they are on a connection of their own and reads until the server closes it.
pub async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
    read.unwrap_or_else(|_| panic!("the connection stays open: {request:?}"))
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
