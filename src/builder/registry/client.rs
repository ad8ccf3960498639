//! Asks a registry, by the distribution specification. Every request has a deadline and every answer a bound; a request that
//! the registry wants to know the asker of is sent once more with what it wants.

mod blobs;

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    redirect,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use serde::Deserialize;

use super::{
    auth::{Access, Asked, Auth},
    error::RegistryError,
    manifest::{MANIFESTS, Manifest},
    reference::Repository,
};
use crate::builder::archive::sha256;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// What a registry carries in a second at least; one that is slower is given up.
const SLOWEST: u64 = 1 << 20;
/// Largest manifest or configuration of an image.
const DOCUMENT: usize = 4 << 20;
/// How often an answer may send us elsewhere.
const REDIRECTS: usize = 5;

/// A connection to registries.
pub(super) struct Client {
    http: reqwest::Client,
    auth: Auth,
    /// A registry that is spoken to without TLS, beside those on loopback.
    plain: Option<String>,
    /// Longest time for an answer to what is small.
    patience: Duration,
}

/// Why an answer could not be read.
pub(super) enum Unread {
    Broken(reqwest::Error),
    TooLarge(usize),
}

impl Unread {
    pub(super) fn of(self, registry: &str, what: &str) -> RegistryError {
        match self {
            Self::Broken(error) => RegistryError::unanswered(registry, what, error),
            Self::TooLarge(most) => {
                let message = format!("its answer is longer than {most} bytes");
                RegistryError::odd(registry, what, &message)
            }
        }
    }
}

/// One request.
struct Ask<'a> {
    repository: &'a Repository,
    access: Access,
    what: &'a str,
    method: Method,
    url: Url,
    /// How much it carries, either way.
    size: u64,
}

impl Client {
    pub(super) fn new(auth: Auth, plain: Option<String>, patience: Duration) -> Self {
        Self {
            http: http(patience),
            auth,
            plain,
            patience,
        }
    }

    /// The credentials for a registry, for an engine that pushes or pulls for us.
    pub(super) fn auth(&self) -> &Auth {
        &self.auth
    }

    /// The digest of a tag, or of a digest itself; nothing when there is none.
    pub(super) async fn digest(
        &self,
        repository: &Repository,
        version: &str,
    ) -> Result<Option<String>, RegistryError> {
        let ask = self.ask(repository, "look for a manifest", Method::HEAD);
        let ask = ask.at(self, &format!("manifests/{version}"))?;
        let asked = self.send(&ask, |request| request.header(ACCEPT, MANIFESTS));
        let Some(answer) = found(asked.await)? else {
            return Ok(None);
        };
        let told = answer.headers().get("docker-content-digest");
        let told = told.and_then(|digest| digest.to_str().ok());
        if let Some(digest) = told.filter(|digest| super::reference::is_digest(digest)) {
            return Ok(Some(digest.to_owned()));
        }
        let manifest = self.manifest(repository, version).await?;
        Ok(manifest.map(|manifest| manifest.digest))
    }

    /// A manifest; nothing when there is none.
    pub(super) async fn manifest(
        &self,
        repository: &Repository,
        version: &str,
    ) -> Result<Option<Manifest>, RegistryError> {
        const WHAT: &str = "get a manifest";
        let ask = self.ask(repository, WHAT, Method::GET);
        let ask = ask.at(self, &format!("manifests/{version}"))?;
        let asked = self.send(&ask, |request| request.header(ACCEPT, MANIFESTS));
        let Some(answer) = found(asked.await)? else {
            return Ok(None);
        };
        let kind = answer.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.to_owned();
        let read = read(answer, DOCUMENT).await;
        let bytes = read.map_err(|error| error.of(&repository.registry, WHAT))?;
        let digest = format!("sha256:{}", sha256(&bytes));
        if super::reference::is_digest(version) && digest != version {
            return Err(ask.odd("what it sent has another digest"));
        }
        Ok(Some(Manifest {
            digest,
            kind,
            bytes,
        }))
    }

