//! The contract of the builder, against the real engine and with both of its builders.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::Engine;
use bytes::Bytes;
use faas::builder::{
    BaseImages, BuildEnvironment, BuildError, BuildJob, BuildLog, Builder,
    archive::{Context, Limits},
    docker::{DockerBuilder, Flavour},
    recipe::{BuildSpec, Language, Recipe},
};

const FLAVOURS: [Flavour; 2] = [Flavour::Classic, Flavour::BuildKit];

/// Collects a log.
#[derive(Default)]
struct Log(Mutex<Vec<u8>>);

impl BuildLog for Log {
    fn write(&self, piece: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(piece);
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// A builder of an owner of its own; what it built goes when the test ends, however it ends.
struct Bench {
    builder: DockerBuilder,
    owner: String,
    log: Arc<Log>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let filter = format!("label=faas.dev/owner={}", self.owner);
        // One of two names is listed twice, and what fails here has been told by the test.
        let ids = try_docker(&["images", "-q", "--filter", &filter]);
        for id in ids.unwrap_or_default().split_whitespace() {
            let _ = try_docker(&["rmi", "-f", id]);
        }
    }
}

impl Bench {
    /// Without a flavour: with the builder that the engine names.
    async fn new(flavour: impl Into<Option<Flavour>>, environment: BuildEnvironment) -> Self {
        let owner = uuid::Uuid::new_v4().simple().to_string()[..16].to_owned();
        let mut builder =
            DockerBuilder::connect(socket().as_path(), &owner, owner.as_bytes(), environment)
                .await
                .expect("these tests need a Docker engine");
        if let Some(flavour) = flavour.into() {
            builder = builder.with_flavour(flavour);
        }
        let log = Arc::default();
        Self {
            builder,
            owner,
            log,
        }
    }

    fn job(&self, language: Language, files: &[(&str, &str)]) -> BuildJob {
        self.job_of(language, context(files))
    }

    fn job_of(&self, language: Language, context: Context) -> BuildJob {
        let recipe = Recipe::new(language, &context, &BuildSpec::default(), &bases()).unwrap();
        BuildJob {
            function: "f".parse().unwrap(),
            image: recipe.image_name(&self.owner, &context),
            context: Arc::new(context),
            recipe,
            timeout: Duration::from_secs(300),
        }
    }

    async fn build(&self, job: &BuildJob) -> Result<(), BuildError> {
        let built = self.builder.build(job, self.log.clone()).await;
        built.map(|reference| assert_eq!(reference, job.image))
    }
}

fn context(files: &[(&str, &str)]) -> Context {
    let files = files
        .iter()
        .map(|(path, text)| (*path, 0o644, Bytes::copy_from_slice(text.as_bytes())));
    Context::from_files(files, &Limits::default()).unwrap()
}

fn bases() -> BaseImages {
    let pairs = [
        ("node", "faas.local/node:22"),
        ("node:12", "faas.local/node:12"),
        ("busybox:1", "faas.local/busybox:1"),
    ];
    BaseImages(pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).into())
}

/// The engine that `docker` asks too.
fn socket() -> PathBuf {
    faas::config::surroundings().unwrap().docker_socket
}

fn docker(args: &[&str]) -> String {
    try_docker(args).unwrap_or_else(|words| panic!("docker {args:?}: {words}"))
}

/// What a docker command prints, or why it failed.
fn try_docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// A text that no other run has, so that nothing of it is in a cache.
fn fresh() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const HANDLER: &str = "module.exports = (context, cb) => cb({sum: 1})";

