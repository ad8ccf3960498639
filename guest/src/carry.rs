//! Whether the socket is to be carried: not if the program makes it itself, and not before it listens on its TCP port.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::port;
use crate::relay::Relay;
use crate::sys::{Event, Poller};

const SOONEST: Duration = Duration::from_millis(2);
const LATEST: Duration = Duration::from_millis(100);
/// A program that took long to start may be found later, by this share of its time.
const SHARE: u32 = 50;

/// Where the carrying of the socket stands.
pub enum Carry {
    /// Looking whether the program listens, and where.
    Looking(Look),
    Carrying(Box<Relay>),
    /// There is nothing to carry: no socket was asked for, or the program made it, or it cannot be made.
    Nothing,
}

/// The state of the search.
pub struct Look {
    socket: PathBuf,
    port: u16,
    since: Instant,
    next: Instant,
}

/// The socket cannot be made.
pub type Failure = String;

impl Carry {
    /// Begins to look, before the program is started: a socket that an earlier life of the container left is removed,
    /// so that one found later is the program's.
    pub fn new(socket: Option<PathBuf>, port: u16, now: Instant) -> Self {
        let Some(socket) = socket else {
            return Self::Nothing;
        };
        if is_socket(&socket) {
            // If it cannot be removed the program may not be able to make it either, and will say so.
            let _ = fs::remove_file(&socket);
        }
        Self::Looking(Look {
            socket,
            port,
            since: now,
            next: now + SOONEST,
        })
    }

    /// When [`Self::tick`] has something to do.
    pub fn wake(&self) -> Option<Instant> {
        match self {
            Self::Looking(look) => Some(look.next),
            Self::Carrying(relay) => relay.wake(),
            Self::Nothing => None,
        }
    }

    /// Looks again when it is time, and begins to carry when the program listens.
    pub fn tick(&mut self, poller: &Poller, now: Instant) -> Result<(), Failure> {
        match self {
            Self::Looking(look) if now >= look.next => {
                if let Some(next) = look.look(poller, now)? {
                    *self = next;
                }
            }
            Self::Carrying(relay) => relay.tick(poller, now),
            _ => {}
        }
        Ok(())
    }

    pub fn on_event(&mut self, event: Event, poller: &Poller, now: Instant) {
        if let Self::Carrying(relay) = self {
            relay.on_event(event, poller, now);
        }
    }

    /// The program has ended.
    pub fn end(&mut self, poller: &Poller) {
        match self {
            Self::Carrying(relay) => relay.end(poller),
            _ => *self = Self::Nothing,
        }
    }

    /// Whether nothing is being carried.
    pub fn is_idle(&self) -> bool {
        match self {
            Self::Carrying(relay) => relay.is_idle(),
            _ => true,
        }
    }
}

impl Look {
    fn look(&mut self, poller: &Poller, now: Instant) -> Result<Option<Carry>, Failure> {
        self.next = now + pause(now - self.since);
        if is_socket(&self.socket) {
            return Ok(Some(Carry::Nothing));
        }
        let Some(program) = port::find(self.port) else {
            return Ok(None);
        };
        match Relay::new(&self.socket, program, poller) {
            Ok(relay) => Ok(Some(Carry::Carrying(Box::new(relay)))),
            Err(error) => Err(format!(
                "cannot listen on {} for the program: {error}",
                self.socket.display()
            )),
        }
    }
}

fn pause(since_start: Duration) -> Duration {
    (since_start / SHARE).clamp(SOONEST, LATEST)
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_often_at_first_and_seldom_later() {
        for (since_start, expected) in
            [(0, 2), (50, 2), (1_000, 20), (5_000, 100), (3_600_000, 100)]
        {
            let expected = Duration::from_millis(expected);
            assert_eq!(
                pause(Duration::from_millis(since_start)),
                expected,
                "after {since_start} ms"
            );
        }
    }

    #[test]
    fn without_a_socket_there_is_nothing_to_carry() {
        let carry = Carry::new(None, 8080, Instant::now());
        assert_eq!(carry.wake(), None);
        assert!(carry.is_idle());
    }
}
