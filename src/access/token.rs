//! One token (pure): its text, its digest, what it is for and for how long.

use std::{collections::BTreeSet, fmt};

use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use strum::{Display, EnumString};
use subtle::ConstantTimeEq;

/// Beginning of every token.
pub const PREFIX: &str = "faas_";
/// Random bytes of an id, which is no secret.
const ID_BYTES: usize = 6;
/// Random bytes of a secret: 256 bits.
const SECRET_BYTES: usize = 32;
/// What a new token needs of them.
pub const RANDOM_BYTES: usize = ID_BYTES + SECRET_BYTES;
/// How long a token lives unless told otherwise, and at most.
pub const LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);
pub const MAX_LIFE: SignedDuration = SignedDuration::from_hours(366 * 24);

/// What a token is good for.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Display,
    EnumString,
    Serialize,
    Deserialize,
    ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Scope {
    /// Look at Functions, logs, status and metrics
    Read,
    /// Call functions
    Invoke,
    /// Create, change and delete Functions
    Deploy,
    /// All of these
    Admin,
}

/// Some of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// Whether they are enough for what needs this one.
    pub fn allow(&self, needed: Scope) -> bool {
        self.0.contains(&needed) || self.0.contains(&Scope::Admin)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(Scope::to_string).collect();
        f.write_str(&names.join(","))
    }
}

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Token {
    pub id: String,
    /// Who uses it, for people and the audit.
    pub name: String,
    pub scopes: Scopes,
    pub created: Timestamp,
    pub expires: Timestamp,
    sha256: Digest,
}

impl Token {
    /// A new one, and its text, which nobody can find out again.
    pub fn new(
        name: String,
        scopes: Scopes,
        created: Timestamp,
        expires: Timestamp,
        random: &[u8; RANDOM_BYTES],
    ) -> (Self, String) {
        let (id, secret) = random.split_at(ID_BYTES);
        let id = hex(id);
        let text = format!("{PREFIX}{id}_{}", hex(secret));
        let token = Self {
            id,
            name,
            scopes,
            created,
            expires,
            sha256: Digest::of(&text),
        };
        (token, text)
    }

    /// Whether this is its text. Takes as long for a text that is nearly right as for any other.
    pub fn is(&self, text: &str) -> bool {
        self.sha256.0.ct_eq(&Digest::of(text).0).into()
    }
}

/// The id in the text of a token, nothing if it is no token's.
pub fn id(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let is_hex = |part: &str, bytes| {
        part.len() == 2 * bytes && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    (is_hex(id, ID_BYTES) && is_hex(secret, SECRET_BYTES)).then_some(id)
}

/// SHA-256 of a token's text. A slow digest is for passwords, which can be guessed; 256 random bits cannot, however fast
/// the guessing is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Digest([u8; 32]);

impl Digest {
    fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        hex(&digest.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "a digest has 64 hex digits";
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong);
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong)?;
        }
        Ok(Self(bytes))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// For a flag's value: `90d`, `12h`, `30m`, `45s`.
pub fn duration(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("{text:?} is no duration: give one such as 90d, 12h, 30m or 45s");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number = text.strip_suffix(unit).and_then(|n| n.parse::<u32>().ok());
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number = number.filter(|n| *n > 0).ok_or_else(wrong)?;
    Ok(SignedDuration::from_secs(i64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_by_its_text_alone() {
        let now = Timestamp::UNIX_EPOCH;
        let make = |random| {
            Token::new(
                "ci".into(),
                [Scope::Read].into_iter().collect(),
                now,
                now,
                &random,
            )
        };
        let (token, text) = make([7; RANDOM_BYTES]);
        assert_eq!(text.len(), 5 + 12 + 1 + 64);
        assert_eq!(id(&text), Some(&*token.id));
        assert!(token.is(&text));
        assert!(!token.is(&make([8; RANDOM_BYTES]).1));
        let kept = serde_json::to_string(&token).unwrap();
        let secret = text.rsplit('_').next().unwrap();
        assert!(!kept.contains(secret) && !format!("{token:?}").contains(secret));
        assert_eq!(serde_json::from_str::<Token>(&kept).unwrap(), token);
        for wrong in [
            "",
            "faas_",
            "Faas_070707070707_",
            &text[..text.len() - 1],
            &format!("{text}0"),
            &text.to_uppercase(),
            &text.replacen('_', "-", 1),
        ] {
            assert_eq!(id(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn admin_is_all_and_nothing_else_is_more_than_itself() {
        let all = [Scope::Read, Scope::Invoke, Scope::Deploy, Scope::Admin];
        for has in all {
            for needed in all {
                let scopes: Scopes = [has].into_iter().collect();
                let allowed = has == needed || has == Scope::Admin;
                assert_eq!(scopes.allow(needed), allowed, "{has} for {needed}");
            }
        }
        let two: Scopes = [Scope::Invoke, Scope::Read].into_iter().collect();
        assert_eq!(two.to_string(), "read,invoke");
    }

    #[test]
    fn durations_have_one_unit() {
        for (text, seconds) in [
            ("45s", 45),
            ("30m", 1800),
            ("12h", 43_200),
            ("90d", 7_776_000),
        ] {
            assert_eq!(duration(text), Ok(SignedDuration::from_secs(seconds)));
        }
        for wrong in [
            "",
            "d",
            "90",
            "0d",
            "-1d",
            "1.5h",
            "1w",
            "1h30m",
            "99999999999d",
            "1ü",
        ] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
