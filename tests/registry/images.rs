//! Images that are appended: once, with everything that a build would yield, and theirs alone who own them.

use faas::builder::{BuildError, Builder};

use super::{
    bench::{Bench, HANDLER, Named, docker, fresh, provide, serving, small_base},
    proxy::{Fault, Proxy},
    server::Registry,
};

#[tokio::test]
async fn an_appended_image_is_what_a_build_yields_and_runs() {
    let registry = Registry::start();
    let base = provide(&registry.host(), "faas.local/node:22");
    let bench = Bench::new(&registry.host(), &base);
    let job = bench.job("sum", &[("index.js", HANDLER), ("lib/a b.js", &fresh())]);
    assert!(!bench.builder.exists(&job.image).await.unwrap());
    let reference = bench.build(&job).await.unwrap();
    let place = format!("{}/team/faas/default/sum@sha256:", registry.host());
    assert!(reference.starts_with(&place), "{reference}");
    assert!(bench.builder.exists(&job.image).await.unwrap());

    let _named = Named(reference.clone());
    docker(&["pull", "-q", &reference]);
    let listing = docker(&[
        "run",
        "--rm",
        &reference,
        "find",
        "/function",
        "/faas",
        "/.faas",
    ]);
    let mut listing: Vec<_> = listing.lines().collect();
    listing.sort_unstable();
    assert_eq!(
        listing,
        [
            "/.faas",
            "/.faas/init",
            "/faas",
            "/faas/shim.js",
            "/function",
            "/function/index.js",
            "/function/lib",
            "/function/lib/a b.js"
        ]
    );
    // Everything but the init is as an engine would have built it.
    let engine = super::bench::engine(&bench.settings.owner).await;
    let _pulled = Named(base.clone());
    engine.build(&job, bench.log.clone()).await.unwrap();
    let _built = Named(job.image.clone());
    for format in [
        "{{json .Config.Entrypoint}}{{json .Config.Cmd}}{{json .Config.Env}}{{.Config.WorkingDir}}",
        "{{index .Config.Labels \"faas.dev/owner\"}} {{index .Config.Labels \"faas.dev/image\"}}",
    ] {
        let of = |image: &str| docker(&["image", "inspect", "-f", format, image]);
        assert_eq!(of(&reference), of(&job.image));
    }
    let sum = "require('/function')({}, result => console.log(JSON.stringify(result)))";
    let answer = docker(&["run", "--rm", &reference, "node", "-e", sum]);
    assert_eq!(answer, r#"{"sum":1}"#);
}

#[tokio::test]
async fn equal_content_is_pushed_once_and_has_one_digest() {
    let registry = Registry::start();
    let base = small_base(&registry.host());
    let proxy = Proxy::before(&registry.host()).await;
    let bench = Bench::new(proxy.host(), &base);
    let job = bench.job("a", &[("index.js", HANDLER)]);
    let first = bench.build(&job).await.unwrap();
    proxy.asked();
    let log = bench.log.text();
    assert_eq!(bench.build(&job).await.unwrap(), first);
    assert_eq!(bench.log.text(), log, "it is there: no build, no word");
    let asked = proxy.asked();
    assert!(asked.iter().all(|line| !line.starts_with('P')), "{asked:?}");

    // Another Function with this content, and another controller, find it where it is.
    let other = bench.job("b.shop", &[("index.js", HANDLER)]);
    let restarted = Bench::with(bench.settings.clone(), &base);
    assert_eq!(restarted.build(&other).await.unwrap(), first);
    let images = restarted.builder.images().await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(
        (&images[0].name, &images[0].reference),
        (&job.image, &first)
    );

    // What went away is made again, and is the same.
    restarted.builder.remove(&job.image).await.unwrap();
    restarted.builder.remove(&job.image).await.unwrap();
    assert_eq!(bench.names().await, [""; 0]);
    assert!(!bench.builder.exists(&job.image).await.unwrap());
    assert_eq!(bench.build(&job).await.unwrap(), first);
    assert_eq!(bench.names().await, [job.image]);
}

#[tokio::test]
async fn a_base_image_is_copied_once_and_its_layers_are_mounted() {
    let upstream = Registry::start();
    let base = small_base(&upstream.host());
    let registry = Registry::start();
    let proxy = Proxy::before(&registry.host()).await;
    let bench = Bench::new(proxy.host(), &base);
    bench
        .build(&bench.job("a", &[("index.js", HANDLER)]))
        .await
        .unwrap();
    assert!(bench.log.text().contains("==> copy "));
    proxy.asked();
    // Nobody asks there any more.
    drop(upstream);
    let job = bench.job("b", &[("index.js", &fresh())]);
    let reference = bench.build(&job).await.unwrap();
    let asked = proxy.asked();
    let puts = asked
        .iter()
        .filter(|line| line.starts_with("PUT") && line.contains("/blobs/"));
    assert_eq!(
        puts.count(),
        3,
        "the init, the code and the configuration: {asked:?}"
    );
    assert!(
        asked.iter().any(|line| line.contains("mount=")),
        "{asked:?}"
    );
    assert_eq!(bench.log.text().matches("==> copy ").count(), 1);
    let reference = reference.replace(proxy.host(), &registry.host());
    let _named = Named(reference.clone());
    docker(&["pull", "-q", &reference]);
}

#[tokio::test]
async fn where_nothing_is_mounted_layers_are_copied() {
    let registry = Registry::start();
    let base = small_base(&registry.host());
    let proxy = Proxy::before(&registry.host()).await;
    proxy.fail(("POST", "mount=", Fault::Cut));
    let bench = Bench::new(proxy.host(), &base);
    let job = bench.job("a", &[("index.js", HANDLER)]);
    let reference = bench.build(&job).await.unwrap();
    let reference = reference.replace(proxy.host(), &registry.host());
    let _named = Named(reference.clone());
    docker(&["pull", "-q", &reference]);
}

#[tokio::test]
async fn images_of_other_owners_are_neither_listed_nor_removed() {
    let registry = Registry::start();
    let base = small_base(&registry.host());
    let [ours, theirs] = [(); 2].map(|()| Bench::new(&registry.host(), &base));
    let (our, their) = (
        ours.job("f", &[("index.js", HANDLER)]),
        theirs.job("f", &[("index.js", HANDLER)]),
    );
    ours.build(&our).await.unwrap();
    let reference = theirs.build(&their).await.unwrap();
    assert_eq!(ours.names().await, std::slice::from_ref(&our.image));
    for foreign in [&their.image, &reference, &base] {
        let error = ours.builder.remove(foreign).await.unwrap_err();
        assert!(matches!(error, BuildError::Refused(_)), "{error}");
    }
    ours.builder.remove(&our.image).await.unwrap();
    assert!(theirs.builder.exists(&their.image).await.unwrap());
    assert!(theirs.builder.exists(&reference).await.unwrap());
}

#[tokio::test]
async fn images_of_a_namespace_that_is_not_served_any_more_stay() {
    let registry = Registry::start();
    let base = small_base(&registry.host());
    let all = Bench::new(&registry.host(), &base);
    let one = Bench::with(serving(&all.settings, "shop"), &base);
    let jobs = ["shop/f", "office/f"].map(|name| all.job(name, &[("index.js", &fresh())]));
    for job in &jobs {
        all.build(job).await.unwrap();
    }
    assert_eq!(one.names().await.len(), 2);
    for job in &jobs {
        one.builder.remove(&job.image).await.unwrap();
    }
    assert_eq!(one.names().await, [""; 0], "it is not tried for ever");
    assert_eq!(all.names().await, [jobs[1].image.clone()]);
    assert!(one.builder.exists(&jobs[1].image).await.unwrap());
}

#[tokio::test]
async fn a_ready_image_is_looked_for_and_run_by_digest() {
    let registry = Registry::start();
    let base = small_base(&registry.host());
    let mut bench = Bench::new(&registry.host(), &base);
    bench.settings.pull = "nodes.example:5000/faas".parse().unwrap();
    let bench = Bench::with(bench.settings, &base);
    let log = bench.log.clone();
    let pulled = bench.builder.pull(&base, log.clone()).await.unwrap();
    let name = base.trim_end_matches(":1");
    assert!(pulled.starts_with(&format!("{name}@sha256:")), "{pulled}");
    assert_eq!(
        bench.builder.pull(&pulled, log.clone()).await.unwrap(),
        pulled
    );

    // The image of a Function is for nobody else, however it is named.
    let job = bench.job("f", &[("index.js", HANDLER)]);
    let reference = bench.build(&job).await.unwrap();
    assert!(reference.starts_with("nodes.example:5000/faas/default/f@sha256:"));
    let pushed = reference.replace(
        "nodes.example:5000/faas",
        &format!("{}/team/faas", registry.host()),
    );
    for name in [&reference, &pushed] {
        let error = bench.builder.pull(name, log.clone()).await.unwrap_err();
        assert!(matches!(error, BuildError::Refused(_)), "{error}");
    }
    let absent = format!("{}/upstream/absent:1", registry.host());
    let error = bench.builder.pull(&absent, log.clone()).await.unwrap_err();
    assert!(matches!(error, BuildError::Pull { .. }), "{error}");
    let stands_on_it = Bench::with(bench.settings.clone(), &pushed);
    let job = stands_on_it.job("g", &[("index.js", HANDLER)]);
    let error = stands_on_it.build(&job).await.unwrap_err();
    assert!(matches!(error, BuildError::Refused(_)), "{error}");
}

#[tokio::test]
async fn an_image_that_the_registry_will_not_delete_is_left_alone() {
    let registry = Registry::that_keeps();
    let base = small_base(&registry.host());
    let bench = Bench::new(&registry.host(), &base);
    let job = bench.job("f", &[("index.js", HANDLER)]);
    let reference = bench.build(&job).await.unwrap();
    bench.builder.remove(&job.image).await.unwrap();
    assert_eq!(bench.names().await, [""; 0], "nobody tries again and again");
    assert_eq!(bench.build(&job).await.unwrap(), reference);
    assert_eq!(bench.names().await, [job.image]);
}
