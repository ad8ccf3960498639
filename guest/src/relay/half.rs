//! One direction of a carried connection: what one side sends, the other gets, its end included.

use std::io::{ErrorKind, Read, Write};

use super::side::Side;

/// Reads a turn; others are served before more is read.
const ROUNDS: usize = 4;

/// A direction, and what its receiver has not taken yet: at most one read; until it is taken, nothing more is read.
#[derive(Debug)]
pub struct Half {
    done: bool,
    pending: Vec<u8>,
    sent: usize,
}

impl Half {
    pub fn new() -> Self {
        Self {
            done: false,
            pending: Vec::new(),
            sent: 0,
        }
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    pub fn wants_to_read(&self) -> bool {
        !self.is_done() && self.pending.is_empty()
    }

    pub fn wants_to_write(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Nobody is left to receive: forgets what was not taken.
    pub fn abandon(&mut self) {
        *self = Self {
            done: true,
            ..Self::new()
        };
    }

    /// Carries what can be carried now. A sender that hung up is waited for no more, so all that it left is taken.
    pub fn pump(&mut self, from: &Side, to: &Side, scratch: &mut [u8]) {
        let hung_up = from.has_hung_up();
        let rounds = if hung_up { usize::MAX } else { ROUNDS };
        self.flush(to);
        for _ in 0..rounds {
            if !self.wants_to_read() {
                return;
            }
            match from.socket().read(scratch) {
                Ok(count) if count > 0 => {
                    self.send(to, &scratch[..count]);
                    if count < scratch.len() && !hung_up {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && !hung_up => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => self.end(to),
            }
        }
    }

    fn end(&mut self, to: &Side) {
        to.end_writing();
        self.done = true;
    }

    /// Sends at once what the receiver takes, and keeps only the rest.
    fn send(&mut self, to: &Side, bytes: &[u8]) {
        if let Some(sent) = self.write(to, bytes) {
            self.pending = bytes[sent..].to_vec();
            self.sent = 0;
        }
    }

    fn flush(&mut self, to: &Side) {
        let pending = std::mem::take(&mut self.pending);
        let Some(sent) = self.write(to, &pending[self.sent..]) else {
            return;
        };
        self.sent += sent;
        if self.sent < pending.len() {
            self.pending = pending;
        } else {
            self.sent = 0;
        }
    }

    /// How much of it the receiver took; `None`, and the direction is over, if the receiver is gone.
    fn write(&mut self, to: &Side, bytes: &[u8]) -> Option<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match to.socket().write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.abandon();
                    return None;
                }
            }
        }
        Some(sent)
    }
}
