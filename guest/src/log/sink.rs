//! Where the log goes: one of the init's own outputs, written without ever waiting for its reader.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;

use crate::sys::{self, Interest, Poller};

/// What waits for a slow reader; beyond it lines are dropped.
const ROOM: usize = 1024 * 1024;
/// A pipe that is writable takes so much at once without waiting.
const PIPE_BUF: usize = 4096;
/// A queue that grew is given back when it is empty.
const KEPT: usize = 64 * 1024;

/// An output and what waits for it.
pub struct Sink {
    output: File,
    token: u64,
    queue: VecDeque<u8>,
    waiting: bool,
}

impl Sink {
    /// The output is not made non-blocking, because others may share it.
    pub fn new(output: BorrowedFd<'_>, token: u64) -> io::Result<Self> {
        let output = File::from(output.try_clone_to_owned()?);
        Ok(Self {
            output,
            token,
            queue: VecDeque::new(),
            waiting: false,
        })
    }

    pub fn has_room(&self, bytes: usize) -> bool {
        self.queue.len() + bytes <= ROOM
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Where lines are put; [`Self::flush`] writes them.
    pub fn queue(&mut self) -> &mut VecDeque<u8> {
        &mut self.queue
    }

    /// Writes what the reader takes now; the poller tells when it takes more. A reader that is gone takes everything.
    pub fn flush(&mut self, poller: &Poller) {
        while !self.queue.is_empty() && sys::can_write(&self.output) {
            let (front, _) = self.queue.as_slices();
            match self.output.write(&front[..piece(front)]) {
                Ok(written) => drop(self.queue.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.queue.clear(),
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > KEPT {
            self.queue = VecDeque::new();
        }
        self.wait(poller);
    }

    fn wait(&mut self, poller: &Poller) {
        let wanted = !self.queue.is_empty();
        if wanted == self.waiting {
            return;
        }
        // Files refuse to be waited for, but a file is always writable.
        let changed = if wanted {
            poller.add(&self.output, Interest::WRITE, self.token)
        } else {
            poller.remove(&self.output)
        };
        self.waiting = changed.is_ok() && wanted;
    }
}

/// How much to write at once: whole lines where possible, so that two streams into one reader do not mix within a line.
fn piece(front: &[u8]) -> usize {
    let most = &front[..front.len().min(PIPE_BUF)];
    most.iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(most.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, Read, pipe};
    use std::os::fd::AsFd;

    fn sink() -> (Poller, Sink, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        (
            Poller::new().unwrap(),
            Sink::new(writer.as_fd(), 7).unwrap(),
            reader,
        )
    }

    #[test]
    fn a_blocked_reader_blocks_nobody_and_loses_nothing() {
        let (mut poller, mut sink, mut reader) = sink();
        let text = "0123456789abcde\n".repeat(ROOM / 16);
        assert!(sink.has_room(text.len()));
        sink.queue().extend(text.as_bytes());
        assert!(!sink.has_room(1));
        sink.flush(&poller);
        assert!(!sink.is_empty());

        let mut read = vec![0; text.len()];
        let mut at = 0;
        while at < read.len() {
            at += reader.read(&mut read[at..]).unwrap();
            if !sink.is_empty() {
                assert_eq!(poller.wait(None).unwrap()[0].token, 7);
                sink.flush(&poller);
            }
        }
        assert_eq!(read, text.as_bytes());
        assert!(sink.is_empty());
        assert_eq!(sink.queue.capacity(), 0);
    }

    #[test]
    fn a_reader_that_is_gone_holds_nothing_up() {
        let (poller, mut sink, reader) = sink();
        drop(reader);
        sink.queue().extend(b"lost\n");
        sink.flush(&poller);
        assert!(sink.is_empty());
    }

    #[test]
    fn pieces_end_with_a_line_where_one_ends() {
        for (front, expected) in [
            (&b"a\nbc"[..], 2),
            (b"abc", 3),
            (b"a\nb\n", 4),
            (&[b'x'; 9000], PIPE_BUF),
        ] {
            assert_eq!(piece(front), expected);
        }
    }
}
