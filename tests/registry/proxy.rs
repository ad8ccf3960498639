//! A registry with bad days: passes everything on to the real one, but for the answers that a test asks for.

use std::sync::{Arc, Mutex};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered so, and the registry is not asked.
    Answer(u16, &'static str),
    /// It is never answered.
    Hang,
    /// It is passed on without what is behind the question mark, as to a registry that mounts nothing.
    Cut,
}

/// What goes wrong: the method and a part of the path of requests, and what becomes of these.
type Rule = (&'static str, &'static str, Fault);

/// A proxy before a registry.
#[derive(Clone)]
pub struct Proxy {
    rule: Arc<Mutex<Option<Rule>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Credentials, and the token that it gives for them and wants to see.
    token: Arc<Mutex<Option<(String, String)>>>,
    to: String,
    host: String,
    http: reqwest::Client,
}

impl Proxy {
    /// One that passes everything on, for now.
    pub async fn before(registry: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            rule: Arc::default(),
            asked: Arc::default(),
            token: Arc::default(),
            to: registry.to_owned(),
            host: listener.local_addr().unwrap().to_string(),
            http: client(),
        };
        let app = axum::Router::new().fallback(pass).with_state(proxy.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(app.clone());
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        proxy
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// From now on, nothing else goes wrong than this.
    pub fn fail(&self, rule: impl Into<Option<Rule>>) {
        *self.rule.lock().unwrap() = rule.into();
    }

    /// From now on, it wants a token, which it gives for these credentials: the value of `Authorization`.
    pub fn want_token(&self, login: String, token: &str) {
        *self.token.lock().unwrap() = Some((login, token.to_owned()));
    }

    /// What it answers to a request without the token that it wants.
    fn refusal(&self, parts: &Parts) -> Option<Response> {
        let (login, token) = self.token.lock().unwrap().clone()?;
        let shown = parts
            .headers
            .get("authorization")
            .map(|h| h.to_str().unwrap());
        let query = parts.uri.query().unwrap_or_default();
        let scope = "scope=repository%3Awhatever%3Aall";
        let good = query.contains("service=test") && query.contains(scope);
        if parts.uri.path() == "/token" && good && shown == Some(&login) {
            return Some(
                serde_json::json!({"token": token})
                    .to_string()
                    .into_response(),
            );
        }
        if shown == Some(&format!("Bearer {token}")) {
            return None;
        }
        let realm = format!("http://{}/token", self.host);
        let wants =
            format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"repository:whatever:all\"");
        Some((StatusCode::UNAUTHORIZED, [("www-authenticate", wants)]).into_response())
    }

    /// Method and path of everything that was asked since the last time.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
    builder.no_proxy().build().unwrap()
}

async fn pass(State(proxy): State<Proxy>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut path = parts.uri.path_and_query().unwrap().to_string();
    let line = format!("{} {path}", parts.method);
    proxy.asked.lock().unwrap().push(line);
    if let Some(refusal) = proxy.refusal(&parts) {
        return refusal;
    }
    let rule = proxy.rule.lock().unwrap().clone();
    let hit = rule.filter(|(method, part, _)| parts.method == *method && path.contains(part));
    match hit {
        Some((_, _, Fault::Answer(status, text))) => {
            return (StatusCode::from_u16(status).unwrap(), text).into_response();
        }
        Some((_, _, Fault::Hang)) => std::future::pending().await,
        Some((_, _, Fault::Cut)) => path.truncate(path.find('?').unwrap_or(path.len())),
        None => {}
    }
    let url = format!("http://{}{path}", proxy.to);
    let request = proxy.http.request(parts.method, url).headers(parts.headers);
    let body = reqwest::Body::wrap_stream(body.into_data_stream());
    let answer = request.body(body).send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    *response.headers_mut().unwrap() = answer.headers().clone();
    let body = Body::from_stream(answer.bytes_stream());
    response.body(body).unwrap()
}
