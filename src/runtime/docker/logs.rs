//! What a container wrote, from the engine's log.

use std::time::Duration;

use bollard::{Docker, query_parameters::LogsOptionsBuilder};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};

use crate::runtime::{LAST_WORDS, LogPiece, log_tail};

/// How long an error or an end waits for the words that belong to it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines of an end at most.
const LINES: u32 = 10_000;

/// The last `tail` lines of both streams, and with `follow` what comes. Ends at the first error: the container is gone.
pub fn pieces(docker: &Docker, id: &str, tail: u32, follow: bool) -> BoxStream<'static, LogPiece> {
    let instance = id.to_owned();
    raw(docker, id, tail, follow)
        .map(move |bytes| LogPiece {
            instance: instance.clone(),
            bytes,
        })
        .boxed()
}

/// The end of the log for an error message.
pub async fn last_words(docker: &Docker, id: &str) -> String {
    log_tail::text(&end(docker, id, log_tail::LINES, log_tail::BYTES).await)
}

/// The end of a log that nobody adds to, for those who ask later.
pub async fn kept(docker: &Docker, id: &str) -> Bytes {
    end(docker, id, LINES, LAST_WORDS).await.into()
}

/// What can be had of it in a few seconds.
async fn end(docker: &Docker, id: &str, lines: u32, bytes: usize) -> Vec<u8> {
    let mut log = Vec::new();
    let mut pieces = raw(docker, id, lines, false).boxed();
    let read = async {
        while let Some(piece) = pieces.next().await {
            log.extend_from_slice(&piece);
            if log.len() > 2 * bytes {
                log_tail::keep(&mut log, bytes);
            }
        }
    };
    // Late words are fewer words, not another error.
    let _ = tokio::time::timeout(PATIENCE, read).await;
    log_tail::keep(&mut log, bytes);
    log
}

fn raw(
    docker: &Docker,
    id: &str,
    tail: u32,
    follow: bool,
) -> impl Stream<Item = Bytes> + Send + use<> {
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .follow(follow)
        .tail(&tail.to_string())
        .build();
    docker
        .logs(id, Some(options))
        .take_while(|piece| std::future::ready(piece.is_ok()))
        .filter_map(|piece| {
            std::future::ready(piece.ok().map(bollard::container::LogOutput::into_bytes))
        })
}
