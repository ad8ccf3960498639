//! Runs instances as children of this server, for machines without Docker. It isolates nothing: an instance may do what this
//! server may, limits and `network` are not enforced, and a program that knows only TCP is not carried.
//!
//! An instance is `node <image>/shim.js <image>/function`. It gets `FAAS_SOCKET`, and its secrets in the directory named by
//! `FAAS_SECRETS_DIR`, for nothing can be mounted at `/run/secrets`. It runs below our init, which ends it and all that it
//! started when the server ends in whatever way (`child`); so nothing is adopted, and a restart begins with none.

mod child;
mod log;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    future::ready,
    stream::{self, BoxStream, StreamExt},
};
use rustix::process::Signal;
use tokio::{process::Command, sync::broadcast};
use tokio_stream::wrappers::BroadcastStream;

use self::child::Child;
use super::{
    Address, End, Exit, InstanceId, InstanceSpec, LAST_WORDS, LogPiece, Observed, Runtime,
    RuntimeError, init, probe,
    rundir::{InstanceDirs, Readers, RunRoot},
};
use crate::builder::process::image_dir;

/// Exits that a reader may be behind; one further behind observes anew.
const EXITS: usize = 1024;
/// What the name of a unix socket may have, in bytes.
const LONGEST_SOCKET: usize = 107;
/// How long a killed child may take to be gone.
const KILLED: Duration = Duration::from_secs(5);

/// How long the end of a log may take to be read.
const READ: Duration = Duration::from_millis(500);

/// What the runtime is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where instances' directories are; without mounts.
    pub run_root: RunRoot,
    /// Root of the process builder's images.
    pub images: PathBuf,
    /// The program that runs a shim, a name in `path` or a path.
    pub node: PathBuf,
    /// `PATH` of the children.
    pub path: String,
    /// State directory; the init is kept below it.
    pub state: PathBuf,
}

/// Children of this server. All end when it is dropped.
#[derive(Clone)]
pub struct ProcessRuntime(Arc<Inner>);

struct Inner {
    settings: Settings,
    /// What every child begins with.
    init: PathBuf,
    children: Mutex<HashMap<InstanceId, Arc<Child>>>,
    exits: broadcast::Sender<Exit>,
}

impl ProcessRuntime {
    /// Removes the directories that an earlier server left. To be called in a tokio runtime.
    ///
    /// # Errors
    /// When the run root cannot be read or the init not be stored.
    pub fn new(settings: Settings) -> io::Result<Self> {
        for id in settings.run_root.leftovers()? {
            settings.run_root.remove(&id)?;
        }
        Ok(Self(Arc::new(Inner {
            init: init::store(&settings.state, init::INIT)?,
            settings,
            children: Mutex::default(),
            exits: broadcast::Sender::new(EXITS),
        })))
    }
}

impl Inner {
    fn children(&self) -> MutexGuard<'_, HashMap<InstanceId, Arc<Child>>> {
        // A map is whole after any panic.
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn child(&self, id: &str) -> Option<Arc<Child>> {
        self.children().get(id).cloned()
    }

    fn command(&self, spec: &InstanceSpec, dirs: &InstanceDirs) -> Result<Command, RuntimeError> {
        let image = image_dir(&self.settings.images, &spec.image);
        let (shim, code) = (image.join("shim.js"), image.join("function"));
        if !shim.is_file() {
            return Err(RuntimeError::ImageMissing(spec.image.clone()));
        }
        let socket = self.settings.run_root.socket(&spec.id);
        check_length(&socket)?;
        let mut command = Command::new(&self.init);
        command
            .arg("--child")
            .arg(&self.settings.node)
            .arg("--max-http-header-size=131072")
            .arg(shim)
            .arg(&code)
            .current_dir(&code)
            .env_clear()
            .env("PATH", &self.settings.path)
            .env("HOME", &dirs.sockets)
            .envs(spec.env.iter().map(|(name, value)| (name, value)))
            .env("FAAS_SOCKET", socket)
            .envs(dirs.secrets.iter().map(|dir| ("FAAS_SECRETS_DIR", dir)));
        Ok(command)
    }

    async fn launch(&self, spec: &InstanceSpec, dirs: &InstanceDirs) -> Result<(), RuntimeError> {
        let command = self.command(spec, dirs)?;
        let address = Address::from(self.settings.run_root.socket(&spec.id));
        let child = Child::start(command, spec.running_at(address.clone()))?;
        self.children().insert(spec.id.clone(), Arc::clone(&child));
        tokio::spawn(report(Arc::clone(&child), self.exits.clone()));

        let limit = spec.startup_timeout;
        tokio::select! {
            outcome = tokio::time::timeout(limit, probe::accepted(&address)) => match outcome {
                Ok(outcome) => outcome,
                Err(_) => Err(RuntimeError::NotListening { limit, log: child.log.last_words() }),
            },
            code = child.ended() => {
                child.log.closed().await;
                let log = child.log.last_words();
                Err(RuntimeError::Exited { code, out_of_memory: false, log })
            }
        }
    }

