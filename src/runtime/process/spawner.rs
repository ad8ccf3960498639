//! The thread that starts children, so that they end with this server.
//!
//! A child asks the kernel for SIGKILL when its parent ends, and to the kernel the parent is the *thread* that forked. So all
//! children are forked by one thread that lives as long as the runtime; a thread of tokio's pools would end when idle.

use std::{io, sync::mpsc, thread};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

type Order = (Command, oneshot::Sender<io::Result<Child>>);

/// Ends its thread, and with it the children, when dropped.
#[derive(Debug)]
pub struct Spawner(mpsc::Sender<Order>);

impl Spawner {
    /// To be called in a tokio runtime, which will wait for the children.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn new() -> io::Result<Self> {
        let (sender, orders) = mpsc::channel::<Order>();
        let runtime = Handle::current();
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                let _inside = runtime.enter();
                for (command, answer) in orders {
                    // The caller may have left: the child then ends with the answer that nobody took.
                    let _ = answer.send(spawn(command));
                }
            })?;
        Ok(Self(sender))
    }

    /// Starts a child in a process group of its own.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, child) = oneshot::channel();
        let gone = || io::Error::other("the spawner has ended");
        self.0.send((command, answer)).map_err(|_| gone())?;
        child.await.map_err(|_| gone())?
    }
}

fn spawn(mut command: Command) -> io::Result<Child> {
    let server = getpid();
    command.process_group(0).kill_on_drop(true);
    #[allow(
        unsafe_code,
        reason = "nothing else can ask the kernel between fork and exec"
    )]
    // SAFETY: between fork and exec only async-signal-safe functions may run: these are the system calls prctl and
    // getppid, made without a library; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The server may have ended before the kernel was asked.
            if getppid() == Some(server) {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        });
    }
    command.spawn()
}
