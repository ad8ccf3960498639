//! Who may come in, kept by a cluster: certificate, key and tokens in a Secret beside faas, which a new pod finds and all of
//! them share. What is missing there is made. What is there becomes files of the state directory, by which listeners go as
//! they go by any others.

mod content;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{sleep, timeout};

use self::content::{CERTIFICATE, Content, KEY, NotMade, TOKENS};
use super::{
    book,
    tls::TlsFiles,
    token::RANDOM_BYTES,
    tokens::{TokenError, Tokens},
};
use crate::{
    kubernetes::{self, NoCluster},
    store::{StoreError, state},
};

/// How often is looked for what another makes.
const AGAIN: Duration = Duration::from_secs(1);
/// How often is looked.
const LOOK: Duration = Duration::from_secs(15);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How often is tried to write what somebody else changes at the same time.
const TRIES: usize = 5;

/// Why the Secret is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(transparent)]
    NoCluster(#[from] NoCluster),
    #[error("Secret {secret}: {message}")]
    Cluster { secret: String, message: String },
    #[error(
        "Secret {secret}: its {TOKENS} is damaged: {error}; without that key, new tokens are made"
    )]
    Damaged {
        secret: String,
        error: serde_json::Error,
    },
    #[error("there is no Secret {0}: faas makes it when it starts with --access-secret")]
    Missing(String),
    #[error(
        "Secret {0} has no {CERTIFICATE}, {KEY} and {TOKENS} yet: a controller makes them when it starts with --access-secret"
    )]
    Unmade(String),
    #[error("Secret {0}: somebody else goes on changing it; try again")]
    Contended(String),
    #[error(transparent)]
    NotMade(#[from] NotMade),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    State(#[from] StoreError),
    #[error("cannot write {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
}

/// The files that a Secret's certificate and key become.
pub fn tls_files(state: &Path) -> TlsFiles {
    let dir = state.join("tls");
    TlsFiles {
        cert: dir.join(CERTIFICATE),
        key: dir.join(KEY),
    }
}

/// One Secret.
struct Place {
    secrets: Api<Secret>,
    namespace: String,
    name: String,
}

impl Place {
    fn new(client: Client, namespace: String, name: String) -> Self {
        Self {
            secrets: Api::namespaced(client, &namespace),
            namespace,
            name,
        }
    }

    /// What it is called in messages.
    fn told(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn failed(&self, message: &(impl ToString + ?Sized)) -> SecretError {
        SecretError::Cluster {
            secret: self.told(),
            message: message.to_string(),
        }
    }

    async fn ask<T>(
        &self,
        asked: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<Result<T, kube::Error>, SecretError> {
        let answer = timeout(ANSWER, asked).await;
        answer.map_err(|_| self.failed("the API server does not answer"))
    }

    async fn read(&self) -> Result<Option<Secret>, SecretError> {
        let answer = self.ask(self.secrets.get_opt(&self.name)).await?;
        answer.map_err(|error| self.failed(&error))
    }

    /// Writes it, unless somebody else has meanwhile: then it answers nothing, and is to be read again.
    async fn write(&self, secret: &Secret) -> Result<Option<()>, SecretError> {
        let params = PostParams::default();
        let written = if secret.metadata.resource_version.is_some() {
            let replaced = self.secrets.replace(&self.name, &params, secret);
            self.ask(replaced).await?
        } else {
            self.ask(self.secrets.create(&params, secret)).await?
        };
        match written {
            Ok(_) => Ok(Some(())),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn tokens(&self, secret: &Secret) -> Result<Tokens, SecretError> {
        let data = secret.data.as_ref();
        let Some(ByteString(bytes)) = data.and_then(|data| data.get(TOKENS)) else {
            return Ok(Tokens::default());
        };
        serde_json::from_slice(bytes).map_err(|error| SecretError::Damaged {
            secret: self.told(),
            error,
        })
    }
}

/// Keeps the state directory as the Secret is, and the Secret whole.
pub struct Keeper {
    place: Place,
    /// Whom the certificate is for; nothing where another makes what is missing.
    hosts: Option<Vec<String>>,
    state: PathBuf,
}

impl Keeper {
    /// Makes what is missing, or waits for it, so that listeners can begin. While the server does not answer, what it said before
    /// counts.
    ///
    /// # Errors
    /// When it says nothing and never has, or files cannot be written.
    pub async fn open(
        client: Client,
        namespace: String,
        name: String,
        hosts: Option<Vec<String>>,
        state: PathBuf,
    ) -> Result<Self, SecretError> {
        let place = Place::new(client, namespace, name);
        let keeper = Self {
            place,
            hosts,
            state,
        };
        let mut is_told = false;
        loop {
            match keeper.look().await {
                Err(error @ SecretError::Cluster { .. }) if keeper.has_files() => {
                    tracing::warn!(%error, "Who may come in is what it was before");
                    return Ok(keeper);
                }
                Err(error @ SecretError::Unmade(_)) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::info!(%error, "Waiting");
                    }
                    sleep(AGAIN).await;
                }
                outcome => return outcome.map(|()| keeper),
            }
        }
    }

    /// Goes by the Secret as it is, for ever.
    pub async fn follow(&self) {
        loop {
            sleep(LOOK).await;
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "Who may come in is what it was before");
            }
        }
    }

