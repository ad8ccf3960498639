//! One child, which is our init with the instance below it: its lifeline, its end, its log.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    net::unix::pipe,
    process::{ChildStdin, Command},
    sync::watch,
};

use super::log::Log;
use crate::runtime::{Observed, RuntimeError};

/// A child that was started; it may have ended since.
#[derive(Debug)]
pub struct Child {
    /// As it was when it started.
    pub observed: Observed,
    /// What it wrote.
    pub log: Arc<Log>,
    /// Held open as long as the child may live: its init ends everything when this is closed, and the kernel closes it
    /// when this server ends in whatever way.
    lifeline: Mutex<Option<ChildStdin>>,
    pid: Pid,
    end: watch::Receiver<Option<i64>>,
}

impl Child {
    /// Starts a child, and two tasks that end with it: one waits for it, one reads what it writes.
    ///
    /// # Errors
    /// `NotRunnable` when it cannot be started.
    pub fn start(mut command: Command, observed: Observed) -> Result<Arc<Self>, RuntimeError> {
        let program = command.as_std().get_program().to_os_string();
        let fail = |error: io::Error| {
            RuntimeError::NotRunnable(format!("cannot run {}: {error}", program.display()))
        };
        let output = pipe_into(&mut command).map_err(fail)?;
        // What a terminal sends to its foreground is for the server.
        let command = command.stdin(Stdio::piped()).process_group(0);
        let mut process = command.spawn().map_err(fail)?;
        let lifeline = Mutex::new(process.stdin.take());
        let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.ok_or_else(|| fail(io::Error::other("it has no process id")))?;

        let (ended, end) = watch::channel(None);
        let log = Arc::new(Log::default());
        tokio::spawn(Arc::clone(&log).fill(output));
        tokio::spawn(async move {
            let status = process.wait().await;
            ended.send_replace(Some(status.map_or(-1, code)));
        });
        Ok(Arc::new(Self {
            observed,
            log,
            lifeline,
            pid,
            end,
        }))
    }

    /// As it is now.
    pub fn observe(&self) -> Observed {
        Observed {
            running: self.end.borrow().is_none(),
            ..self.observed.clone()
        }
    }

    /// Waits for its end and tells its code.
    pub async fn ended(&self) -> i64 {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        // The sender says how it ended before it goes, unless the whole server goes.
        ended.ok().and_then(|code| *code).unwrap_or(-1)
    }

    /// Signals the child, unless it has ended: its number may be another's then.
    pub fn signal(&self, signal: Signal) {
        if self.end.borrow().is_none() {
            // It may end at this moment.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Ends the child and all that it started, at once.
    pub fn kill(&self) {
        // An end of a pipe is whole after any panic.
        let mut lifeline = self.lifeline.lock().unwrap_or_else(PoisonError::into_inner);
        drop(lifeline.take());
    }
}

/// One pipe for both streams, so that their order is kept.
fn pipe_into(command: &mut Command) -> io::Result<pipe::Receiver> {
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    pipe::Receiver::from_owned_fd(OwnedFd::from(reader))
}

fn code(status: ExitStatus) -> i64 {
    let signal = status.signal().map(|signal| 128 + signal);
    i64::from(status.code().or(signal).unwrap_or(-1))
}
