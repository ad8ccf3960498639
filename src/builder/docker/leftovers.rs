//! Takes away what classic builds leave behind: images of steps, without a name, that no image stands on. The engine tells of
//! them only while somebody listens, so what it still made of a build that was cut, or whose server was killed, is known by
//! its label.
//!
//! Nothing is removed while a build runs: one may stand on what another has made, and what it is making looks the same.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{
    Docker,
    errors::Error,
    models::{ContainerSummary, ImageSummary},
    query_parameters::{
        ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveContainerOptionsBuilder,
        RemoveImageOptions,
    },
};
use tokio::{
    sync::{OwnedRwLockReadGuard, RwLock},
    time::sleep,
};
use tokio_util::task::TaskTracker;

use super::{BUILT, STEP};

const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(200);

/// What one installation's builds left in its engine.
pub(super) struct Leftovers {
    client: Docker,
    /// Name of the label.
    label: String,
    /// Shared by builds that run.
    builds: Arc<RwLock<()>>,
    left: Mutex<Left>,
    tasks: TaskTracker,
}

/// What is to be tidied up.
#[derive(Default)]
struct Left {
    /// What builds said that they made.
    told: Vec<Told>,
    /// A build has ended without its image.
    untold: bool,
}

/// An image of a step, and when its build began.
struct Told {
    id: String,
    begun: i64,
}

/// A build that runs.
pub(super) struct Running {
    leftovers: Arc<Leftovers>,
    begun: i64,
    told: Vec<Told>,
    is_through: bool,
    place: Option<OwnedRwLockReadGuard<()>>,
}

impl Leftovers {
    pub(super) fn new(client: Docker, label: String, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            client,
            label,
            builds: Arc::default(),
            left: Mutex::default(),
            tasks,
        })
    }

    /// A build begins. What it leaves, however it ends, goes once no build runs. The engine itself keeps what the finished image
    /// stands on.
    pub(super) async fn begin(self: &Arc<Self>) -> Running {
        Running {
            leftovers: Arc::clone(self),
            begun: now(),
            told: Vec::new(),
            is_through: false,
            place: Some(Arc::clone(&self.builds).read_owned().await),
        }
    }

    /// Ends what steps are still at, and removes what there is once no build runs. What cannot be removed stays until the next
    /// time.
    pub(super) async fn sweep(self: &Arc<Self>) {
        match self.remove_containers().await {
            Ok(()) => {
                self.left().untold = true;
                self.tidy_later();
            }
            Err(error) => {
                tracing::warn!(%error, "What builds left behind stays until the next start");
            }
        }
    }

    fn tidy_later(self: &Arc<Self>) {
        self.tasks.spawn(Arc::clone(self).tidy());
    }

    /// Waits until the engine is through with what was cut.
    async fn tidy(self: Arc<Self>) {
        for _ in 0..ATTEMPTS {
            sleep(PAUSE).await;
            match self.containers().await {
                Ok(containers) if containers.is_empty() => {}
                Ok(_) => continue,
                Err(error) => return tracing::warn!(%error, "What a build left behind stays"),
            }
            // The end of whatever runs by now asks for this again.
            let Ok(_alone) = self.builds.try_write() else {
                return;
            };
            let left = mem::take(&mut *self.left());
            for told in left.told.iter().rev() {
                if self.is_leftover(told).await {
                    self.remove(&told.id).await;
                }
            }
            if left.untold
                && let Err(error) = self.remove_nameless().await
            {
                tracing::warn!(%error, "What a build left behind stays");
            }
            return;
        }
        tracing::warn!("What a build left behind stays, as its step does not end");
    }

    async fn containers(&self) -> Result<Vec<ContainerSummary>, Error> {
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&HashMap::from([("label", vec![self.labelled(STEP)])]))
            .build();
        self.client.list_containers(Some(options)).await
    }

    async fn remove_containers(&self) -> Result<(), Error> {
        for container in self.containers().await? {
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

    async fn remove_nameless(&self) -> Result<(), Error> {
        for image in self.nameless(STEP).await? {
            tracing::info!(image = image.id, "Removing what a build left behind");
            // Those that it stands on go with it.
            self.remove(&image.id).await;
        }
        // A build that was cut between its last label and its name; or one whose name somebody took away, which may run.
        for image in self.nameless(BUILT).await? {
            let options = None::<RemoveImageOptions>;
            if let Err(error) = self.client.remove_image(&image.id, options, None).await {
                tracing::debug!(image = image.id, %error, "An image without a name stays");
            }
        }
        Ok(())
    }

    /// Images on which no other one stands.
    async fn nameless(&self, value: &str) -> Result<Vec<ImageSummary>, Error> {
        let dangling = vec!["true".to_owned()];
        let label = vec![self.labelled(value)];
        let filters = HashMap::from([("label", label), ("dangling", dangling)]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        self.client.list_images(Some(options)).await
    }

    /// Removes an image, unless another one stands on it: then it is no leftover. The container of a step that was cancelled
    /// may hold it for a moment longer.
    async fn remove(&self, id: &str) {
        for _ in 0..ATTEMPTS {
            let options = None::<RemoveImageOptions>;
            match self.client.remove_image(id, options, None).await {
                Err(Error::DockerResponseServerError {
                    status_code: 409,
                    message,
                }) if message.contains("container") => sleep(PAUSE).await,
                Err(Error::DockerResponseServerError { .. }) | Ok(_) => return,
                Err(error) => return tracing::warn!(image = id, %error, "Build leftover stays"),
            }
        }
        tracing::warn!(image = id, "Build leftover stays, a container uses it");
    }

    /// A build's output can name any image, so only what has no name and is as young as the build counts.
    async fn is_leftover(&self, told: &Told) -> bool {
        let Ok(image) = self.client.inspect_image(&told.id).await else {
            return false;
        };
        let nameless = image.repo_tags.is_none_or(|tags| tags.is_empty())
            && image.repo_digests.is_none_or(|digests| digests.is_empty());
        let young = image
            .created
            .is_some_and(|created| created.unix_timestamp() >= told.begun);
        nameless && young
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn labelled(&self, value: &str) -> String {
        format!("{}={value}", self.label)
    }
}

impl Running {
    /// The build says that it made this image.
    pub(super) fn made(&mut self, id: &str) {
        self.told.push(Told {
            id: id.to_owned(),
            begun: self.begun,
        });
    }

    /// Its image is there.
    pub(super) fn is_through(&mut self) {
        self.is_through = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.place.take());
        let mut left = self.leftovers.left();
        left.told.append(&mut self.told);
        left.untold |= !self.is_through;
        let some = left.untold || !left.told.is_empty();
        drop(left);
        if some {
            self.leftovers.tidy_later();
        }
    }
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
}
