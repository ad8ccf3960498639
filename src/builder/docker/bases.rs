//! Looks at the images that a build stands on before the engine builds.
//!
//! Engines take names of images as they come: the image of another Function, and the classic builder the begin of an
//! image's id. And an image may order things (ONBUILD) that a Dockerfile must not.

use std::{collections::HashMap, sync::Arc};

use bollard::{errors::Error, models::ImageConfig};

use super::{
    super::{
        BuildError, BuildJob, BuildLog, ImageName,
        recipe::{CA_VARIABLES, check_trigger},
    },
    DockerBuilder, errors,
    errors::is_missing,
    pull,
};

/// Names of labels that only images of Functions have, finished or not, and what was made from them.
const OURS: &str = "faas.dev/";

impl DockerBuilder {
    /// Fails if a build would get to see what is not for it. Pulls what is not here.
    pub(super) async fn check_bases(
        &self,
        job: &BuildJob,
        log: &Arc<dyn BuildLog>,
    ) -> Result<(), BuildError> {
        let images = job.recipe.images(&self.environment.variables);
        for image in images.map_err(|error| BuildError::Refused(error.to_string()))? {
            let config = self.base(&image, log).await?;
            is_for_all(&image, config.labels.as_ref())?;
            self.warn_of_own_trust(&image, &config, log);
            for trigger in config.on_build.iter().flatten() {
                check_trigger(trigger).map_err(|error| {
                    BuildError::Refused(format!(
                        "image {image:?} orders ONBUILD {trigger}: {error}"
                    ))
                })?;
            }
        }
        Ok(())
    }

    /// An image's own variables count more than those that a build is given.
    fn warn_of_own_trust(&self, image: &str, config: &ImageConfig, log: &Arc<dyn BuildLog>) {
        let set = |name: &&str| {
            let prefix = format!("{name}=");
            let mut variables = config.env.iter().flatten();
            variables.any(|variable| variable.starts_with(&prefix))
        };
        if self.environment.ca.is_none() {
            return;
        }
        for name in CA_VARIABLES.iter().copied().filter(|name| set(name)) {
            log.write(
                format!(
                    "==> {image} sets {name}: what reads that does not see the authorities of --build-ca; unset it there, or \
                     put them into the image\n"
                )
                .as_bytes(),
            );
        }
    }

    /// A ready image, if it is for all.
    pub(super) async fn ready(
        &self,
        image: &ImageName,
        log: &Arc<dyn BuildLog>,
    ) -> Result<(), BuildError> {
        let config = self.base(image, log).await?;
        is_for_all(image, config.labels.as_ref())
    }

    /// What is said of an image.
    async fn base(
        &self,
        image: &ImageName,
        log: &Arc<dyn BuildLog>,
    ) -> Result<ImageConfig, BuildError> {
        let inspect = || self.client.inspect_image(image);
        let found = match inspect().await {
            Err(error) if is_missing(&error) => {
                let pulled = pull::pull(&self.client, image, log).await;
                let found = inspect().await;
                // A report that broke off may have done so after its last word.
                if found.is_err() {
                    pulled?;
                }
                found
            }
            found => found,
        };
        match found {
            Err(error) if is_missing(&error) => Err(BuildError::Pull {
                image: image.clone(),
                message: "the engine pulled it but does not have it".into(),
            }),
            // No image can have this name.
            Err(Error::DockerResponseServerError {
                status_code: 400,
                message,
            }) => Err(BuildError::Refused(format!(
                "image {image:?}: {}",
                errors::told(&message)
            ))),
            found => Ok(found.map_err(errors::engine)?.config.unwrap_or_default()),
        }
    }
}

/// Refuses the image of a Function, whosever: it holds code that is not for others.
fn is_for_all(image: &str, labels: Option<&HashMap<String, String>>) -> Result<(), BuildError> {
    let is_ours = |name: &String| name.starts_with(OURS);
    if !labels.is_some_and(|labels| labels.keys().any(is_ours)) {
        return Ok(());
    }
    Err(BuildError::Refused(format!(
        "image {image:?} is a Function's, or was made from one: take the image that it stands on"
    )))
}
