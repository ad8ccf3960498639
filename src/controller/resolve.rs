//! From an object to what its newest generation asks for: reads the source and the secrets, and names the image.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::task::spawn_blocking;

use super::{entry::Stamp, secrets::Secrets};
use crate::{
    builder::{
        BaseImages, BuildJob, ImageName,
        archive::{Context, Limits},
        archives::Archives,
        recipe::{BuildSpec, Language, Recipe, image_prefix},
        sources::Sources,
    },
    function::{
        Function, FunctionKey, FunctionSpec, NOT_UNDERSTOOD, Revision, SOURCE_DIGEST, SOURCE_ERROR,
        crd, status::Reason,
    },
    kubernetes::CRD_REMEDY,
    plan::{
        Blocked, Target,
        image::{Desired, bygone, desired},
    },
    runtime::SecretFile,
};

/// Reads what objects point to.
#[derive(Clone)]
pub struct Resolver {
    /// What directories hold.
    pub sources: Sources,
    pub archives: Arc<dyn Archives>,
    pub bases: BaseImages,
    /// Identity of this installation, a part of every image's name.
    pub owner: String,
    /// Key of the hash that stands for secrets in a revision.
    pub hash_key: [u8; 32],
    pub secrets: Secrets,
    /// What all instances together may have, in bytes.
    pub memory: i64,
}

/// What a revision is made from; of one that served it is kept, so that it can be made again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Served {
    spec: FunctionSpec,
    /// Digest of the content of a directory source.
    source: Option<String>,
    /// The image that served, by name: another recipe may make another one of the same source.
    #[serde(default)]
    image: Option<ImageName>,
    /// Which revision it was: today's secrets may make another one.
    #[serde(default)]
    revision: Option<Revision>,
}

impl Resolver {
    /// From what this generation would be resolved now. Cheap, but for the reading of secrets.
    pub async fn stamp(&self, function: &Function) -> Stamp {
        let secrets = match self.secrets(namespace(function), &function.spec).await {
            Ok(files) => Ok(self.digest(&files)),
            Err(blocked) => Err(blocked.message),
        };
        let source =
            annotation(function, SOURCE_DIGEST).or_else(|| annotation(function, SOURCE_ERROR));
        Stamp {
            generation: function.metadata.generation.unwrap_or_default(),
            source,
            secrets,
        }
    }

    /// What the newest generation asks for.
    ///
    /// # Errors
    /// When its source or a secret cannot be read, or no instance of it would ever have room, with the reason for the status.
    pub async fn resolve(&self, function: &Function) -> Result<Desired, Blocked> {
        if let Some(message) = annotation(function, SOURCE_ERROR) {
            return Err(blocked(Reason::SourceInvalid, message));
        }
        if let Some(error) = annotation(function, NOT_UNDERSTOOD) {
            let version = env!("CARGO_PKG_VERSION");
            let message = format!(
                "The spec is not understood by faas {version}: {error}. What served goes on serving. Update faas if the \
                 cluster's definition of Functions is newer; if it is older, {CRD_REMEDY}."
            );
            return Err(blocked(Reason::InvalidSpec, message));
        }
        let key = FunctionKey::try_from(function)
            .map_err(|error| blocked(Reason::InvalidSpec, error.to_string()))?;
        let source = annotation(function, SOURCE_DIGEST);
        let desired = self.desired(&key, &function.spec, source).await?;
        self.fits(desired.limits.memory)?;
        Ok(desired)
    }

    fn fits(&self, needed: i64) -> Result<(), Blocked> {
        if needed <= self.memory {
            return Ok(());
        }
        let message = format!(
            "An instance needs {}Mi of memory, more than the {}Mi that all instances together may have (80 % of the \
             machine's): lower spec.resources.memory.",
            needed >> 20,
            self.memory >> 20
        );
        Err(blocked(Reason::NoCapacity, message))
    }

    /// What to build for a revision whose image is missing.
    ///
    /// # Errors
    /// As [`Self::resolve`]: the source may have gone meanwhile.
    pub async fn job(&self, key: &FunctionKey, made_from: &Served) -> Result<BuildJob, Blocked> {
        self.job_of(key, &made_from.spec, made_from.source.clone())
            .await
    }

    /// What the newest generation is made from, to be kept when it begins to serve.
    pub fn served(&self, function: &Function) -> Served {
        Served {
            spec: function.spec.clone(),
            source: annotation(function, SOURCE_DIGEST),
            image: None,
            revision: None,
        }
    }