#[tokio::test]
async fn an_inline_function_becomes_an_image_of_ours() {
    for flavour in FLAVOURS {
        let bench = Bench::new(flavour, BuildEnvironment::default()).await;
        let job = bench.job(
            Language::Node,
            &[("index.js", HANDLER), ("lib/a b.js", &fresh())],
        );
        assert!(!bench.builder.exists(&job.image).await.unwrap());
        bench.build(&job).await.unwrap();
        assert!(bench.builder.exists(&job.image).await.unwrap());
        let images = bench.builder.images().await.unwrap();
        assert_eq!(images.len(), 1, "{flavour:?}: {images:?}");
        assert_eq!(images[0].name, job.image);
        let listing = docker(&["run", "--rm", &job.image, "find", "/function", "/faas"]);
        let mut listing: Vec<_> = listing.lines().collect();
        listing.sort_unstable();
        assert_eq!(
            listing,
            [
                "/faas",
                "/faas/shim.js",
                "/function",
                "/function/index.js",
                "/function/lib",
                "/function/lib/a b.js"
            ]
        );
        let log = bench.log.text();
        assert!(
            log.contains("==> COPY function/ ./\n"),
            "{flavour:?}: {log}"
        );
        assert!(
            !log.contains("--->") && !log.contains("npm"),
            "{flavour:?}: {log}"
        );

        // It is there: no build, no word.
        bench.log.0.lock().unwrap().clear();
        bench.build(&job).await.unwrap();
        assert_eq!(bench.log.text(), "");
        bench.builder.remove(&job.image).await.unwrap();
        bench.builder.remove(&job.image).await.unwrap();
        assert_eq!(bench.builder.images().await.unwrap(), []);
    }
}

#[tokio::test]
async fn the_builder_is_the_one_that_the_engine_names() {
    let mut ping = UnixStream::connect(socket()).unwrap();
    ping.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    ping.read_to_string(&mut answer).unwrap();
    let buildkit = answer.contains("Builder-Version: 2\r\n");

    let bench = Bench::new(None, BuildEnvironment::default()).await;
    let job = bench.job(Language::Node, &[("index.js", HANDLER), ("new", &fresh())]);
    bench.build(&job).await.unwrap();
    // The classic builder alone commits one image on the other.
    let parent = docker(&["image", "inspect", "-f", "{{.Parent}}", &job.image]);
    assert_eq!(parent.is_empty(), buildkit, "{answer}{parent}");
}

fn dockerfile(lines: &[&str]) -> Vec<(&'static str, String)> {
    vec![("Dockerfile", lines.join("\n"))]
}

fn borrowed<'a>(files: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    files.iter().map(|(p, t)| (*p, t.as_str())).collect()
}

/// Images, named or not, and containers whose description has this text.
fn traces(marker: &str) -> Vec<String> {
    let mut found = Vec::new();
    for list in [&["images", "-aq"][..], &["ps", "-aq"]] {
        for id in docker(list).split_whitespace() {
            // What others have may be gone meanwhile.
            if try_docker(&["inspect", id]).is_ok_and(|said| said.contains(marker)) {
                found.push(id.to_owned());
            }
        }
    }
    found
}

/// Whether a process of this host, in whatever container, was started with this argument.
fn runs(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| {
            line.split(|b| *b == 0)
                .any(|word| word == argument.as_bytes())
        })
}

#[tokio::test]
async fn dependencies_are_not_fetched_again_when_only_code_changes() {
    let package = format!(
        r#"{{"name": "x{}", "dependencies": {{"ms": "2.1.3"}}}}"#,
        fresh()
    );
    for flavour in FLAVOURS {
        let bench = Bench::new(flavour, BuildEnvironment::default()).await;
        for (turn, expected) in [("first", false), ("second", true)] {
            let code = format!(
                "module.exports = () => require('ms')('1s') // {turn} {}",
                fresh()
            );
            let job = bench.job(
                Language::Node,
                &[("index.js", &code), ("package.json", &package)],
            );
            bench.log.0.lock().unwrap().clear();
            bench.build(&job).await.unwrap();
            let log = bench.log.text();
            let (_, after) = log.split_once("==> RUN npm install --omit=dev").unwrap();
            let next = after.lines().nth(1).unwrap_or_default();
            assert_eq!(next == "cached", expected, "{flavour:?}, {turn}: {log}");
            let said = docker(&[
                "run",
                "--rm",
                &job.image,
                "node",
                "-p",
                "require('/function')()",
            ]);
            assert_eq!(said, "1000");
        }
    }
}

