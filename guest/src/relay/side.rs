//! One socket of a carried connection, and what the poller waits for on it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::sys::{Interest, Poller};

/// A non-blocking stream of either kind.
pub enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => (&*stream).read(buffer),
            Socket::Tcp(stream) => (&*stream).read(buffer),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => (&*stream).write(buffer),
            Socket::Tcp(stream) => (&*stream).write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// A socket with its place in the poller.
pub struct Side {
    socket: Socket,
    token: u64,
    waited: Interest,
    hung_up: bool,
}

impl Side {
    /// Adds the socket to the poller, at first only for its hanging up.
    pub fn new(socket: Socket, token: u64, poller: &Poller) -> io::Result<Self> {
        let waited = Interest::default();
        poller.add(&socket, waited, token)?;
        Ok(Self {
            socket,
            token,
            waited,
            hung_up: false,
        })
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    pub fn has_hung_up(&self) -> bool {
        self.hung_up
    }

    /// Why the connection failed, if it did.
    pub fn take_error(&self) -> Option<io::Error> {
        let error = match &self.socket {
            Socket::Unix(stream) => stream.take_error(),
            Socket::Tcp(stream) => stream.take_error(),
        };
        error.unwrap_or_else(Some)
    }

    /// The other end has closed both directions. The poller would say so for ever, so it is asked no more: what is
    /// left here is taken when the other side moves.
    pub fn hang_up(&mut self, poller: &Poller) {
        if !self.hung_up {
            self.hung_up = true;
            // It fails only for a socket that the poller does not hold, which is what is wanted.
            let _ = poller.remove(&self.socket);
        }
    }

    /// Waits for this from now on.
    pub fn wait_for(&mut self, interest: Interest, poller: &Poller) -> io::Result<()> {
        if !self.hung_up && interest != self.waited {
            poller.modify(&self.socket, interest, self.token)?;
            self.waited = interest;
        }
        Ok(())
    }

    /// Tells the other end that no more comes. It may be gone, and then knows.
    pub fn end_writing(&self) {
        let _ = match &self.socket {
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}
