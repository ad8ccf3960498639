//! The gateway's side: pools like a controller's, of instances that the controller lends (`borrower.rs`), over a stream to whoever
//! holds the Lease.
//!
//! Without the stream a gateway goes on with what it has, for as long as nobody else can have it: a controller that is gone
//! lends nothing. One that lives, and cannot be reached, gives us up after a while, and so we stop before that (`cut_off.rs`).
//!
//! What callers ask that is the controller's is passed on to it (`passage.rs`), while there is a stream.

pub(crate) mod borrower;
mod cut_off;
pub mod passage;

use std::{
    io,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use kube::Client;
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{mpsc, watch},
    time::{interval, sleep, timeout},
};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use self::{borrower::Borrower, cut_off::CutOff, passage::Passage};
use crate::{
    controller::Turns,
    function::FunctionKey,
    kubernetes::notice::{self, Place},
    pool::Pools,
    stream::{
        self, BACKLOG, Frames,
        message::{Hello, Purpose, Welcome},
        tls::{self, PinError},
    },
};

/// Between two looks for a controller.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks whether it is still the one.
const STILL: Duration = Duration::from_secs(3);
/// Longest wait for a connection to it.
const CONNECT: Duration = Duration::from_secs(3);
/// How often the kernel asks whether it is still there.
const ALIVE: Duration = Duration::from_secs(10);
/// How often it is told which slots have calls. What it must know at once is told at once.
const TELL: Duration = Duration::from_millis(250);

/// Who we are, and how the controller is found.
pub struct Settings {
    pub client: Client,
    /// Of the Lease.
    pub namespace: String,
    /// Nobody else's name.
    pub name: String,
    pub token_file: PathBuf,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum Unreached {
    #[error("{}: {error}", file.display())]
    Token { file: PathBuf, error: io::Error },
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no stream leads to a controller")]
    Nobody,
    #[error("it does not accept a connection")]
    Late,
    #[error("it refuses: {0}")]
    Refused(String),
}

/// Answers calls with what is lent to it.
pub struct Gateway {
    settings: Settings,
    /// Of this process.
    run: String,
    borrower: Borrower,
    /// Where the controller is, while there is a stream to it.
    reached: watch::Sender<Option<Place>>,
}

impl Gateway {
    /// Without a stream. `turns` is what the pools ask when they need something.
    pub fn new(settings: Settings, pools: Arc<Pools>, turns: Turns) -> Self {
        Self {
            settings,
            run: uuid::Uuid::new_v4().simple().to_string(),
            borrower: Borrower::new(pools, turns),
            reached: watch::Sender::default(),
        }
    }

    /// The way to the controller for what is its own, until the gateway drains.
    pub fn passage(&self, stop: CancellationToken) -> Passage {
        let token_file = self.settings.token_file.clone();
        Passage::new(self.reached.subscribe(), token_file, stop)
    }

