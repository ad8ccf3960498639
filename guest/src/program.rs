//! The program of the container: started, sent the signals that the init gets, reaped together with every orphan.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};

use crate::sys;

/// The program could not be started.
#[derive(Debug)]
pub struct StartError {
    program: OsString,
    error: io::Error,
}

impl StartError {
    /// 127 if there is no such program, 126 if there is one that cannot be executed, as shells have it.
    pub fn exit_code(&self) -> u8 {
        if self.error.kind() == io::ErrorKind::NotFound {
            127
        } else {
            126
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (program, error) = (self.program.display(), &self.error);
        match self.exit_code() {
            127 => write!(
                f,
                "cannot start `{program}`: it, or the interpreter that it names, was not found: {error}"
            ),
            _ => write!(
                f,
                "cannot start `{program}`: it cannot be executed: {error}"
            ),
        }
    }
}

/// The running program.
pub struct Program {
    pid: i32,
    /// Whether everything below the init ends with the program, and not only its group.
    whole: bool,
    signals: OwnedFd,
    exit: Option<u8>,
}

impl Program {
    /// Starts `command` in a process group of its own, with the environment and the input of the init; as a `child` of
    /// `faas`, whose input is no input, with none, and it ends with the init in whatever way.
    /// `signals` are those of [`sys::take_signals`], taken before, so that none is lost.
    pub fn start(
        command: &[OsString],
        child: bool,
        signals: OwnedFd,
        stdout: PipeWriter,
        stderr: PipeWriter,
    ) -> Result<Self, StartError> {
        let (program, arguments) = command.split_first().expect("the config holds a program");
        let mut command = Command::new(program);
        sys::unblock_signals(&mut command);
        if child {
            sys::end_with_parent(&mut command);
            command.stdin(Stdio::null());
        }
        let started = command
            .args(arguments)
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .map_err(|error| StartError {
                program: program.clone(),
                error,
            })?;
        Ok(Self {
            pid: started.id().cast_signed(),
            whole: child,
            signals,
            exit: None,
        })
    }

    /// Readable when [`Self::on_signals`] has something to do.
    pub fn signals(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// Passes on the signals that came, and reaps every process that ended.
    pub fn on_signals(&mut self) {
        while let Some(signal) = sys::next_signal(&self.signals) {
            if signal != sys::SIGCHLD && self.exit.is_none() {
                sys::kill(-self.pid, signal);
            }
        }
        self.reap();
    }

    /// Ends the program and all that it started, at once.
    pub fn kill_all(&self) {
        if self.exit.is_none() {
            sys::kill(-self.pid, sys::SIGKILL);
        }
        // The others become children of the init as those above them end.
    }

    /// Whether nothing is left to be waited for.
    pub fn is_alone(&self) -> bool {
        !self.whole || sys::children().is_empty()
    }

    fn reap(&mut self) {
        while let Some((pid, status)) = sys::reap() {
            if pid == self.pid {
                self.exit = Some(exit_code(status));
                self.kill_rest();
            }
        }
        if self.whole && self.exit.is_some() {
            for orphan in sys::children() {
                sys::kill(orphan, sys::SIGKILL);
            }
        }
    }

    /// What the program leaves behind ends with it: its group, and in a container everything.
    fn kill_rest(&self) {
        let everybody_else = -1;
        let target = if std::process::id() == 1 {
            everybody_else
        } else {
            -self.pid
        };
        sys::kill(target, sys::SIGKILL);
    }

    /// How the program ended, once it has: its code, or 128 and the signal that killed it.
    pub fn exit_code(&self) -> Option<u8> {
        self.exit
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        for (raw, expected) in [
            (0, 0),
            (7 << 8, 7),
            (255 << 8, 255),
            (9, 137),
            (15, 143),
            (0x8b, 139),
        ] {
            assert_eq!(
                exit_code(ExitStatus::from_raw(raw)),
                expected,
                "raw status {raw}"
            );
        }
    }

    #[test]
    fn a_program_that_is_missing_differs_from_one_that_is_not_executable() {
        for (kind, code) in [
            (io::ErrorKind::NotFound, 127),
            (io::ErrorKind::PermissionDenied, 126),
        ] {
            let error = StartError {
                program: "x".into(),
                error: kind.into(),
            };
            assert_eq!(error.exit_code(), code);
        }
    }
}
