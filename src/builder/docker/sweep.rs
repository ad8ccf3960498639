//! Takes away what a classic build leaves behind: images of steps, without name or label, that no image stands on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::{Docker, errors::Error, query_parameters::RemoveImageOptions};
use tokio_util::task::TaskTracker;

const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(200);

/// Images that one build made; they go when it ends, however it ends. The engine itself keeps those that the finished
/// image stands on.
pub(super) struct Sweep {
    client: Docker,
    tasks: TaskTracker,
    begun: i64,
    images: Vec<String>,
}

impl Sweep {
    pub(super) fn new(client: &Docker, tasks: &TaskTracker) -> Self {
        Self {
            client: client.clone(),
            tasks: tasks.clone(),
            begun: now(),
            images: Vec::new(),
        }
    }

    /// The build says that it made this image.
    pub(super) fn add(&mut self, id: &str) {
        self.images.push(id.to_owned());
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        let images = std::mem::take(&mut self.images);
        let (client, begun) = (self.client.clone(), self.begun);
        if images.is_empty() {
            return;
        }
        self.tasks.spawn(async move {
            for id in images.iter().rev() {
                if is_leftover(&client, id, begun).await {
                    remove(&client, id).await;
                }
            }
        });
    }
}

/// Removes an image, unless another one stands on it: then it is no leftover. The container of a step that was cancelled
/// may hold it for a moment longer.
pub(super) async fn remove(client: &Docker, id: &str) {
    for _ in 0..ATTEMPTS {
        let end = client
            .remove_image(id, None::<RemoveImageOptions>, None)
            .await;
        match end {
            Err(Error::DockerResponseServerError {
                status_code: 409,
                message,
            }) if message.contains("container") => tokio::time::sleep(PAUSE).await,
            Err(Error::DockerResponseServerError { .. }) | Ok(_) => return,
            Err(error) => return tracing::warn!(image = id, %error, "Build leftover stays"),
        }
    }
    tracing::warn!(image = id, "Build leftover stays, a container uses it");
}

/// A build's output can name any image, so only what has no name, no label and is as young as the build counts.
async fn is_leftover(client: &Docker, id: &str, begun: i64) -> bool {
    let Ok(image) = client.inspect_image(id).await else {
        return false;
    };
    let nameless = image.repo_tags.is_none_or(|tags| tags.is_empty())
        && image.repo_digests.is_none_or(|digests| digests.is_empty());
    let young = image
        .created
        .is_some_and(|created| created.unix_timestamp() >= begun);
    nameless && young
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
}