    /// The revision that served. Where it cannot be made again as it was, it can be called as long as instances of it run.
    pub async fn restore(
        &self,
        key: &FunctionKey,
        served: &Served,
        is_there: impl FnOnce(&ImageName) -> bool,
    ) -> Option<Desired> {
        match self.remake(key, served, is_there).await {
            Some(made) if !served.is_another(&made.target) => Some(made),
            made => served.bygone().or(made),
        }
    }

    /// What a record yields now, if it still can be made, or its image `is_there`.
    async fn remake(
        &self,
        key: &FunctionKey,
        served: &Served,
        is_there: impl FnOnce(&ImageName) -> bool,
    ) -> Option<Desired> {
        let spec = &served.spec;
        if let Some(image) = served.image.as_ref().filter(|image| is_there(image)) {
            let secrets = self.secrets(key.namespace(), spec).await.ok()?;
            let digest = self.digest(&secrets);
            return Some(desired(spec, image.clone(), secrets, &digest));
        }
        self.desired(key, spec, served.source.clone()).await.ok()
    }

    async fn desired(
        &self,
        key: &FunctionKey,
        spec: &FunctionSpec,
        source: Option<String>,
    ) -> Result<Desired, Blocked> {
        let secrets = self.secrets(key.namespace(), spec).await?;
        let digest = self.digest(&secrets);
        let image = match &spec.source.image {
            Some(image) if image.starts_with(&image_prefix(&self.owner)) => {
                let message = format!("image {image:?} is a Function's own: take its source");
                return Err(blocked(Reason::SourceInvalid, message));
            }
            Some(image) => image.clone(),
            None => self.job_of(key, spec, source).await?.image,
        };
        Ok(desired(spec, image, secrets, &digest))
    }

    async fn job_of(
        &self,
        key: &FunctionKey,
        spec: &FunctionSpec,
        source: Option<String>,
    ) -> Result<BuildJob, Blocked> {
        let upload = match &spec.source.archive {
            Some(archive) => Some(self.upload(key, archive).await?),
            None => None,
        };
        let (this, key, spec) = (self.clone(), key.clone(), spec.clone());
        spawn_blocking(move || {
            let context = upload.map_or_else(|| this.context(&spec, source), Ok)?;
            this.read_job(key, &spec, context)
        })
        .await
        .unwrap_or_else(|error| Err(blocked(Reason::SourceUnavailable, error.to_string())))
    }

    fn read_job(
        &self,
        function: FunctionKey,
        spec: &FunctionSpec,
        mut context: Context,
    ) -> Result<BuildJob, Blocked> {
        let build = spec.build.clone().unwrap_or_default();
        let language = match spec.language {
            Some(crd::Language::Dockerfile) => Language::Dockerfile,
            Some(crd::Language::Node) | None => Language::Node,
        };
        if language == Language::Dockerfile {
            context = context
                .without_ignored()
                .map_err(|error| blocked(Reason::SourceInvalid, error.to_string()))?;
        }
        let wishes = BuildSpec {
            base_image: build.base_image,
            args: build
                .args
                .into_iter()
                .map(|arg| (arg.name, arg.value))
                .collect(),
        };
        let recipe = Recipe::new(language, &context, &wishes, &self.bases)
            .map_err(|error| blocked(Reason::SourceInvalid, error.to_string()))?;
        Ok(BuildJob {
            function,
            image: recipe.image_name(&self.owner, &context),
            context: Arc::new(context),
            recipe,
            timeout: Duration::from_secs(build.timeout_seconds.into()),
        })
    }

    async fn upload(&self, key: &FunctionKey, archive: &str) -> Result<Context, Blocked> {
        let digest = archive.trim_start_matches("sha256:");
        match self.archives.get(key.namespace(), digest).await {
            Ok(Some(context)) => Ok(context),
            Ok(None) => Err(missing(digest)),
            Err(error) => Err(blocked(Reason::SourceUnavailable, error.to_string())),
        }
    }

    /// Blocks: reads what is inline or in a directory.
    fn context(&self, spec: &FunctionSpec, directory: Option<String>) -> Result<Context, Blocked> {
        if let Some(inline) = &spec.source.inline {
            let files = inline
                .iter()
                .map(|(path, text)| (path, 0o644, Bytes::copy_from_slice(text.as_bytes())));
            return Context::from_files(files, &Limits::default())
                .map_err(|error| blocked(Reason::SourceInvalid, error.to_string()));
        }
        let Some(digest) = directory else {
            let message = "source.directory works in a manifest below a directory that `faas start --dir` watches; \
                           use `faas build` or source.inline elsewhere";
            return Err(blocked(Reason::SourceNotFound, message));
        };
        let digest = digest.trim_start_matches("sha256:");
        match self.sources.get(digest) {
            Ok(Some(context)) => Ok(context),
            Ok(None) => Err(missing(digest)),
            Err(error) => Err(blocked(Reason::SourceUnavailable, error.to_string())),
        }
    }

