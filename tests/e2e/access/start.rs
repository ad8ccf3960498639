//! What a server needs before it listens where others can reach it.

use std::{fs, process::Stdio, thread, time::Duration};

use super::{tls::Pair, *};

/// Between two looks whether a start has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Files that a start may be given.
struct Given {
    home: Home,
    tls: Pair,
    other: Pair,
}

impl Given {
    fn new() -> Self {
        let home = Home::new();
        let (tls, other) = (Pair::new(&home, "tls"), Pair::new(&home, "other"));
        fs::write(home.secrets().join("empty"), "").unwrap();
        Self { home, tls, other }
    }

    /// A start with these flags ends like this, and says these words. Values that begin with @ are files of ours.
    fn is_refused(&self, flags: &str, code: i32, expected: &str) {
        let file = |name: &str| match name {
            "@cert" => self.tls.cert.clone(),
            "@key" => self.tls.key.clone(),
            "@other" => self.other.key.clone(),
            name => self.home.secrets().join(&name[1..]),
        };
        let mut start = Start::default().with("--runtime", "process");
        let words: Vec<_> = flags.split(' ').collect();
        for pair in words.chunks(2) {
            start = if pair[1].starts_with('@') {
                start.with(pair[0], file(pair[1]))
            } else {
                start.with(pair[0], pair[1])
            };
        }
        let mut command = start.command(&self.home);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let end = Instant::now() + SOON;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                child.kill().unwrap();
            }
            thread::park_timeout(LOOK);
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{flags}: {said}");
        assert!(
            said.contains(expected),
            "{flags}: no {expected:?} in\n{said}"
        );
    }
}

#[test]
fn an_address_that_others_reach_needs_tls_and_a_token() {
    let given = Given::new();
    let public = |more: &str| format!("--listen 0.0.0.0:0 {more}");
    let tls = public("--tls-cert @cert --tls-key @key");
    given.is_refused("--listen 0.0.0.0:0", 1, "0.0.0.0:0 is no loopback address");
    given.is_refused(
        "--listen 0.0.0.0:0",
        1,
        "--tls-cert FILE and --tls-key FILE",
    );
    given.is_refused("--listen 0.0.0.0:0", 1, "openssl req -x509");
    given.is_refused("--invoke-listen [::]:0", 1, "[::]:0 is no loopback address");
    given.is_refused(&public("--tls-cert @cert"), 2, "--tls-key");
    given.is_refused(&public("--tls-key @key"), 2, "--tls-cert");
    let state = given.home.state();
    let make = format!(
        "faas token create admin --scope admin --state-dir {}",
        state.display()
    );
    for flags in [&tls, "--auth token"] {
        given.is_refused(flags, 1, &make);
    }
    // One that has expired opens nothing.
    token(&given.home, "create old --scope admin --expires 1s");
    let end = Instant::now() + SOON;
    while !token(&given.home, "list").contains("expired") {
        assert!(Instant::now() < end, "it does not expire");
    }
    given.is_refused(&tls, 1, "there is no valid one");

    with_scope(&given.home, "admin");
    for (pair, expected) in [
        ("--tls-cert @cert --tls-key @other", "cannot be used"),
        ("--tls-cert @nothing --tls-key @key", "cannot read"),
        ("--tls-cert @cert --tls-key @nothing", "cannot read"),
        ("--tls-cert @empty --tls-key @key", "no PEM certificate"),
        ("--tls-cert @cert --tls-key @empty", "no PEM key"),
        ("--tls-cert @key --tls-key @cert", "no PEM certificate"),
    ] {
        given.is_refused(&public(pair), 1, expected);
    }
}

#[test]
fn wishes_for_tokens_that_are_not_granted_are_explained() {
    let home = Home::new();
    with_scope(&home, "read");
    for (words, code, expected) in [
        ("create", 2, "<NAME>"),
        ("create a", 2, "--scope"),
        ("create a --scope write", 2, "read, invoke, deploy, admin"),
        ("create a --scope read --expires 400d", 1, "at most 366d"),
        ("create a --scope read --expires soon", 2, "90d"),
        ("create a --scope read --overlap 1h", 2, "--replaces"),
        ("create A --scope read", 1, "no name"),
        ("create read --scope read", 1, "--replaces read"),
        ("create --replaces nobody", 1, "no token \"nobody\""),
        ("revoke nobody", 1, "no token \"nobody\""),
        ("revoke", 2, "NAME|ID"),
    ] {
        let typed = type_token(&home, words);
        assert_eq!(typed.code, Some(code), "{words}: {}", typed.err);
        assert!(
            typed.err.contains(expected),
            "{words}: no {expected:?} in\n{}",
            typed.err
        );
        assert_eq!(typed.out, "");
    }
}
