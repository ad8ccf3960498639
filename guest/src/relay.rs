//! The carried socket: every connection to the unix socket goes on to the program's TCP port, byte for byte.

mod connection;
mod half;
mod side;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::sys::{Event, Interest, Poller};
use connection::{Connection, End};

/// The token of the listener; those of connections follow it.
pub const LISTENER: u64 = 8;
/// Connections at once; more wait in the listener's queue.
const MOST: usize = 512;
/// How long accepting rests when it cannot go on.
const REST: Duration = Duration::from_millis(100);
const SCRATCH: usize = 32 * 1024;

/// The listener and the connections that it took.
pub struct Relay {
    listener: Option<UnixListener>,
    program: SocketAddr,
    connections: BTreeMap<u64, Connection>,
    last: u64,
    resting_until: Option<Instant>,
    scratch: Vec<u8>,
}

impl Relay {
    /// Listens on `socket` for the program that listens on `program`. Who finds the socket can connect to it: it
    /// appears complete, and replaces what was there.
    pub fn new(socket: &Path, program: SocketAddr, poller: &Poller) -> io::Result<Self> {
        let listener = listen(socket)?;
        poller.add(&listener, Interest::READ, LISTENER)?;
        Ok(Self {
            listener: Some(listener),
            program,
            connections: BTreeMap::new(),
            last: LISTENER,
            resting_until: None,
            scratch: vec![0; SCRATCH],
        })
    }

    /// Carries on what the poller told of.
    pub fn on_event(&mut self, event: Event, poller: &Poller, now: Instant) {
        if event.token == LISTENER {
            self.accept(poller, now);
            return;
        }
        let (key, end) = owner(event.token);
        // An event may be of a connection that ended by an earlier event of the same wait.
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let result = connection.on_event(end, event.hung_up, &mut self.scratch, poller);
        if result.is_err() || connection.is_done() {
            self.connections.remove(&key);
            self.resume(poller);
        }
    }

    fn accept(&mut self, poller: &Poller, now: Instant) {
        while let Some(listener) = &self.listener {
            if self.connections.len() >= MOST {
                return self.rest(poller, now);
            }
            match listener.accept() {
                Ok((caller, _)) => {
                    let key = self.last + 1;
                    self.last = key;
                    // When the program refuses, the caller is dropped, and so learns it at once.
                    if let Ok(connection) =
                        Connection::new(caller, self.program, tokens(key), poller)
                    {
                        self.connections.insert(key, connection);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(_) => return self.rest(poller, now),
            }
        }
    }

    /// Too many connections, or no descriptors: the listener would be told of for ever.
    fn rest(&mut self, poller: &Poller, now: Instant) {
        self.resting_until = Some(now + REST);
        self.wait_for_callers(Interest::default(), poller);
    }

    fn resume(&mut self, poller: &Poller) {
        if self.resting_until.take().is_some() {
            self.wait_for_callers(Interest::READ, poller);
        }
    }

    fn wait_for_callers(&self, interest: Interest, poller: &Poller) {
        if let Some(listener) = &self.listener {
            // The listener is in the poller as long as it lives, so that this cannot fail.
            let _ = poller.modify(listener, interest, LISTENER);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn wake(&self) -> Option<Instant> {
        self.resting_until
    }

    /// Accepts again after a rest.
    pub fn tick(&mut self, poller: &Poller, now: Instant) {
        if self.resting_until.is_some_and(|until| now >= until) {
            self.resume(poller);
        }
    }

    /// The program has ended: takes no more callers, and of the connections only carries what was answered.
    pub fn end(&mut self, poller: &Poller) {
        self.listener = None;
        self.resting_until = None;
        self.connections
            .retain(|_, connection| connection.end(poller).is_ok() && !connection.is_done());
    }

    /// Whether nothing is being carried.
    pub fn is_idle(&self) -> bool {
        self.connections.is_empty()
    }
}

/// The tokens of a connection's two sockets.
fn tokens(key: u64) -> (u64, u64) {
    (key * 2, key * 2 + 1)
}

fn owner(token: u64) -> (u64, End) {
    let end = if token.is_multiple_of(2) {
        End::Caller
    } else {
        End::Program
    };
    (token / 2, end)
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    let new = socket.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&new, Permissions::from_mode(0o666))?;
    fs::rename(&new, socket)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_lead_back_to_their_connection_and_meet_no_other() {
        for key in LISTENER + 1..LISTENER + 1000 {
            let (caller, program) = tokens(key);
            assert_eq!(owner(caller), (key, End::Caller));
            assert_eq!(owner(program), (key, End::Program));
            assert!(caller > LISTENER && program > LISTENER);
        }
    }
}