#[tokio::test]
async fn a_failing_step_is_named_with_its_last_words() {
    for flavour in FLAVOURS {
        let bench = Bench::new(flavour, BuildEnvironment::default()).await;
        let marker = fresh();
        let step = format!("RUN echo made > /{marker}");
        let files = dockerfile(&[
            "FROM busybox:1",
            &step,
            "RUN echo my last words >&2 && exit 3",
        ]);
        let job = bench.job(Language::Dockerfile, &borrowed(&files));
        let error = bench.build(&job).await.unwrap_err();
        assert_eq!(
            error,
            BuildError::Failed {
                step: "RUN echo my last words >&2 && exit 3".into(),
                message: "exit code 3; its last words: my last words".into()
            },
            "{flavour:?}"
        );
        assert!(bench.log.text().ends_with("==> failed: exit code 3\n"));
        bench.builder.drain().await;
        assert_eq!(traces(&marker), [""; 0], "{flavour:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_built_says_why() {
    let cases = [
        (&["FRUM busybox:1"][..], "unknown instruction: FRUM"),
        (&["FROM busybox:1", "", "RUM x"], "line 3: unknown"),
        (
            &["FROM busybox:1", "COPY absent /"],
            "step \"COPY absent /\" failed",
        ),
        (
            &["FROM faas.local/absent:1"],
            "image \"faas.local/absent:1\" cannot be pulled",
        ),
        (
            &[
                "FROM busybox:1",
                "RUN echo 'write: no space left on device' && exit 1",
            ],
            "no space left for the build",
        ),
    ];
    for flavour in FLAVOURS {
        let bench = Bench::new(flavour, BuildEnvironment::default()).await;
        for (lines, expected) in cases {
            let files = dockerfile(lines);
            let job = bench.job(Language::Dockerfile, &borrowed(&files));
            let error = bench.build(&job).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{flavour:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_build_that_is_late_or_unwanted_ends_in_the_engine_too() {
    for (flavour, late) in FLAVOURS.into_iter().flat_map(|f| [(f, true), (f, false)]) {
        let bench = Bench::new(flavour, BuildEnvironment::default()).await;
        let marker = fresh();
        let seconds = format!("1000.{}", uuid::Uuid::new_v4().as_u128() % 1_000_000_007);
        let files = dockerfile(&[
            "FROM busybox:1",
            &format!("RUN echo made > /{marker}"),
            &format!("RUN exec sleep {seconds}"),
        ]);
        let mut job = bench.job(Language::Dockerfile, &borrowed(&files));
        if late {
            job.timeout = Duration::from_secs(6);
        }
        let build = Box::pin(bench.build(&job));
        let started = eventually("the step runs", || runs(&seconds));
        let build = match futures::future::select(build, Box::pin(started)).await {
            futures::future::Either::Right(((), build)) => build,
            futures::future::Either::Left((end, _)) => panic!("{flavour:?}: {end:?}"),
        };
        if late {
            let limit = Duration::from_secs(6);
            assert_eq!(build.await, Err(BuildError::Timeout { limit }));
        } else {
            drop(build);
        }
        eventually("the step is gone", || !runs(&seconds)).await;
        bench.builder.drain().await;
        eventually("nothing is left of it", || traces(&marker).is_empty()).await;
        assert!(!bench.builder.exists(&job.image).await.unwrap());
    }
}

/// The engine may be making an image just then, of which it tells nobody any more.
#[tokio::test]
async fn builds_that_are_cut_anywhere_leave_nothing_once_none_runs() {
    let bench = Bench::new(Flavour::Classic, BuildEnvironment::default()).await;
    let marker = fresh();
    for round in 0..16 {
        let steps = [
            "FROM busybox:1".to_owned(),
            format!("ENV MARK={marker}-{round}"),
            "RUN echo one > /one".to_owned(),
            "RUN echo two > /two".to_owned(),
            "ENV TWO=2".to_owned(),
        ];
        let steps = steps.iter().map(String::as_str).collect::<Vec<_>>();
        let files = dockerfile(&steps);
        let job = bench.job(Language::Dockerfile, &borrowed(&files));
        // Wherever that is.
        let enough = Duration::from_millis(120 * round);
        let built = tokio::time::timeout(enough, bench.build(&job)).await;
        if let Ok(built) = built {
            built.unwrap();
            bench.builder.remove(&job.image).await.unwrap();
        }
    }
    bench.builder.drain().await;
    eventually("nothing is left of them", || traces(&marker).is_empty()).await;
    let nameless = ["images", "--filter", "dangling=true", "--no-trunc"];
    let key = docker(&[&nameless[..], &["--format", "{{.ID}}"]].concat());
    let ours = |id: &&str| try_docker(&["inspect", id]).is_ok_and(|said| said.contains(&marker));
    assert_eq!(key.lines().filter(ours).count(), 0);
}

#[tokio::test]
async fn images_of_others_are_neither_listed_nor_removed() {
    for flavour in FLAVOURS {
        let [ours, theirs] = [
            Bench::new(flavour, BuildEnvironment::default()).await,
            Bench::new(flavour, BuildEnvironment::default()).await,
        ];
        let files = dockerfile(&["FROM busybox:1", "LABEL faas.dev/owner=somebody"]);
        let job = theirs.job(Language::Dockerfile, &borrowed(&files));
        theirs.build(&job).await.unwrap();
        let derived = format!("derived-{}:1", fresh());
        docker(&["tag", &job.image, &derived]);
        assert_eq!(ours.builder.images().await.unwrap(), []);
        let listed = theirs.builder.images().await.unwrap();
        assert_eq!(
            listed.iter().map(|i| &i.name).collect::<Vec<_>>(),
            [&job.image]
        );
        for foreign in [&job.image, &"faas.local/busybox:1".to_owned(), &derived] {
            let error = ours.builder.remove(foreign).await.unwrap_err();
            assert!(matches!(error, BuildError::Refused(_)), "{error}");
        }
        assert!(matches!(
            theirs.builder.remove(&derived).await,
            Err(BuildError::Refused(_))
        ));
        docker(&["rmi", &derived]);
        assert!(ours.builder.exists(&job.image).await.unwrap());
    }
}

#[tokio::test]
async fn a_name_that_no_image_can_have_is_its_writers_fault() {
    for flavour in FLAVOURS {
        let bench = Bench::new(flavour, BuildEnvironment::default()).await;
        let files = dockerfile(&["FROM faas.local/Busybox:1"]);
        let job = bench.job(Language::Dockerfile, &borrowed(&files));
        let error = bench.build(&job).await.unwrap_err();
        assert!(matches!(error, BuildError::Refused(_)), "{error:?}");
        assert!(
            error.to_string().contains("faas.local/Busybox:1"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_image_that_was_given_anothers_name_counts_for_none() {
    for flavour in FLAVOURS {
        let bench = Bench::new(flavour, BuildEnvironment::default()).await;
        let [job, other] = [(); 2].map(|()| bench.job(Language::Node, &[("index.js", &fresh())]));
        for job in [&job, &other] {
            bench.build(job).await.unwrap();
        }
        for impostor in [other.image.as_str(), "faas.local/busybox:1"] {
            docker(&["tag", impostor, &job.image]);
            assert!(!bench.builder.exists(&job.image).await.unwrap());
            let listed = bench.builder.images().await.unwrap();
            let listed: Vec<_> = listed.iter().map(|image| &image.name).collect();
            assert_eq!(listed, [&other.image], "{flavour:?}");
            bench.build(&job).await.unwrap();
            assert!(bench.builder.exists(&job.image).await.unwrap());
            assert_eq!(bench.builder.images().await.unwrap().len(), 2);
        }
    }
}

#[tokio::test]
async fn a_build_that_talks_about_images_of_others_does_not_take_them() {
    let bench = Bench::new(Flavour::Classic, BuildEnvironment::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let dockerfile_text = format!("FROM faas.local/busybox:1\nENV FOREIGN={}\n", fresh());
    std::fs::write(dir.path().join("Dockerfile"), dockerfile_text).unwrap();
    let foreign = docker(&["build", "-q", dir.path().to_str().unwrap()]);
    let short = foreign.trim_start_matches("sha256:")[..12].to_owned();
    let files = dockerfile(&[
        "FROM busybox:1",
        &format!("RUN echo ' ---> {short}' # {}", fresh()),
    ]);
    // Another second: what is as old as the build could be the build's own.
    let second = std::time::SystemTime::now();
    eventually("a second passes", || {
        second.elapsed().unwrap() > Duration::from_secs(1)
    })
    .await;
    bench
        .build(&bench.job(Language::Dockerfile, &borrowed(&files)))
        .await
        .unwrap();
    bench.builder.drain().await;
    assert_eq!(
        docker(&["image", "inspect", "-f", "{{.Id}}", &short]),
        foreign
    );
    docker(&["rmi", &foreign]);
}

#[tokio::test]
async fn stages_give_the_same_image_and_leave_nothing() {
    for flavour in FLAVOURS {
        let bench = Bench::new(flavour, BuildEnvironment::default()).await;
        let marker = fresh();
        let files = dockerfile(&[
            "# syntax=docker/dockerfile:1",
            "ARG BASE=faas.local/busybox:1",
            "FROM ${BASE} AS build",
            &format!("RUN echo {marker} > /made"),
            "FROM busybox:1",
            "COPY --from=build /made /got",
            r#"CMD ["cat", "/got"]"#,
        ]);
        let job = bench.job(Language::Dockerfile, &borrowed(&files));
        bench.build(&job).await.unwrap();
        assert_eq!(docker(&["run", "--rm", &job.image]), marker);
        bench.builder.drain().await;
        // The finished image does not say what its stages ran.
        assert_eq!(traces(&marker), [""; 0], "{flavour:?}");
    }
}

#[tokio::test]
async fn commands_see_the_site_and_images_do_not() {
    let environment = BuildEnvironment {
        ca: Some(Bytes::from_static(b"-----BEGIN CERTIFICATE-----\nsite\n")),
        variables: vec![
            ("SITE_MIRROR".into(), "mirror.example".into()),
            ("HTTPS_PROXY".into(), "http://proxy.example:3128".into()),
        ],
        ..BuildEnvironment::default()
    };
    for flavour in FLAVOURS {
        let bench = Bench::new(flavour, environment.clone()).await;
        let files = dockerfile(&[
            "FROM busybox:1 AS first",
            "FROM busybox:1",
            &format!(
                "RUN echo $SITE_MIRROR $HTTPS_PROXY && cat $NODE_EXTRA_CA_CERTS $SSL_CERT_FILE # {}",
                fresh()
            ),
            "ENV OWN=1",
        ]);
        let job = bench.job(Language::Dockerfile, &borrowed(&files));
        bench.build(&job).await.unwrap();
        let log = bench.log.text();
        assert!(
            log.contains("mirror.example http://proxy.example:3128\n"),
            "{flavour:?}: {log}"
        );
        assert_eq!(
            log.matches("BEGIN CERTIFICATE").count(),
            2,
            "{flavour:?}: {log}"
        );
        let env = docker(&["image", "inspect", "-f", "{{json .Config.Env}}", &job.image]);
        assert!(env.contains("OWN="), "{env}");
        for name in ["SITE_MIRROR", "HTTPS_PROXY", "CERT"] {
            assert!(!env.contains(name), "{flavour:?}: {env}");
        }
    }
}

#[tokio::test]
async fn the_first_users_archive_builds_as_it_is() {
    let tar = seed_archive();
    for flavour in FLAVOURS {
        let bench = Bench::new(flavour, BuildEnvironment::default()).await;
        let context = Context::from_tar(&tar, &Limits::default()).unwrap();
        let job = bench.job_of(Language::Dockerfile, context);
        bench
            .build(&job)
            .await
            .unwrap_or_else(|e| panic!("{flavour:?}: {e}\n{}", bench.log.text()));
        let listing = docker(&["run", "--rm", &job.image, "ls", "/usr/src/app"]);
        for file in ["index.js", "server.js", "node_modules"] {
            assert!(listing.lines().any(|line| line == file), "{listing}");
        }
    }
}

/// What the first users' document posts: no padding after the last file, and no end.
fn seed_archive() -> Vec<u8> {
    let body = include_str!("data/add-function.json");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    base64::engine::general_purpose::STANDARD
        .decode(body["file"].as_str().unwrap())
        .unwrap()
}
