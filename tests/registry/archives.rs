//! Uploads in a registry: whoever has the turn gets them, and nobody else's.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use faas::builder::{
    archives::{Archives, ArchivesError},
    registry::RegistryArchives,
};

use super::{
    bench::{context, fresh, serving, settings},
    proxy::{Fault, Proxy},
    server::Registry,
};

#[tokio::test]
async fn an_upload_is_had_by_any_controller_of_its_owner_and_namespace() {
    let registry = Registry::start();
    let settings = settings(&registry.host());
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [one, other, theirs] = [0, 1, 2].map(|at| {
        let mut settings = settings.clone();
        if at == 2 {
            settings.owner = fresh();
        }
        RegistryArchives::new(settings, dirs[at].path().to_owned())
    });
    let context = context(&[("index.js", &fresh())]);
    let digest = context.digest();
    assert_eq!(one.get("shop", digest).await, Ok(None));
    one.put("shop", &context).await.unwrap();
    one.put("shop", &context).await.unwrap();
    for archives in [&one, &other] {
        let got = archives.get("shop", digest).await.unwrap();
        assert_eq!(got.as_ref(), Some(&context));
        assert_eq!(archives.get("office", digest).await, Ok(None));
    }
    assert_eq!(theirs.get("shop", digest).await, Ok(None));

    // What is needed stays, what is new too, and so do those of others.
    theirs.put("shop", &context).await.unwrap();
    let (past, future) = (
        SystemTime::now() - Duration::from_secs(60),
        SystemTime::now() + Duration::from_secs(60),
    );
    let needed = HashSet::from([("shop".to_owned(), digest.to_owned())]);
    one.collect(&needed, future).await.unwrap();
    one.collect(&HashSet::new(), past).await.unwrap();
    assert!(one.get("shop", digest).await.unwrap().is_some());
    one.collect(&HashSet::new(), future).await.unwrap();
    assert_eq!(one.get("shop", digest).await, Ok(None));
    assert!(theirs.get("shop", digest).await.unwrap().is_some());
}

#[tokio::test]
async fn uploads_of_a_namespace_that_is_not_served_any_more_stay() {
    let registry = Registry::start();
    let settings = settings(&registry.host());
    let dir = tempfile::tempdir().unwrap();
    let all = RegistryArchives::new(settings.clone(), dir.path().to_owned());
    let context = context(&[("index.js", &fresh())]);
    for namespace in ["shop", "office"] {
        all.put(namespace, &context).await.unwrap();
    }
    // It knows of no Function in the office.
    let dir = tempfile::tempdir().unwrap();
    let one = RegistryArchives::new(serving(&settings, "shop"), dir.path().to_owned());
    let future = SystemTime::now() + Duration::from_secs(60);
    one.collect(&HashSet::new(), future).await.unwrap();
    let digest = context.digest();
    assert_eq!(one.get("shop", digest).await, Ok(None));
    assert_eq!(one.get("office", digest).await, Ok(Some(context.clone())));
}

#[tokio::test]
async fn a_registry_that_takes_no_upload_says_why() {
    let registry = Registry::start();
    let proxy = Proxy::before(&registry.host()).await;
    let dir = tempfile::tempdir().unwrap();
    let archives = RegistryArchives::new(settings(proxy.host()), dir.path().to_owned());
    let context = context(&[("index.js", &fresh())]);
    proxy.fail(("PUT", "/blobs/", Fault::Answer(507, "quota")));
    let error = archives.put("shop", &context).await.unwrap_err();
    assert!(matches!(error, ArchivesError::Full(_)), "{error:?}");
    proxy.fail(("GET", "/manifests/", Fault::Answer(503, "later")));
    let error = archives.get("shop", context.digest()).await.unwrap_err();
    assert!(matches!(error, ArchivesError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("503 later"), "{error}");
    proxy.fail(None);
    archives.put("shop", &context).await.unwrap();
    assert!(
        archives
            .get("shop", context.digest())
            .await
            .unwrap()
            .is_some()
    );
}
