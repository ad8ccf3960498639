//! Who is let in: scopes, expiry, rotation, revocation, failures.

use jiff::{SignedDuration, ToSpan};

use super::{
    token::{LIFE, MAX_LIFE, RANDOM_BYTES},
    tokens::{TokenError, Tokens, Wish},
    *,
};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn wish(name: &str, scopes: &[Scope]) -> Wish {
    Wish {
        name: Some(name.to_owned()),
        scopes: Some(scopes.iter().copied().collect()),
        life: LIFE,
        replaces: None,
    }
}

fn successor(of: &str, name: Option<&str>) -> Wish {
    Wish {
        name: name.map(str::to_owned),
        scopes: None,
        life: LIFE,
        replaces: Some((of.to_owned(), HOUR)),
    }
}

/// A state directory with tokens in it.
struct Kept {
    state: tempfile::TempDir,
    access: Access,
}

impl Kept {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let access = Access::open(state.path()).unwrap();
        Self { state, access }
    }

    fn edit<T>(
        &self,
        change: impl FnOnce(&mut Tokens, &[u8; RANDOM_BYTES]) -> Result<T, TokenError>,
    ) -> Result<T, BookError> {
        let done = book::edit(&book::dir(self.state.path()).unwrap(), change);
        self.access.reload();
        done
    }

    fn create(&self, wish: Wish) -> String {
        let made = self.edit(|tokens, random| tokens.create(wish, Timestamp::now(), random));
        made.unwrap().1
    }

    fn admit(&self, token: &str, needed: Scope) -> Result<String, Denied> {
        self.admit_from(PEER, &format!("Bearer {token}"), needed)
    }

    fn admit_from(&self, peer: IpAddr, header: &str, needed: Scope) -> Result<String, Denied> {
        let headers = [(AUTHORIZATION, header.parse().unwrap())];
        self.access
            .admit(&HeaderMap::from_iter(headers), peer, needed)
    }
}

