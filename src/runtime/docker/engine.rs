//! The connection to the Docker engine: its version is negotiated, every call has a deadline, and losing it is an error
//! like another.

use std::{
    fmt,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bollard::{API_DEFAULT_VERSION, Docker};

use crate::runtime::RuntimeError;

/// For the heads of streams, which bollard itself limits: longer than any deadline of ours.
const LONGEST_SECONDS: u64 = 3600;

/// Deadline of a call that only reads the engine's memory.
pub const LOOK: Duration = Duration::from_secs(10);
/// Deadline of a call that an engine answers whatever else it does.
pub const PING: Duration = Duration::from_secs(5);
/// Deadline of a call that makes or removes something; a busy disk takes its time.
pub const CHANGE: Duration = Duration::from_secs(60);

/// How the kernel says that a disk is full, and the engine after it.
pub const NO_SPACE: &str = "no space left on device";

/// The engine behind one unix socket.
#[derive(Debug)]
pub struct Engine {
    socket: PathBuf,
    /// Negotiated; forgotten when the engine is lost, because another version may come back.
    client: ArcSwapOption<Docker>,
}

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The engine said no, with this status and message.
    Refused { status: u16, message: String },
    /// There was no answer that makes sense.
    Lost(String),
}

impl Engine {
    /// Connects to nothing yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            client: ArcSwapOption::empty(),
        }
    }

    /// The engine's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A client that speaks a version that the engine knows.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn client(&self) -> Result<Docker, CallError> {
        if let Some(client) = self.client.load_full() {
            return Ok(Docker::clone(&client));
        }
        let path = self.socket.to_string_lossy();
        let client = Docker::connect_with_unix(&path, LONGEST_SECONDS, API_DEFAULT_VERSION)
            .map_err(|error| CallError::lost("connect", &error))?;
        let client = within("version", LOOK, client.negotiate_version()).await?;
        self.client.store(Some(Arc::new(client.clone())));
        Ok(client)
    }

    /// Makes one call. `what` names it in errors.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<T, F>(
        &self,
        what: &str,
        limit: Duration,
        call: impl FnOnce(Docker) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, bollard::errors::Error>>,
    {
        let outcome = within(what, limit, Box::pin(call(self.client().await?))).await;
        if matches!(outcome, Err(CallError::Lost(_))) {
            self.client.store(None);
        }
        outcome
    }
}

async fn within<T>(
    what: &str,
    limit: Duration,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(outcome) => outcome.map_err(|error| CallError::from_engine(what, error)),
        Err(_) => Err(CallError::Lost(format!(
            "no answer to {what} within {}s",
            limit.as_secs()
        ))),
    }
}

impl CallError {
    fn lost(what: &str, error: &bollard::errors::Error) -> Self {
        Self::Lost(format!("{what}: {error}"))
    }

    fn from_engine(what: &str, error: bollard::errors::Error) -> Self {
        match error {
            bollard::errors::Error::DockerResponseServerError {
                status_code,
                message,
            } => Self::Refused {
                status: status_code,
                message,
            },
            other => Self::lost(what, &other),
        }
    }

    /// Whether the engine answered with this status.
    #[must_use]
    pub fn is(&self, code: u16) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == code)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, message } => write!(f, "{message} (status {status})"),
            Self::Lost(why) => f.write_str(why),
        }
    }
}

impl From<CallError> for RuntimeError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused { message, .. } if message.contains(NO_SPACE) => {
                Self::NoSpace(message)
            }
            CallError::Refused { .. } => Self::EngineFailed(error.to_string()),
            CallError::Lost(_) => Self::Engine(error.to_string()),
        }
    }
}

/// Turns "it is not there" into `None`.
///
/// # Errors
/// Every other error.
pub fn found<T>(outcome: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is(404) => Ok(None),
        Err(error) => Err(error),
    }
}