    async fn look(&self) -> Result<(), SecretError> {
        for _ in 0..TRIES {
            let mut secret = self
                .place
                .read()
                .await?
                .unwrap_or_else(|| new(&self.place.name));
            let mut content = Content(plain(secret.data.take()));
            let is_changed = match &self.hosts {
                Some(hosts) => content.complete(hosts, Timestamp::now())?,
                None if content.is_whole() => false,
                None => return Err(SecretError::Unmade(self.place.told())),
            };
            if is_changed {
                secret.data = Some(encoded(&content));
                if self.place.write(&secret).await?.is_none() {
                    continue;
                }
                tracing::info!(secret = %self.place.told(), "What was missing to let callers in was made");
            }
            return self.lay_down(&content);
        }
        Err(SecretError::Contended(self.place.told()))
    }

    fn files(&self) -> [(&'static str, PathBuf); 3] {
        let TlsFiles { cert, key } = tls_files(&self.state);
        let tokens = book::file(&self.state.join("access"));
        [(CERTIFICATE, cert), (KEY, key), (TOKENS, tokens)]
    }

    fn has_files(&self) -> bool {
        self.files().iter().all(|(_, file)| file.is_file())
    }

    /// Writes the files that differ. Those who use them notice.
    fn lay_down(&self, content: &Content) -> Result<(), SecretError> {
        for (key, path) in self.files() {
            let wanted = content.0.get(key).map(Vec::as_slice).unwrap_or_default();
            let wanted = String::from_utf8_lossy(wanted);
            let wanted = wanted.trim_end();
            let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
                continue;
            };
            let is = fs::read(&path).unwrap_or_default();
            if is.trim_ascii_end() == wanted.as_bytes() {
                continue;
            }
            state::make_private(dir)?;
            state::write_whole(dir, &name.to_string_lossy(), wanted)
                .map_err(|error| SecretError::Write { path, error })?;
        }
        Ok(())
    }
}

/// A Secret that is not there yet.
fn new(name: &str) -> Secret {
    let label = ("app.kubernetes.io/managed-by", "faas");
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(
                [label]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    }
}

fn plain(data: Option<BTreeMap<String, ByteString>>) -> BTreeMap<String, Vec<u8>> {
    let data = data.unwrap_or_default().into_iter();
    data.map(|(key, ByteString(value))| (key, value)).collect()
}

fn encoded(content: &Content) -> BTreeMap<String, ByteString> {
    let data = content.0.iter();
    data.map(|(key, value)| (key.clone(), ByteString(value.clone())))
        .collect()
}

/// The tokens in a Secret, for those who may read it.
///
/// # Errors
/// When there is none, or it cannot be read.
pub async fn read(name: &str) -> Result<Tokens, SecretError> {
    let place = named(name).await?;
    let secret = place.read().await?;
    let secret = secret.ok_or_else(|| SecretError::Missing(place.told()))?;
    place.tokens(&secret)
}

/// Changes them, unless somebody else does at the same time: then it begins anew. `change` may use these random bytes.
///
/// # Errors
/// When there is none, or it cannot be read or written.
pub async fn edit<T>(
    name: &str,
    change: impl Fn(&mut Tokens, &[u8; RANDOM_BYTES]) -> Result<T, TokenError>,
) -> Result<T, SecretError> {
    let place = named(name).await?;
    for _ in 0..TRIES {
        let secret = place.read().await?;
        let mut secret = secret.ok_or_else(|| SecretError::Missing(place.told()))?;
        let mut tokens = place.tokens(&secret)?;
        let done = change(&mut tokens, &content::random()?)?;
        let text = content::text(&tokens).into_bytes();
        let data = secret.data.get_or_insert_default();
        data.insert(TOKENS.to_owned(), ByteString(text));
        if place.write(&secret).await?.is_some() {
            return Ok(done);
        }
    }
    Err(SecretError::Contended(place.told()))
}

/// A Secret in the namespace that the environment names.
async fn named(name: &str) -> Result<Place, SecretError> {
    let (client, namespace) = kubernetes::client().await?;
    Ok(Place::new(client, namespace, name.to_owned()))
}
