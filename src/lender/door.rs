//! Where gateways come in: TLS with the certificate that the Lease names, and a token of the expected service account.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::Event;
use crate::{
    kubernetes::notice::Notice,
    stream::{
        self, BACKLOG,
        message::{Hello, Welcome},
    },
};

/// For whom tokens of gateways are.
pub const AUDIENCE: &str = "faas-controller";
/// Longest time until a gateway is in.
const ENTER: Duration = Duration::from_secs(15);
/// After a failure to accept.
const PAUSE: Duration = Duration::from_millis(100);
/// Most gateways, and strangers who try, at a time.
const MOST: usize = 1000;

/// Who may be a gateway.
pub enum Judge {
    /// A service account, by its whole name, as the API server knows it.
    Account { client: Client, name: String },
    /// Whoever brings these words: for tests without a cluster.
    #[cfg(test)]
    Word(&'static str),
}

impl Judge {
    /// Pods with this service account of a namespace.
    pub fn account(client: Client, namespace: &str, account: &str) -> Self {
        Self::Account {
            client,
            name: format!("system:serviceaccount:{namespace}:{account}"),
        }
    }

    /// Says why not.
    async fn judge(&self, token: &str) -> Result<(), String> {
        match self {
            Self::Account { client, name } => review(client, name, token).await,
            #[cfg(test)]
            Self::Word(word) if token == *word => Ok(()),
            #[cfg(test)]
            Self::Word(_) => Err("another word".to_owned()),
        }
    }
}

async fn review(client: &Client, name: &str, token: &str) -> Result<(), String> {
    let asked = TokenReview {
        metadata: ObjectMeta::default(),
        spec: TokenReviewSpec {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            token: token.to_owned(),
        },
        status: None,
    };
    let reviews = Api::<TokenReview>::all(client.clone());
    let reviewed = reviews.create(&PostParams::default(), &asked).await;
    let reviewed = reviewed.map_err(|error| format!("the token cannot be reviewed: {error}"))?;
    let status = reviewed.status.unwrap_or_default();
    let is_for_us = |for_whom: &Vec<String>| for_whom.iter().any(|one| one == AUDIENCE);
    if status.authenticated != Some(true) || !status.audiences.as_ref().is_some_and(is_for_us) {
        let why = status.error.unwrap_or_default();
        return Err(format!("the token is not good for {AUDIENCE}: {why}"));
    }
    let who = status.user.and_then(|user| user.username);
    match who.unwrap_or_default() {
        who if who == name => Ok(()),
        who => Err(format!(
            "the token is that of {who}, and {name} is expected"
        )),
    }
}

/// The way in.
pub struct Door {
    pub listener: TcpListener,
    pub acceptor: TlsAcceptor,
    pub judge: Judge,
    pub notice: Notice,
    pub events: mpsc::Sender<Event>,
}

impl Door {
    /// Lets gateways in, for ever.
    pub async fn run(self) {
        let Self {
            listener,
            acceptor,
            judge,
            notice,
            events,
        } = self;
        let guest = Arc::new(Guest {
            judge,
            notice,
            events,
            next: AtomicU64::new(0),
        });
        let places = Arc::new(Semaphore::new(MOST));
        let mut here = Vec::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "No gateway can come in at this moment");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let (acceptor, guest) = (acceptor.clone(), Arc::clone(&guest));
            let task = tokio::spawn(async move {
                let _place = place;
                // Small messages must not wait for each other.
                let _ = stream.set_nodelay(true);
                let handshake = timeout(ENTER, acceptor.accept(stream)).await;
                let outcome = match handshake {
                    Ok(Ok(stream)) => guest.come(stream).await,
                    Ok(Err(error)) => Err(error),
                    Err(_) => Err(io::ErrorKind::TimedOut.into()),
                };
                if let Err(error) = outcome {
                    tracing::debug!(%error, "A gateway's stream ended");
                }
            });
            here.retain(|task: &AbortOnDropHandle<()>| !task.is_finished());
            here.push(AbortOnDropHandle::new(task));
        }
    }
}

/// What each connection needs.
struct Guest {
    judge: Judge,
    notice: Notice,
    events: mpsc::Sender<Event>,
    next: AtomicU64,
}

impl Guest {
    async fn come<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<()> {
        let mut frames = stream::frames(stream);
        let hello: Hello = stream::receive(&mut frames).await?;
        if let Err(why) = self.admit(&hello).await {
            tracing::warn!(gateway = ?hello.name, %why, "Gateway refused");
            return stream::send(&mut frames, &Welcome::Stay(why)).await;
        }
        stream::send(&mut frames, &Welcome::Come).await?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (to, outgoing) = mpsc::channel(BACKLOG);
        let Hello { name, run, .. } = hello;
        let joined = Event::Joined {
            name: name.clone(),
            run,
            stream: number,
            to,
        };
        // These fail only at the end of everything.
        let _ = self.events.send(joined).await;
        let said = |up| Event::Said(name.clone(), number, up);
        let outcome = stream::carry(frames, outgoing, &self.events, said).await;
        let _ = self.events.send(Event::Lost(name, number)).await;
        outcome
    }

    /// Whoever comes after us must know of it before it has anything.
    async fn admit(&self, hello: &Hello) -> Result<(), String> {
        let name = &hello.name;
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 200 || !name.chars().all(is_word) {
            return Err("its name is none".to_owned());
        }
        self.judge.judge(&hello.token).await?;
        self.notice.change(|said| {
            said.gateways.insert(name.clone());
        });
        let written = self.notice.written(|said| said.gateways.contains(name));
        let late = |_| "the Lease cannot be written".to_owned();
        timeout(ENTER, written).await.map_err(late)
    }
}
