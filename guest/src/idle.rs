//! Waits until nobody speaks with the program of this pod: it is told to end, and its calls end before. Whoever calls it hears
//! of that at about the same time as the node, and closes the connections that it keeps.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::config::UntilIdle;
use crate::port;

/// For so long nobody must have had a connection: calls that were on their way when the order came are there by then. With
/// some time to look around it is less than what the platform gives a pod that it ends itself.
const QUIET: Duration = Duration::from_secs(1);
/// Between two looks.
const REST: Duration = Duration::from_millis(100);

/// Comes back when nobody has had a connection for a while, and in any case when the time is over.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when another's connections end: it can only be looked again"
)]
pub fn wait(until: &UntilIdle) {
    let began = Instant::now();
    let mut quiet = began;
    while !is_over(began, quiet, until.limit) {
        sleep(REST);
        // Where the kernel does not tell, somebody may.
        if port::is_in_use(until.port).unwrap_or(true) {
            quiet = Instant::now();
        }
    }
}

fn is_over(began: Instant, quiet: Instant, limit: Duration) -> bool {
    quiet.elapsed() >= QUIET || began.elapsed() >= limit
}
