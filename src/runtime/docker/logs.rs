//! What a container wrote, from the engine's log.

use std::time::Duration;

use bollard::{Docker, query_parameters::LogsOptionsBuilder};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};

use crate::runtime::{LogPiece, log_tail};

/// How long an error waits for the words that belong to it.
const PATIENCE: Duration = Duration::from_secs(5);

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

/// The end of the log for an error message; what can be had of it in a few seconds.
pub async fn last_words(docker: &Docker, id: &str) -> String {
    let mut log = Vec::new();
    let mut pieces = raw(docker, id, log_tail::LINES, false).boxed();
    let read = async {
        while let Some(bytes) = pieces.next().await {
            log.extend_from_slice(&bytes);
            log_tail::keep(&mut log, log_tail::BYTES);
        }
    };
    // Late words are fewer words, not another error.
    let _ = tokio::time::timeout(PATIENCE, read).await;
    log_tail::text(&log)
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
