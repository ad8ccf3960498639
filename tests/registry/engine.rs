//! What must run commands is built by an engine and pushed; what is appended is fetched by the engine that runs it.

use base64::{Engine, engine::general_purpose::STANDARD};
use faas::builder::{
    BuildEnvironment, BuildError, Builder,
    docker::{DockerBuilder, EngineHost},
    recipe::Language,
    registry::{LocalBuilder, RegistryBuilder},
};
use tokio::net::{TcpListener, UnixStream};

use super::{
    bench::{Bench, HANDLER, Named, docker, engine, fresh, settings, small_base, socket},
    server::{FIRST, Registry},
};

/// The engine behind a port, as on another machine.
async fn engine_by_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut engine = UnixStream::connect(socket()).await.unwrap();
                tokio::io::copy_bidirectional(&mut caller, &mut engine).await
            });
        }
    });
    address
}

#[tokio::test]
async fn engines_push_and_fetch_with_the_credentials() {
    let upstream = Registry::start();
    let base = small_base(&upstream.host());
    let registry = Registry::with_password(FIRST);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let pair = STANDARD.encode("faas:first");
    let auths = serde_json::json!({"auths": {registry.host(): {"auth": pair}}});
    std::fs::write(&file, auths.to_string()).unwrap();
    let text = format!("FROM busybox:1\nRUN echo {} > /made\n", fresh());
    for auth in [None, Some(file)] {
        let mut settings = settings(&registry.host());
        settings.auth.clone_from(&auth);
        let bench = Bench::with(settings, &base);
        let owner = &bench.settings.owner;
        let pushed = RegistryBuilder::new(bench.settings.clone(), Some(engine(owner).await));
        let builder = LocalBuilder::new(pushed, engine(owner).await);
        for job in [
            bench.job_of(Language::Dockerfile, "d", &[("Dockerfile", &text)]),
            bench.job("f", &[("index.js", &fresh())]),
        ] {
            let built = builder.build(&job, bench.log.clone()).await;
            let _named = Named(job.image.clone());
            if auth.is_some() {
                assert_eq!(built.as_ref(), Ok(&job.image));
                docker(&["run", "--rm", &job.image, "test", "-x", "/.faas/init"]);
                continue;
            }
            let error = built.unwrap_err();
            assert!(matches!(error, BuildError::RegistryRefused(_)), "{error:?}");
            assert_eq!(engine(owner).await.images().await.unwrap(), []);
        }
    }
}

#[tokio::test]
async fn what_runs_commands_needs_a_build_host_and_is_pushed_by_it() {
    let registry = Registry::start();
    let base = small_base(&registry.host());
    let bench = Bench::new(&registry.host(), &base);
    let marker = fresh();
    let text = format!("FROM busybox:1\nRUN echo {marker} > /made\nCMD [\"cat\", \"/made\"]\n");
    let job = bench.job_of(Language::Dockerfile, "d", &[("Dockerfile", &text)]);
    let error = bench.build(&job).await.unwrap_err();
    assert!(matches!(error, BuildError::Refused(_)), "{error:?}");
    assert!(error.to_string().contains("--build-host"), "{error}");

    let host: EngineHost = engine_by_port().await.parse().unwrap();
    let (owner, site) = (&bench.settings.owner, BuildEnvironment::default());
    let host = DockerBuilder::connect(host, owner, b"key", site).await;
    let builder = RegistryBuilder::new(bench.settings.clone(), Some(host.unwrap()));
    let reference = builder.build(&job, bench.log.clone()).await.unwrap();
    let steps = format!("{}/team/faas/steps", registry.host());
    let digest = job.image.rsplit(':').next().unwrap();
    let step = format!("{steps}:{}-{digest}", bench.settings.owner);
    assert!(!builder.exists(&step).await.unwrap());
    let log = bench.log.text();
    assert_eq!(
        builder.build(&job, bench.log.clone()).await.unwrap(),
        reference
    );
    assert_eq!(bench.log.text(), log, "it is there: no build, no word");
    // The engine keeps neither the image nor a name.
    assert_eq!(
        engine(&bench.settings.owner).await.images().await.unwrap(),
        []
    );
    let _named = Named(reference.clone());
    docker(&["pull", "-q", &reference]);
    assert_eq!(docker(&["run", "--rm", &reference]), marker);
    docker(&["run", "--rm", &reference, "test", "-x", "/.faas/init"]);
    builder.remove(&job.image).await.unwrap();
    assert!(!builder.exists(&job.image).await.unwrap());
}

#[tokio::test]
async fn a_step_that_was_left_behind_goes_at_the_next_start() {
    let registry = Registry::start();
    let bench = Bench::new(&registry.host(), &small_base(&registry.host()));
    let place = format!("{}/team/faas/steps", registry.host());
    let [ours, theirs] = [&bench.settings.owner, &fresh()].map(|owner| {
        let name = format!("{place}:{owner}-{}", fresh());
        let text = format!("FROM faas.local/busybox:1\nLABEL owner={owner}\n");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Dockerfile"), text).unwrap();
        docker(&["build", "-q", "-t", &name, dir.path().to_str().unwrap()]);
        docker(&["push", "-q", &name]);
        Named(name)
    });
    let host = engine(&bench.settings.owner).await;
    let builder = RegistryBuilder::new(bench.settings.clone(), Some(host));
    builder.sweep().await;
    assert!(!builder.exists(&ours.0).await.unwrap());
    assert!(builder.exists(&theirs.0).await.unwrap());
}

#[tokio::test]
async fn an_engine_that_runs_what_is_appended_fetches_it() {
    let mut registry = Registry::start();
    let base = small_base(&registry.host());
    let bench = Bench::new(&registry.host(), &base);
    let made = || async {
        let pushed = RegistryBuilder::new(bench.settings.clone(), None);
        LocalBuilder::new(pushed, engine(&bench.settings.owner).await)
    };
    let builder = made().await;
    let job = bench.job("f", &[("index.js", HANDLER)]);
    let reference = builder.build(&job, bench.log.clone()).await.unwrap();
    assert_eq!(reference, job.image);
    let _named = Named(job.image.clone());
    docker(&[
        "run",
        "--rm",
        &job.image,
        "test",
        "-f",
        "/function/index.js",
    ]);
    let listed = builder.images().await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");

    // It is here: the registry is not missed.
    registry.stop();
    builder.build(&job, bench.log.clone()).await.unwrap();
    assert_eq!(builder.images().await.unwrap(), listed);
    registry.run();
    builder.remove(&job.image).await.unwrap();
    assert_eq!(builder.images().await.unwrap(), []);
    assert!(!builder.exists(&job.image).await.unwrap());
}
