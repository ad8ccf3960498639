//! Takes away what classic builds left behind whose server was killed: nobody was there to do it at their end.

use std::collections::HashMap;

use bollard::{
    errors::Error,
    query_parameters::{
        ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveContainerOptionsBuilder,
    },
};

use super::{DockerBuilder, STEP, sweep};

impl DockerBuilder {
    /// Removes containers and images of steps that no image stands on. To be called before the first build. What cannot be
    /// removed stays until the next time.
    pub async fn sweep(&self) {
        let swept = match self.sweep_containers().await {
            Ok(()) => self.sweep_images().await,
            error => error,
        };
        if let Err(error) = swept {
            tracing::warn!(%error, "What builds left behind stays until the next start");
        }
    }

    async fn sweep_containers(&self) -> Result<(), Error> {
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&HashMap::from([("label", self.steps())]))
            .build();
        for container in self.client.list_containers(Some(options)).await? {
            let id = container.id.unwrap_or_default();
            let force = RemoveContainerOptionsBuilder::new().force(true).v(true);
            let removed = self.client.remove_container(&id, Some(force.build())).await;
            if let Err(error) = removed {
                // Most often because the engine is at it itself.
                tracing::debug!(container = id, %error, "A step's container is not removed");
            }
        }
        Ok(())
    }

    async fn sweep_images(&self) -> Result<(), Error> {
        let dangling = vec!["true".to_owned()];
        let filters = HashMap::from([("label", self.steps()), ("dangling", dangling)]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        for image in self.client.list_images(Some(options)).await? {
            tracing::info!(image = image.id, "Removing what a build left behind");
            // Those that it stands on go with it. The engine may be about to end the step that was cut.
            let client = self.client.clone();
            self.sweeps
                .spawn(async move { sweep::remove(&client, &image.id).await });
        }
        Ok(())
    }

    fn steps(&self) -> Vec<String> {
        vec![format!("{}={STEP}", self.step_label)]
    }
}
