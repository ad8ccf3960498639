//! The loop: waits for signals, the log and the carried connections, until the program has ended and what it left
//! behind has been delivered.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::carry::Carry;
use crate::config::{self, Config};
use crate::confine::confine;
use crate::log::Log;
use crate::program::{Program, StartError};
use crate::sys::{self, Interest, Poller};

const SIGNALS: u64 = 0;
const LIFELINE: u64 = 7;
/// How long a reader of the log that takes nothing may hold up the end.
const LOG_DEADLINE: Duration = Duration::from_millis(500);
/// How long callers have to take the answers of a program that has ended.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// The init cannot do its work.
#[derive(Debug)]
pub enum Error {
    Config(config::Error),
    Start(StartError),
    System(io::Error),
}

impl Error {
    /// 125 for the init itself, 126 and 127 for a program that cannot be started.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start(error) => error.exit_code(),
            Self::Config(_) | Self::System(_) => 125,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Start(error) => error.fmt(f),
            Self::System(error) => write!(f, "the kernel refused what the init needs: {error}"),
        }
    }
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        Self::Config(error)
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Runs the program to its end and returns the exit code: the program's own, or 128 and the signal that killed it.
pub fn run(config: Config) -> Result<u8, Error> {
    Init::start(config)?.run().map_err(Error::System)
}

struct Init {
    poller: Poller,
    program: Program,
    log: Log,
    carry: Carry,
    ended: Option<Ended>,
}

#[derive(Clone, Copy)]
struct Ended {
    code: u8,
    log_deadline: Instant,
    answer_deadline: Instant,
}

impl Init {
    fn start(config: Config) -> Result<Self, Error> {
        if !config.child {
            sys::clear_umask();
            confine()?;
        }
        sys::adopt_orphans()?;
        let signals = sys::take_signals()?;
        let poller = Poller::new()?;
        let (log, stdout, stderr) = Log::new(&poller)?;
        let carry = Carry::new(config.socket, config.port, Instant::now());
        let program = Program::start(&config.command, config.child, signals, stdout, stderr)?;
        if config.child {
            poller.add(&io::stdin(), Interest::READ, LIFELINE)?;
        }
        poller.add(&program.signals(), Interest::READ, SIGNALS)?;
        Ok(Self {
            poller,
            program,
            log,
            carry,
            ended: None,
        })
    }

    fn run(&mut self) -> io::Result<u8> {
        loop {
            let now = Instant::now();
            self.tick(now);
            if let Some(code) = self.outcome(now) {
                return Ok(code);
            }
            let timeout = self
                .wake(now)
                .map(|wake| wake.saturating_duration_since(now));
            for event in self.poller.wait(timeout)? {
                self.on_event(event);
            }
        }
    }

    fn on_event(&mut self, event: sys::Event) {
        let now = Instant::now();
        if event.token == SIGNALS {
            self.program.on_signals();
        } else if event.token == LIFELINE {
            // Nobody writes to it: it was closed, and says so until it is listened to no more.
            let _ = self.poller.remove(&io::stdin());
            self.program.kill_all();
        } else if !self.log.on_event(event.token, &self.poller, now) {
            self.carry.on_event(event, &self.poller, now);
        }
    }

    fn tick(&mut self, now: Instant) {
        self.log.tick(&self.poller, now);
        if let Err(failure) = self.carry.tick(&self.poller, now) {
            self.carry = Carry::Nothing;
            self.log.say(&failure, &self.poller);
        }
        if self.ended.is_none()
            && let Some(code) = self.program.exit_code()
        {
            self.end(code, now);
        }
    }

    fn end(&mut self, code: u8, now: Instant) {
        self.carry.end(&self.poller);
        self.log.end(&self.poller, now);
        self.ended = Some(Ended {
            code,
            log_deadline: now + LOG_DEADLINE,
            answer_deadline: now + ANSWER_DEADLINE,
        });
    }

    /// The exit code, once nothing more has to be delivered or its time is over.
    fn outcome(&self, now: Instant) -> Option<u8> {
        let ended = self.ended?;
        let log = self.log.is_flushed() || now >= ended.log_deadline;
        let answers = self.carry.is_idle() || now >= ended.answer_deadline;
        let alone = self.program.is_alone() || now >= ended.log_deadline;
        (log && answers && alone).then_some(ended.code)
    }

    fn wake(&self, now: Instant) -> Option<Instant> {
        let deadlines = self
            .ended
            .map(|ended| [ended.log_deadline, ended.answer_deadline]);
        let deadlines = deadlines
            .into_iter()
            .flatten()
            .filter(|deadline| *deadline > now);
        let wakes = [self.log.wake(), self.carry.wake()];
        wakes.into_iter().flatten().chain(deadlines).min()
    }
}
