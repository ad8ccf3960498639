//! How files become an image: [`Recipe::new`] turns a language and its files into a Dockerfile and what must lie beside
//! them, or says what is missing before any engine is asked. (pure)

mod dockerfile;
mod error;
pub mod node;

use std::{collections::BTreeMap, str::FromStr};

use bytes::Bytes;
use sha2::{Digest, Sha256};

pub use self::{dockerfile::CA_VARIABLES, error::RecipeError, node::SHIM};
use super::{
    BaseImages, BuildEnvironment, ImageName,
    archive::{Context, File, hex, write_tar},
};

/// Counts up when the same files must become another image than before.
const VERSION: &str = "2";

/// Where `--build-ca` lies in the context and in the image.
const CA_FILE: &str = ".faas-build-ca.pem";

/// A language that sources can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `JavaScript` for Node: our shim calls the handler.
    Node,
    /// The source brings its own Dockerfile.
    Dockerfile,
}

impl FromStr for Language {
    type Err = RecipeError;

    fn from_str(text: &str) -> Result<Self, RecipeError> {
        match text {
            "node" => Ok(Self::Node),
            "dockerfile" => Ok(Self::Dockerfile),
            other => Err(RecipeError::UnknownLanguage(other.into())),
        }
    }
}

/// What a Function's `spec.build` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildSpec {
    /// `spec.build.baseImage`; else the language's of [`BaseImages`].
    pub base_image: Option<String>,
    /// `spec.build.args`.
    pub args: Vec<(String, String)>,
}

/// An image that is made without running anything: files upon a base. It is what the recipe's Dockerfile yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The base image.
    pub base: ImageName,
    /// Where the command runs.
    pub directory: &'static str,
    /// What the base's entry point is given.
    pub command: Vec<&'static str>,
    /// Where our files lie, with a slash at its end.
    place: &'static str,
}

/// How a context becomes an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Whose rules these are.
    pub language: Language,
    /// What `npm` is called with to fetch the dependencies; nothing when there are none.
    pub npm: Option<Vec<&'static str>>,
    /// How it is made without an engine, where that is possible.
    pub append: Option<Append>,
    /// The Dockerfile.
    dockerfile: String,
    /// Directory of the build's context in which the user's files lie, with a slash at its end; empty for its top.
    place: &'static str,
    /// Our files in the build's context.
    files: BTreeMap<String, File>,
    /// Build arguments of the Function.
    pub(super) args: Vec<(String, String)>,
}

impl Recipe {
    /// Looks at the files and decides.
    ///
    /// # Errors
    /// When something is missing or not allowed: names the file and the remedy.
    pub fn new(
        language: Language,
        context: &Context,
        spec: &BuildSpec,
        bases: &BaseImages,
    ) -> Result<Self, RecipeError> {
        for (name, _) in &spec.args {
            // BuildKit takes orders from arguments of this name, such as where to load its own front end from.
            if !is_variable(name) || name.starts_with("BUILDKIT_") {
                return Err(RecipeError::BadArgument(name.clone()));
            }
            if dockerfile::is_the_sites(name) {
                return Err(RecipeError::SitesArgument(name.clone()));
            }
        }
        match language {
            Language::Node => node::recipe(context, spec, bases),
            Language::Dockerfile => dockerfile::recipe(context, spec, bases),
        }
    }

    /// SHA-256 of everything that decides what the image holds, as 64 hex digits. A site's [`BuildEnvironment`] is not in
    /// it: it decides whether a build reaches the registries of packages, not what the function is, and a new proxy or
    /// authority must not rebuild every Function.
    #[must_use]
    pub fn digest(&self, context: &Context) -> String {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(VERSION.as_bytes());
        part(context.digest().as_bytes());
        part(self.dockerfile.as_bytes());
        part(&write_tar(&self.files).0);
        for (name, value) in &self.args {
            part(name.as_bytes());
            part(value.as_bytes());
        }
        hex(&hash.finalize())
    }

    /// The image's name: `faas.local/<owner>:<digest>`.
    #[must_use]
    pub fn image_name(&self, owner: &str, context: &Context) -> ImageName {
        format!("{}{}", image_prefix(owner), self.digest(context))
    }

    /// The images that a build stands on and copies from, when the site gives it these variables.
    ///
    /// # Errors
    /// When it is not plain which image one is.
    pub fn images(&self, site: &[(String, String)]) -> Result<Vec<ImageName>, RecipeError> {
        let given: Vec<_> = site
            .iter()
            .chain(&self.args)
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        dockerfile::images(&self.dockerfile, &given)
    }

    /// The user's line, where an engine counts those of the Dockerfile that it gets.
    #[must_use]
    pub fn own_line(&self, environment: &BuildEnvironment, line: usize) -> usize {
        dockerfile::own_line(&self.dockerfile, environment, line)
    }

    /// The Dockerfile as an engine gets it, with the site's environment in every stage.
    #[must_use]
    pub fn dockerfile(&self, environment: &BuildEnvironment) -> String {
        dockerfile::with_environment(&self.dockerfile, environment)
    }

    /// The files of an image that is made without an engine, by their paths from its top.
    #[must_use]
    pub fn appended(&self, append: &Append, context: &Context) -> BTreeMap<String, File> {
        let users = context.files().iter();
        let users = users.map(|(path, file)| (format!("{}{path}", self.place), file.clone()));
        let ours = self.files.iter();
        let ours = ours.map(|(path, file)| (format!("{}{path}", append.place), file.clone()));
        users.chain(ours).collect()
    }

    /// The archive that an engine builds from: the user's files, ours, and the Dockerfile.
    #[must_use]
    pub fn build_context(&self, context: &Context, environment: &BuildEnvironment) -> Bytes {
        let text = |content: Bytes| File {
            executable: false,
            content,
        };
        let mut files: BTreeMap<String, File> = context
            .files()
            .iter()
            // What was installed elsewhere is not mixed with what `npm` installs here.
            .filter(|(path, _)| self.npm.is_none() || !path.starts_with("node_modules/"))
            .map(|(path, file)| (format!("{}{path}", self.place), file.clone()))
            .collect();
        files.extend(self.files.clone());
        if let Some(ca) = &environment.ca {
            files.insert(CA_FILE.into(), text(ca.clone()));
        }
        let dockerfile = self.dockerfile(environment).into();
        files.insert("Dockerfile".into(), text(dockerfile));
        write_tar(&files).0
    }
}

/// Judges what an image orders to be done by all that stand on it (ONBUILD), by the rules for Dockerfiles.
///
/// # Errors
/// When it would let a build see what is not for it.
pub fn check_trigger(trigger: &str) -> Result<(), RecipeError> {
    dockerfile::check_trigger(trigger)
}

/// What the names of all images that were built start with.
const BUILT: &str = "faas.local/";

/// What the names of an owner's images start with.
#[must_use]
pub fn image_prefix(owner: &str) -> String {
    format!("{BUILT}{owner}:")
}

/// Whose image this is, going by its name; nobody's when it was not built.
#[must_use]
pub fn owner_of(image: &str) -> Option<&str> {
    let (owner, _) = image.strip_prefix(BUILT)?.split_once(':')?;
    Some(owner)
}

/// Whether a name can be that of a variable, in a Dockerfile and in a shell.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests;
