//! The runtime port: an image becomes instances. [`docker`] runs hardened containers, [`process`] runs children of this
//! server: an instance of theirs listens on a unix socket in its directory ([`rundir`]). [`pods`] runs pods of a cluster,
//! which listen on a port of their own. [`address`] is how anyone connects to any of them.

pub mod address;
pub mod docker;
mod init;
pub mod log_tail;
pub mod pods;
mod probe;
pub mod process;
pub mod rundir;
pub mod socket;

use std::{collections::BTreeMap, fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use self::address::Address;
use crate::{
    builder::ImageName,
    function::{FunctionKey, Revision},
};

/// Name of one instance, unique for ever: `faas-<function>-<12 random hex digits>`. It is the container's name.
pub type InstanceId = String;

/// How much of an instance's log its end tells, in bytes.
pub const LAST_WORDS: usize = 64 << 10;

/// What an instance may use. All of it is enforced by the docker runtime, none by the process runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Billionths of a core.
    pub nano_cpus: i64,
    /// Bytes, swap included.
    pub memory: i64,
    /// Processes and threads.
    pub pids: i64,
    /// Bytes of the tmpfs at /tmp.
    pub tmp: i64,
}

/// What an instance may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Only its own loopback.
    None,
    /// Everything but this host's addresses and link-local ones.
    Internet,
}

/// One file of a secret; shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// Path below `/run/secrets`, `<name>/<key>`.
    pub path: String,
    /// The content.
    pub bytes: Bytes,
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretFile({:?}, …)", self.path)
    }
}

/// Where the init lies in images that we have put together; engines mount it there.
pub const INIT: &str = "/.faas/init";

/// Everything that decides how an instance behaves, plus whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceSpec {
    pub id: InstanceId,
    pub function: FunctionKey,
    /// `metadata.uid` of the Function: one of the same name that was deleted before is another.
    pub uid: String,
    pub revision: Revision,
    pub image: ImageName,
    /// Whether the image is the user's own, which we have put nothing into.
    pub ready_made: bool,
    pub env: Vec<(String, String)>,
    pub secrets: Vec<SecretFile>,
    pub limits: Limits,
    /// What it gets of the processor beside others while that is short, as engines count it: 1024 is usual, 2 the least.
    pub cpu_shares: u32,
    pub network: Network,
    /// How long it may take until it accepts a connection.
    pub startup_timeout: Duration,
    /// The longest that a call may take.
    pub timeout: Duration,
    /// The Function as JSON, for a store that is lost; where there is no need, or it is too long to be carried, nothing.
    pub declared: Option<String>,
}

/// An instance that exists, as its runtime knows it (labels, not our memory).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub id: InstanceId,
    pub function: FunctionKey,
    pub uid: String,
    pub revision: Revision,
    pub image: ImageName,
    /// Bytes of memory that it may use, for the sum of all limits.
    pub memory: i64,
    /// Whether it runs; else it has exited, or was paused by somebody, and only waits to be removed.
    pub running: bool,
    /// Whether somebody else has told it to end, while it runs: it gets no new calls, and ends once it has none.
    pub leaving: bool,
    /// Where it listens, whether or not it does at this moment.
    pub address: Address,
    /// [`InstanceSpec::declared`], where the runtime keeps it.
    pub declared: Option<String>,
}

impl InstanceSpec {
    /// What is observed of the instance once it listens there.
    #[must_use]
    pub fn running_at(&self, address: impl Into<Address>) -> Observed {
        Observed {
            id: self.id.clone(),
            function: self.function.clone(),
            uid: self.uid.clone(),
            revision: self.revision.clone(),
            image: self.image.clone(),
            memory: self.limits.memory,
            running: true,
            leaving: false,
            address: address.into(),
            declared: self.declared.clone(),
        }
    }
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub id: InstanceId,
    pub function: FunctionKey,
    /// Exit status as shells count it: 128 + signal when killed by one.
    pub code: i64,
    pub end: End,
}

/// What ended an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its program did.
    Itself,
    OutOfMemory,
    /// Somebody told the engine to: we, or another user of it.
    Engine,
    /// Nothing, but another user of the engine paused it: it does nothing any more.
    Paused,
    /// Nothing yet: somebody told the cluster to, and it goes on until its calls have had their time.
    Leaving,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.end == End::Paused {
            return write!(f, "instance {} was paused by somebody, and ended", self.id);
        }
        write!(f, "instance {} exited with code {}", self.id, self.code)?;
        f.write_str(match self.end {
            End::Itself | End::Paused => "",
            End::OutOfMemory => " (out of memory; see spec.resources.memory)",
            End::Engine => " (somebody told the engine to end it)",
            End::Leaving => " (somebody told the cluster to end it)",
        })
    }
}

