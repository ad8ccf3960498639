//! Work that blocks, on a thread that may.

use std::{future::pending, panic::resume_unwind};

/// Runs `work` and answers what it does; its panic goes on here.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The process ends, and whoever waits with it.
            Err(_) => pending().await,
        },
    }
}
