//! Bodies of requests that change something: read whole, in bounded time, and large ones few at a time.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// Bytes of bodies that are read or looked through at a time, small ones aside; each is held a few times over for a while.
const ROOM: usize = 384 << 20;
/// The places of the room are kibibytes.
static PLACES: Semaphore = Semaphore::const_new(ROOM >> 10);
/// Bodies up to this size are taken as they come.
const SMALL: usize = 1 << 20;

/// How long is waited for what.
struct Terms {
    /// Longest pause within a body.
    pause: Duration,
    /// Longest time for all of it.
    whole: Duration,
    /// Longest wait for the room that a large one needs.
    patience: Duration,
    places: &'static Semaphore,
}

const USUAL: Terms = Terms {
    pause: Duration::from_secs(30),
    whole: Duration::from_secs(600),
    patience: Duration::from_secs(20),
    places: &PLACES,
};

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the request body is larger than {0} bytes")]
    TooLarge(usize),
    #[error(
        "the request body did not come: within {}s there must be more of it, and all of it within {}s",
        USUAL.pause.as_secs(), USUAL.whole.as_secs()
    )]
    Slow,
    #[error("too many large requests are being read; try again in a moment")]
    Crowded,
    #[error("the request body cannot be read: {0}")]
    Broken(String),
}

/// A body, and its part of the room.
pub struct Whole {
    pub bytes: Bytes,
    /// Kept for as long as what was sent is in memory.
    pub place: Option<SemaphorePermit<'static>>,
}

/// Reads a body of at most so many bytes. One that says that it is larger is not read at all.
pub async fn whole(body: Body, limit: usize) -> Result<Whole, BodyError> {
    USUAL.read(body, limit).await
}

impl Terms {
    async fn read(&self, body: Body, limit: usize) -> Result<Whole, BodyError> {
        let hint = body.size_hint();
        if hint.lower() > limit as u64 {
            return Err(BodyError::TooLarge(limit));
        }
        // One that does not say how large it is may be as large as it may be.
        let size = hint.upper().and_then(|most| usize::try_from(most).ok());
        let place = self.place(size.unwrap_or(limit).min(limit)).await?;
        let bytes = timeout(self.whole, self.collect(body, limit)).await;
        let bytes = bytes.map_err(|_| BodyError::Slow)??;
        Ok(Whole { bytes, place })
    }

    async fn place(&self, size: usize) -> Result<Option<SemaphorePermit<'static>>, BodyError> {
        if size <= SMALL {
            return Ok(None);
        }
        let places = u32::try_from(size.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let place = timeout(self.patience, self.places.acquire_many(places)).await;
        match place {
            Ok(Ok(place)) => Ok(Some(place)),
            Ok(Err(_)) | Err(_) => Err(BodyError::Crowded),
        }
    }

    async fn collect(&self, mut body: Body, limit: usize) -> Result<Bytes, BodyError> {
        let mut bytes = BytesMut::new();
        loop {
            let frame = timeout(self.pause, body.frame()).await;
            let Some(frame) = frame.map_err(|_| BodyError::Slow)? else {
                return Ok(bytes.freeze());
            };
            let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if bytes.len() + data.len() > limit {
                return Err(BodyError::TooLarge(limit));
            }
            bytes.extend_from_slice(&data);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn pieces(sizes: &'static [usize]) -> Body {
        let piece = |size: &usize| Ok::<_, std::io::Error>(vec![b'x'; *size]);
        Body::from_stream(stream::iter(sizes.iter().map(piece)))
    }

    #[tokio::test]
    async fn a_body_is_whole_or_too_large() {
        for (body, expected) in [
            (Body::empty(), Some(0)),
            (Body::from("abc"), Some(3)),
            (pieces(&[4, 6]), Some(10)),
            (pieces(&[4, 7]), None),
            (Body::from("more than ten"), None),
        ] {
            match whole(body, 10).await {
                Ok(whole) => assert_eq!(Some(whole.bytes.len()), expected),
                Err(BodyError::TooLarge(10)) => assert_eq!(expected, None),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Nobody waits for long.
    fn terms(pause: Duration, places: &'static Semaphore) -> Terms {
        Terms {
            pause,
            whole: Duration::from_millis(200),
            patience: Duration::from_millis(50),
            places,
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let never = || Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let endless = || {
            Body::from_stream(stream::unfold((), |()| async {
                tokio::task::yield_now().await;
                Some((Ok::<_, std::io::Error>(""), ()))
            }))
        };
        let long = Duration::from_secs(3600);
        for (body, pause) in [
            (never(), Duration::from_millis(1)),
            (never(), long),
            (endless(), long),
        ] {
            let given_up = terms(pause, &PLACES).read(body, 10).await;
            assert!(matches!(given_up, Err(BodyError::Slow)));
        }
    }

    #[tokio::test]
    async fn large_ones_wait_for_their_place_for_a_while() {
        static FEW: Semaphore = Semaphore::const_new(4 << 10);
        let terms = terms(Duration::from_secs(3600), &FEW);
        let two_places = 2 << 20;
        let first = terms.read(pieces(&[1]), two_places).await.unwrap();
        let _second = terms.read(pieces(&[1]), two_places).await.unwrap();
        let crowded = terms.read(pieces(&[1]), two_places).await;
        assert!(matches!(crowded, Err(BodyError::Crowded)));
        assert!(terms.read(Body::from("small"), two_places).await.is_ok());
        drop(first);
        assert!(terms.read(pieces(&[1]), two_places).await.is_ok());
    }
}
