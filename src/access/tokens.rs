//! The tokens of a server (pure): making, replacing and revoking them.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::token::{MAX_LIFE, RANDOM_BYTES, Scopes, Token};

/// Most tokens of a server.
const MAX: usize = 1_000;
/// Longest name.
const MAX_NAME: usize = 63;
/// How long an expired token is shown.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// All of them; names of living ones are unique, unless one replaces the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tokens(pub Vec<Token>);

/// What is wanted of a new token.
#[derive(Clone, Debug)]
pub struct Wish {
    /// That of the replaced one, if there is none.
    pub name: Option<String>,
    /// Those of the replaced one, if there are none.
    pub scopes: Option<Scopes>,
    pub life: SignedDuration,
    /// Name of the one that it replaces, and how long that lives on.
    pub replaces: Option<(String, SignedDuration)>,
}

/// Why it is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("say whom the token is for: faas token create NAME --scope SCOPE")]
    NoName,
    #[error("{0:?} is no name: 1 to {MAX_NAME} lower-case letters, digits, '-' and '.'")]
    BadName(String),
    #[error(
        "say what the token is for: --scope read, invoke, deploy or admin; may be given several times"
    )]
    NoScope,
    #[error("a token lives for at most {}d", MAX_LIFE.as_hours() / 24)]
    TooLong,
    #[error(
        "there is a token {0:?}: `faas token create --replaces {0}` makes its successor, `faas token revoke {0}` ends it"
    )]
    Exists(String),
    #[error("there is no token {0:?}; `faas token list` shows those that there are")]
    NotFound(String),
    #[error("there are {MAX} tokens, and more are not kept: revoke some")]
    TooMany,
}

impl Tokens {
    /// Makes a token; answers it with its text. The one that it replaces ends after the overlap, or when it would anyway.
    pub fn create(
        &mut self,
        wish: Wish,
        now: Timestamp,
        random: &[u8; RANDOM_BYTES],
    ) -> Result<(Token, String), TokenError> {
        let expires = Self::end(wish.life, now)?;
        self.0.retain(|token| token.expires + REMEMBERED > now);
        if self.0.len() >= MAX {
            return Err(TokenError::TooMany);
        }
        let old = wish.replaces.as_ref().map(|(name, _)| name.clone());
        let last = match &old {
            Some(old) => Some(self.living(old, now)?.clone()),
            None => None,
        };
        let name = wish
            .name
            .or_else(|| old.clone())
            .ok_or(TokenError::NoName)?;
        if !is_name(&name) {
            return Err(TokenError::BadName(name));
        }
        if old.as_ref() != Some(&name) && self.living(&name, now).is_ok() {
            return Err(TokenError::Exists(name));
        }
        let scopes = wish.scopes.or_else(|| Some(last?.scopes));
        let scopes = scopes.ok_or(TokenError::NoScope)?;
        if let Some((old, overlap)) = wish.replaces {
            let end = now + overlap;
            let replaced = self.0.iter_mut().filter(|token| token.name == old);
            replaced.for_each(|token| token.expires = token.expires.min(end));
        }
        let (token, text) = Token::new(name, scopes, now, expires, random);
        self.0.push(token.clone());
        Ok((token, text))
    }

    /// Takes away the token with this id, or all with this name; answers them.
    pub fn revoke(&mut self, which: &str) -> Result<Vec<Token>, TokenError> {
        let is_meant = |token: &Token| token.id == which || token.name == which;
        let (revoked, left) = self.0.drain(..).partition(is_meant);
        self.0 = left;
        if revoked.is_empty() {
            return Err(TokenError::NotFound(which.to_owned()));
        }
        Ok(revoked)
    }

    fn end(life: SignedDuration, now: Timestamp) -> Result<Timestamp, TokenError> {
        let end = now.checked_add(life).ok().filter(|_| life <= MAX_LIFE);
        end.ok_or(TokenError::TooLong)
    }

    /// The newest of this name that has not expired.
    fn living(&self, name: &str, now: Timestamp) -> Result<&Token, TokenError> {
        let mut living = self.0.iter().rev();
        let found = living.find(|token| token.name == name && token.expires > now);
        found.ok_or_else(|| TokenError::NotFound(name.to_owned()))
    }
}

/// It stands in logs and headers.
fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits)
}