    async fn secrets(
        &self,
        namespace: &str,
        spec: &FunctionSpec,
    ) -> Result<Vec<SecretFile>, Blocked> {
        let mut files = Vec::new();
        for secret in &spec.secrets {
            let read = self.secrets.read(namespace, &secret.name).await;
            files.extend(read.map_err(|error| blocked(Reason::SecretNotFound, error))?);
        }
        Ok(files)
    }

    /// A hash that tells nothing without the key, which stays on this machine.
    fn digest(&self, secrets: &[SecretFile]) -> Vec<u8> {
        let mut hash =
            Hmac::<Sha256>::new_from_slice(&self.hash_key).expect("HMAC takes keys of any length");
        for file in secrets {
            for part in [file.path.as_bytes(), &file.bytes] {
                hash.update(&(part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
        hash.finalize().into_bytes().to_vec()
    }
}

impl Served {
    /// With the image and the revision that serve.
    #[must_use]
    pub fn by(self, image: &ImageName, revision: &Revision) -> Self {
        Self {
            image: Some(image.clone()),
            revision: Some(revision.clone()),
            ..self
        }
    }

    /// As the store keeps it.
    pub fn record(&self) -> String {
        serde_json::to_string(self).expect("a spec is JSON")
    }

    /// Whether the very image makes another revision now: the secrets are not what they were.
    fn is_another(&self, made: &Target) -> bool {
        let revision = self.revision.as_ref();
        self.image.as_ref() == Some(&made.image) && revision.is_some_and(|r| *r != made.revision)
    }

    fn bygone(&self) -> Option<Desired> {
        let (image, revision) = (self.image.clone()?, self.revision.clone()?);
        Some(bygone(&self.spec, image, revision))
    }

    /// Whether its image is the user's own, to be pulled and not built.
    pub fn is_ready_made(&self) -> bool {
        self.spec.source.image.is_some()
    }

    /// Digest of the stored source that it needs, if it needs one.
    pub fn source(&self) -> Option<&str> {
        self.spec
            .source
            .archive
            .as_deref()
            .or(self.source.as_deref())
    }
}

/// Whether what the object's newest generation asks for can be known.
pub fn is_understood(function: &Function) -> bool {
    annotation(function, NOT_UNDERSTOOD).is_none()
}

/// Digest of the stored source that the object's newest generation needs, if it needs one.
pub fn source_of(function: &Function) -> Option<String> {
    function
        .spec
        .source
        .archive
        .clone()
        .or_else(|| annotation(function, SOURCE_DIGEST))
}

fn namespace(function: &Function) -> &str {
    function.metadata.namespace.as_deref().unwrap_or_default()
}

fn missing(digest: &str) -> Blocked {
    let message = format!("no upload sha256:{digest} is stored here; upload the archive again");
    blocked(Reason::SourceNotFound, message)
}

fn annotation(function: &Function, name: &str) -> Option<String> {
    function.metadata.annotations.as_ref()?.get(name).cloned()
}

fn blocked(reason: Reason, message: impl Into<String>) -> Blocked {
    Blocked {
        reason,
        message: message.into(),
        attempts: 0,
        retry_at: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_says_which_revision_it_was_or_is_of_an_older_server() {
        let older = json!({"spec": {"source": {"image": "x"}}, "source": null});
        let older: Served = serde_json::from_value(older).unwrap();
        let made = desired(&older.spec, "x".to_owned(), vec![], b"today's").target;
        assert!(!older.is_another(&made) && older.bygone().is_none());

        let served = older.by(&made.image, &made.revision);
        let read: Served = serde_json::from_str(&served.record()).unwrap();
        assert!(!read.is_another(&made));
        let other = |image: &str| desired(&read.spec, image.to_owned(), vec![], b"others").target;
        assert!(read.is_another(&other("x")));
        assert!(!read.is_another(&other("y")), "another recipe's");
        let bygone = read.bygone().unwrap().target;
        assert_eq!((bygone.revision, bygone.image), (made.revision, made.image));
        assert!(!bygone.startable);
    }
}
