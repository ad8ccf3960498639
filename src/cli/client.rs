//! The server over HTTP: one method for each thing that commands ask for.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::credentials::{Credentials, CredentialsError};
use crate::{
    config,
    function::{Function, FunctionKey},
};

/// Longest wait for a connection: the server is near.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for an answer that needs no function.
const ANSWER: Duration = Duration::from_secs(30);
/// Most of an answer that is no answer of ours that is shown.
const SHOWN: usize = 200;

/// Why the server did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0:?} is no server's URL: give one such as http://127.0.0.1:5555")]
    BadUrl(String),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(
        "the certificate of {server} is not trusted: {why}\nIf it should be, name its authority with --ca FILE or FAAS_CA"
    )]
    Distrusted { server: String, why: String },
    #[error(
        "no faas server answers at {server}: {why}\nStart one with `faas start`, or say where it is with --server URL or \
         FAAS_URL"
    )]
    Unreachable { server: String, why: String },
    #[error("the server at {server} did not answer in full: {why}")]
    Lost { server: String, why: String },
    /// The server's own words.
    #[error("{message} ({code}){}", info.as_deref().map(|info| format!(": {info}")).unwrap_or_default())]
    Refused {
        status: StatusCode,
        message: String,
        info: Option<String>,
        code: String,
        /// Where the call that was refused is answered.
        invoke: Option<String>,
    },
    #[error("{server} answers, but not as faas does ({what}): is it another program?")]
    Stranger { server: String, what: String },
}

impl ClientError {
    /// Whether it says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                status: StatusCode::NOT_FOUND,
                ..
            }
        )
    }
}

/// All Functions, or those of a namespace.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionList {
    pub api_version: String,
    pub kind: String,
    pub items: Vec<Function>,
}

/// Something that happened to a Function.
#[derive(Debug, Deserialize)]
pub struct Event {
    pub time: jiff::Timestamp,
    #[serde(rename = "type")]
    pub kind: String,
    pub reason: String,
    pub message: String,
    pub count: u32,
}

#[derive(Deserialize)]
struct Events {
    items: Vec<Event>,
}

#[derive(Deserialize)]
struct Deployed {
    invoke: String,
}

#[derive(Deserialize)]
struct Answer {
    response: String,
}

/// The body of every refusal.
#[derive(Deserialize)]
struct Refusal {
    message: String,
    info: Option<String>,
    code: String,
    invoke: Option<String>,
}

/// One server.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    server: String,
    credentials: Credentials,
}

