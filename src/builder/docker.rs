//! Builds with the Docker engine: with BuildKit where the engine names it, else with the classic builder. What differs
//! between the two is how they are asked (`options`) and how they report (`classic`, `buildkit`); image, labels, log
//! and errors are the same.

mod bases;
mod buildkit;
mod classic;
mod errors;
mod host;
mod labels;
mod leftovers;
mod options;
mod ping;
mod pull;
mod registry;
mod report;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bollard::{
    Docker,
    models::{BuildInfo, BuildInfoAux, ImageSummary},
    query_parameters::{ListImagesOptionsBuilder, RemoveImageOptions},
};
use futures::{Stream, StreamExt, pin_mut};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio_util::task::TaskTracker;

pub(crate) use self::labels::is_of_its_name;
use self::{
    errors::is_missing,
    leftovers::{Leftovers, Running},
    report::Report,
};
pub use self::{
    host::EngineHost,
    labels::{IMAGE_LABEL, OWNER_LABEL},
    ping::flavour,
};
use super::{
    BuildEnvironment, BuildError, BuildJob, BuildLog, Builder, Image, ImageName, ImageReference,
    archive::hex, recipe,
};
use crate::{
    crash::{self, Point},
    text,
};

/// Begins the name of the label by which images and containers of a classic build's steps are known; what was built has
/// another value. The rest of the name is known to this installation alone, so that no Dockerfile can set it.
const STEP_LABEL: &str = "faas.dev/build.";
const STEP: &str = "step";
const BUILT: &str = "built";

/// Docker 20.10.
const OLDEST_API: (usize, usize) = (1, 41);

/// How long an engine may take to answer a simple question, in seconds.
const ANSWER_SECONDS: u64 = 60;

/// How often the engine is asked for what fails because images go meanwhile.
const ATTEMPTS: u32 = 5;

/// The builder that an engine uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// One container a step.
    Classic,
    /// The one of today.
    BuildKit,
}

/// Builds for one owner.
pub struct DockerBuilder {
    client: Docker,
    flavour: Flavour,
    owner: String,
    step_label: String,
    environment: BuildEnvironment,
    /// What still tidies up after builds that were cancelled.
    sweeps: TaskTracker,
    leftovers: Arc<Leftovers>,
}