    /// Puts a manifest under a tag.
    pub(super) async fn put_manifest(
        &self,
        repository: &Repository,
        tag: &str,
        manifest: &Manifest,
    ) -> Result<(), RegistryError> {
        let ask = self.ask(repository, "put a manifest", Method::PUT);
        let ask = ask.at(self, &format!("manifests/{tag}"))?;
        let with = |request: RequestBuilder| {
            request
                .header(CONTENT_TYPE, &manifest.kind)
                .body(manifest.bytes.clone())
        };
        self.send(&ask, with).await.map(drop)
    }

    /// Deletes a manifest; one that is not there is no error.
    pub(super) async fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &str,
    ) -> Result<(), RegistryError> {
        let ask = self.ask(repository, "delete a manifest", Method::DELETE);
        let ask = ask.at(self, &format!("manifests/{digest}"))?;
        found(self.send(&ask, |request| request).await).map(drop)
    }

    /// All tags of a repository; none when there is no such repository.
    pub(super) async fn tags(&self, repository: &Repository) -> Result<Vec<String>, RegistryError> {
        const WHAT: &str = "list tags";
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut ask = self
            .ask(repository, WHAT, Method::GET)
            .at(self, "tags/list")?;
        let mut tags = Vec::new();
        loop {
            let Some(answer) = found(self.send(&ask, |request| request).await)? else {
                return Ok(tags);
            };
            let next = answer.headers().get("link").cloned();
            let body = read(answer, 16 << 20).await;
            let body = body.map_err(|error| error.of(&repository.registry, WHAT))?;
            let page: Page = serde_json::from_slice(&body)
                .map_err(|_| ask.odd("its list of tags cannot be read"))?;
            let found = page.tags.unwrap_or_default();
            let (Some(next), false) = (next, found.is_empty()) else {
                tags.extend(found);
                return Ok(tags);
            };
            tags.extend(found);
            let next = next.to_str().ok().and_then(|link| {
                let (path, _) = link.strip_prefix('<')?.split_once('>')?;
                ask.url.join(path).ok()
            });
            ask.url = next.ok_or_else(|| ask.odd("its link to the next tags cannot be read"))?;
        }
    }

    fn ask<'a>(&self, repository: &'a Repository, what: &'a str, method: Method) -> Ask<'a> {
        let access = match method {
            Method::GET | Method::HEAD => Access::Pull,
            Method::DELETE => Access::Delete,
            _ => Access::Push,
        };
        Ask {
            repository,
            access,
            what,
            method,
            url: self.base(&repository.registry),
            size: 0,
        }
    }

    /// How a registry is reached. As Docker and containerd have it, loopback is plain.
    fn base(&self, registry: &str) -> Url {
        let https = Url::parse(&format!("https://{registry}/"));
        let mut url = https.expect("a repository's registry was checked to be a host");
        if is_loopback(&url) || self.plain.as_deref() == Some(registry) {
            let http = Url::parse(&format!("http://{registry}/"));
            url = http.expect("a repository's registry was checked to be a host");
        }
        url
    }

    /// Sends a request; answers that are no success are errors.
    async fn send(
        &self,
        ask: &Ask<'_>,
        mut with: impl FnMut(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let registry = &ask.repository.registry;
        // An upload may be sent elsewhere, and what we are to this registry is nobody else's business.
        let ours = ask.url.origin() == self.base(registry).origin();
        let login = if ours {
            self.auth.login(registry).await?
        } else {
            None
        };
        let limit = self.patience + Duration::from_secs(ask.size / SLOWEST);
        let mut request = |header: Option<HeaderValue>| {
            let request = self.http.request(ask.method.clone(), ask.url.clone());
            let request = with(request.timeout(limit));
            match header {
                Some(header) => request.header(AUTHORIZATION, header),
                None => request,
            }
        };
        let known = self.auth.known(ask.repository, ask.access, login.as_ref());
        let known = known.filter(|_| ours);
        let mut answer = request(known.clone()).send().await;
        if answer.as_ref().is_err_and(|error| ask.was_cut(error)) {
            answer = request(known).send().await;
        }
        let mut answer =
            answer.map_err(|error| RegistryError::unanswered(registry, ask.what, error))?;
        if answer.status() == StatusCode::UNAUTHORIZED && ours {
            let asked = Asked {
                repository: ask.repository,
                access: ask.access,
                plain: ask.url.scheme() == "http",
            };
            let headers = answer.headers();
            let header = self.auth.answer(asked, headers, login, &self.http).await?;
            if let Some(header) = header {
                let again = request(Some(header)).send().await;
                answer =
                    again.map_err(|error| RegistryError::unanswered(registry, ask.what, error))?;
            }
        }
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        // A refusal whose words do not arrive is one all the same.
        let body = read(answer, 64 << 10).await.unwrap_or_default();
        Err(RegistryError::answered(
            registry,
            &format!("{} in {}", ask.what, ask.repository.name),
            status.as_u16(),
            &body,
        ))
    }
}

