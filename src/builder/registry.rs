//! Builds into a registry, from which nodes run images by digest. What runs no commands needs no engine: it is the base image
//! with layers of ours, put together by `append`. What must run commands is built by the engine of `--build-host`.
//!
//! A place in a registry, `HOST/PREFIX`, holds:
//!
//! ```text
//! PREFIX/base                 copies of base images
//! PREFIX/NAMESPACE/NAME       images of a Function
//! PREFIX/NAMESPACE/archives   its namespace's uploads
//! PREFIX/index                where each image and upload is
//! PREFIX/steps                what an engine built, until the init is put upon it
//! ```
//!
//! All but the base images is of one owner: tags begin with it. What is deleted are manifests; the registry's operator
//! collects what they leave.

mod append;
mod archives;
mod auth;
mod base;
mod client;
mod error;
mod here;
mod index;
mod layer;
mod manifest;
mod reference;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

pub use self::{
    archives::RegistryArchives,
    auth::Login,
    here::LocalBuilder,
    reference::{NameError, Place},
};
use self::{
    auth::Auth,
    base::{Bases, is_for_all},
    client::Client,
    index::{Entry, Index, Kind},
    manifest::Layer,
    reference::{Reference, Repository, digest_of},
};
use super::{
    BuildError, BuildJob, BuildLog, Builder, Image, ImageName, ImageReference,
    docker::DockerBuilder, recipe::image_prefix,
};
use crate::kubernetes::watch::Scope;

/// Longest time that a registry may take for an answer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Which registry, and who we are there.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where we push.
    pub place: Place,
    /// What nodes call that.
    pub pull: Place,
    /// Whether it is spoken to without TLS.
    pub plain_http: bool,
    /// A `config.json` of Docker with credentials.
    pub auth: Option<PathBuf>,
    /// Identity of this installation.
    pub owner: String,
    /// Whose images and uploads may be deleted. There are those of other namespaces too, of the same owner: this process, or
    /// one before it, served them, and what they need is not known here.
    pub scope: Scope,
    /// The init that images hold.
    pub init: &'static [u8],
    /// Longest time for an answer: [`PATIENCE`].
    pub patience: Duration,
}

impl Settings {
    fn client(&self) -> Client {
        let plain = self.plain_http.then(|| self.place.registry().to_owned());
        Client::new(Auth::new(self.auth.clone()), plain, self.patience)
    }

    /// Whether what lies there is of a namespace that is ours.
    fn is_ours(&self, repository: &Repository) -> bool {
        let below = self.place.within(repository);
        let namespace = below.and_then(|below| below.split('/').next());
        namespace.is_some_and(|namespace| self.scope.has(namespace))
    }
}

/// Builds for one owner into one registry.
pub struct RegistryBuilder {
    settings: Settings,
    client: Arc<Client>,
    bases: Bases,
    index: Index,
    /// The layer of the init, the same for all images.
    init: Layer,
    /// The engine of `--build-host`.
    engine: Option<DockerBuilder>,
    /// Images that the registry will not delete, or that are not ours to delete: they are listed no more, or their removal would
    /// be tried for ever.
    kept: Mutex<HashSet<ImageName>>,
}

impl RegistryBuilder {
    /// Asks nobody yet.
    #[must_use]
    pub fn new(settings: Settings, engine: Option<DockerBuilder>) -> Self {
        let client = Arc::new(settings.client());
        let (place, owner) = (settings.place.clone(), settings.owner.clone());
        Self {
            bases: Bases::new(Arc::clone(&client), place.clone()),
            index: Index::new(Arc::clone(&client), place, owner),
            client,
            init: layer::of_init(settings.init),
            settings,
            engine,
            kept: Mutex::default(),
        }
    }

    /// Where an image of ours is, by digest, if it is there.
    async fn find(&self, image: &str) -> Result<Option<ImageReference>, BuildError> {
        let Some(key) = digest_of(&self.settings.owner, image) else {
            return Ok(None);
        };
        let entry = self.index.find(Kind::Image, key).await?;
        Ok(entry.map(|entry| self.reference(&entry)))
    }

    /// What nodes call an image.
    fn reference(&self, entry: &Entry) -> ImageReference {
        let below = self.settings.place.within(&entry.repository);
        format!(
            "{}/{}@{}",
            self.settings.pull,
            below.unwrap_or_default(),
            entry.digest
        )
    }

    /// The image of a job; nothing when it must run commands and there is no engine for that.
    async fn make(
        &self,
        job: &BuildJob,
        log: &Arc<dyn BuildLog>,
    ) -> Result<Option<ImageReference>, BuildError> {
        self.kept().remove(&job.image);
        if let Some(there) = self.find(&job.image).await? {
            return Ok(Some(there));
        }
        if let Some(appended) = self.append(job, log).await? {
            return Ok(Some(appended));
        }
        match &self.engine {
            Some(engine) => self.build_with(engine, job, log).await.map(Some),
            None => Ok(None),
        }
    }

