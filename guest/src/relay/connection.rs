//! One carried connection: a caller on the unix socket, the program on TCP, both directions between them.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use super::half::Half;
use super::side::{Side, Socket};
use crate::sys::{self, Interest, Poller};

/// Which of the two sockets something happened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Caller,
    Program,
}

/// The two sockets, and the two directions.
pub struct Connection {
    caller: Side,
    program: Side,
    connecting: bool,
    up: Half,
    down: Half,
}

impl Connection {
    /// Begins a connection to the program for this caller. `tokens` are for the caller's and the program's socket.
    pub fn new(
        caller: UnixStream,
        program: SocketAddr,
        tokens: (u64, u64),
        poller: &Poller,
    ) -> io::Result<Self> {
        caller.set_nonblocking(true)?;
        let stream = sys::connect(program)?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            caller: Side::new(Socket::Unix(caller), tokens.0, poller)?,
            program: Side::new(Socket::Tcp(stream), tokens.1, poller)?,
            connecting: true,
            up: Half::new(),
            down: Half::new(),
        };
        connection.wait(poller)?;
        Ok(connection)
    }

    /// Carries on after something happened on one of the sockets.
    ///
    /// # Errors
    /// The connection cannot go on and is to be dropped: the program refused it, or the poller did.
    pub fn on_event(
        &mut self,
        end: End,
        hung_up: bool,
        scratch: &mut [u8],
        poller: &Poller,
    ) -> io::Result<()> {
        if self.connecting && end == End::Program {
            self.program.take_error().map_or(Ok(()), Err)?;
            self.connecting = false;
        }
        if hung_up {
            self.hang_up(end, poller);
        }
        if !self.connecting {
            self.up.pump(&self.caller, &self.program, scratch);
            self.down.pump(&self.program, &self.caller, scratch);
        }
        self.wait(poller)
    }

    /// Who closed both directions takes no more; what it sent before is still carried.
    fn hang_up(&mut self, end: End, poller: &Poller) {
        match end {
            End::Caller => {
                self.caller.hang_up(poller);
                self.down.abandon();
            }
            End::Program => {
                self.program.hang_up(poller);
                self.up.abandon();
            }
        }
    }

    /// The program has ended: only what it has answered is still carried.
    pub fn end(&mut self, poller: &Poller) -> io::Result<()> {
        self.up.abandon();
        self.wait(poller)
    }

    /// Whether both directions are over.
    pub fn is_done(&self) -> bool {
        self.up.is_done() && self.down.is_done()
    }

    fn wait(&mut self, poller: &Poller) -> io::Result<()> {
        let ready = !self.connecting;
        let caller = Interest {
            read: ready && self.up.wants_to_read(),
            write: self.down.wants_to_write(),
        };
        let program = Interest {
            read: ready && self.down.wants_to_read(),
            write: self.connecting || self.up.wants_to_write(),
        };
        self.caller.wait_for(caller, poller)?;
        self.program.wait_for(program, poller)
    }
}