#[test]
fn a_token_opens_what_its_scopes_say_until_it_is_revoked() {
    let kept = Kept::new();
    assert!(!kept.access.has_valid(Timestamp::now()));
    let token = kept.create(wish("ci", &[Scope::Read, Scope::Deploy]));
    assert!(kept.access.has_valid(Timestamp::now()));
    assert!(!kept.access.has_valid(Timestamp::now() + LIFE));
    assert_eq!(kept.admit(&token, Scope::Read), Ok("ci".to_owned()));
    assert_eq!(
        kept.admit_from(PEER, &format!("bearer  {token} "), Scope::Deploy),
        Ok("ci".to_owned())
    );
    let denied = kept.admit(&token, Scope::Invoke).unwrap_err();
    assert_eq!(
        (denied.status().as_u16(), denied.code()),
        (403, "Forbidden")
    );
    assert!(denied.to_string().contains("the scope invoke"), "{denied}");
    assert!(
        denied
            .challenge()
            .unwrap()
            .to_str()
            .unwrap()
            .contains(r#"scope="invoke""#)
    );

    let other = format!("{}{}", &token[..token.len() - 2], "zz")
        .replace("zz", if token.ends_with("00") { "01" } else { "00" });
    assert_eq!(kept.admit(&other, Scope::Read), Err(Denied::Unknown));
    for (header, denied) in [
        ("Basic Zm9v", Denied::Malformed),
        ("Bearer", Denied::Malformed),
        ("Bearer faas_x", Denied::Malformed),
        (
            &*format!("Bearer faas_000000000000_{}", "0".repeat(64)),
            Denied::Unknown,
        ),
    ] {
        assert_eq!(
            kept.admit_from(PEER, header, Scope::Read),
            Err(denied),
            "{header}"
        );
    }
    let headers = HeaderMap::new();
    assert_eq!(
        kept.access.admit(&headers, PEER, Scope::Read),
        Err(Denied::NoToken)
    );
    let mut twice = HeaderMap::new();
    for _ in 0..2 {
        twice.append(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    }
    assert_eq!(
        kept.access.admit(&twice, PEER, Scope::Read),
        Err(Denied::Malformed)
    );

    kept.edit(|tokens, _| tokens.revoke("ci")).unwrap();
    assert_eq!(kept.admit(&token, Scope::Read), Err(Denied::Unknown));
    assert!(kept.edit(|tokens, _| tokens.revoke("ci")).is_err());
}

#[test]
fn a_file_that_cannot_be_read_lets_nobody_in() {
    let kept = Kept::new();
    let token = kept.create(wish("ci", &[Scope::Admin]));
    let file = book::file(&book::dir(kept.state.path()).unwrap());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(&token[18..]), "{text}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    assert!(kept.access.reload(), "it is read again when it changes");
    assert_eq!(kept.admit(&token, Scope::Read), Err(Denied::Unknown));
    std::fs::write(&file, text).unwrap();
    kept.access.reload();
    assert!(kept.admit(&token, Scope::Read).is_ok());
}

fn unread(errno: rustix::io::Errno) -> Result<Tokens, BookError> {
    Err(BookError::Path {
        path: "tokens.json".into(),
        error: errno.into(),
    })
}

#[test]
fn a_shortage_of_descriptors_locks_nobody_out_for_a_minute() {
    let kept = Kept::new();
    let token = kept.create(wish("ci", &[Scope::Admin]));
    let began = Instant::now();
    let after = |seconds| began + Duration::from_secs(seconds);
    let (short, broken) = (rustix::io::Errno::MFILE, rustix::io::Errno::IO);
    for (errno, seconds, is_good) in [
        (short, 0, true),
        (short, 59, true),
        (short, 60, false),
        // What is closed stays closed until it is read.
        (short, 61, false),
        (broken, 62, false),
    ] {
        let is_read = kept.access.known.take(unread(errno), after(seconds));
        assert!(!is_read, "it is tried again");
        let admitted = kept.admit(&token, Scope::Read).is_ok();
        assert_eq!(admitted, is_good, "{errno} after {seconds}s");
    }
    assert!(kept.access.reload());
    assert!(kept.admit(&token, Scope::Read).is_ok());
    // Anything else may be meant, and closes at once; so does damage, which trying again does not mend.
    assert!(!kept.access.known.take(unread(broken), after(0)));
    assert!(kept.admit(&token, Scope::Read).is_err());
}

#[test]
fn tokens_expire_and_are_replaced_with_an_overlap() {
    let (random, now) = ([1; RANDOM_BYTES], Timestamp::UNIX_EPOCH);
    let mut tokens = Tokens::default();
    let long = Wish {
        life: MAX_LIFE + HOUR,
        ..wish("a", &[Scope::Read])
    };
    assert_eq!(tokens.create(long, now, &random), Err(TokenError::TooLong));
    let (first, _) = tokens
        .create(wish("ci", &[Scope::Read]), now, &random)
        .unwrap();
    assert_eq!(first.expires, now + LIFE);
    let again = tokens.create(wish("ci", &[Scope::Read]), now, &random);
    assert_eq!(again, Err(TokenError::Exists("ci".into())));

    // The successor has name and scopes of the one before, whose end comes with the overlap.
    let later = now + 1.hour();
    let (second, _) = tokens
        .create(successor("ci", None), later, &[2; RANDOM_BYTES])
        .unwrap();
    assert_eq!((&*second.name, &second.scopes), ("ci", &first.scopes));
    assert_eq!(second.expires, later + LIFE);
    assert_eq!(tokens.0[0].expires, later + HOUR);
    // One that would end sooner still does.
    let third = successor("ci", Some("next"));
    let (third, _) = tokens
        .create(third, later + 30.minutes(), &[3; RANDOM_BYTES])
        .unwrap();
    assert_eq!((&*third.name, tokens.0[0].expires), ("next", later + HOUR));
    assert_eq!(tokens.0[1].expires, later + 90.minutes());

    assert_eq!(
        tokens.create(successor("nobody", None), later, &random),
        Err(TokenError::NotFound("nobody".into()))
    );
    let expired = tokens.create(successor("ci", None), later + 2.hours(), &random);
    assert_eq!(expired, Err(TokenError::NotFound("ci".into())));
    for name in ["", "A", "a b", "a\n", &"a".repeat(64)] {
        let made = tokens.create(wish(name, &[Scope::Read]), now, &random);
        assert_eq!(made, Err(TokenError::BadName(name.into())));
    }
    // A name is free again when its token has expired, which is forgotten a while later.
    let (month, later) = (SignedDuration::from_hours(31 * 24), later + 2.hours());
    tokens
        .create(wish("ci", &[Scope::Read]), later, &[4; RANDOM_BYTES])
        .unwrap();
    assert_eq!(tokens.0.len(), 4);
    tokens
        .create(
            wish("new", &[Scope::Read]),
            later + month,
            &[5; RANDOM_BYTES],
        )
        .unwrap();
    assert_eq!(tokens.0.len(), 3);
    assert_eq!(tokens.revoke(&third.id).unwrap(), [third]);
}

#[test]
fn an_expired_token_is_told_so() {
    let kept = Kept::new();
    let made = kept.edit(|tokens, random| {
        tokens.create(
            wish("old", &[Scope::Admin]),
            Timestamp::now() - LIFE - HOUR,
            random,
        )
    });
    let (token, text) = made.unwrap();
    let denied = kept.admit(&text, Scope::Read).unwrap_err();
    assert_eq!(
        denied,
        Denied::Expired {
            name: "old".into(),
            at: token.expires
        }
    );
    assert_eq!(denied.status(), StatusCode::UNAUTHORIZED);
    assert!(!kept.access.has_valid(Timestamp::now()));
}

#[test]
fn failures_are_limited_and_hurt_nobody_who_has_a_token() {
    let kept = Kept::new();
    let token = kept.create(wish("ci", &[Scope::Read]));
    let other: IpAddr = [192, 0, 2, 2].into();
    let bad = format!("Bearer faas_000000000000_{}", "0".repeat(64));
    for _ in 0..10 {
        assert_eq!(
            kept.admit_from(PEER, &bad, Scope::Read),
            Err(Denied::Unknown)
        );
    }
    let denied = kept.admit_from(PEER, &bad, Scope::Read).unwrap_err();
    assert_eq!(
        (denied.status().as_u16(), denied.code()),
        (429, "TooManyFailures")
    );
    assert!((1..=7).contains(&denied.retry_after().unwrap()));
    assert_eq!(
        kept.admit_from(other, &bad, Scope::Read),
        Err(Denied::Unknown)
    );
    assert!(
        kept.admit(&token, Scope::Read).is_ok(),
        "a neighbour behind the same address"
    );

    // Who guesses at a token's secret is limited, and its owner is not, behind the same address either.
    let guess = format!("Bearer {}{}", &token[..18], "0".repeat(64));
    for _ in 0..10 {
        assert_eq!(
            kept.admit_from(PEER, &guess, Scope::Read),
            Err(Denied::Unknown)
        );
    }
    let limited = kept.admit_from(PEER, &guess, Scope::Read);
    assert!(matches!(limited, Err(Denied::TooMany { .. })));
    let right = format!("Bearer {token}");
    assert!(kept.admit_from(PEER, &right, Scope::Read).is_ok());
    assert!(kept.admit_from(other, &right, Scope::Read).is_ok());

    // A scope that is missing is no failure of this kind.
    let denials = (0..20).map(|_| kept.admit_from(other, &right, Scope::Deploy));
    assert!(
        denials
            .into_iter()
            .all(|d| matches!(d, Err(Denied::Scope { .. })))
    );
}
