//! What a Secret that lets callers in holds: keys and values. Certificate and key have the names that Secrets of the type
//! `kubernetes.io/tls` have.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};

use crate::access::{
    token::{self, MAX_LIFE, RANDOM_BYTES, Scope},
    tokens::{TokenError, Tokens, Wish},
};

pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";
/// Digests of the tokens, as in a state directory.
pub(super) const TOKENS: &str = "tokens.json";
/// The text of the administrators' token, for those who may read the Secret. Without it, it is not renewed.
pub(super) const TOKEN: &str = "token";
/// Whose token that is.
const ADMIN: &str = "admin";
/// When the administrators' token is renewed, and how long the one before lives on.
const RENEWED: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How many years a certificate lasts. Callers trust it alone, and it is replaced by taking it out of the Secret.
const YEARS: i32 = 10;

/// Why something cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NotMade {
    #[error("no certificate can be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    #[error("no token can be made: {0}")]
    Token(#[from] TokenError),
}

/// Keys and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content(pub BTreeMap<String, Vec<u8>>);

impl Content {
    /// Makes what is missing, and the administrators' token anew before it ends; answers whether it made something.
    pub fn complete(&mut self, hosts: &[String], now: Timestamp) -> Result<bool, NotMade> {
        let before = self.clone();
        if !self.has(CERTIFICATE) || !self.has(KEY) {
            let (certificate, key) = certificate(hosts, now)?;
            self.put(CERTIFICATE, certificate);
            self.put(KEY, key);
        }
        if self.has(TOKENS) {
            self.renew(now)?;
        } else {
            self.admit(Tokens::default(), None, now)?;
        }
        Ok(*self != before)
    }

    /// Whether it is all that listeners need.
    pub fn is_whole(&self) -> bool {
        [CERTIFICATE, KEY, TOKENS].iter().all(|key| self.has(key))
    }

    fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|value| !value.is_empty())
    }

    fn put(&mut self, key: &str, text: String) {
        self.0.insert(key.to_owned(), text.into_bytes());
    }

    /// Tokens that cannot be understood, and a token that was revoked, are somebody's doing and stay as they are.
    fn renew(&mut self, now: Timestamp) -> Result<(), NotMade> {
        let value = |key| self.0.get(key).map(Vec::as_slice).unwrap_or_default();
        let text = String::from_utf8_lossy(value(TOKEN));
        let Some(id) = token::id(text.trim()) else {
            return Ok(());
        };
        let Ok(tokens) = serde_json::from_slice::<Tokens>(value(TOKENS)) else {
            return Ok(());
        };
        match tokens.0.iter().find(|token| token.id == id) {
            Some(token) if token.expires <= now => self.admit(tokens, None, now),
            Some(token) if token.expires <= now + RENEWED => {
                let last = token.name.clone();
                self.admit(tokens, Some(last), now)
            }
            _ => Ok(()),
        }
    }

    /// A token for administrators, in place of the last one.
    fn admit(
        &mut self,
        mut tokens: Tokens,
        last: Option<String>,
        now: Timestamp,
    ) -> Result<(), NotMade> {
        let wish = Wish {
            name: Some(last.clone().unwrap_or_else(|| ADMIN.to_owned())),
            scopes: Some([Scope::Admin].into_iter().collect()),
            life: MAX_LIFE,
            replaces: last.map(|last| (last, RENEWED)),
        };
        let (_, text) = tokens.create(wish, now, &random()?)?;
        self.put(TOKENS, self::text(&tokens));
        self.put(TOKEN, text);
        Ok(())
    }
}

/// As they are kept.
pub(super) fn text(tokens: &Tokens) -> String {
    serde_json::to_string_pretty(tokens).expect("tokens are JSON")
}

pub(super) fn random() -> Result<[u8; RANDOM_BYTES], NotMade> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random)?;
    Ok(random)
}

/// A certificate that vouches for itself and for nothing else, and its key.
fn certificate(hosts: &[String], now: Timestamp) -> Result<(String, String), NotMade> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "faas");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Clocks of callers may be a little late.
    let yesterday = date(now - SignedDuration::from_hours(24));
    params.not_before = rcgen::date_time_ymd(yesterday.0, yesterday.1, 1);
    params.not_after = rcgen::date_time_ymd(yesterday.0 + YEARS, yesterday.1, 1);
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Year and month.
fn date(at: Timestamp) -> (i32, u8) {
    let date = at.to_zoned(TimeZone::UTC).date();
    (date.year().into(), date.month().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(content: &Content) -> Tokens {
        serde_json::from_slice(&content.0[TOKENS]).unwrap()
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_there_stays() {
        let hosts = ["faas.faas-system.svc".to_owned(), "127.0.0.1".to_owned()];
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let mut content = Content::default();
        assert!(!content.is_whole());
        assert!(content.complete(&hosts, now).unwrap());
        assert!(content.is_whole());
        let whole = content.clone();
        assert!(
            !content.complete(&hosts, now).unwrap(),
            "nothing is missing"
        );
        assert_eq!(content, whole);

        content.0.remove(CERTIFICATE);
        assert!(content.complete(&hosts, now).unwrap());
        assert_ne!(content.0[KEY], whole.0[KEY], "a pair belongs together");
        assert_eq!(content.0[TOKENS], whole.0[TOKENS]);

        let [token] = &*tokens(&whole).0 else {
            panic!("one token");
        };
        assert!(token.is(std::str::from_utf8(&whole.0[TOKEN]).unwrap()));
        assert!(token.scopes.allow(Scope::Invoke));
    }

    #[test]
    fn the_administrators_token_is_renewed_before_it_ends_and_after() {
        let start: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let mut made = Content::default();
        made.complete(&[], start).unwrap();
        let end = start + MAX_LIFE;
        for (now, renewed) in [
            (end - RENEWED - SignedDuration::from_secs(1), false),
            (end - RENEWED, true),
            (end + RENEWED, true),
        ] {
            let mut content = made.clone();
            assert_eq!(content.complete(&[], now).unwrap(), renewed, "{now}");
            let text = String::from_utf8(content.0[TOKEN].clone()).unwrap();
            let living = tokens(&content)
                .0
                .into_iter()
                .rfind(|token| token.is(&text));
            assert!(living.unwrap().expires > now);
            let kept = tokens(&content).0.iter().any(|token| token.expires == end);
            assert!(
                kept || now > end,
                "the one before ends when it would anyway"
            );
        }
    }

    #[test]
    fn what_somebody_did_to_tokens_stays() {
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let mut made = Content::default();
        made.complete(&[], now).unwrap();
        let late = now + MAX_LIFE;
        for (key, value) in [(TOKENS, "[]"), (TOKENS, "{"), (TOKEN, ""), (TOKEN, "?")] {
            let mut content = made.clone();
            content.put(key, value.to_owned());
            assert!(!content.complete(&[], late).unwrap(), "{key} {value:?}");
        }
    }
}
