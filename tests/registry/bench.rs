//! A builder of an owner of its own, beside a registry that has the base image.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use faas::{
    builder::{
        BaseImages, BuildEnvironment, BuildError, BuildJob, BuildLog, Builder,
        archive::{Context, Limits},
        docker::DockerBuilder,
        recipe::{BuildSpec, Language, Recipe},
        registry::{RegistryBuilder, Settings},
    },
    kubernetes::watch::Scope,
    runtime::docker::INIT,
};

pub const HANDLER: &str = "module.exports = (context, cb) => cb({sum: 1})";

/// Collects a log.
#[derive(Default)]
pub struct Log(Mutex<Vec<u8>>);

impl BuildLog for Log {
    fn write(&self, piece: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(piece);
    }
}

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// What a test has.
pub struct Bench {
    pub settings: Settings,
    pub builder: RegistryBuilder,
    pub log: Arc<Log>,
    /// `HOST/REPOSITORY:TAG` of the base image.
    pub base: String,
}

impl Bench {
    /// Pushes below `faas` of a registry; the base image is at `base` already, or is pushed there.
    pub fn new(host: &str, base: &str) -> Self {
        Self::with(settings(host), base)
    }

    pub fn with(settings: Settings, base: &str) -> Self {
        Self {
            builder: RegistryBuilder::new(settings.clone(), None),
            settings,
            log: Arc::default(),
            base: base.to_owned(),
        }
    }

    pub fn job(&self, function: &str, files: &[(&str, &str)]) -> BuildJob {
        self.job_of(Language::Node, function, files)
    }

    pub fn job_of(&self, language: Language, function: &str, files: &[(&str, &str)]) -> BuildJob {
        let context = context(files);
        let bases = [
            ("node", self.base.as_str()),
            ("busybox:1", "faas.local/busybox:1"),
        ];
        let bases = BaseImages(bases.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
        let recipe = Recipe::new(language, &context, &BuildSpec::default(), &bases).unwrap();
        BuildJob {
            function: function.parse().unwrap(),
            image: recipe.image_name(&self.settings.owner, &context),
            context: Arc::new(context),
            recipe,
            timeout: Duration::from_secs(120),
        }
    }

    pub async fn build(&self, job: &BuildJob) -> Result<String, BuildError> {
        self.builder.build(job, self.log.clone()).await
    }

    pub async fn names(&self) -> Vec<String> {
        let images = self.builder.images().await.unwrap();
        let mut names: Vec<_> = images.into_iter().map(|image| image.name).collect();
        names.sort();
        names
    }
}

pub fn settings(host: &str) -> Settings {
    Settings {
        place: format!("{host}/team/faas").parse().unwrap(),
        pull: format!("{host}/team/faas").parse().unwrap(),
        plain_http: false,
        auth: None,
        owner: fresh(),
        scope: Scope::All,
        init: INIT,
        patience: Duration::from_secs(20),
    }
}

pub fn context(files: &[(&str, &str)]) -> Context {
    let files = files
        .iter()
        .map(|(path, text)| (*path, 0o644, Bytes::copy_from_slice(text.as_bytes())));
    Context::from_files(files, &Limits::default()).unwrap()
}

/// The same for a process that serves this namespace alone.
pub fn serving(settings: &Settings, namespace: &str) -> Settings {
    Settings {
        scope: Scope::Namespaces([namespace.to_owned()].into()),
        ..settings.clone()
    }
}

/// A text that no other run has.
pub fn fresh() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..16].to_owned()
}

/// The engine that `docker` asks too.
pub fn socket() -> PathBuf {
    faas::config::surroundings().unwrap().docker_socket
}

pub async fn engine(owner: &str) -> DockerBuilder {
    let socket = socket();
    DockerBuilder::connect(socket.as_path(), owner, b"key", BuildEnvironment::default())
        .await
        .expect("these tests need a Docker engine")
}

pub fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {words}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// An image that an engine named; the name goes with it.
pub struct Named(pub String);

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", &self.0]).output();
    }
}

/// Puts an image that the engine has into a registry; answers how it is called there.
pub fn provide(host: &str, image: &str) -> String {
    let name = format!("{host}/upstream/base:1");
    docker(&["tag", image, &name]);
    let _named = Named(name.clone());
    docker(&["push", "-q", &name]);
    name
}

/// A small base image, of a shape like Node's.
pub fn small_base(host: &str) -> String {
    provide(host, "faas.local/busybox:1")
}
