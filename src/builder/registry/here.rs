//! The builder where one engine runs what is built: what can be appended is put together in the registry and fetched from
//! there, which is quicker than a build; what runs commands is built by that engine, and needs no registry.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    BuildError, BuildJob, BuildLog, Builder, Image, ImageName, ImageReference, RegistryBuilder,
};
use crate::builder::docker::DockerBuilder;

/// Builds for the engine of this machine. Its images have their own names there, so a registry that is away takes none of
/// them along.
pub struct LocalBuilder {
    registry: RegistryBuilder,
    engine: DockerBuilder,
}

impl LocalBuilder {
    /// The engine runs what is built, and builds what the registry has no engine for.
    #[must_use]
    pub fn new(registry: RegistryBuilder, engine: DockerBuilder) -> Self {
        Self { registry, engine }
    }

    /// Whether the registry has to do with a job.
    fn is_for_the_registry(&self, job: &BuildJob) -> bool {
        job.recipe.append.is_some() || self.registry.engine.is_some()
    }
}

#[async_trait]
impl Builder for LocalBuilder {
    async fn images(&self) -> Result<Vec<Image>, BuildError> {
        let mut images = self.engine.images().await?;
        // What is there and not here is fetched when an instance of it cannot start.
        match self.registry.images().await {
            Ok(there) => {
                let new = there
                    .into_iter()
                    .map(|image| Image::of_its_name(image.name));
                let new: Vec<_> = new.filter(|image| !images.contains(image)).collect();
                images.extend(new);
            }
            Err(error) => tracing::debug!(%error, "The registry cannot tell its images"),
        }
        Ok(images)
    }

    async fn build(
        &self,
        job: &BuildJob,
        log: Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError> {
        if self.engine.exists(&job.image).await? || !self.is_for_the_registry(job) {
            return self.engine.build(job, log).await;
        }
        let limit = job.timeout;
        let fetched = async {
            let Some(reference) = self.registry.make(job, &log).await? else {
                return Ok(false);
            };
            let registry = self.registry.settings.pull.registry();
            let login = self.registry.client.auth().login(registry).await?;
            let fetch = self.engine.fetch(&reference, &job.image, login, &log);
            fetch.await.map(|()| true)
        };
        let fetched = tokio::time::timeout(limit, fetched)
            .await
            .unwrap_or(Err(BuildError::Timeout { limit }))?;
        if fetched {
            return Ok(job.image.clone());
        }
        self.engine.build(job, log).await
    }

    async fn pull(
        &self,
        image: &ImageName,
        log: Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError> {
        self.engine.pull(image, log).await
    }

    async fn exists(&self, image: &ImageName) -> Result<bool, BuildError> {
        self.engine.exists(image).await
    }

    async fn remove(&self, image: &ImageName) -> Result<(), BuildError> {
        self.engine.remove(image).await?;
        self.registry.remove(image).await
    }

    async fn leave(&self) {
        self.engine.leave().await;
        self.registry.leave().await;
    }
}
