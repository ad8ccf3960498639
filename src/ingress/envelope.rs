//! `{"response": "..."}` around what a function answered. Envelopes are held whole until their callers have taken them, so
//! there is a bound for all large ones together; and these are not put together where calls are served.

use axum::body::Body;
use bytes::Bytes;
use hyper::{
    Response,
    header::{CONTENT_TYPE, HeaderValue},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
};

use super::reply::CallError;

/// Bytes of all large envelopes together.
const ROOM: usize = 256 << 20;
/// Up to so many bytes an envelope needs no room: there is one a connection, whose head may be as large, and nobody who takes
/// nothing of large ones must cost others their answers.
const FREE: usize = 64 << 10;
/// The places of the room are kibibytes.
static PLACES: Semaphore = Semaphore::const_new(ROOM >> 10);
/// Up to so many bytes of an answer an envelope is put together at once.
const SMALL: usize = 256 << 10;

/// An envelope, and its part of the room until its last byte is taken.
struct Held {
    envelope: Vec<u8>,
    _places: SemaphorePermit<'static>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.envelope
    }
}

/// The answer to the caller.
pub async fn envelope(result: Bytes) -> Result<Response<Body>, CallError> {
    let so_far = result.len();
    let mut places = take(places_for(so_far))?;
    let envelope = if so_far <= SMALL {
        wrap(&result)
    } else {
        let wrapping = spawn_blocking(move || wrap(&result));
        wrapping.await.map_err(|_| CallError::Internal)?
    };
    let more = places_for(envelope.len()).saturating_sub(places_for(so_far));
    places.merge(take(more)?);
    let held = Held {
        envelope,
        _places: places,
    };
    let mut response = Response::new(Body::from(Bytes::from_owner(held)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn places_for(bytes: usize) -> usize {
    if bytes <= FREE {
        return 0;
    }
    bytes.div_ceil(1 << 10)
}

fn take(places: usize) -> Result<SemaphorePermit<'static>, CallError> {
    let places = u32::try_from(places).unwrap_or(u32::MAX);
    PLACES
        .try_acquire_many(places)
        .map_err(|_| CallError::TooManyResponses { limit: ROOM })
}

fn wrap(result: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(result);
    let mut body = Vec::with_capacity(text.len() + 32);
    body.extend_from_slice(br#"{"response":"#);
    serde_json::to_writer(&mut body, &text).expect("a string is JSON, and memory takes it");
    body.push(b'}');
    body.shrink_to_fit();
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_answers_need_no_room_and_others_are_refused_without_it() {
        let all = take(ROOM >> 10).unwrap();
        for fits in [String::new(), "x".repeat(FREE - 32)] {
            envelope(fits.into()).await.unwrap();
        }
        // The last becomes six times as long.
        for large in ["x".repeat(FREE), "\u{1}".repeat(FREE - 32)] {
            let refused = envelope(large.clone().into()).await.unwrap_err();
            assert!(matches!(refused, CallError::TooManyResponses { .. }));
        }
        drop(all);
        let large = envelope("x".repeat(FREE).into()).await.unwrap();
        assert_eq!(PLACES.available_permits(), (ROOM >> 10) - 65);
        drop(large);
        assert_eq!(PLACES.available_permits(), ROOM >> 10);
    }
}
