//! Names of requests: in the caller's log, ours and the function's.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::{HeaderMap, header::HeaderValue};

use super::reply::REQUEST_ID;

/// Longest id of a caller's own.
const MAX_LENGTH: usize = 128;

/// Makes names that no other request has.
#[derive(Debug)]
pub struct Ids {
    /// First half of all names of this process.
    prefix: String,
    count: AtomicU64,
}

impl Ids {
    /// None was made yet.
    pub fn new() -> Self {
        Self {
            prefix: format!("{:08x}-", uuid::Uuid::new_v4().as_fields().0),
            count: AtomicU64::new(0),
        }
    }

    /// A new one.
    pub fn make(&self) -> String {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{}{number:x}", self.prefix)
    }

    /// The caller's own, if it gave one that can be written anywhere, else a new one; the function gets it too.
    pub fn identify(&self, headers: &mut HeaderMap) -> HeaderValue {
        if let Some(given) = headers.get(REQUEST_ID)
            && (1..=MAX_LENGTH).contains(&given.len())
            && given.as_bytes().iter().all(u8::is_ascii_graphic)
        {
            return given.clone();
        }
        let id = HeaderValue::try_from(self.make());
        let id = id.unwrap_or_else(|_| HeaderValue::from_static("none"));
        headers.insert(REQUEST_ID, id.clone());
        id
    }
}
