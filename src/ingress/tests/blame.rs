//! Whose fault it is: callers are told, and instances that did nothing wrong stay in service.

use super::*;
use crate::plan::Phase;

/// The words of an answer of the platform, which must have this status and code.
async fn told(served: &Served, request: &str, status: &str, code: &str) -> String {
    let answer = rest(served.send(request).await).await;
    refused(&answer, status, code, "");
    answer
}

fn phases(served: &Served) -> Vec<Phase> {
    let (instances, ..) = served.pool.look();
    instances.iter().map(|instance| instance.phase).collect()
}

/// The function may wait for the rest, or work on without it.
#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_its_callers_fault_and_ends_the_call_all_the_same() {
    let whole = "Connection: close\r\nContent-Length: 2\r\n\r\n{}";
    for (path, body, status, code) in [
        (
            "/function/sum/",
            "Content-Length: 3\r\n\r\n{}",
            "408",
            "BodyTimeout",
        ),
        (
            "/functions/sum",
            "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
            "408",
            "BodyTimeout",
        ),
        ("/function/sum/", whole, "504", "InstanceNotStopped"),
    ] {
        let served = Served::with(100, Scope::All, Duration::from_millis(500)).await;
        let _instance = served.instance(|_| false, "");
        let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{body}");
        let answer = told(&served, &request, status, code).await;
        assert!(answer.contains("spec.timeoutSeconds"), "{answer}");
        served.calls(0, 0).await;
        assert_eq!(phases(&served), [Phase::Condemned]);
        served.end().await;
    }
}

#[tokio::test]
async fn a_small_body_that_comes_slowly_holds_no_instance() {
    let served = Served::start(100).await;
    let _instance = served.instance(is_whole, HI);
    let head = "POST /functions/sum HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n";
    let mut slow = served.send(&format!("{head}{{")).await;
    let never = served.send(&format!("{head}{{")).await;
    served.settle().await;
    served.calls(0, 0).await;
    let hi = r#"{"response":"hi"}"#;
    let answer = rest(served.send(&format!("{head}{{}}")).await).await;
    assert!(answer.ends_with(hi), "{answer}");
    slow.write_all(b"}").await.unwrap();
    let answer = rest(slow).await;
    assert!(answer.ends_with(hi), "{answer}");
    refused(&rest(never).await, "408", "BodyTimeout", "too slowly");
    served.end().await;
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_gives_its_instance_back() {
    for (path, body) in [
        ("/function/sum/", "Content-Length: 100\r\n\r\n{}"),
        ("/functions/sum", "Content-Length: 100000\r\n\r\n{}"),
        (
            "/functions/sum",
            "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        ),
    ] {
        let served = Served::with(100, Scope::All, SOON).await;
        let _instance = served.instance(|_| false, "");
        let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{body}");
        let answer = told(&served, &request, "408", "BodyTimeout").await;
        assert!(answer.contains("too slowly"), "{answer}");
        served.calls(0, 0).await;
        assert_eq!(phases(&served), [Phase::Ready]);
        served.end().await;
    }
}

#[tokio::test]
async fn answers_that_are_none_are_told_in_words_that_help() {
    let get = "GET /function/sum/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let large: &str = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70_000)).leak();
    for (says, code, words) in [
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "BadResponse",
            "nothing asked for another protocol",
        ),
        (large, "BadResponse", "64 KiB, or has more than 200 fields"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "BadResponse",
            "a Content-Length and a Transfer-Encoding",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "BadResponse",
            "only chunked is known",
        ),
        ("", "InstanceLost", "closed the connection"),
    ] {
        let served = Served::start(100).await;
        let _instance = served.instance(|request| !request.is_empty(), says);
        let answer = told(&served, get, "502", code).await;
        assert!(answer.contains(words), "{answer}");
        let phases = phases(&served);
        assert!(
            matches!(phases[..], [Phase::Condemned | Phase::Broken(_)]),
            "{phases:?}"
        );
        served.end().await;
    }
}

/// The instance did not end, nor close anything.
#[tokio::test]
async fn an_answer_whose_pieces_are_garbled_is_told_as_one() {
    let raw = "GET /function/sum/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let call = "POST /functions/sum HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "x".repeat(100_000);
    for pieces in [
        "FFFFFFFFFFFFFFFFF\r\n".to_owned(),
        "zz\r\n".to_owned(),
        format!("1;{long}\r\na\r\n0\r\n\r\n"),
    ] {
        for request in [raw, call] {
            let says: &str = format!("{head}{pieces}").leak();
            let served = Served::start(100).await;
            let _instance = served.instance(|request| !request.is_empty(), says);
            told(&served, request, "502", "BadResponse").await;
            served.end().await;
        }
    }
}

#[tokio::test]
async fn callers_at_the_wrong_place_are_told_the_right_one() {
    let ask =
        |line: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let all = Served::start(100).await;
    for line in ["POST /functions/sum.nope", "GET /function/sum.nope/x"] {
        let answer = rest(all.send(&ask(line)).await).await;
        assert!(
            answer.contains(r#"\"sum\" in namespace \"nope\""#),
            "{answer}"
        );
    }
    all.end().await;

    let calls = "http://127.0.0.1:7777";
    let scope = Scope::Manage {
        calls: calls.to_owned(),
    };
    let manage = Served::with(100, scope, SOON).await;
    for path in ["/functions/sum", "/function/sum/x?y=z"] {
        let answer = told(&manage, &ask(&format!("POST {path}")), "404", "NotFound").await;
        let url = format!(r#""invoke":"{calls}{path}""#);
        assert!(answer.contains(&url), "{answer}");
    }
    manage.end().await;

    let invoke = Served::with(100, Scope::Invoke, SOON).await;
    let answer = told(&invoke, &ask("GET /status"), "404", "NotFound").await;
    assert!(
        answer.contains("answers calls and nothing else"),
        "{answer}"
    );
    invoke.end().await;
}