impl Ask<'_> {
    /// A kept connection ended as it was asked, so it may not have been heard; all but an upload's content can be sent twice.
    fn was_cut(&self, error: &reqwest::Error) -> bool {
        error.is_request()
            && !error.is_connect()
            && !error.is_timeout()
            && self.method != Method::PUT
    }

    fn at(mut self, client: &Client, path: &str) -> Result<Self, RegistryError> {
        let base = client.base(&self.repository.registry);
        let path = format!("v2/{}/{path}", self.repository.name);
        self.url = base
            .join(&path)
            .map_err(|_| self.odd("no URL leads there"))?;
        Ok(self)
    }

    fn odd(&self, message: &str) -> RegistryError {
        RegistryError::odd(&self.repository.registry, self.what, message)
    }
}

/// A client whose every request ends in time.
pub(super) fn http(patience: Duration) -> reqwest::Client {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT.min(patience))
        .timeout(patience)
        .redirect(redirect::Policy::custom(follow))
        .user_agent(concat!("faas/", env!("CARGO_PKG_VERSION")))
        .build()
        .expect("these settings go together")
}

/// Registries keep blobs elsewhere, but none that speaks TLS sends us where nobody does.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let before = attempt.previous();
    let falls = attempt.url().scheme() != "https"
        && before.last().is_some_and(|url| url.scheme() == "https");
    if falls || before.len() > REDIRECTS {
        return attempt.error("it sends us elsewhere without TLS, or on and on");
    }
    attempt.follow()
}

/// Nothing where there is nothing.
fn found(asked: Result<Response, RegistryError>) -> Result<Option<Response>, RegistryError> {
    match asked {
        Err(error) if error.status() == Some(404) => Ok(None),
        asked => asked.map(Some),
    }
}

/// Reads an answer to its end, if that comes in time.
pub(super) async fn read(mut answer: Response, most: usize) -> Result<Bytes, Unread> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = answer.chunk().await.map_err(Unread::Broken)? {
        if bytes.len() + piece.len() > most {
            return Err(Unread::TooLarge(most));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

/// Whether this machine itself is meant.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_loopback_and_what_is_said_to_be_plain_is_reached_by_tls() {
        let plain = Some("plain.example:5000".to_owned());
        let client = Client::new(Auth::new(None), plain, Duration::from_secs(1));
        for (registry, url) in [
            ("127.0.0.1:5000", "http://127.0.0.1:5000/"),
            ("localhost:5000", "http://localhost:5000/"),
            ("[::1]:5000", "http://[::1]:5000/"),
            ("plain.example:5000", "http://plain.example:5000/"),
            ("plain.example", "https://plain.example/"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/"),
        ] {
            assert_eq!(client.base(registry).as_str(), url);
        }
    }
}