    /// Keeps a stream, until it is told to leave and has given everything back. `keys` are the functions whose pools need
    /// something.
    pub async fn run(
        mut self,
        keys: impl Stream<Item = FunctionKey> + Send + 'static,
        leave: CancellationToken,
    ) {
        let mut keys = pin!(keys);
        let mut cut_off = CutOff::default();
        let mut trouble = String::new();
        while !leave.is_cancelled() {
            let place = self.look(&mut cut_off).await;
            let outcome = match &place {
                Ok(Some(place)) => self.enter(place).await.map_err(|error| error.to_string()),
                Ok(None) => Err("nobody controls".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            match (outcome, place) {
                (Ok(frames), Ok(Some(place))) => {
                    tracing::info!(controller = %place.address, "Controller reached");
                    trouble.clear();
                    let stays = is_still(
                        self.settings.client.clone(),
                        self.settings.namespace.clone(),
                        &place,
                    );
                    self.reached.send_replace(Some(place.clone()));
                    let (borrower, keys) = (&mut self.borrower, keys.as_mut());
                    let stream = talk(borrower, frames, keys, &leave);
                    tokio::select! {
                        outcome = stream => tracing::warn!(?outcome, "The stream ended"),
                        () = stays => tracing::info!("Another controls now"),
                    }
                    self.reached.send_replace(None);
                    cut_off = CutOff::default();
                }
                (Err(error), _) if error != trouble => {
                    tracing::warn!(%error, "No controller; what is lent to us answers");
                    trouble = error;
                }
                _ => {}
            }
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = leave.cancelled() => {}
            }
        }
    }

    /// Where the controller is; and whether somebody else may have what we have.
    async fn look(&mut self, cut_off: &mut CutOff) -> Result<Option<Place>, kube::Error> {
        let seen = notice::look(&self.settings.client, &self.settings.namespace).await?;
        let Some(seen) = seen else {
            return Ok(None);
        };
        let now = Instant::now();
        cut_off.saw(&seen.version, seen.place.is_some(), now);
        if cut_off.is_so(now) {
            tracing::error!(
                "A controller lives and cannot be reached: what it lent us is its own again"
            );
            self.borrower.forsake();
        }
        Ok(seen.place)
    }

    async fn enter(&self, place: &Place) -> Result<Frames<TlsStream<TcpStream>>, Unreached> {
        let hello = Hello {
            token: token(&self.settings.token_file).await?,
            purpose: Purpose::Borrow {
                name: self.settings.name.clone(),
                run: self.run.clone(),
            },
        };
        reach(place, &hello).await
    }
}

/// What proves that we are a gateway.
async fn token(file: &Path) -> Result<String, Unreached> {
    let token = tokio::fs::read_to_string(file);
    let token = token.await.map_err(|error| Unreached::Token {
        file: file.to_owned(),
        error,
    })?;
    Ok(token.trim().to_owned())
}

/// A connection to a controller that lets us in.
async fn reach(place: &Place, hello: &Hello) -> Result<Frames<TlsStream<TcpStream>>, Unreached> {
    let connector = tls::connector(&place.certificate)?;
    let connected = async {
        let stream = TcpStream::connect(place.address).await?;
        // Small messages must not wait for each other.
        stream.set_nodelay(true)?;
        keep_asking(&stream)?;
        connector.connect(tls::name(), stream).await
    };
    let late = |_| Unreached::Late;
    let stream = timeout(CONNECT, connected).await.map_err(late)??;
    let mut frames = stream::frames(stream);
    stream::send(&mut frames, hello).await?;
    match stream::receive(&mut frames).await? {
        Welcome::Come => Ok(frames),
        Welcome::Stay(why) => Err(Unreached::Refused(why)),
    }
}

/// Ends it when the other side is gone without a word: what is followed on it, such as a log, may be silent for long.
fn keep_asking(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, ALIVE)?;
    sockopt::set_tcp_keepintvl(stream, ALIVE)?;
    Ok(sockopt::set_tcp_keepcnt(stream, 3)?)
}

/// Ends when another one is the controller.
async fn is_still(client: Client, namespace: String, place: &Place) {
    loop {
        sleep(STILL).await;
        if let Ok(Some(seen)) = notice::look(&client, &namespace).await
            && seen.place.is_some_and(|other| other != *place)
        {
            return;
        }
    }
}

/// One stream's life.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    borrower: &mut Borrower,
    frames: Frames<S>,
    mut keys: Pin<&mut (impl Stream<Item = FunctionKey> + Send)>,
    leave: &CancellationToken,
) -> io::Result<()> {
    let (to, outgoing) = mpsc::channel(BACKLOG);
    let (mailbox, mut incoming) = mpsc::channel(1);
    let mut stream = pin!(stream::carry(frames, outgoing, &mailbox, |down| down));
    let mut tell = interval(TELL);
    borrower.begin(to);
    loop {
        tokio::select! {
            outcome = &mut stream => return outcome,
            Some(down) = incoming.recv() => borrower.hear(down),
            Some(key) = keys.next() => borrower.look(&key),
            _ = tell.tick() => borrower.tell(),
            () = leave.cancelled() => break,
        }
    }
    borrower.leave();
    stream.await
}

#[cfg(test)]
mod tests;
