//! The log: what the program writes to its stdout and stderr, in lines of bounded length and at a bounded rate.

mod bucket;
mod cap;
mod lines;
mod sink;

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::time::Instant;

use crate::sys::{self, Interest, Poller};
use cap::{Cap, Dropped};
use lines::{Line, Lines};
use sink::Sink;

const READ_AT_ONCE: usize = 64 * 1024;
/// More than a pipe holds by default; what a program wrote before it ended is never more.
const LEFT_BEHIND: usize = 1024 * 1024;

/// The tokens under which the log waits for its pipes and outputs.
#[derive(Clone, Copy)]
pub enum Token {
    Stdout = 1,
    Stderr = 2,
    StdoutTaken = 3,
    StderrTaken = 4,
}

/// Both streams and the cap that they share.
pub struct Log {
    stdout: Stream,
    stderr: Stream,
    cap: Cap,
    scratch: Vec<u8>,
}

impl Log {
    /// The log, and the two pipes into which the program writes: stdout and stderr.
    pub fn new(poller: &Poller) -> io::Result<(Self, PipeWriter, PipeWriter)> {
        let out = Sink::new(io::stdout().as_fd(), Token::StdoutTaken as u64)?;
        let err = Sink::new(io::stderr().as_fd(), Token::StderrTaken as u64)?;
        let (stdout, out_writer) = Stream::new(out, poller, Token::Stdout)?;
        let (stderr, err_writer) = Stream::new(err, poller, Token::Stderr)?;
        let log = Self {
            stdout,
            stderr,
            cap: Cap::new(),
            scratch: vec![0; READ_AT_ONCE],
        };
        Ok((log, out_writer, err_writer))
    }

    /// Carries on what the poller told of; whether the token was one of the log's.
    pub fn on_event(&mut self, token: u64, poller: &Poller, now: Instant) -> bool {
        let is = |wanted: Token| token == wanted as u64;
        if is(Token::Stdout) {
            self.stdout.read(&mut self.scratch, &mut self.cap, now);
            self.stdout.sink.flush(poller);
        } else if is(Token::Stderr) {
            self.stderr.read(&mut self.scratch, &mut self.cap, now);
            self.stderr.sink.flush(poller);
        } else if is(Token::StdoutTaken) {
            self.stdout.sink.flush(poller);
        } else if is(Token::StderrTaken) {
            self.stderr.sink.flush(poller);
        } else {
            return false;
        }
        true
    }

    /// When [`Self::tick`] has something to do.
    pub fn wake(&self) -> Option<Instant> {
        self.cap.wake()
    }

    /// Tells what was dropped, when it is time.
    pub fn tick(&mut self, poller: &Poller, now: Instant) {
        if let Some(dropped) = self.cap.due(now) {
            self.tell(dropped, poller);
        }
    }

    /// Writes a line of the init's own to stderr; it is not capped.
    pub fn say(&mut self, message: &str, poller: &Poller) {
        let line = format!("faas-init: {message}\n");
        self.stderr.sink.queue().extend(line.into_bytes());
        self.stderr.sink.flush(poller);
    }

    fn tell(&mut self, dropped: Dropped, poller: &Poller) {
        self.say(&dropped.to_string(), poller);
    }

    /// The program has ended: takes what it left in its pipes, whoever still holds them, and tells what was dropped.
    pub fn end(&mut self, poller: &Poller, now: Instant) {
        for stream in [&mut self.stdout, &mut self.stderr] {
            stream.end(&mut self.scratch, &mut self.cap, now);
            stream.sink.flush(poller);
        }
        if let Some(dropped) = self.cap.rest() {
            self.tell(dropped, poller);
        }
    }

    /// Whether everything has been written.
    pub fn is_flushed(&self) -> bool {
        self.stdout.sink.is_empty() && self.stderr.sink.is_empty()
    }
}

/// One stream of the program and the output that it goes to.
struct Stream {
    pipe: Option<PipeReader>,
    lines: Lines,
    sink: Sink,
}

impl Stream {
    fn new(sink: Sink, poller: &Poller, token: Token) -> io::Result<(Self, PipeWriter)> {
        let (pipe, writer) = io::pipe()?;
        sys::set_nonblocking(&pipe)?;
        poller.add(&pipe, Interest::READ, token as u64)?;
        let stream = Self {
            pipe: Some(pipe),
            lines: Lines::default(),
            sink,
        };
        Ok((stream, writer))
    }

    /// Reads once; how much there was, 0 for nothing now or ever.
    fn read(&mut self, scratch: &mut [u8], cap: &mut Cap, now: Instant) -> usize {
        let Some(pipe) = &mut self.pipe else { return 0 };
        match pipe.read(scratch) {
            Ok(0) => self.close(cap, now),
            Ok(count) => {
                let Self { lines, sink, .. } = self;
                lines.feed(&scratch[..count], |line| pass(line, sink, cap, now));
                return count;
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.close(cap, now),
        }
        0
    }

    fn end(&mut self, scratch: &mut [u8], cap: &mut Cap, now: Instant) {
        let mut total = 0;
        while total < LEFT_BEHIND {
            match self.read(scratch, cap, now) {
                0 => break,
                count => total += count,
            }
        }
        self.close(cap, now);
    }

    fn close(&mut self, cap: &mut Cap, now: Instant) {
        self.pipe = None;
        let Self { lines, sink, .. } = self;
        lines.finish(|line| pass(line, sink, cap, now));
    }
}

/// Lets a line through, or drops and counts it.
fn pass(line: Line<'_>, sink: &mut Sink, cap: &mut Cap, now: Instant) {
    let len = line.written_len();
    if sink.has_room(len) && cap.admit(len as u64, now) {
        line.write_to(sink.queue());
    } else {
        cap.count_dropped(line.original_len() as u64, now);
    }
}
