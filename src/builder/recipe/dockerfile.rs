//! The recipe of sources that bring their own Dockerfile, and the little of that language that must be understood for
//! it: where instructions begin and end, and what FROM and RUN say. (pure)

use std::collections::BTreeMap;

use super::{
    super::{BaseImages, BuildEnvironment, archive::Context},
    BuildSpec, CA_FILE, Language, Recipe, RecipeError,
};

/// Arguments that every build knows without an ARG.
const PREDEFINED: [&str; 5] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// Mounts that share nothing between builds. `cache` does: what one Function's build leaves there, another's would run.
const SAFE_MOUNTS: [&str; 4] = ["bind", "tmpfs", "secret", "ssh"];

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
    let text = without_syntax(text.trim_start_matches('\u{feff}'))?;
    check_mounts(&text)?;
    Ok(Recipe {
        language: Language::Dockerfile,
        npm: None,
        dockerfile: with_bases(&text, bases),
        place: "",
        files: BTreeMap::new(),
        args: spec.args.clone(),
    })
}

/// One instruction with all its lines.
struct Instruction<'a> {
    /// Number of its first line, from 1.
    line: usize,
    /// As written, heredocs included, with its last line's end.
    raw: &'a str,
    /// Its words on one line: continuations joined, comments between them dropped.
    text: String,
}

impl Instruction<'_> {
    fn is(&self, name: &str) -> bool {
        self.words()
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case(name))
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.text.split_ascii_whitespace()
    }
}

/// Splits a Dockerfile into instructions. Comments and blank lines before one belong to it.
fn instructions(text: &str) -> Vec<Instruction<'_>> {
    let escape = escape_character(text);
    let mut found = Vec::new();
    let mut lines = text.split_inclusive('\n');
    let (mut start, mut line) = (0, 1);
    while start < text.len() {
        let words = logical_line(&mut lines, escape);
        for mark in heredocs(&words) {
            let is_mark = |line: &str| line.trim_start_matches('\t').trim_end() == mark;
            lines.by_ref().find(|line| is_mark(line));
        }
        let end = text.len() - lines.clone().map(str::len).sum::<usize>();
        let raw = &text[start..end];
        found.push(Instruction {
            line,
            raw,
            text: words,
        });
        line += raw.matches('\n').count();
        start = end;
    }
    found
}

/// Takes lines up to the end of an instruction and joins them; comments and blank lines within do not count.
fn logical_line<'a>(lines: &mut impl Iterator<Item = &'a str>, escape: char) -> String {
    let mut joined = String::new();
    for line in lines {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        joined.push_str(line.trim_end_matches(escape));
        if !line.ends_with(escape) {
            break;
        }
    }
    joined
}

/// What continues a line: a backslash unless a directive at the top says otherwise.
fn escape_character(text: &str) -> char {
    head(text)
        .filter_map(|(_, line)| directive(line))
        .find(|(name, _)| name == "escape")
        .and_then(|(_, value)| value.chars().next())
        .unwrap_or('\\')
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

/// The marks that end an instruction's heredocs.
fn heredocs(text: &str) -> Vec<String> {
    let takes_them = ["RUN", "COPY", "ADD"].iter().any(|name| {
        text.get(..name.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(name))
    });
    if !takes_them {
        return Vec::new();
    }
    text.split_ascii_whitespace()
        .filter_map(|word| {
            let at = word.find("<<")?;
            let mark = word[at + 2..].trim_start_matches('-');
            let mark: String = mark.chars().filter(|c| !"'\"".contains(*c)).collect();
            let is_name = mark
                .chars()
                .next()
                .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            is_name.then_some(mark)
        })
        .collect()
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

fn check_mounts(text: &str) -> Result<(), RecipeError> {
    for instruction in instructions(text) {
        let words = instruction
            .words()
            .skip_while(|word| word.eq_ignore_ascii_case("ONBUILD"));
        let flags = words.skip(1).take_while(|word| word.starts_with("--"));
        for flag in flags {
            if let Some(kind) = flag.strip_prefix("--mount=").and_then(unsafe_mount) {
                return Err(RecipeError::Dockerfile {
                    line: instruction.line,
                    message: format!(
                        "--mount={kind} is not allowed, because Functions would share it: remove it; layers are cached anyway"
                    ),
                });
            }
        }
    }
    Ok(())
}

/// The mount's type, as written, when it is not one that is known to be safe.
fn unsafe_mount(options: &str) -> Option<String> {
    let plain: String = options
        .chars()
        .filter(|c| !"\"'\\`".contains(*c))
        .collect::<String>()
        .to_ascii_lowercase();
    plain
        .split(',')
        .filter_map(|option| option.trim().strip_prefix("type=").map(str::to_owned))
        .find(|kind| !SAFE_MOUNTS.contains(&kind.as_str()))
        .map(|kind| format!("type={kind}"))
}

/// With the site's own copies in place of the images that stages start from.
fn with_bases(text: &str, bases: &BaseImages) -> String {
    let mut stages: Vec<String> = Vec::new();
    let mut result = String::with_capacity(text.len());
    for instruction in instructions(text) {
        if !instruction.is("FROM") {
            result.push_str(instruction.raw);
            continue;
        }
        let words: Vec<_> = instruction.words().collect();
        let image = words[1..].iter().position(|word| !word.starts_with("--"));
        let Some(image) = image.map(|at| at + 1) else {
            result.push_str(instruction.raw);
            continue;
        };
        match bases.0.get(words[image]) {
            // A stage of this file may be called like an image.
            Some(base) if !stages.iter().any(|s| s == words[image]) => {
                let mut words = words.clone();
                words[image] = base;
                result.push_str(&words.join(" "));
                result.push('\n');
            }
            _ => result.push_str(instruction.raw),
        }
        if let [_, name, ..] = words[image + 1..] {
            stages.push(name.to_owned());
        }
    }
    result
}

/// With the site's certificates and variables in every stage, as arguments: commands see them, the image's own
/// environment does not get them.
///
/// Certificates are offered by the two variables that add to what a base trusts: `NODE_EXTRA_CA_CERTS`, and
/// `SSL_CERT_FILE`, beside which OpenSSL and Go still read the directory of certificates of Debian, Ubuntu and Alpine.
/// The variables of pip, requests and curl only replace; a site that needs one sets it by `--build-env`. A variable that
/// the base image itself sets stays as it is.
pub(super) fn with_environment(text: &str, environment: &BuildEnvironment) -> String {
    let mut lines = Vec::new();
    if environment.ca.is_some() {
        lines.push(format!("COPY {CA_FILE} /{CA_FILE}"));
        for name in ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"] {
            lines.push(format!("ARG {name}=/{CA_FILE}"));
        }
    }
    for (name, _) in &environment.variables {
        if !PREDEFINED.contains(&name.to_ascii_uppercase().as_str()) {
            lines.push(format!("ARG {name}"));
        }
    }
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
