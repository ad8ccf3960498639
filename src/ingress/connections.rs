//! The connections of one listener, from their coming to the end of the last.

use std::{sync::atomic::Ordering, time::Duration};

use hyper_util::server::graceful::GracefulShutdown;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{Ingress, places::Places};

/// Kept connections are heard after the listener is closed, until nothing came for this long: a request on its way would be
/// lost if its connection were closed meanwhile. Each answer says that it was the connection's last.
const QUIET: Duration = Duration::from_millis(500);

/// See the module.
pub struct Connections {
    pub places: Places,
    pub graceful: GracefulShutdown,
    pub running: TaskTracker,
}

impl Connections {
    /// None yet, and so many at most.
    pub fn new(limit: usize) -> Self {
        Self {
            places: Places::new(limit),
            graceful: GracefulShutdown::new(),
            running: TaskTracker::new(),
        }
    }

    /// No more come. Ends with the last.
    pub async fn end(self, ingress: &Ingress) {
        ingress.leaving.store(true, Ordering::Relaxed);
        self.running.close();
        let mut heard = 0;
        while timeout(QUIET, self.running.wait()).await.is_err() {
            let late = ingress.late.load(Ordering::Relaxed);
            if late == heard {
                return self.graceful.shutdown().await;
            }
            heard = late;
        }
    }
}
