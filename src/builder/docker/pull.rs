//! Pulls a ready image.

use std::sync::Arc;

use bollard::{
    Docker, errors::Error, models::CreateImageInfo, query_parameters::CreateImageOptionsBuilder,
};
use futures::{Stream, StreamExt};

use super::{
    super::{BuildError, BuildLog},
    errors,
};

pub(super) async fn pull(
    client: &Docker,
    image: &str,
    log: &Arc<dyn BuildLog>,
) -> Result<(), BuildError> {
    let options = CreateImageOptionsBuilder::new()
        .from_image(&with_tag(image))
        .build();
    follow(image, client.create_image(Some(options), None, None), log).await
}

/// Reads an engine's records of a pull to their end.
pub(super) async fn follow(
    image: &str,
    stream: impl Stream<Item = Result<CreateImageInfo, Error>>,
    log: &Arc<dyn BuildLog>,
) -> Result<(), BuildError> {
    log.write(format!("==> pull {image}\n").as_bytes());
    let mut stream = std::pin::pin!(stream);
    while let Some(record) = stream.next().await {
        let info = record.map_err(|error| failure(image, error))?;
        // Bars of progress are for terminals.
        if let (Some(status), None) = (info.status, info.progress_detail) {
            let id = info.id.unwrap_or_default();
            log.write(format!("{status} {id}\n").as_bytes());
        }
    }
    Ok(())
}

fn failure(image: &str, error: Error) -> BuildError {
    match error {
        Error::DockerStreamError { error: message }
        | Error::DockerResponseServerError { message, .. }
            if !message.contains("no space left on device") =>
        {
            BuildError::Pull {
                image: image.to_owned(),
                message: errors::told(&message),
            }
        }
        other => errors::engine(other),
    }
}

/// An engine that is given neither tag nor digest pulls every tag there is.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') {
        return image.to_owned();
    }
    format!("{image}:latest")
}
