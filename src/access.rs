//! Who may ask for what: bearer tokens, for listeners that more than this machine's programs can reach.
//!
//! A token is `faas_ID_SECRET`: a beginning that scanners for leaked secrets can know, a public id, and 256 random bits. It
//! is shown once, when it is made; the state directory keeps its digest. What a request costs here is one digest and one
//! look into a map that no other request holds up. Beside a cluster, its users may manage Functions as they may with `kubectl`:
//! their tokens are judged there (`users.rs`).

pub mod audit;
pub mod book;
pub mod failures;
mod file;
mod known;
pub mod needs;
pub mod rights;
pub mod secret;
pub mod tls;
pub mod token;
pub mod tokens;
pub mod users;
pub mod watch;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HeaderValue},
};
use jiff::Timestamp;
use tokio::time::sleep;

use self::{
    book::BookError,
    failures::{Failures, Key},
    known::Known,
    rights::Deed,
    token::{Scope, Scopes, Token},
    tokens::Tokens,
    users::{Asker, Users},
};
use crate::kubernetes::review::{NotReviewed, Right};

/// How often is looked whether a token still counts that lets somebody listen.
const LOOK: Duration = Duration::from_secs(1);

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error(
        "this server asks for a token: send it as `Authorization: Bearer TOKEN`, which `faas` does with FAAS_TOKEN or \
         --token-file FILE; `faas token create` makes one on the server's machine"
    )]
    NoToken,
    #[error("the Authorization header holds no token of faas: it must be `Bearer faas_...`")]
    Malformed,
    #[error(
        "the token is not known: it was revoked, or is another server's; `faas token list` shows those that are"
    )]
    Unknown,
    #[error(
        "the token {name:?} expired at {at}; `faas token create --replaces {name}` makes the next one"
    )]
    Expired { name: String, at: Timestamp },
    #[error("the token {name:?} has not the scope {needed} that this needs, only {has}")]
    Scope {
        name: String,
        needed: Scope,
        has: Scopes,
    },
    #[error(
        "the API server does not know whose this token is, or it has expired; `kubectl create token NAME` makes one of a service \
         account"
    )]
    NoUser,
    #[error(
        "{user} may not do this; whoever may edit the namespace may, and `kubectl auth can-i {right}` tells"
    )]
    MayNot { user: String, right: Right },
    #[error(
        "who asks, and what they may, is for the API server to say, and it does not: {0}; try again in a moment"
    )]
    Unjudged(#[from] NotReviewed),
    #[error(
        "too many requests without a valid token came from this address; try again in {}s", seconds(*.wait)
    )]
    TooMany { wait: Duration },
}

impl Denied {
    /// Word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoToken
            | Self::Malformed
            | Self::Unknown
            | Self::Expired { .. }
            | Self::NoUser => "Unauthorized",
            Self::Scope { .. } | Self::MayNot { .. } => "Forbidden",
            Self::Unjudged(_) => "Unjudged",
            Self::TooMany { .. } => "TooManyFailures",
        }
    }

    /// Status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoToken
            | Self::Malformed
            | Self::Unknown
            | Self::Expired { .. }
            | Self::NoUser => StatusCode::UNAUTHORIZED,
            Self::Scope { .. } | Self::MayNot { .. } => StatusCode::FORBIDDEN,
            Self::Unjudged(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// Whose token it is, if it is somebody's.
    pub fn who(&self) -> Option<&str> {
        match self {
            Self::Expired { name, .. } | Self::Scope { name, .. } => Some(name),
            Self::MayNot { user, .. } => Some(user),
            _ => None,
        }
    }

    /// `WWW-Authenticate`, as RFC 6750 has it.
    pub fn challenge(&self) -> Option<HeaderValue> {
        let challenge = match self {
            Self::NoToken => r#"Bearer realm="faas""#.to_owned(),
            Self::Malformed => r#"Bearer realm="faas", error="invalid_request""#.to_owned(),
            Self::Unknown | Self::Expired { .. } | Self::NoUser => {
                r#"Bearer realm="faas", error="invalid_token""#.to_owned()
            }
            Self::Scope { needed, .. } => {
                format!(r#"Bearer realm="faas", error="insufficient_scope", scope="{needed}""#)
            }
            Self::MayNot { .. } => r#"Bearer realm="faas", error="insufficient_scope""#.to_owned(),
            Self::Unjudged(_) | Self::TooMany { .. } => return None,
        };
        HeaderValue::try_from(challenge).ok()
    }

    /// After how many seconds trying again may help.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooMany { wait } => Some(seconds(*wait)),
            Self::Unjudged(_) => Some(1),
            _ => None,
        }
    }
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + 1
}

/// The tokens of a state directory, as its file says, and those who tried without.
pub struct Access {
    dir: PathBuf,
    known: Known,
    failures: Mutex<Failures>,
    /// Who else may manage.
    users: Option<Users>,
}

/// Who was let in to manage.
#[derive(Clone)]
pub struct Manager {
    pub name: String,
    /// The id of a token of ours.
    pub token: Option<String>,
    /// A user of the cluster.
    pub asker: Option<Asker>,
}

