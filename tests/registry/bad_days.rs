//! A registry that is away, slow, full or refuses is told with its words, without any secret, and is no worse afterwards.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use faas::builder::{BuildError, Builder};

use super::{
    bench::{Bench, HANDLER, fresh, settings, small_base},
    proxy::{Fault, Proxy},
    server::{FIRST, Registry, SECOND},
};

#[tokio::test]
async fn a_registry_that_is_away_is_told_and_works_when_it_is_back() {
    let mut registry = Registry::start();
    let base = small_base(&registry.host());
    let bench = Bench::new(&registry.host(), &base);
    let job = bench.job("f", &[("index.js", HANDLER)]);
    registry.stop();
    for error in [
        bench.build(&job).await.unwrap_err(),
        bench.builder.images().await.unwrap_err(),
        bench.builder.remove(&job.image).await.unwrap_err(),
    ] {
        assert!(matches!(error, BuildError::RegistryAway(_)), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(&registry.host()) && text.contains("refused"),
            "{text}"
        );
    }
    registry.run();
    bench.build(&job).await.unwrap();
}

/// Method, part of the path, status and words of an answer, and what of it is told.
type Case = (&'static str, &'static str, u16, &'static str, &'static str);

#[tokio::test]
async fn what_a_registry_answers_is_told_and_the_next_try_works() {
    let registry = Registry::start();
    let base = small_base(&registry.host());
    let proxy = Proxy::before(&registry.host()).await;
    let bench = Bench::new(proxy.host(), &base);
    let denied = r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#;
    let cases: [Case; 8] = [
        ("POST", "/uploads/", 403, denied, "refuses: begin an upload"),
        ("PUT", "/blobs/", 413, "too much", "raise the limit"),
        ("PUT", "/manifests/", 404, "", "made beforehand"),
        ("PUT", "/blobs/", 429, "slow down", "429 slow down"),
        ("HEAD", "/blobs/", 500, "", "500"),
        ("PUT", "/manifests/", 503, "later", "503 later"),
        ("PUT", "/blobs/", 507, "quota", "507 quota"),
        ("PUT", "/blobs/", 500, "no space left on device", "no space"),
    ];
    for (method, part, status, body, expected) in cases {
        let job = bench.job("f", &[("index.js", &fresh())]);
        proxy.fail((method, part, Fault::Answer(status, body)));
        let error = bench.build(&job).await.unwrap_err();
        let kind = match status {
            429 | 503 => matches!(error, BuildError::RegistryAway(_)),
            500 if body.is_empty() => matches!(error, BuildError::RegistryAway(_)),
            500 | 507 => matches!(error, BuildError::NoSpace(_)),
            _ => matches!(error, BuildError::RegistryRefused(_)),
        };
        let text = error.to_string();
        assert!(kind && text.contains(expected), "{status}: {error:?}");
        assert!(!bench.names().await.contains(&job.image));
        proxy.fail(None);
        bench.build(&job).await.unwrap();
    }
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_given_up_in_time() {
    let registry = Registry::start();
    let base = small_base(&registry.host());
    let proxy = Proxy::before(&registry.host()).await;
    let mut settings = settings(proxy.host());
    settings.patience = Duration::from_secs(1);
    let bench = Bench::with(settings, &base);
    for (method, part) in [
        ("GET", "/manifests/"),
        ("POST", "/uploads/"),
        ("PUT", "/blobs/"),
    ] {
        let job = bench.job("f", &[("index.js", &fresh())]);
        proxy.fail((method, part, Fault::Hang));
        let error = bench.build(&job).await.unwrap_err();
        assert!(matches!(error, BuildError::RegistryAway(_)), "{error:?}");
        assert!(
            error.to_string().contains("did not answer in time"),
            "{error}"
        );
    }
    proxy.fail(("GET", "/tags/list", Fault::Hang));
    let error = bench.builder.images().await.unwrap_err();
    assert!(matches!(error, BuildError::RegistryAway(_)), "{error:?}");
}

#[tokio::test]
async fn credentials_are_sent_read_again_and_never_shown() {
    let mut registry = Registry::with_password(FIRST);
    let upstream = Registry::start();
    let base = small_base(&upstream.host());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let write = |password: &str| {
        let pair = STANDARD.encode(format!("faas:{password}"));
        let auths = serde_json::json!({"auths": {registry.host(): {"auth": pair}}});
        std::fs::write(&file, auths.to_string()).unwrap();
        pair
    };
    let pair = write(FIRST.0);
    let mut settings = settings(&registry.host());
    let anonymous = Bench::with(settings.clone(), &base);
    let job = anonymous.job("f", &[("index.js", HANDLER)]);
    let error = anonymous.build(&job).await.unwrap_err();
    assert!(matches!(error, BuildError::RegistryRefused(_)), "{error:?}");
    assert!(error.to_string().contains("--registry-auth"), "{error}");

    settings.auth = Some(file.clone());
    let bench = Bench::with(settings, &base);
    bench.build(&job).await.unwrap();
    let later = write(SECOND.0);
    let error = bench
        .build(&bench.job("f", &[("index.js", &fresh())]))
        .await;
    let text = format!("{error:?}");
    assert!(
        matches!(error, Err(BuildError::RegistryRefused(_))),
        "{text}"
    );
    for secret in [FIRST.0, SECOND.0, &pair, &later] {
        assert!(!text.contains(secret), "{text}");
    }
    registry.stop();
    registry.accept(SECOND);
    registry.run();
    bench
        .build(&bench.job("f", &[("index.js", &fresh())]))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_registry_that_wants_tokens_gets_them() {
    let registry = Registry::start();
    let base = small_base(&registry.host());
    let proxy = Proxy::before(&registry.host()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let pair = STANDARD.encode("faas:secret");
    let auths = serde_json::json!({"auths": {proxy.host(): {"auth": pair}}});
    std::fs::write(&file, auths.to_string()).unwrap();
    proxy.want_token(format!("Basic {pair}"), "one");
    let mut settings = settings(proxy.host());
    let anonymous = Bench::with(settings.clone(), &base);
    let job = anonymous.job("f", &[("index.js", HANDLER)]);
    let error = anonymous.build(&job).await.unwrap_err();
    assert!(matches!(error, BuildError::RegistryRefused(_)), "{error:?}");

    settings.auth = Some(file);
    let bench = Bench::with(settings, &base);
    bench.build(&job).await.unwrap();
    let asked = proxy.asked();
    let tokens = asked.iter().filter(|line| line.contains("/token"));
    assert!(
        tokens.count() < 10,
        "a token is for more than one request: {asked:?}"
    );
    // One that is over is replaced.
    proxy.want_token(format!("Basic {pair}"), "two");
    bench
        .build(&bench.job("f", &[("index.js", &fresh())]))
        .await
        .unwrap();
}
