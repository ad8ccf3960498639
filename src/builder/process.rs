//! The builder of the process runtime: lays files out in a directory of this host, and lets the host's own `npm` fetch
//! what they depend on. An image is a directory that appeared in one step; it holds
//!
//! ```text
//! <root>/<digest>/function/   the user's files, and node_modules
//! <root>/<digest>/shim.js     what the runtime starts, with the directory as its argument
//! ```

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};
use uuid::Uuid;

use super::{
    BuildEnvironment, BuildError, BuildJob, BuildLog, Builder, Image, ImageName, ImageReference,
    recipe::{self, Language, SHIM},
};
use crate::text::{self, Plain};

/// How much of what `npm` said an error repeats, in bytes.
const TAIL: usize = 2048;
/// What unfinished images are called.
const PART: &str = ".part-";

/// Where the image of this name lies.
#[must_use]
pub fn image_dir(root: &Path, image: &str) -> PathBuf {
    // Only the digest behind the colon; a name that is none of ours leads to a file that never is.
    let digest = image.rsplit(':').next().unwrap_or_default();
    let plain = !digest.is_empty() && digest.bytes().all(|b| b.is_ascii_hexdigit());
    root.join(if plain { digest } else { ".none" })
}

/// Builds for one owner below one directory.
pub struct ProcessBuilder {
    root: PathBuf,
    owner: String,
    environment: BuildEnvironment,
    ca: Option<PathBuf>,
}

impl ProcessBuilder {
    /// Makes the directory if need be, and takes away what a crash left half done.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(root: &Path, owner: &str, environment: BuildEnvironment) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)?;
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PART) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let ca = root.join("build-ca.pem");
        if let Some(pem) = &environment.ca {
            fs::write(&ca, pem)?;
        }
        Ok(Self {
            root: root.to_owned(),
            owner: owner.to_owned(),
            ca: environment.ca.is_some().then_some(ca),
            environment,
        })
    }

    async fn run(&self, job: &BuildJob, log: &dyn BuildLog) -> Result<(), BuildError> {
        let part = Part(self.root.join(format!("{PART}{}", Uuid::new_v4().simple())));
        let (dir, files) = (part.0.clone(), job.clone());
        tokio::task::spawn_blocking(move || lay_out(&dir, &files))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| disk(&error))?;
        if let Some(npm) = &job.recipe.npm {
            self.npm(&part.0.join("function"), npm, log).await?;
        }
        let place = image_dir(&self.root, &job.image);
        match fs::rename(&part.0, &place) {
            // Somebody else was faster, with the same content.
            Err(_) if place.is_dir() => Ok(()),
            end => end.map_err(|error| disk(&error)),
        }
    }

    async fn npm(&self, dir: &Path, npm: &[&str], log: &dyn BuildLog) -> Result<(), BuildError> {
        let step = format!("npm {}", npm.join(" "));
        log.write(format!("==> {step}\n").as_bytes());
        let failed = |message| BuildError::Failed {
            step: step.clone(),
            message,
        };
        let mut command = Command::new("npm");
        command
            .args(npm)
            .current_dir(dir)
            .envs(self.environment.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(ca) = &self.ca {
            command.env("NODE_EXTRA_CA_CERTS", ca);
        }
        let mut child = command.spawn().map_err(|error| {
            failed(format!(
                "npm cannot be started ({error}): install it, or use --runtime docker"
            ))
        })?;
        let group = Group(child.id());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (mut heard, mut complained) = (Vec::new(), Vec::new());
        tokio::join!(copy(out, log, &mut heard), copy(err, log, &mut complained));
        let status = child.wait().await.map_err(|error| disk(&error))?;
        group.disarm();
        if status.success() {
            return Ok(());
        }
        let words = text::tail(&complained, TAIL);
        let words = words.trim().to_owned();
        if words.contains("ENOSPC") {
            return Err(BuildError::NoSpace(words));
        }
        let code = status.code().unwrap_or(-1);
        Err(failed(format!("exit code {code}; its last words: {words}")))
    }
}

/// The processes that `npm` started; they go with it when the build is dropped.
struct Group(Option<u32>);

impl Group {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|id| i32::try_from(id).ok());
        if let Some(group) = leader.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// A directory that goes unless it was renamed.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn copy(from: Option<impl AsyncRead + Unpin>, log: &dyn BuildLog, tail: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 8192];
    let mut plain = Plain::default();
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let words = plain.read(&buffer[..read]);
        log.write(words.as_bytes());
        tail.extend_from_slice(words.as_bytes());
        let excess = tail.len().saturating_sub(2 * TAIL);
        tail.drain(..excess);
    }
}

/// Writes the files of a job. Their names were checked: plain parts below the directory, and nothing but files.
fn lay_out(dir: &Path, job: &BuildJob) -> io::Result<()> {
    let function = dir.join("function");
    fs::create_dir_all(&function)?;
    fs::write(dir.join("shim.js"), SHIM)?;
    for (path, file) in job.context.files() {
        let skipped = job.recipe.npm.is_some() && path.starts_with("node_modules/");
        if skipped {
            continue;
        }
        let path = function.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode()))?;
    }
    Ok(())
}

fn disk(error: &io::Error) -> BuildError {
    if error.kind() == io::ErrorKind::StorageFull {
        return BuildError::NoSpace(error.to_string());
    }
    BuildError::Engine(format!("the directory of images: {error}"))
}

#[async_trait]
impl Builder for ProcessBuilder {
    async fn images(&self) -> Result<Vec<Image>, BuildError> {
        let mut images = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(|error| disk(&error))? {
            let entry = entry.map_err(|error| disk(&error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_dir = entry.metadata().is_ok_and(|metadata| metadata.is_dir());
            if is_dir && !name.starts_with('.') {
                let name = format!("{}{name}", recipe::image_prefix(&self.owner));
                images.push(Image::of_its_name(name));
            }
        }
        Ok(images)
    }

    async fn build(
        &self,
        job: &BuildJob,
        log: Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError> {
        if job.recipe.language == Language::Dockerfile {
            return Err(BuildError::Refused(
                "a Dockerfile needs containers: start with --runtime docker".into(),
            ));
        }
        if !self.exists(&job.image).await? {
            let limit = job.timeout;
            tokio::time::timeout(limit, self.run(job, log.as_ref()))
                .await
                .unwrap_or(Err(BuildError::Timeout { limit }))?;
        }
        Ok(job.image.clone())
    }

    async fn pull(
        &self,
        image: &ImageName,
        _: Arc<dyn BuildLog>,
    ) -> Result<ImageReference, BuildError> {
        Err(BuildError::Refused(format!(
            "image {image:?} needs containers: start with --runtime docker"
        )))
    }

    async fn exists(&self, image: &ImageName) -> Result<bool, BuildError> {
        Ok(self.is_named(image) && image_dir(&self.root, image).is_dir())
    }

    async fn remove(&self, image: &ImageName) -> Result<(), BuildError> {
        if !self.is_named(image) {
            return Err(BuildError::Refused(format!(
                "image {image:?} is not of this faas and stays"
            )));
        }
        // Out of sight in one step, so that no half image is ever seen.
        let part = Part(self.root.join(format!("{PART}{}", Uuid::new_v4().simple())));
        match fs::rename(image_dir(&self.root, image), &part.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(&error)),
            _ => Ok(()),
        }
    }
}

impl ProcessBuilder {
    fn is_named(&self, image: &str) -> bool {
        image.starts_with(&recipe::image_prefix(&self.owner))
    }
}
