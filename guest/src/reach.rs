//! Whether a server can be reached from here, asked until it is as expected: a network's rules may come some time after what
//! they are for.

use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::config::Reach;

/// How long it may take until it is as expected.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server may take to accept a connection.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two tries.
const REST: Duration = Duration::from_millis(250);
/// One try may fail for another reason.
const FAILURES: u32 = 3;

/// Whether it is as expected before long.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells that a network's rules have come: it can only be tried again"
)]
pub fn is_so(reach: &Reach) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let mut failures = 0;
    loop {
        let is_open = is_open(reach.server);
        failures = if is_open { 0 } else { failures + 1 };
        if reach.is_expected == is_open && (is_open || failures == FAILURES) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(REST);
    }
}

fn is_open(server: SocketAddr) -> bool {
    TcpStream::connect_timeout(&server, ANSWER).is_ok()
}
