//! The recipe of sources that bring their own Dockerfile, and the little of that language that must be understood for
//! it: where instructions begin and end (`split`), what they mount (`mounts`) and fetch (`fetch`), and from which images
//! (`images`). (pure)

mod fetch;
mod images;
mod mounts;
mod split;

use std::collections::BTreeMap;

use self::split::instructions;
use super::{
    super::{BaseImages, BuildEnvironment, archive::Context},
    BuildSpec, CA_FILE, Language, Recipe, RecipeError,
};

/// Arguments that every build knows without an ARG. Engines take a step from the cache whatever they are.
const PREDEFINED: [&str; 5] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

pub(super) fn recipe(
    context: &Context,
    spec: &BuildSpec,
    bases: &BaseImages,
) -> Result<Recipe, RecipeError> {
    let bytes = context
        .file("Dockerfile")
        .ok_or_else(|| RecipeError::Missing {
            file: "Dockerfile".into(),
            remedy: "add it, or say in spec.language what the code is written in",
        })?;
    let text = std::str::from_utf8(bytes).map_err(|error| RecipeError::Unreadable {
        file: "Dockerfile",
        message: error.to_string(),
    })?;
    let text = checked(text.trim_start_matches('\u{feff}'))?;
    Ok(Recipe {
        language: Language::Dockerfile,
        npm: None,
        append: None,
        dockerfile: with_bases(&text, bases),
        place: "",
        files: BTreeMap::new(),
        args: spec.args.clone(),
    })
}

/// Without what engines do not need, and refused if a build would get to see what is not for it.
fn checked(text: &str) -> Result<String, RecipeError> {
    let text = without_syntax(text)?;
    split::check(&text)?;
    mounts::check(&text, &images::stages(&text))?;
    fetch::check(&text)?;
    Ok(text)
}

/// Whether an argument of this name is the site's to give.
pub(super) fn is_the_sites(name: &str) -> bool {
    PREDEFINED.contains(&name.to_ascii_uppercase().as_str())
}

/// The images that a Dockerfile stands on and copies from. `given` are the arguments of the build, the last one counts.
pub(super) fn images(text: &str, given: &[(&str, &str)]) -> Result<Vec<String>, RecipeError> {
    images::images(text, given)
}

/// Judges what an image orders to be done by all that stand on it (ONBUILD).
pub(super) fn check_trigger(trigger: &str) -> Result<(), RecipeError> {
    if trigger.contains(['\r', '\n']) {
        let message = "it is of several lines".to_owned();
        return Err(RecipeError::Dockerfile { line: 1, message });
    }
    checked(trigger)?;
    match images::images(trigger, &[])?.first() {
        Some(image) => Err(RecipeError::Dockerfile {
            line: 1,
            message: format!("it copies from the image {image}"),
        }),
        None => Ok(()),
    }
}

/// The comments before the first instruction.
fn head(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().take_while(|(_, line)| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line.starts_with("//")
    })
}

fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.trim().trim_start_matches(['#', '/']).split_once('=')?;
    Some((name.trim().to_ascii_lowercase(), value.trim()))
}

/// Without `# syntax=docker/dockerfile`, which names what engines have built in. Any other front end is foreign code that
/// would run with the engine's access to registries.
fn without_syntax(text: &str) -> Result<String, RecipeError> {
    if text.trim_start().starts_with('{') {
        return Err(RecipeError::Dockerfile {
            line: 1,
            message: "this is JSON: write instructions, such as FROM node:22".into(),
        });
    }
    let mut dropped = None;
    for (number, line) in head(text) {
        let Some((name, value)) = directive(line) else {
            continue;
        };
        // Whether a line counts as a directive is decided differently by each engine, so there is one way to go on a line.
        if name == "escape" && value != "\\" {
            return Err(RecipeError::Dockerfile {
                line: number + 1,
                message: "no other escape character than \\ is understood: remove the line, and continue lines with \\"
                    .into(),
            });
        }
        if name != "syntax" {
            continue;
        }
        let image = value.trim_start_matches("docker.io/");
        if !(image == "docker/dockerfile" || image.starts_with("docker/dockerfile:")) {
            return Err(RecipeError::Dockerfile {
                line: number + 1,
                message: format!(
                    "the front end {value:?} is not allowed: remove the line; the engine's own is used"
                ),
            });
        }
        dropped = Some(number);
    }
    let keep = |(number, line): (usize, &str)| match dropped {
        Some(dropped) if dropped == number => "#\n".to_owned(),
        _ => line.to_owned(),
    };
    Ok(text.split_inclusive('\n').enumerate().map(keep).collect())
}

