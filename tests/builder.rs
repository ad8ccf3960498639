//! The contract of the builder, against the real engine and with both of its builders.

use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use faas::builder::{
    BaseImages, BuildEnvironment, BuildError, BuildJob, BuildLog, Builder,
    archive::{Context, Limits},
    docker::{DockerBuilder, Flavour},
    recipe::{BuildSpec, Language, Recipe},
};

const SOCKET: &str = "/var/run/docker.sock";
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
        let ids = docker(&["images", "-q", "--filter", &filter]);
        for id in ids.split_whitespace() {
            docker(&["rmi", "-f", id]);
        }
    }
}

impl Bench {
    async fn new(flavour: Flavour, environment: BuildEnvironment) -> Self {
        let owner = uuid::Uuid::new_v4().simple().to_string()[..16].to_owned();
        let builder = DockerBuilder::connect(Path::new(SOCKET), &owner, environment)
            .await
            .expect("these tests need a Docker engine")
            .with_flavour(flavour);
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
            image: recipe.image_name(&self.owner, &context),
            context: Arc::new(context),
            recipe,
            timeout: Duration::from_secs(300),
        }
    }

    async fn build(&self, job: &BuildJob) -> Result<(), BuildError> {
        self.builder.build(job, self.log.clone()).await
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

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
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