impl Client {
    /// Connects to nothing yet. `server` is what was typed; else the environment or the default counts.
    pub fn new(server: Option<String>, credentials: &Credentials) -> Result<Self, ClientError> {
        let given = config::server_url(server);
        let server = given.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&server)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| ClientError::BadUrl(given.clone()))?;
        let builder = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT);
        let http = credentials.bring(builder, &url)?.build();
        let http = http.map_err(|_| ClientError::BadUrl(given))?;
        Ok(Self {
            http,
            server,
            credentials: credentials.clone(),
        })
    }

    /// Where the server is.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The Functions of a namespace, or all.
    pub async fn list(&self, namespace: Option<&str>) -> Result<FunctionList, ClientError> {
        let query = namespace
            .map(|n| format!("?namespace={n}"))
            .unwrap_or_default();
        self.get_json(&format!("/functions{query}")).await
    }

    /// One Function.
    pub async fn get(&self, key: &FunctionKey) -> Result<Function, ClientError> {
        self.get_json(&path(key)).await
    }

    /// Stores a Function; tells whether it was created, configured or unchanged.
    pub async fn apply(
        &self,
        key: &FunctionKey,
        function: &Function,
    ) -> Result<String, ClientError> {
        let request = self
            .http
            .put(self.url(&path(key)))
            .json(function)
            .timeout(ANSWER);
        let response = self.send(request).await?;
        let applied = response
            .headers()
            .get("x-faas-applied")
            .and_then(|value| value.to_str().ok());
        Ok(applied.unwrap_or("applied").to_owned())
    }

    /// Begins to delete a Function.
    pub async fn delete(&self, key: &FunctionKey) -> Result<(), ClientError> {
        self.send(self.http.delete(self.url(&path(key))).timeout(ANSWER))
            .await
            .map(drop)
    }

    /// Uploads an archive and waits until the Function answers; tells the URL to call.
    pub async fn deploy(&self, key: &FunctionKey, tar: &[u8]) -> Result<String, ClientError> {
        let body = json!({"name": key.url_segment(), "file": BASE64_STANDARD.encode(tar)});
        let response = self
            .send(self.http.post(self.url("/functions")).json(&body))
            .await?;
        self.read::<Deployed>(response)
            .await
            .map(|deployed| deployed.invoke)
    }

    /// Calls a Function, at the address for calls where there is one; tells its result.
    pub async fn invoke(&self, key: &FunctionKey, input: Vec<u8>) -> Result<String, ClientError> {
        let input = bytes::Bytes::from(input);
        match self.call(&self.url(&path(key)), input.clone()).await {
            Err(ClientError::Refused {
                invoke: Some(url), ..
            }) => {
                // Another address, which must be fit for the token too.
                let there = Self::new(Some(url.clone()), &self.credentials)?;
                there.call(&url, input).await
            }
            outcome => outcome,
        }
    }

    async fn call(&self, url: &str, input: bytes::Bytes) -> Result<String, ClientError> {
        let request = self.http.post(url).body(input);
        let request = request.header("content-type", "application/json");
        let response = self.send(request).await?;
        self.read::<Answer>(response)
            .await
            .map(|answer| answer.response)
    }

    /// What happened to a Function, oldest first.
    pub async fn events(&self, key: &FunctionKey) -> Result<Vec<Event>, ClientError> {
        self.get_json::<Events>(&format!("{}/events", path(key)))
            .await
            .map(|events| events.items)
    }

    /// The reconcile loop, as `/status` tells it.
    pub async fn status(&self) -> Result<Value, ClientError> {
        self.get_json("/status").await
    }

    /// What the instances of a Function wrote, to be read as it comes.
    pub async fn logs(
        &self,
        key: &FunctionKey,
        follow: bool,
        tail: u32,
    ) -> Result<Log, ClientError> {
        self.log(format!("{}/logs?follow={follow}&tail={tail}", path(key)))
            .await
    }

    /// What the last build of a Function said, to be read as it comes.
    pub async fn build_log(&self, key: &FunctionKey, follow: bool) -> Result<Log, ClientError> {
        self.log(format!("{}/build-log?follow={follow}", path(key)))
            .await
    }

    async fn log(&self, path: String) -> Result<Log, ClientError> {
        let response = self.send(self.http.get(self.url(&path))).await?;
        Ok(Log {
            response,
            server: self.server.clone(),
        })
    }

    async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self
            .send(self.http.get(self.url(path)).timeout(ANSWER))
            .await?;
        self.read(response).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    /// The answer, if it is a good one.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request
            .send()
            .await
            .map_err(|error| lost(&self.server, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response
            .bytes()
            .await
            .map_err(|error| lost(&self.server, &error))?;
        if let Ok(Refusal {
            message,
            info,
            code,
            invoke,
        }) = serde_json::from_slice(&body)
        {
            return Err(ClientError::Refused {
                status,
                message,
                info,
                code,
                invoke,
            });
        }
        let text: String = String::from_utf8_lossy(&body)
            .trim()
            .chars()
            .take(SHOWN)
            .collect();
        Err(ClientError::Stranger {
            server: self.server.clone(),
            what: format!("{status} {text}"),
        })
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let body = response
            .bytes()
            .await
            .map_err(|error| lost(&self.server, &error))?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Stranger {
            server: self.server.clone(),
            what: error.to_string(),
        })
    }
}

/// A log on its way.
#[derive(Debug)]
pub struct Log {
    response: Response,
    server: String,
}

impl Log {
    /// The next piece; nothing at the end. No piece is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, ClientError> {
        self.response
            .chunk()
            .await
            .map_err(|error| lost(&self.server, &error))
    }
}

fn path(key: &FunctionKey) -> String {
    format!("/functions/{}", key.url_segment())
}

fn lost(server: &str, error: &reqwest::Error) -> ClientError {
    let (server, why) = (server.to_owned(), root_cause(error));
    if why.starts_with("invalid peer certificate") {
        ClientError::Distrusted { server, why }
    } else if why.starts_with("invalid HTTP version") {
        let what = "no HTTP; one that speaks TLS has a URL with https://".to_owned();
        ClientError::Stranger { server, what }
    } else if error.is_connect() {
        ClientError::Unreachable { server, why }
    } else {
        ClientError::Lost { server, why }
    }
}

/// The innermost error: the others only wrap it.
fn root_cause(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .unwrap_or(error)
        .to_string()
}
