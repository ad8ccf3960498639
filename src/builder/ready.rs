//! The builder of a cluster without a registry of ours: images that are ready, which the nodes pull.

use std::sync::Arc;

use async_trait::async_trait;

use super::{BuildError, BuildJob, BuildLog, Builder, Image, ImageName, ImageReference};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct ReadyImages;

#[async_trait]
impl Builder for ReadyImages {
    async fn images(&self) -> Result<Vec<Image>, BuildError> {
        Ok(Vec::new())
    }

    async fn build(
        &self,
        _job: &BuildJob,
        _log: Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError> {
        Err(BuildError::Refused(
            "pods run images of a registry: start faas with --registry HOST/PREFIX, or give source.image"
                .to_owned(),
        ))
    }

    /// The node that runs it pulls it, and tells when it cannot.
    async fn pull(
        &self,
        image: &ImageName,
        _log: Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError> {
        Ok(image.clone())
    }

    async fn exists(&self, _image: &ImageName) -> Result<bool, BuildError> {
        Ok(true)
    }

    async fn remove(&self, _image: &ImageName) -> Result<(), BuildError> {
        Ok(())
    }
}
