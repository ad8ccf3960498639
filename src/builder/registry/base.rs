//! Base images, each copied once into the registry that functions are pushed to, so that their layers need not be carried
//! again. As an engine does, an image that is here is taken as it is: a tag that moves elsewhere is another image's name.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::{
    client::Client,
    error::RegistryError,
    manifest::{DocumentError, ImageDocuments, Manifest, blobs, choose},
    reference::{Place, Reference, Repository},
};
use crate::builder::{BuildError, BuildLog, archive::sha256};

/// Names of labels that only images of Functions have, and what was made from them.
const OURS: &str = "faas.dev/";

/// The base images of a registry.
pub(super) struct Bases {
    client: Arc<Client>,
    place: Place,
    /// One copy at a time: two of the same image would carry it twice.
    copying: Mutex<()>,
}

/// An image that others stand on.
pub(super) struct Base {
    pub repository: Repository,
    pub manifest: Manifest,
    pub documents: ImageDocuments,
}

impl Bases {
    pub(super) fn new(client: Arc<Client>, place: Place) -> Self {
        Self {
            client,
            place,
            copying: Mutex::default(),
        }
    }

    /// A base image in our registry, copied there if it is not yet.
    pub(super) async fn get(
        &self,
        image: &str,
        log: &Arc<dyn BuildLog>,
    ) -> Result<Base, BuildError> {
        let repository = self.place.bases();
        let tag = sha256(format!("{image} linux/{}", architecture()).as_bytes());
        let _one = self.copying.lock().await;
        let manifest = if let Some(manifest) = self.client.manifest(&repository, &tag).await? {
            manifest
        } else {
            log.write(format!("==> copy {image} to {repository}\n").as_bytes());
            self.copy(image, &repository, &tag).await?
        };
        let base = self.read(repository, manifest).await;
        let base = base.map_err(|error| error.of(image))?;
        is_for_all(image, &base.documents)?;
        Ok(base)
    }

    /// An image that is in a registry already.
    pub(super) async fn read(
        &self,
        repository: Repository,
        manifest: Manifest,
    ) -> Result<Base, ImageError> {
        let (config, _) = blobs(&manifest)?;
        let config = self.client.blob(&repository, &config).await?;
        let documents = ImageDocuments::read(&manifest, &config)?;
        Ok(Base {
            repository,
            manifest,
            documents,
        })
    }

    /// The manifest of an image for our platform.
    pub(super) async fn manifest(
        &self,
        reference: &Reference,
    ) -> Result<Option<Manifest>, ImageError> {
        let Reference {
            repository,
            version,
        } = reference;
        let Some(manifest) = self.client.manifest(repository, version).await? else {
            return Ok(None);
        };
        match choose(&manifest, architecture())? {
            Some(digest) => Ok(self.client.manifest(repository, &digest).await?),
            None => Ok(Some(manifest)),
        }
    }

    async fn copy(&self, image: &str, to: &Repository, tag: &str) -> Result<Manifest, BuildError> {
        let pull = |message: String| BuildError::Pull {
            image: image.to_owned(),
            message,
        };
        let from: Reference = image
            .parse()
            .map_err(|error: super::reference::NameError| pull(error.to_string()))?;
        let manifest = self
            .manifest(&from)
            .await
            .map_err(|error| error.of(image))?;
        let manifest = manifest
            .ok_or_else(|| pull(format!("registry {} has none", from.repository.registry)))?;
        let (config, layers) = blobs(&manifest).map_err(|error| pull(error.to_string()))?;
        for blob in layers.iter().chain([&config]) {
            let given = self.client.give_blob(&from.repository, to, blob).await;
            given.map_err(|error| {
                if error.is_of(&from.repository.registry) {
                    error.of_image(image)
                } else {
                    error.into()
                }
            })?;
        }
        self.client.put_manifest(to, tag, &manifest).await?;
        Ok(manifest)
    }
}

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Document(#[from] DocumentError),
}

impl ImageError {
    /// As a build tells it.
    pub(super) fn of(self, image: &str) -> BuildError {
        match self {
            Self::Registry(error) => error.of_image(image),
            Self::Document(error) => BuildError::Pull {
                image: image.to_owned(),
                message: error.to_string(),
            },
        }
    }
}

/// Refuses the image of a Function, whosever: it holds code that is not for others.
pub(super) fn is_for_all(image: &str, documents: &ImageDocuments) -> Result<(), BuildError> {
    if !documents.labels().any(|name| name.starts_with(OURS)) {
        return Ok(());
    }
    Err(BuildError::Refused(format!(
        "image {image:?} is a Function's, or was made from one: take the image that it stands on"
    )))
}

/// This machine's, as registries name it: the init in every image is for it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
