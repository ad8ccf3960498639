//! The builder of the process runtime, with the host's own npm.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use faas::builder::{
    BaseImages, BuildEnvironment, BuildError, BuildJob, BuildLog, Builder,
    archive::{Context, Limits},
    process::{ProcessBuilder, image_dir},
    recipe::{BuildSpec, Recipe},
};

const OWNER: &str = "0123456789abcdef";

#[derive(Default)]
struct Log(Mutex<Vec<u8>>);

impl BuildLog for Log {
    fn write(&self, piece: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(piece);
    }
}

fn job(language: &str, files: &[(&str, &str)]) -> BuildJob {
    let files = files
        .iter()
        .map(|(path, text)| (*path, 0o755, Bytes::copy_from_slice(text.as_bytes())));
    let context = Context::from_files(files, &Limits::default()).unwrap();
    let bases = BaseImages([("node".to_owned(), "unused".to_owned())].into());
    let language = language.parse().unwrap();
    let recipe = Recipe::new(language, &context, &BuildSpec::default(), &bases).unwrap();
    BuildJob {
        function: "f".parse().unwrap(),
        image: recipe.image_name(OWNER, &context),
        context: Arc::new(context),
        recipe,
        timeout: Duration::from_secs(120),
    }
}

fn open(root: &std::path::Path) -> ProcessBuilder {
    ProcessBuilder::open(root, OWNER, BuildEnvironment::default()).unwrap()
}

#[tokio::test]
async fn files_and_dependencies_become_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let builder = open(root.path());
    let plain = job("node", &[("index.js", "1"), ("lib/x.js", "2")]);
    let package = r#"{"dependencies": {"ms": "2.1.3"}}"#;
    let with_npm = job("node", &[("index.js", "1"), ("package.json", package)]);
    for job in [&plain, &with_npm] {
        builder.build(job, Arc::new(Log::default())).await.unwrap();
        let dir = image_dir(root.path(), &job.image);
        assert!(dir.join("shim.js").is_file());
        assert_eq!(
            fs::read_to_string(dir.join("function/index.js")).unwrap(),
            "1"
        );
        let log = Arc::new(Log::default());
        builder.build(job, log.clone()).await.unwrap();
        assert!(log.0.lock().unwrap().is_empty(), "it was there already");
    }
    let dir = image_dir(root.path(), &with_npm.image);
    assert!(dir.join("function/node_modules/ms/index.js").is_file());
    let mut names: Vec<_> = builder
        .images()
        .await
        .unwrap()
        .into_iter()
        .map(|i| i.name)
        .collect();
    names.sort();
    let mut expected = [plain.image.clone(), with_npm.image.clone()];
    expected.sort();
    assert_eq!(names, expected);
    builder.remove(&plain.image).await.unwrap();
    builder.remove(&plain.image).await.unwrap();
    assert!(!builder.exists(&plain.image).await.unwrap());
    assert!(builder.exists(&with_npm.image).await.unwrap());
}

#[tokio::test]
async fn a_failing_install_is_named_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let builder = open(root.path());
    let package = r#"{"dependencies": {"x": "file:./absent.tgz"}}"#;
    let job = job("node", &[("index.js", "1"), ("package.json", package)]);
    let end = builder.build(&job, Arc::new(Log::default())).await;
    let Err(BuildError::Failed { step, message }) = end else {
        panic!("{end:?}");
    };
    assert!(step.starts_with("npm install --omit=dev"), "{step}");
    assert!(message.contains("absent.tgz"), "{message}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_late_install_is_stopped_with_all_its_processes() {
    let root = tempfile::tempdir().unwrap();
    let builder = open(root.path());
    let package = r#"{"dependencies": {"x": "file:./x"}, "scripts": {"preinstall": "sleep 987.654 & sleep 987.654"}}"#;
    let inner = r#"{"name": "x", "version": "1.0.0"}"#;
    let mut job = job(
        "node",
        &[
            ("index.js", "1"),
            ("package.json", package),
            ("x/package.json", inner),
        ],
    );
    job.timeout = Duration::from_secs(4);
    let end = builder.build(&job, Arc::new(Log::default())).await;
    assert_eq!(end, Err(BuildError::Timeout { limit: job.timeout }));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while sleeps() {
        assert!(
            std::time::Instant::now() < deadline,
            "its processes still run"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn sleeps() -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .any(|line| line.starts_with(b"sleep\x00987.654"))
}

#[tokio::test]
async fn what_needs_containers_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let builder = open(root.path());
    let log: Arc<Log> = Arc::default();
    let ends = [
        builder
            .build(&job("dockerfile", &[("Dockerfile", "FROM x")]), log.clone())
            .await,
        builder.pull(&"busybox:1".to_owned(), log).await,
    ];
    for end in ends {
        assert!(
            matches!(&end, Err(BuildError::Refused(why)) if why.contains("--runtime docker")),
            "{end:?}"
        );
    }
    for foreign in [
        "busybox:1",
        "faas.local/fedcba9876543210:aa",
        "faas.local/../x",
    ] {
        assert!(matches!(
            builder.remove(&foreign.to_owned()).await,
            Err(BuildError::Refused(_))
        ));
    }
}

#[tokio::test]
async fn what_a_crash_left_half_done_goes() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join(".part-1/function")).unwrap();
    open(root.path());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}
