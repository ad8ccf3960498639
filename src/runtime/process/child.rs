//! One child: its process group, its end, its log.

use std::{io, os::fd::OwnedFd, os::unix::process::ExitStatusExt, process::ExitStatus, sync::Arc};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{net::unix::pipe, process::Command, sync::watch};

use super::{log::Log, spawner::Spawner};
use crate::runtime::{Observed, RuntimeError};

/// A child that was started; it may have ended since.
#[derive(Debug)]
pub struct Child {
    /// As it was when it started.
    pub observed: Observed,
    /// What it wrote.
    pub log: Arc<Log>,
    group: Pid,
    end: watch::Receiver<Option<i64>>,
}

impl Child {
    /// Starts a child, and two tasks that end with it: one waits for it, one reads what it writes.
    ///
    /// # Errors
    /// `NotRunnable` when its program cannot be run.
    pub async fn start(
        spawner: &Spawner,
        mut command: Command,
        observed: Observed,
    ) -> Result<Arc<Self>, RuntimeError> {
        let program = command.as_std().get_program().to_os_string();
        let fail = |error: io::Error| {
            RuntimeError::NotRunnable(format!("cannot run {}: {error}", program.display()))
        };
        let output = pipe_into(&mut command).map_err(fail)?;
        let mut process = spawner.spawn(command).await.map_err(fail)?;
        let group = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let group = group.ok_or_else(|| fail(io::Error::other("it has no process id")))?;

        let (ended, end) = watch::channel(None);
        let log = Arc::new(Log::default());
        tokio::spawn(Arc::clone(&log).fill(output));
        tokio::spawn(async move {
            let status = process.wait().await;
            // What it left behind goes with it.
            let _ = kill_process_group(group, Signal::KILL);
            ended.send_replace(Some(status.map_or(-1, code)));
        });
        Ok(Arc::new(Self {
            observed,
            log,
            group,
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

    /// Signals the whole group, unless the child has ended: its number may be another's then.
    pub fn signal(&self, signal: Signal) {
        if self.end.borrow().is_none() {
            // It may end at this moment.
            let _ = kill_process_group(self.group, signal);
        }
    }
}

/// One pipe for both streams, so that their order is kept.
fn pipe_into(command: &mut Command) -> io::Result<pipe::Receiver> {
    let (reader, writer) = io::pipe()?;
    command
        .stdin(std::process::Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    pipe::Receiver::from_owned_fd(OwnedFd::from(reader))
}

fn code(status: ExitStatus) -> i64 {
    let signal = status.signal().map(|signal| 128 + signal);
    i64::from(status.code().or(signal).unwrap_or(-1))
}
