//! What a pod wrote, from the cluster's log.

use std::{future::ready, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use tokio::time::timeout;
use tokio_util::{compat::FuturesAsyncReadCompatExt, io::ReaderStream};

use super::pod::CONTAINER;
use crate::runtime::{LAST_WORDS, log_tail};

/// Lines of an end at most.
const LINES: u32 = 10_000;
/// How long an end may take to be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last `tail` lines, and with `follow` what comes. Ends at the first error: the pod is gone.
pub(super) fn pieces(
    pods: Api<Pod>,
    id: String,
    tail: u32,
    follow: bool,
) -> impl Stream<Item = Bytes> + Send {
    let params = LogParams {
        container: Some(CONTAINER.to_owned()),
        follow,
        tail_lines: Some(tail.into()),
        ..LogParams::default()
    };
    let opened = async move { pods.log_stream(&id, &params).await };
    stream::once(opened)
        .filter_map(|opened| {
            ready(
                opened
                    .inspect_err(|error| tracing::debug!(%error, "A log cannot be read"))
                    .ok(),
            )
        })
        .flat_map(|reader| ReaderStream::new(reader.compat()))
        .take_while(|piece| ready(piece.is_ok()))
        .filter_map(|piece| ready(piece.ok()))
}

/// The end of a log, read while its instance ends.
pub(super) async fn until_the_end(pods: Api<Pod>, id: &str) -> Bytes {
    let mut log = Vec::new();
    let mut pieces = Box::pin(pieces(pods, id.to_owned(), LINES, true));
    let read = async {
        while let Some(piece) = pieces.next().await {
            log.extend_from_slice(&piece);
            if log.len() > 2 * LAST_WORDS {
                log_tail::keep(&mut log, LAST_WORDS);
            }
        }
    };
    // Late words are fewer words, not another error.
    let _ = timeout(PATIENCE, read).await;
    log_tail::keep(&mut log, LAST_WORDS);
    log.into()
}
