//! Puts an image together from one that is in the registry and layers of ours: those below are mounted from where they
//! lie, and nothing is run.

use std::sync::Arc;

use futures::future::try_join_all;
use tokio::task::spawn_blocking;

use super::{
    RegistryBuilder,
    base::Base,
    index::{self, Entry, Kind},
    layer,
    manifest::{Addition, Layer, blobs},
    reference::{Repository, digest_of},
};
use crate::builder::{
    BuildError, BuildJob, BuildLog, Builder, ImageReference,
    docker::{DockerBuilder, IMAGE_LABEL, OWNER_LABEL},
};

impl RegistryBuilder {
    /// The image of a recipe that runs no commands; nothing when this one does, or its base image wants some to be run.
    pub(super) async fn append(
        &self,
        job: &BuildJob,
        log: &Arc<dyn BuildLog>,
    ) -> Result<Option<ImageReference>, BuildError> {
        let Some(append) = &job.recipe.append else {
            return Ok(None);
        };
        let base = self.bases.get(&append.base, log).await?;
        if base.documents.gives_orders() {
            return Ok(None);
        }
        log.write(format!("==> append to {}\n", append.base).as_bytes());
        let files = job.recipe.appended(append, &job.context);
        let code = spawn_blocking(move || layer::of_files(&files)).await;
        let code = code.map_err(|error| BuildError::Source(error.to_string()))?;
        let program = Some((append.directory, append.command.clone()));
        let addition = self.addition(job, Some(code), program);
        self.push(job, base, addition).await.map(Some)
    }

    /// Lets an engine build, and puts the init upon what it built.
    pub(super) async fn build_with(
        &self,
        engine: &DockerBuilder,
        job: &BuildJob,
        log: &Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError> {
        engine.build(job, Arc::clone(log)).await?;
        // The next build of this Function has other content, and finds its steps in the engine's cache.
        let here = engine.passing(&job.image);
        let pushed = self.push_built(engine, job, log).await;
        here.gone().await?;
        pushed
    }

    async fn push_built(
        &self,
        engine: &DockerBuilder,
        job: &BuildJob,
        log: &Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError> {
        let (repository, tag) = (self.settings.place.steps(), self.tag(job));
        log.write(format!("==> push to {repository}\n").as_bytes());
        let login = self.client.auth().login(&repository.registry).await?;
        let place = (repository.to_string(), tag.clone());
        engine.push(&job.image, &place, login).await?;
        let built = self.client.manifest(&repository, &tag).await?;
        let built = built.ok_or_else(|| {
            BuildError::RegistryAway(format!("registry {repository} lost what was pushed"))
        })?;
        let base = self.bases.read(repository.clone(), built).await;
        let base = base.map_err(|error| error.of(&job.image))?;
        let addition = self.addition(job, None, None);
        let reference = self.push(job, base, addition).await?;
        self.remove_step(&tag).await;
        Ok(reference)
    }

    /// Removes what builds left behind whose server was killed. To be called before the first build. What cannot be removed
    /// stays until the next time.
    pub async fn sweep(&self) {
        if self.engine.is_none() {
            return;
        }
        let steps = self.settings.place.steps();
        let tags = tokio::time::timeout(index::LIST, self.client.tags(&steps)).await;
        let ours = format!("{}-", self.settings.owner);
        for tag in tags.into_iter().flatten().flatten() {
            if tag.starts_with(&ours) {
                self.remove_step(&tag).await;
            }
        }
    }

    async fn remove_step(&self, tag: &str) {
        let steps = self.settings.place.steps();
        let removed = async {
            match self.client.digest(&steps, tag).await? {
                Some(digest) => self.client.delete_manifest(&steps, &digest).await,
                None => Ok(()),
            }
        };
        if let Err(error) = removed.await {
            tracing::debug!(tag, %error, "A step of a build stays in the registry");
        }
    }

    fn addition(
        &self,
        job: &BuildJob,
        code: Option<Layer>,
        program: Option<(&'static str, Vec<&'static str>)>,
    ) -> Addition {
        Addition {
            layers: [self.init.clone()].into_iter().chain(code).collect(),
            program,
            labels: [
                (OWNER_LABEL, self.settings.owner.clone()),
                (IMAGE_LABEL, job.image.clone()),
            ],
        }
    }

    /// Pushes a base with layers more, the manifest last: until then there is no image.
    async fn push(
        &self,
        job: &BuildJob,
        base: Base,
        addition: Addition,
    ) -> Result<ImageReference, BuildError> {
        let to = self.settings.place.images(&job.function);
        let (_, below) = blobs(&base.manifest).map_err(|error| BuildError::Pull {
            image: job.image.clone(),
            message: error.to_string(),
        })?;
        let (manifest, blobs) = base.documents.with(addition);
        let key = digest_of(&self.settings.owner, &job.image).unwrap_or_default();
        self.index
            .put(Kind::Image, key, &to, &manifest.digest)
            .await?;
        let from: &Repository = &base.repository;
        try_join_all(
            below
                .iter()
                .map(|blob| self.client.give_blob(from, &to, blob)),
        )
        .await?;
        let puts = blobs
            .iter()
            .map(|(is, bytes)| self.client.put_blob(&to, is, bytes.clone()));
        try_join_all(puts).await?;
        self.client
            .put_manifest(&to, &self.tag(job), &manifest)
            .await?;
        Ok(self.reference(&Entry {
            key: key.to_owned(),
            repository: to,
            digest: manifest.digest,
            stored: std::time::SystemTime::now(),
        }))
    }

    /// What an image is called in its repository, so that no registry takes it for waste: tags there are of many owners.
    fn tag(&self, job: &BuildJob) -> String {
        let owner = &self.settings.owner;
        let digest = digest_of(owner, &job.image).unwrap_or_default();
        format!("{owner}-{digest}")
    }
}