    /// A ready image where we ask for it: what nodes call our place is our place.
    fn asked(&self, image: &str) -> Result<Reference, BuildError> {
        let pull = |error: NameError| BuildError::Pull {
            image: image.to_owned(),
            message: error.to_string(),
        };
        let mut reference: Reference = image.parse().map_err(pull)?;
        let below = self.settings.pull.within(&reference.repository);
        if let Some(repository) = below.and_then(|below| self.settings.place.below(below)) {
            reference.repository = repository;
        }
        Ok(reference)
    }

    /// What a ready image is at this moment, by digest.
    async fn pin(&self, image: &str, asked: &Reference) -> Result<ImageReference, BuildError> {
        let missing = |message: String| BuildError::Pull {
            image: image.to_owned(),
            message,
        };
        let of_image = |error: error::RegistryError| error.of_image(image);
        let Reference {
            repository,
            version,
        } = asked;
        let digest = self.client.digest(repository, version).await;
        let found = digest.map_err(of_image)?;
        let digest =
            found.ok_or_else(|| missing(format!("registry {} has none", repository.registry)))?;
        let exact = Reference {
            version: digest.clone(),
            ..asked.clone()
        };
        let manifest = self.bases.manifest(&exact).await;
        let manifest = manifest.map_err(|error| error.of(image))?;
        let manifest = manifest.ok_or_else(|| missing("it went away".to_owned()))?;
        let read = self.bases.read(repository.clone(), manifest).await;
        is_for_all(image, &read.map_err(|error| error.of(image))?.documents)?;
        Ok(format!("{}@{digest}", without_version(image)))
    }

    fn kept(&self) -> MutexGuard<'_, HashSet<ImageName>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Builder for RegistryBuilder {
    async fn images(&self) -> Result<Vec<Image>, BuildError> {
        let entries = self.index.list(Kind::Image).await?;
        let kept = self.kept();
        let images = entries.iter().map(|entry| Image {
            name: format!("{}{}", image_prefix(&self.settings.owner), entry.key),
            reference: self.reference(entry),
        });
        Ok(images.filter(|image| !kept.contains(&image.name)).collect())
    }

    async fn build(
        &self,
        job: &BuildJob,
        log: Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError> {
        let limit = job.timeout;
        let made = tokio::time::timeout(limit, self.make(job, &log))
            .await
            .unwrap_or(Err(BuildError::Timeout { limit }))?;
        made.ok_or_else(|| {
            BuildError::Refused(
                "this function's build runs commands, which needs a Docker engine: name one with --build-host, such as \
                 --build-host unix:///var/run/docker.sock"
                    .to_owned(),
            )
        })
    }

    /// An image of another registry may be for the nodes alone: they have pull secrets, and images of their own.
    async fn pull(
        &self,
        image: &ImageName,
        log: Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError> {
        log.write(format!("==> look for {image}\n").as_bytes());
        let asked = self.asked(image)?;
        let is_ours = asked.repository.registry == self.settings.place.registry();
        match self.pin(image, &asked).await {
            Err(error @ (BuildError::Pull { .. } | BuildError::RegistryAway(_))) if !is_ours => {
                let left = format!("==> {error}\n==> it is left to the nodes to find {image}\n");
                log.write(left.as_bytes());
                Ok(image.clone())
            }
            pinned => pinned,
        }
    }

    async fn exists(&self, image: &ImageName) -> Result<bool, BuildError> {
        if digest_of(&self.settings.owner, image).is_some() {
            return Ok(self.find(image).await?.is_some());
        }
        let asked = self.asked(image)?;
        let digest = self.client.digest(&asked.repository, &asked.version).await;
        let digest = digest.map_err(|error| error.of_image(image))?;
        Ok(digest.is_some())
    }

    async fn remove(&self, image: &ImageName) -> Result<(), BuildError> {
        let Some(key) = digest_of(&self.settings.owner, image) else {
            return Err(BuildError::Refused(format!(
                "image {image:?} is not of this faas and stays"
            )));
        };
        let entry = self.index.find(Kind::Image, key).await?;
        if entry.is_some_and(|entry| !self.settings.is_ours(&entry.repository)) {
            tracing::info!(%image, "It stays: it is of a namespace that is not served here");
            self.kept().insert(image.clone());
            return Ok(());
        }
        match self.index.remove(Kind::Image, key).await {
            Err(error) if error.status() == Some(405) => {
                tracing::warn!(%image, %error, "An image that nobody needs stays");
                self.kept().insert(image.clone());
                Ok(())
            }
            end => Ok(end?),
        }
    }

    async fn leave(&self) {
        if let Some(engine) = &self.engine {
            engine.leave().await;
        }
    }
}

/// An image's name without tag and digest.
fn without_version(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((rest, tag)) if !tag.contains('/') => rest,
        _ => name,
    }
}
