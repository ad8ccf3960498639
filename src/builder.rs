//! The builder port: a source and a recipe become an image. [`docker`] asks the Docker engine, [`registry`] puts
//! images together in a registry, [`process`] lays the files out in a directory. What goes into an image is fixed beforehand by [`archive`] (the normalised files) and
//! [`recipe`] (how they are built), so that an image's name is the digest of both.

pub mod archive;
pub mod archives;
pub mod docker;
mod ignore;
pub mod process;
pub mod ready;
pub mod recipe;
pub mod registry;
pub mod sources;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use self::{archive::Context, recipe::Recipe};
use crate::function::FunctionKey;

/// Name of an image as the engine knows it. Of a built one: `faas.local/<owner>:<digest>`, the digest (64 hex digits of
/// SHA-256) being that of everything that went into it. Of a ready one: the reference that the user gave.
pub type ImageName = String;

/// What a runtime starts instances of an image by: its name, or where nodes get it, by digest. Two references may stand for
/// one name, so it decides nothing about a revision.
pub type ImageReference = String;

/// Everything that decides what a build yields, and whom it is for.
#[derive(Clone, Debug)]
pub struct BuildJob {
    /// Whose build it is. Others with equal content share the image, so it is no part of the name.
    pub function: FunctionKey,
    /// What the image will be called; equal names mean equal content.
    pub image: ImageName,
    /// The user's files.
    pub context: Arc<Context>,
    /// How they become an image.
    pub recipe: Recipe,
    /// Longest time that the build may take.
    pub timeout: Duration,
}

/// An image of ours that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// See [`ImageName`].
    pub name: ImageName,
    /// What instances are started by.
    pub reference: ImageReference,
}

impl Image {
    /// One that is known by its name alone.
    fn of_its_name(name: ImageName) -> Self {
        Self {
            reference: name.clone(),
            name,
        }
    }
}

/// Why there is no image.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BuildError {
    /// A step of the build failed: the user's code or recipe must change.
    #[error("step {step:?} failed: {message}")]
    Failed { step: String, message: String },
    /// The build ran for longer than `build.timeoutSeconds`.
    #[error("the build took longer than {}s (spec.build.timeoutSeconds)", limit.as_secs())]
    Timeout { limit: Duration },
    /// A ready image or the base image cannot be had; the registry's words.
    #[error("image {image:?} cannot be pulled: {message}")]
    Pull { image: ImageName, message: String },
    /// The source was there, and cannot be read at this moment.
    #[error("the source cannot be read: {0}")]
    Source(String),
    /// The disk is full.
    #[error("no space left for the build: {0}")]
    NoSpace(String),
    /// What was asked for is not offered here; says what would be.
    #[error("{0}")]
    Refused(String),
    /// The engine is away or answered something that is not about this build.
    #[error("the Docker engine does not answer: {0}")]
    Engine(String),
    /// The engine answers, but failed in a way that is not about this build; its words.
    #[error("the Docker engine failed: {0}")]
    EngineFailed(String),
    /// A registry is away, too slow, or has a bad day; its words.
    #[error("{0}")]
    RegistryAway(String),
    /// A registry does not do for us what it is asked; its words and a remedy.
    #[error("{0}")]
    RegistryRefused(String),
    /// The engine's report of the build broke off or makes no sense: nobody knows what became of it.
    #[error("the build was interrupted: {0}")]
    Interrupted(String),
}

impl BuildError {
    /// Whether it is a registry that does not do what it is asked: engines and what they run have no part in that.
    pub fn is_the_registrys(&self) -> bool {
        matches!(self, Self::RegistryAway(_) | Self::RegistryRefused(_))
    }
}

/// Where a build writes what it says, as it says it. Bytes, not lines: builds print progress bars and broken UTF-8.
pub trait BuildLog: Send + Sync {
    /// Takes the next piece.
    fn write(&self, piece: &[u8]);
}

/// Makes images. Implementations are shared by all tasks and hold no state that a restart would miss.
#[async_trait]
pub trait Builder: Send + Sync {
    /// Every image of this owner, of whatever Function. Never an image of somebody else.
    async fn images(&self) -> Result<Vec<Image>, BuildError>;

    /// Makes the image of `job`, or returns at once when it exists. Dropping the future cancels the build in the engine
    /// as well and leaves nothing behind.
    async fn build(
        &self,
        job: &BuildJob,
        log: Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError>;

    /// Makes sure that a ready image can be run: looks, and pulls when it is not here.
    async fn pull(
        &self,
        image: &ImageName,
        log: Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError>;

    /// Whether the image is here. Another one that was given the name of one of ours does not count.
    async fn exists(&self, image: &ImageName) -> Result<bool, BuildError>;

    /// Removes an image of this owner, unless a container still uses it; one that is not there is no error. Refuses what is
    /// not ours.
    async fn remove(&self, image: &ImageName) -> Result<(), BuildError>;

    /// The server ends: waits until everything is tidied up after builds that were cancelled.
    async fn leave(&self) {}
}

/// Trust and settings that every build gets, from `--build-ca` and `--build-env`.
#[derive(Clone, Debug, Default)]
pub struct BuildEnvironment {
    /// A PEM bundle of authorities that builds trust beside those of the base image.
    pub ca: Option<Bytes>,
    /// Variables handed to the commands of a build (a proxy, a registry's address), not kept in the image.
    pub variables: Vec<(String, String)>,
    /// A label, as `NAME=VALUE`, of all that a build makes on its way.
    pub label: Option<String>,
}

/// Where base images come from: `--base-image NAME=REF`. NAME is a language (`node`) or an image that Dockerfiles name
/// after FROM (`node:12`), for sites that have their own copies.
#[derive(Clone, Debug, Default)]
pub struct BaseImages(pub BTreeMap<String, String>);