impl DockerBuilder {
    /// Connects to the engine there and asks which API and which builder it has. `key` is a secret of the owner's.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn connect(
        host: impl Into<EngineHost>,
        owner: &str,
        key: &[u8],
        environment: BuildEnvironment,
    ) -> Result<Self, BuildError> {
        let host = host.into();
        let client = host.client()?.negotiate_version().await;
        let client = client.map_err(errors::engine)?;
        let version = client.client_version();
        if (version.major_version, version.minor_version) < OLDEST_API {
            return Err(BuildError::Engine(format!(
                "{host} speaks API {version} only: Docker 20.10 (API 1.41) or newer is needed"
            )));
        }
        let flavour = flavour(&host)
            .await
            .map_err(|error| BuildError::Engine(format!("{host}: {error}")))?;
        let (step_label, sweeps) = (step_label(key), TaskTracker::new());
        Ok(Self {
            leftovers: Leftovers::new(client.clone(), step_label.clone(), sweeps.clone()),
            client,
            flavour,
            owner: owner.to_owned(),
            step_label,
            environment,
            sweeps,
        })
    }

    /// Builds with this builder, whatever the engine prefers.
    #[must_use]
    pub fn with_flavour(mut self, flavour: Flavour) -> Self {
        self.flavour = flavour;
        self
    }

    /// Removes what builds left behind whose server was killed. To be called before the first build. What cannot be removed
    /// stays until the next time.
    pub async fn sweep(&self) {
        self.leftovers.sweep().await;
    }

    /// Waits until everything is tidied up after cancelled builds.
    pub async fn drain(&self) {
        self.sweeps.close();
        self.sweeps.wait().await;
    }

    /// One build, from the request to the image. Dropping it closes the connection, which is how an engine learns that
    /// nobody wants the image any more.
    async fn run(&self, job: &BuildJob, log: Arc<dyn BuildLog>) -> Result<(), BuildError> {
        let client = self
            .client
            .clone()
            .with_timeout(job.timeout + Duration::from_secs(1));
        self.check_bases(job, &log).await?;
        let environment = self.environment();
        let tar = job.recipe.build_context(&job.context, &environment);
        let options = options::build(self, job);
        let mut running = self.begins().await;
        let stream = client.build_image(options, None, Some(bollard::body_full(tar)));
        let made = |image: &str| {
            if let Some(running) = &mut running {
                running.made(image);
            }
        };
        let followed = follow(self.flavour, stream, log, made).await;
        let own = |line| job.recipe.own_line(&environment, line);
        followed.map_err(|error| errors::by_own_lines(error, own))?;
        if let Some(running) = &mut running {
            running.is_through();
        }
        Ok(())
    }

    /// Only the classic builder leaves something.
    async fn begins(&self) -> Option<Running> {
        match self.flavour {
            Flavour::Classic => Some(self.leftovers.begin().await),
            Flavour::BuildKit => None,
        }
    }

    /// The classic builder labels what comes of a build, but nothing on the way to it: the Dockerfile has to.
    fn environment(&self) -> BuildEnvironment {
        let label = format!("{}={STEP}", self.step_label);
        BuildEnvironment {
            label: (self.flavour == Flavour::Classic).then_some(label),
            ..self.environment.clone()
        }
    }

    /// All images with our label.
    async fn labelled(&self) -> Result<Vec<ImageSummary>, BuildError> {
        let filters = HashMap::from([("label", vec![format!("{OWNER_LABEL}={}", self.owner)])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.client.list_images(Some(options.clone())).await {
                // An image that goes while the engine lists them fails the whole list.
                Err(error) if attempts < ATTEMPTS && errors::is_lost(&error.to_string()) => {}
                found => return found.map_err(errors::engine),
            }
        }
    }

    /// The labels of the image that has this name; nothing when there is no such image.
    async fn labels(&self, image: &str) -> Result<Option<HashMap<String, String>>, BuildError> {
        match self.client.inspect_image(image).await {
            Ok(found) => {
                let labels = found.config.and_then(|config| config.labels);
                Ok(Some(labels.unwrap_or_default()))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(errors::engine(error)),
        }
    }
}

fn step_label(key: &[u8]) -> String {
    let mut word = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    word.update(b"steps of builds");
    let word = hex(&word.finalize().into_bytes());
    format!("{STEP_LABEL}{}", &word[..32])
}

/// Reads an engine's records of a build to their end, and tells `made` of the images of its steps. A record of unknown
/// shape, an error, or an end without an image is a failure.
pub async fn follow(
    flavour: Flavour,
    stream: impl Stream<Item = Result<BuildInfo, bollard::errors::Error>>,
    log: Arc<dyn BuildLog>,
    mut made: impl FnMut(&str),
) -> Result<(), BuildError> {
    pin_mut!(stream);
    let mut report = Report::new(log);
    let (mut classic, mut buildkit) = (classic::Reader::default(), buildkit::Reader::default());
    let mut built = false;
    while let Some(record) = stream.next().await {
        crash::point_of_any(Point::BuildSent);
        let info = record.map_err(|error| errors::build(error, &report))?;
        if matches!(info.aux, Some(BuildInfoAux::Default(ref image)) if image.id.is_some()) {
            built = true;
            continue;
        }
        let known = info.error_detail.is_none()
            && match flavour {
                Flavour::Classic => classic.read(&info, &mut report, &mut made),
                Flavour::BuildKit => buildkit.read(&info, &mut report),
            };
        if !known {
            return Err(BuildError::Interrupted(format!(
                "the engine reported something unknown: {}",
                text::quote(&format!("{info:?}"), 1024)
            )));
        }
    }
    if built {
        return Ok(());
    }
    Err(BuildError::Interrupted(
        "the engine's report ended without an image".into(),
    ))
}

#[async_trait]
impl Builder for DockerBuilder {
    async fn images(&self) -> Result<Vec<Image>, BuildError> {
        let prefix = recipe::image_prefix(&self.owner);
        let ours = self.labelled().await?.into_iter();
        Ok(ours
            .flat_map(
                |ImageSummary {
                     repo_tags, labels, ..
                 }| {
                    // An image that somebody made from ours has our label too, but not our name.
                    let is_ours = |name: &String| {
                        name.starts_with(&prefix) && is_of_its_name(&self.owner, name, &labels)
                    };
                    repo_tags.into_iter().filter(is_ours).collect::<Vec<_>>()
                },
            )
            .map(Image::of_its_name)
            .collect())
    }

    async fn build(
        &self,
        job: &BuildJob,
        log: Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError> {
        if !self.exists(&job.image).await? {
            let limit = job.timeout;
            let built = tokio::time::timeout(limit, self.run(job, log))
                .await
                .unwrap_or(Err(BuildError::Timeout { limit }));
            // A report that broke off may have done so after the image was there, whose name says what is in it.
            let broke_off = matches!(built, Err(BuildError::Interrupted(_)));
            if !(broke_off && self.exists(&job.image).await.is_ok_and(|exists| exists)) {
                built?;
            }
        }
        Ok(job.image.clone())
    }

    async fn pull(
        &self,
        image: &ImageName,
        log: Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError> {
        self.ready(image, &log).await?;
        Ok(image.clone())
    }

    async fn exists(&self, image: &ImageName) -> Result<bool, BuildError> {
        let labels = self.labels(image).await?;
        Ok(labels.is_some_and(|labels| is_of_its_name(&self.owner, image, &labels)))
    }

    async fn remove(&self, image: &ImageName) -> Result<(), BuildError> {
        let named = image.starts_with(&recipe::image_prefix(&self.owner));
        match self.labels(image).await? {
            None => return Ok(()),
            Some(labels) if named && labels.get(OWNER_LABEL) == Some(&self.owner) => {}
            Some(_) => {
                return Err(BuildError::Refused(format!(
                    "image {image:?} is not of this faas and stays"
                )));
            }
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            let options = None::<RemoveImageOptions>;
            return match self.client.remove_image(image, options, None).await {
                Ok(_) => Ok(()),
                Err(error) if is_missing(&error) => Ok(()),
                Err(error) if errors::is_in_use(&error) => {
                    tracing::debug!(%image, "A container still uses this image; it stays until the next time");
                    Ok(())
                }
                // One that it stands on goes at the same time.
                Err(error) if attempts < ATTEMPTS && errors::is_lost(&error.to_string()) => {
                    continue;
                }
                Err(error) => Err(errors::engine(error)),
            };
        }
    }

    async fn leave(&self) {
        self.drain().await;
    }
}