/// Why an instance did not start, or why the runtime cannot tell.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RuntimeError {
    /// It ended before it listened.
    #[error("it exited with code {code} before it listened{}; its last words: {log}", if *out_of_memory { " (out of memory)" } else { "" })]
    Exited {
        code: i64,
        out_of_memory: bool,
        log: String,
    },
    /// It runs but accepts no connection.
    #[error(
        "it listened neither on the unix socket $FAAS_SOCKET nor on TCP port $PORT (8080) within {}s (spec.startupTimeoutSeconds); its last words: {log}", limit.as_secs()
    )]
    NotListening { limit: Duration, log: String },
    /// A node cannot have the image; its words.
    #[error("image {image:?} cannot be pulled: {message}")]
    Pull { image: ImageName, message: String },
    /// No node has room for it; the scheduler's words, or a quota's.
    #[error("the cluster has no room for it: {0}")]
    NoRoom(String),
    /// The API server does not answer, or refuses; its words.
    #[error("the API server does not do it: {0}")]
    Cluster(String),
    /// The image is not here, or its name is another one's (behind our back).
    #[error("image {0:?} is not there")]
    ImageMissing(ImageName),
    /// The image has neither an entry point nor a command, or a command that cannot be run.
    #[error("the image cannot be run: {0}")]
    NotRunnable(String),
    /// What was asked for is not offered here; says which flag or machine would.
    #[error("{0}")]
    Refused(String),
    /// The engine is away.
    #[error("the Docker engine does not answer: {0}")]
    Engine(String),
    /// The engine answers, but failed in a way that is not about this instance; its words.
    #[error("the Docker engine failed: {0}")]
    EngineFailed(String),
    /// A disk is full, the engine's or ours.
    #[error("no space left for the instance: {0}")]
    NoSpace(String),
}

/// How it is seen to that instances without a network have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// By the runtime itself.
    Own,
    /// By the cluster, as was seen.
    Enforced,
    /// By nobody, as was seen: the cluster does not do what it was told to.
    NotEnforced,
    /// By the cluster, perhaps.
    Unproven,
}

/// A piece of an instance's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPiece {
    pub instance: InstanceId,
    pub bytes: Bytes,
}

/// Runs instances. Implementations are shared by all tasks.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Every instance of this owner, running or exited. Never one of somebody else.
    async fn observe(&self) -> Result<Vec<Observed>, RuntimeError>;

    /// Starts an instance and returns once it accepted a connection (which is closed at once). On any error, and when the
    /// future is dropped, nothing of it stays behind.
    async fn start(&self, spec: &InstanceSpec) -> Result<Observed, RuntimeError>;

    /// Ends an instance and removes everything of it: TERM, `grace`, KILL (at once with a grace of zero). Answers the end
    /// of what it wrote, at most [`LAST_WORDS`] bytes. One that is not there is no error, and wrote nothing.
    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<Bytes, RuntimeError>;

    /// Exits, and what counts as such ([`End`]), as they happen. Ends when the engine is lost; the caller then observes and calls again.
    async fn exits(&self) -> Result<BoxStream<'static, Exit>, RuntimeError>;

    /// Changes [`InstanceSpec::cpu_shares`] of an instance that runs. One that is not there is no error, nor is a runtime that
    /// cannot.
    async fn set_cpu_shares(&self, _id: &InstanceId, _shares: u32) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// What an instance wrote: the last `tail` lines and, with `follow`, what comes until it ends.
    async fn logs(
        &self,
        id: &InstanceId,
        tail: u32,
        follow: bool,
    ) -> Result<BoxStream<'static, LogPiece>, RuntimeError>;

    /// Fails when the engine does not answer soon. Cheap: it is asked all the time.
    async fn ping(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Whether the engine answers, and facts about it for people (`engine`: "Docker 20.10.24, API 1.41", ...).
    async fn facts(&self) -> Result<BTreeMap<String, String>, RuntimeError>;

    /// No Function has `network: internet`: removes what only such need, unless an instance uses it. It comes back by itself.
    async fn close_internet(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// What is known of instances without a network in this namespace.
    fn isolation(&self, _namespace: &str) -> Isolation {
        Isolation::Own
    }

    /// Finds that out where it is not known, which takes seconds, with the image of an instance that runs. Says whether there
    /// is news.
    async fn prove_isolation(&self, _spec: &InstanceSpec) -> bool {
        false
    }

    /// What holds up an instance that starts, where that is known; in words.
    fn holds_up(&self, _id: &InstanceId) -> Option<String> {
        None
    }

    /// What it does not keep of what a Function may say; a sentence.
    fn unkept(&self) -> Option<&'static str> {
        None
    }

    /// Whether instances go on when the server ends, for the next one.
    fn lives_on(&self) -> bool {
        false
    }

    /// The server ends without waiting for anything. Says whether instances live on, for the next start to adopt.
    async fn abandon(&self) -> bool {
        true
    }

    /// The server ends: removes what only a running server needs. Failures are logged.
    async fn leave(&self) {}
}