    /// Ends a child at once and forgets it.
    fn discard(&self, id: &str) {
        if let Some(child) = self.children().remove(id) {
            child.kill();
        }
        if let Err(error) = self.settings.run_root.remove(id) {
            tracing::warn!(instance = id, %error, "Directories of an instance stay behind");
        }
    }
}

impl Inner {
    fn discard_all(&self) {
        let ids: Vec<_> = self.children().keys().cloned().collect();
        for id in ids {
            self.discard(&id);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.discard_all();
    }
}

fn check_length(socket: &Path) -> Result<(), RuntimeError> {
    if socket.as_os_str().as_bytes().len() <= LONGEST_SOCKET {
        return Ok(());
    }
    Err(RuntimeError::Refused(format!(
        "the socket {} has a path of more than {LONGEST_SOCKET} bytes: choose a shorter run directory",
        socket.display()
    )))
}

async fn report(child: Arc<Child>, exits: broadcast::Sender<Exit>) {
    let code = child.ended().await;
    // Nobody listening is no error.
    let _ = exits.send(Exit {
        id: child.observed.id.clone(),
        function: child.observed.function.clone(),
        code,
        end: End::Itself,
    });
}

/// Clears away what a start made, unless it came to an end.
struct Undo<'a> {
    inner: &'a Inner,
    id: Option<&'a str>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.inner.discard(id);
        }
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    async fn observe(&self) -> Result<Vec<Observed>, RuntimeError> {
        let children = self.0.children();
        Ok(children.values().map(|child| child.observe()).collect())
    }

    async fn start(&self, spec: &InstanceSpec) -> Result<Observed, RuntimeError> {
        let dirs = self
            .0
            .settings
            .run_root
            .create(&spec.id, &spec.secrets, Readers::Mapped)
            .map_err(|error| {
                let message = format!("cannot make the directories of the instance: {error}");
                RuntimeError::Refused(message)
            })?;
        let mut undo = Undo {
            inner: &self.0,
            id: Some(&spec.id),
        };
        if let Err(error) = self.0.launch(spec, &dirs).await {
            // Killed is not gone: the answer waits for the end, where there is one to come.
            self.stop(&spec.id, Duration::ZERO).await?;
            undo.id = None;
            return Err(error);
        }
        undo.id = None;
        Ok(spec.running_at(self.0.settings.run_root.socket(&spec.id)))
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<Bytes, RuntimeError> {
        let mut log = Bytes::new();
        if let Some(child) = self.0.child(id) {
            if !grace.is_zero() {
                child.signal(Signal::TERM);
                // What did not end in its grace is killed.
                let _ = tokio::time::timeout(grace, child.ended()).await;
            }
            child.kill();
            if tokio::time::timeout(KILLED, child.ended()).await.is_err() {
                // Its init does not do its work.
                child.signal(Signal::KILL);
                return Err(RuntimeError::Engine(format!(
                    "{id} was killed and is still there"
                )));
            }
            // Whoever holds its output open beyond its end is waited for no longer.
            let _ = tokio::time::timeout(READ, child.log.closed()).await;
            log = child.log.end(LAST_WORDS);
        }
        self.0.discard(id);
        Ok(log)
    }

    async fn exits(&self) -> Result<BoxStream<'static, Exit>, RuntimeError> {
        let exits = BroadcastStream::new(self.0.exits.subscribe());
        Ok(exits
            .take_while(|exit| ready(exit.is_ok()))
            .filter_map(|exit| ready(exit.ok()))
            .boxed())
    }

    /// Of an instance that is not there (any more): nothing.
    async fn logs(
        &self,
        id: &InstanceId,
        tail: u32,
        follow: bool,
    ) -> Result<BoxStream<'static, LogPiece>, RuntimeError> {
        let Some(child) = self.0.child(id) else {
            return Ok(stream::empty().boxed());
        };
        let instance = id.clone();
        let pieces = child.log.read(tail, follow).map(move |bytes| LogPiece {
            instance: instance.clone(),
            bytes,
        });
        Ok(pieces.boxed())
    }

    async fn facts(&self) -> Result<BTreeMap<String, String>, RuntimeError> {
        let node = self.0.settings.node.display().to_string();
        Ok(BTreeMap::from([
            (
                "engine".to_owned(),
                "child processes, without any isolation".to_owned(),
            ),
            ("node".to_owned(), node),
        ]))
    }

    async fn abandon(&self) -> bool {
        self.0.discard_all();
        self.0.settings.run_root.close();
        false
    }

    async fn leave(&self) {
        self.0.settings.run_root.close();
    }
}
