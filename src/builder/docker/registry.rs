//! Carries images between an engine and a registry.

use std::sync::Arc;

use bollard::{
    auth::DockerCredentials,
    errors::Error,
    query_parameters::{
        CreateImageOptionsBuilder, PushImageOptionsBuilder, RemoveImageOptions,
        TagImageOptionsBuilder,
    },
};
use futures::StreamExt;

use super::{DockerBuilder, errors, pull};
use crate::builder::{BuildError, BuildLog, Builder, registry::Login};

impl DockerBuilder {
    /// Pushes an image as this repository and tag.
    pub(in crate::builder) async fn push(
        &self,
        image: &str,
        (repository, tag): &(String, String),
        login: Option<Login>,
    ) -> Result<(), BuildError> {
        let named = TagImageOptionsBuilder::new().repo(repository).tag(tag);
        let named = self.client.tag_image(image, Some(named.build())).await;
        named.map_err(errors::engine)?;
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let mut stream = self
            .client
            .push_image(repository, Some(options), login.map(credentials));
        let mut pushed = Ok(());
        while let (Some(record), Ok(())) = (stream.next().await, &pushed) {
            pushed = record
                .map(drop)
                .map_err(|error| not_carried(repository, error));
        }
        let name = format!("{repository}:{tag}");
        let options = None::<RemoveImageOptions>;
        let unnamed = self.client.remove_image(&name, options, None).await;
        if let Err(error) = unnamed {
            tracing::debug!(image = name, %error, "A name that was needed for a push stays");
        }
        pushed
    }

    /// Fetches an image from a registry and calls it by the name that it was built under.
    pub(in crate::builder) async fn fetch(
        &self,
        reference: &str,
        name: &str,
        login: Option<Login>,
        log: &Arc<dyn BuildLog>,
    ) -> Result<(), BuildError> {
        let options = CreateImageOptionsBuilder::new().from_image(reference);
        let stream = self
            .client
            .create_image(Some(options.build()), None, login.map(credentials));
        pull::follow(reference, stream, log).await?;
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
        let named = TagImageOptionsBuilder::new().repo(repository).tag(tag);
        let named = self.client.tag_image(reference, Some(named.build())).await;
        named.map_err(errors::engine)?;
        // Else it would stay under this name when the other one goes.
        let options = None::<RemoveImageOptions>;
        let unnamed = self.client.remove_image(reference, options, None).await;
        unnamed.map(drop).map_err(errors::engine)
    }
}

/// An image that is in an engine only until it is pushed. It goes when this does, also when nobody waits any more.
pub(in crate::builder) struct Passing<'a> {
    engine: &'a DockerBuilder,
    image: Option<String>,
}

impl DockerBuilder {
    /// An image that was just built.
    pub(in crate::builder) fn passing(&self, image: &str) -> Passing<'_> {
        Passing {
            engine: self,
            image: Some(image.to_owned()),
        }
    }
}

impl Passing<'_> {
    /// It is not needed here any more.
    pub(in crate::builder) async fn gone(mut self) -> Result<(), BuildError> {
        match self.image.take() {
            Some(image) => self.engine.remove(&image).await,
            None => Ok(()),
        }
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let Some(image) = self.image.take() else {
            return;
        };
        let client = self.engine.client.clone();
        self.engine.sweeps.spawn(async move {
            let options = None::<RemoveImageOptions>;
            if let Err(error) = client.remove_image(&image, options, None).await {
                tracing::warn!(image, %error, "An image whose push was cut stays in the engine");
            }
        });
    }
}

fn credentials(login: Login) -> DockerCredentials {
    DockerCredentials {
        username: Some(login.user),
        password: Some(login.password),
        ..DockerCredentials::default()
    }
}

/// An engine tells what a registry answered in words alone.
fn not_carried(repository: &str, error: Error) -> BuildError {
    let Error::DockerStreamError { error: words } = error else {
        return errors::engine(error);
    };
    let message = format!("registry {repository}: push: {}", errors::told(&words));
    let refusals = [
        "denied",
        "unauthorized",
        "authentication required",
        "no basic auth",
    ];
    if words.contains(crate::runtime::docker::engine::NO_SPACE) {
        BuildError::NoSpace(message)
    } else if refusals.iter().any(|refusal| words.contains(refusal)) {
        BuildError::RegistryRefused(message)
    } else {
        BuildError::RegistryAway(message)
    }
}
