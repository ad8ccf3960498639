//! Blobs: got whole, put unless they are there, given from one repository to another.

use bytes::Bytes;
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};

use super::{Ask, Client, found, read};
use crate::builder::{
    archive::sha256,
    registry::{error::RegistryError, manifest::Descriptor, reference::Repository},
};

impl Client {
    /// A blob of at most this size, whole and as its digest says.
    pub(in crate::builder::registry) async fn blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Bytes, RegistryError> {
        const WHAT: &str = "get a blob";
        let ask = self.ask_for(repository, WHAT, Method::GET, descriptor)?;
        let answer = self.send(&ask, |request| request).await?;
        let most = usize::try_from(descriptor.size).unwrap_or(usize::MAX);
        let bytes = read(answer, most).await;
        let bytes = bytes.map_err(|error| error.of(&repository.registry, WHAT))?;
        if format!("sha256:{}", sha256(&bytes)) != descriptor.digest {
            return Err(ask.odd("what it sent has another digest"));
        }
        Ok(bytes)
    }

    /// Puts a blob, unless it is there.
    pub(in crate::builder::registry) async fn put_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        if self.has_blob(repository, descriptor).await? {
            return Ok(());
        }
        let ask = self.ask(repository, "begin an upload", Method::POST);
        let ask = ask.at(self, "blobs/uploads/")?;
        let begun = self.send(&ask, |r| r.header(CONTENT_LENGTH, 0)).await?;
        let place = location(&ask, &begun)?;
        self.upload(repository, descriptor, place, || bytes.clone().into())
            .await
    }

    /// Makes a blob of one repository one of another: in the same registry it is mounted where that is allowed, else it is
    /// carried over.
    pub(in crate::builder::registry) async fn give_blob(
        &self,
        from: &Repository,
        to: &Repository,
        descriptor: &Descriptor,
    ) -> Result<(), RegistryError> {
        if from == to || self.has_blob(to, descriptor).await? {
            return Ok(());
        }
        let ask = self.ask(to, "begin an upload", Method::POST);
        let mut ask = ask.at(self, "blobs/uploads/")?;
        if from.registry == to.registry {
            ask.url
                .query_pairs_mut()
                .append_pair("mount", &descriptor.digest)
                .append_pair("from", &from.name);
        }
        let begun = self.send(&ask, |r| r.header(CONTENT_LENGTH, 0)).await?;
        if begun.status() == StatusCode::CREATED {
            return Ok(());
        }
        let place = location(&ask, &begun)?;
        let ask = self.ask_for(from, "get a blob", Method::GET, descriptor)?;
        let source = self.send(&ask, |request| request).await?;
        let mut source = Some(reqwest::Body::wrap_stream(source.bytes_stream()));
        // Only the first request of an upload is asked for credentials, so the stream is not needed twice.
        self.upload(to, descriptor, place, move || {
            source.take().unwrap_or_default()
        })
        .await
    }

    async fn has_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<bool, RegistryError> {
        let ask = self.ask(repository, "look for a blob", Method::HEAD);
        let ask = ask.at(self, &format!("blobs/{}", descriptor.digest))?;
        let asked = self.send(&ask, |request| request).await;
        Ok(found(asked)?.is_some())
    }

    async fn upload(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        mut place: Url,
        mut body: impl FnMut() -> reqwest::Body,
    ) -> Result<(), RegistryError> {
        place
            .query_pairs_mut()
            .append_pair("digest", &descriptor.digest);
        let mut ask = self.ask(repository, "put a blob", Method::PUT);
        ask.url = place;
        ask.size = descriptor.size;
        let with = |request: RequestBuilder| {
            request
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, descriptor.size)
                .body(body())
        };
        self.send(&ask, with).await.map(drop)
    }

    fn ask_for<'a>(
        &self,
        repository: &'a Repository,
        what: &'a str,
        method: Method,
        descriptor: &Descriptor,
    ) -> Result<Ask<'a>, RegistryError> {
        let mut ask = self
            .ask(repository, what, method)
            .at(self, &format!("blobs/{}", descriptor.digest))?;
        ask.size = descriptor.size;
        Ok(ask)
    }
}

/// Where an upload goes on.
fn location(ask: &Ask<'_>, begun: &Response) -> Result<Url, RegistryError> {
    let place = begun.headers().get(LOCATION);
    let place = place.and_then(|place| ask.url.join(place.to_str().ok()?).ok());
    place.ok_or_else(|| ask.odd("it did not say where the upload goes"))
}
