//! The stream between a controller and a gateway: frames of JSON ([`message`]) over TLS with a pinned certificate ([`tls`]).
//!
//! Each side sends an empty frame when it has had nothing to say for a while, and takes a side that is silent for gone.

pub mod message;
pub mod tls;

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::timeout,
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Longest pause between two frames of a side.
const BEAT: Duration = Duration::from_secs(2);
/// A side that sent nothing, or took nothing, for this long is gone.
const SILENCE: Duration = Duration::from_secs(6);
/// A gateway whose stream is lost stops using what it has of a controller that lives no later than this, see
/// [`crate::gateway`]; calls that run then end in their own time.
pub const CUT: Duration = Duration::from_secs(45);
/// Largest frame: what one gateway has of one function is far below.
const MAX_FRAME: usize = 1 << 20;
/// Messages on their way to a side that reads too slowly; beyond, it is cut off.
pub const BACKLOG: usize = 1 << 16;

/// Frames over a connection.
pub type Frames<S> = Framed<S, LengthDelimitedCodec>;

/// Speaks frames over a connection.
pub fn frames<S: AsyncRead + AsyncWrite>(stream: S) -> Frames<S> {
    LengthDelimitedCodec::builder()
        .max_frame_length(MAX_FRAME)
        .new_framed(stream)
}

/// Sends one message.
pub async fn send<S, T>(frames: &mut Frames<S>, message: &T) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Serialize,
{
    in_time(frames.send(frame(message)?)).await?
}

/// Waits for one message, not for long.
pub async fn receive<S, T>(frames: &mut Frames<S>) -> io::Result<T>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: DeserializeOwned,
{
    let frame = in_time(frames.next()).await?;
    read(&frame.ok_or_else(ended)??)
}

/// Carries messages both ways until `outgoing` ends, which is an orderly end, or the other side does. What comes is wrapped for
/// those who wait for it.
pub async fn carry<S, I, O, T>(
    frames: Frames<S>,
    mut outgoing: mpsc::Receiver<O>,
    incoming: &mpsc::Sender<T>,
    wrap: impl Fn(I) -> T,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    I: DeserializeOwned,
    O: Serialize,
{
    let (mut sink, mut source) = frames.split();
    let writing = async {
        loop {
            match timeout(BEAT, outgoing.recv()).await {
                Ok(Some(message)) => in_time(sink.feed(frame(&message)?)).await??,
                Ok(None) => return in_time(sink.close()).await?,
                Err(_) => in_time(sink.feed(Bytes::new())).await??,
            }
            while let Ok(message) = outgoing.try_recv() {
                in_time(sink.feed(frame(&message)?)).await??;
            }
            in_time(sink.flush()).await??;
        }
    };
    let reading = async {
        loop {
            let frame = in_time(source.next()).await?;
            let frame = frame.ok_or_else(ended)??;
            if !frame.is_empty() {
                let message = wrap(read(&frame)?);
                incoming.send(message).await.map_err(|_| ended())?;
            }
        }
    };
    tokio::select! {
        outcome = writing => outcome,
        outcome = reading => outcome,
    }
}

fn frame(message: &impl Serialize) -> io::Result<Bytes> {
    Ok(serde_json::to_vec(message)?.into())
}

fn read<T: DeserializeOwned>(frame: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(frame)?)
}

async fn in_time<T>(wait: impl Future<Output = T>) -> io::Result<T> {
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "the other side is silent");
    timeout(SILENCE, wait).await.map_err(silent)
}

fn ended() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
