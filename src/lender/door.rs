//! Where gateways come in: TLS with the certificate that the Lease names, and a token of the expected service account. Some come to
//! have instances lent, and some pass on a request that is ours.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::AbortOnDropHandle;

use super::Event;
use crate::{
    ingress::{door::Origin, passed::Passed},
    kubernetes::{
        notice::Notice,
        review::{Reviews, User},
    },
    stream::{
        self, BACKLOG, Frames,
        message::{Hello, Purpose, Welcome},
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
    Account { reviews: Arc<Reviews>, name: String },
    /// Whoever brings these words: for tests without a cluster.
    #[cfg(test)]
    Word(&'static str),
}

impl Judge {
    /// Pods with this service account of a namespace.
    pub fn account(reviews: Arc<Reviews>, namespace: &str, account: &str) -> Self {
        Self::Account {
            reviews,
            name: format!("system:serviceaccount:{namespace}:{account}"),
        }
    }

    /// Says why not.
    async fn judge(&self, token: &str) -> Result<(), String> {
        match self {
            Self::Account { reviews, name } => review(reviews, name, token).await,
            #[cfg(test)]
            Self::Word(word) if token == *word => Ok(()),
            #[cfg(test)]
            Self::Word(_) => Err("another word".to_owned()),
        }
    }
}

async fn review(reviews: &Reviews, name: &str, token: &str) -> Result<(), String> {
    let user = reviews.user(token, Some(AUDIENCE)).await;
    let user = user.map_err(|error| format!("the token cannot be reviewed: {error}"))?;
    match user.as_deref().map(User::name) {
        Some(who) if who == name => Ok(()),
        Some(who) => Err(format!(
            "the token is that of {who}, and {name} is expected"
        )),
        None => Err(format!("the token is not good for {AUDIENCE}")),
    }
}

/// The way in.
pub struct Door {
    pub listener: TcpListener,
    pub acceptor: TlsAcceptor,
    pub judge: Judge,
    pub notice: Notice,
    pub events: mpsc::Sender<Event>,
    /// Where requests are answered that gateways pass on.
    pub passed: mpsc::Sender<Passed>,
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
            passed,
        } = self;
        let guest = Arc::new(Guest {
            judge,
            notice,
            events,
            passed,
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
    passed: mpsc::Sender<Passed>,
    next: AtomicU64,
}

impl Guest {
    async fn come(&self, stream: TlsStream<TcpStream>) -> io::Result<()> {
        let mut frames = stream::frames(stream);
        let hello: Hello = stream::receive(&mut frames).await?;
        if let Err(why) = self.judge.judge(&hello.token).await {
            tracing::warn!(purpose = ?hello.purpose, %why, "Gateway refused");
            return stream::send(&mut frames, &Welcome::Stay(why)).await;
        }
        match hello.purpose {
            Purpose::Borrow { name, run } => self.lend(frames, name, run).await,
            Purpose::Pass(origin) => self.take(frames, origin).await,
        }
    }

    async fn lend(
        &self,
        mut frames: Frames<TlsStream<TcpStream>>,
        name: String,
        run: String,
    ) -> io::Result<()> {
        if let Err(why) = self.note(&name).await {
            tracing::warn!(gateway = ?name, %why, "Gateway refused");
            return stream::send(&mut frames, &Welcome::Stay(why)).await;
        }
        stream::send(&mut frames, &Welcome::Come).await?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (to, outgoing) = mpsc::channel(BACKLOG);
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
    async fn note(&self, name: &str) -> Result<(), String> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 200 || !name.chars().all(is_word) {
            return Err("its name is none".to_owned());
        }
        self.notice.change(|said| {
            said.gateways.insert(name.to_owned());
        });
        let written = self.notice.written(|said| said.gateways.contains(name));
        let late = |_| "the Lease cannot be written".to_owned();
        timeout(ENTER, written).await.map_err(late)
    }

    /// Leaves the connection to those who answer requests.
    async fn take(
        &self,
        mut frames: Frames<TlsStream<TcpStream>>,
        origin: Origin,
    ) -> io::Result<()> {
        let Ok(place) = self.passed.reserve().await else {
            let why = "this controller ends".to_owned();
            return stream::send(&mut frames, &Welcome::Stay(why)).await;
        };
        stream::send(&mut frames, &Welcome::Come).await?;
        let parts = frames.into_parts();
        if !parts.read_buf.is_empty() {
            let early = "it did not wait for the welcome";
            return Err(io::Error::new(io::ErrorKind::InvalidData, early));
        }
        place.send(Passed {
            stream: parts.io,
            origin,
        });
        Ok(())
    }
}