/// With the site's own copies in place of the images that stages start from, and without flags there: the one of today asks for
/// another platform's image, and a function runs here.
fn with_bases(text: &str, bases: &BaseImages) -> String {
    let mut stages: Vec<String> = Vec::new();
    let mut result = String::with_capacity(text.len());
    for instruction in instructions(text) {
        if !instruction.is("FROM") {
            result.push_str(instruction.raw);
            continue;
        }
        let words: Vec<_> = instruction.words().collect();
        let mut plain: Vec<_> = words
            .iter()
            .copied()
            .filter(|word| !word.starts_with("--"))
            .collect();
        let [_, image, ref named @ ..] = plain[..] else {
            result.push_str(instruction.raw);
            continue;
        };
        // A stage of this file may be called like an image.
        let base = bases
            .0
            .get(image)
            .filter(|_| !stages.iter().any(|s| s == image));
        stages.extend(named.get(1).map(|name| (*name).to_owned()));
        plain[1] = base.map_or(image, String::as_str);
        if plain == words {
            result.push_str(instruction.raw);
        } else {
            result.push_str(&plain.join(" "));
            result.push('\n');
        }
    }
    result
}

/// What names more authorities to programs.
pub const CA_VARIABLES: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"];

/// With the site's certificates and variables in every stage, as arguments: commands see them, the image's own
/// environment does not get them.
///
/// Certificates are offered by the two variables that add to what a base trusts: `NODE_EXTRA_CA_CERTS`, and
/// `SSL_CERT_FILE`, beside which OpenSSL and Go still read the directory of certificates of Debian, Ubuntu and Alpine.
/// The variables of pip, requests and curl only replace; a site that needs one sets it by `--build-env`. A variable that
/// the base image itself sets stays as it is.
pub(super) fn with_environment(text: &str, environment: &BuildEnvironment) -> String {
    let lines = additions(environment);
    if lines.is_empty() {
        return text.to_owned();
    }
    let mut result = String::with_capacity(text.len());
    for instruction in instructions(text) {
        result.push_str(instruction.raw);
        if instruction.is("FROM") {
            if !instruction.raw.ends_with('\n') {
                result.push('\n');
            }
            result.push_str(&lines.join("\n"));
            result.push('\n');
        }
    }
    result
}

/// The line of `text` that an engine means, which counts those of [`with_environment`] too.
pub(super) fn own_line(text: &str, environment: &BuildEnvironment, line: usize) -> usize {
    let added = additions(environment).len();
    let (mut own, mut given) = (0, 0);
    for instruction in instructions(text) {
        let count = instruction.raw.lines().count();
        if line <= given + count {
            break;
        }
        own += count;
        given += count;
        if instruction.is("FROM") {
            if line <= given + added {
                return own;
            }
            given += added;
        }
    }
    own + line.saturating_sub(given)
}

/// What every stage begins with.
fn additions(environment: &BuildEnvironment) -> Vec<String> {
    let label = |label: &String| format!("LABEL {label}");
    let mut lines: Vec<String> = environment.label.iter().map(label).collect();
    if environment.ca.is_some() {
        lines.push(format!("COPY {CA_FILE} /{CA_FILE}"));
        for name in CA_VARIABLES {
            lines.push(format!("ARG {name}=/{CA_FILE}"));
        }
    }
    for (name, _) in &environment.variables {
        if !is_the_sites(name) {
            lines.push(format!("ARG {name}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests;
