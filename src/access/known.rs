//! The tokens that are accepted: those of the file as it was last read, and for how long while it cannot be.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use rustix::io::Errno;

use super::{audit, book::BookError, token::Token, tokens::Tokens};

/// How long tokens count on while we lack the descriptor to read them with: a flood of connections locks nobody out, and a token
/// that was revoked meanwhile does not live by it.
const GRACE: Duration = Duration::from_secs(60);

/// Tokens by their ids.
type ById = BTreeMap<String, Token>;

/// Those that are accepted.
pub struct Known {
    accepted: ArcSwap<ById>,
    book: Mutex<Book>,
}

/// What is known of the file.
struct Book {
    /// What it said when it was last read; before that, what the audit has told of.
    read: Arc<ById>,
    /// Since when it is of no use.
    unread: Option<Instant>,
}

impl Known {
    /// Nobody yet. Of these the audit has told before.
    pub fn new(told: Tokens) -> Self {
        Self {
            accepted: ArcSwap::default(),
            book: Mutex::new(Book {
                read: Arc::new(by_id(told)),
                unread: None,
            }),
        }
    }

    /// As they are now.
    pub fn load(&self) -> Guard<Arc<ById>> {
        self.accepted.load()
    }

    /// Goes by what reading the file has come to. Answers whether it was read: else it is to be tried again.
    ///
    /// What cannot be used lets nobody in, as it may be what revokes; but it revokes nothing in the audit. Only where it is we
    /// who are short of descriptors do the tokens known before count on for a while.
    pub fn take(&self, outcome: Result<Tokens, BookError>, now: Instant) -> bool {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match outcome {
            Ok(tokens) => {
                let new = Arc::new(by_id(tokens));
                audit::tokens(&book.read, &new);
                book.read = Arc::clone(&new);
                self.accepted.store(new);
                if book.unread.take().is_some() {
                    tracing::info!("The tokens were read again, and count as they are");
                }
                return true;
            }
            Err(error) => error,
        };
        let is_new = book.unread.is_none();
        let since = *book.unread.get_or_insert(now);
        if is_shortage(&error) && now.saturating_duration_since(since) < GRACE {
            if is_new {
                tracing::warn!(%error, "Tokens known before count on for at most {}s", GRACE.as_secs());
            }
            return false;
        }
        if is_new || !self.accepted.load().is_empty() {
            tracing::error!(%error, "No token is accepted until this is mended");
        }
        self.accepted.store(Arc::default());
        matches!(error, BookError::Damaged { .. })
    }
}

/// Whether it is we, or this machine, who have no descriptor left.
fn is_shortage(error: &BookError) -> bool {
    let short = |error: &io::Error| {
        let errno = Errno::from_io_error(error);
        matches!(errno, Some(Errno::MFILE | Errno::NFILE))
    };
    matches!(error, BookError::Path { error, .. } if short(error))
}

fn by_id(tokens: Tokens) -> ById {
    let pairs = tokens.0.into_iter().map(|token| (token.id.clone(), token));
    pairs.collect()
}