impl Access {
    /// Reads the tokens of a state directory.
    ///
    /// # Errors
    /// When their file cannot be read.
    pub fn open(state: &Path) -> Result<Self, BookError> {
        let dir = book::dir(state)?;
        let tokens = book::read(&dir)?;
        let told = book::told(&dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "The audit tells of all tokens again");
            Tokens::default()
        });
        let access = Self {
            dir,
            known: Known::new(told),
            failures: Mutex::default(),
            users: None,
        };
        access.take(Ok(tokens));
        Ok(access)
    }

    /// These may manage, too.
    #[must_use]
    pub fn and(self, users: Option<Users>) -> Self {
        Self { users, ..self }
    }

    /// Whether anybody could come in.
    pub fn has_valid(&self, now: Timestamp) -> bool {
        self.known.load().values().any(|token| token.expires > now)
    }

    /// Goes by the file as it is, whenever it changes.
    pub async fn follow(&self) {
        watch::watch(&[book::file(&self.dir)], || self.reload()).await;
    }

    /// Whether the file was read.
    fn reload(&self) -> bool {
        self.take(book::read(&self.dir))
    }

    fn take(&self, outcome: Result<Tokens, BookError>) -> bool {
        let tokens = outcome.as_ref().ok().cloned();
        let is_read = self.known.take(outcome, Instant::now());
        if let Some(tokens) = tokens
            && let Err(error) = book::tell(&self.dir, &tokens)
        {
            tracing::warn!(%error, "After a restart the audit may tell of these tokens again");
        }
        is_read
    }

    /// Whose request this is, if the headers say so and it has the scope.
    pub fn admit(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        needed: Scope,
    ) -> Result<String, Denied> {
        let token = bearer(headers);
        let known = self.known.load();
        let token = token.and_then(|text| Ok((text, token::id(text).ok_or(Denied::Malformed)?)));
        let token = token.map(|(text, id)| (text, known.get(id)));
        // What could never have come in charges the address; a known id charges itself there, so that neighbours behind one
        // address do not lock each other out.
        let id = match token {
            Ok((_, Some(token))) => Some(&*token.id),
            _ => None,
        };
        let key = Key::new(peer, id);
        let verdict = token.and_then(|(text, token)| judge(text, token, needed));
        // Ids are no secrets, so the failures of whoever knows one are not its owner's.
        let Some(denied) = verdict.as_ref().err() else {
            return verdict;
        };
        if matches!(denied, Denied::Scope { .. }) {
            return verdict;
        }
        let (mut failures, now) = (self.failures(), Instant::now());
        if let Some(wait) = failures.wait(&key, now) {
            return Err(Denied::TooMany { wait });
        }
        failures.note(key, now);
        verdict
    }

    /// Whose management request this is: by a token of ours, or of a user of the cluster who may do it there.
    pub async fn admit_manager(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        needed: Scope,
        deed: &Deed,
    ) -> Result<Manager, Denied> {
        let Some((users, token)) = self.users.as_ref().zip(foreign(headers)) else {
            return Ok(Manager {
                name: self.admit(headers, peer, needed)?,
                token: bearer(headers).ok().and_then(token::id).map(str::to_owned),
                asker: None,
            });
        };
        let key = Key::new(peer, None);
        if let Some(wait) = self.failures().wait(&key, Instant::now()) {
            return Err(Denied::TooMany { wait });
        }
        let asker = users.asker(token).await;
        if let Err(Denied::NoUser) = asker {
            self.failures().note(key, Instant::now());
        }
        let asker = asker?;
        asker.may(deed).await?;
        Ok(Manager {
            name: asker.name(),
            token: None,
            asker: Some(asker),
        })
    }

    /// Judges again whom it has let in: meanwhile a token may have been revoked or have expired, and a right taken away.
    pub async fn judge_again(
        &self,
        manager: &Manager,
        needed: Scope,
        deed: &Deed,
    ) -> Result<(), Denied> {
        if let Some(asker) = &manager.asker {
            asker.is_known().await?;
            return asker.may(deed).await;
        }
        let known = self.known.load();
        let token = manager.token.as_ref().and_then(|id| known.get(id));
        stands(token.ok_or(Denied::Unknown)?, needed).map(drop)
    }

    /// Ends soon after the token with this id has been revoked or has expired.
    pub async fn outlive(&self, id: &str) {
        let counts = |token: &Token| token.expires > Timestamp::now();
        while self.known.load().get(id).is_some_and(counts) {
            sleep(LOOK).await;
        }
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the one Authorization header says behind `Bearer`.
fn bearer(headers: &HeaderMap) -> Result<&str, Denied> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = given.next() else {
        return Err(Denied::NoToken);
    };
    let text = first.to_str().ok().filter(|_| given.next().is_none());
    let (scheme, token) = text
        .and_then(|text| text.split_once(' '))
        .ok_or(Denied::Malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err(Denied::Malformed)
    }
}

/// A token that cannot be ours.
fn foreign(headers: &HeaderMap) -> Option<&str> {
    let token = bearer(headers).ok()?;
    (!token.is_empty() && !token.starts_with(token::PREFIX)).then_some(token)
}

/// `token` is the one whose id is in the text, if there is one.
fn judge(text: &str, token: Option<&Token>, needed: Scope) -> Result<String, Denied> {
    let token = token
        .filter(|token| token.is(text))
        .ok_or(Denied::Unknown)?;
    stands(token, needed)
}

/// Whose token it is, if it still counts for this.
fn stands(token: &Token, needed: Scope) -> Result<String, Denied> {
    let name = token.name.clone();
    if token.expires <= Timestamp::now() {
        let at = token.expires;
        return Err(Denied::Expired { name, at });
    }
    if !token.scopes.allow(needed) {
        let has = token.scopes.clone();
        return Err(Denied::Scope { name, needed, has });
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
