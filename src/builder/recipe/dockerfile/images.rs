//! Which images a Dockerfile starts from and copies from, beside its own stages. (pure)
//!
//! Names must be plain, so that whoever looks at an image before the build looks at the one that the engine will take.

use std::collections::BTreeMap;

use super::{
    super::is_variable,
    RecipeError,
    split::{Instruction, instructions},
};
use crate::text::quote;

/// Longest name of an image, and longest value of an argument that may be a part of one, in bytes: values may double from
/// line to line.
const LONGEST: usize = 1024;
/// How much of a word is quoted.
const QUOTED: usize = 256;
/// The empty image.
const NOTHING: &str = "scratch";

/// Values of the arguments that FROM may use; nothing where it is not plain which it is.
type Arguments = BTreeMap<String, Option<String>>;

/// Names of all stages.
pub(super) fn stages(text: &str) -> Vec<String> {
    let all = instructions(text);
    let names = all.iter().filter_map(|instruction| stage(instruction)?.1);
    names.map(str::to_owned).collect()
}

/// The images, as the engine will look for them. `given` are the arguments of the build.
pub(super) fn images(text: &str, given: &[(&str, &str)]) -> Result<Vec<String>, RecipeError> {
    let (mut found, mut above) = (Vec::new(), Above::default());
    for instruction in instructions(text) {
        if let Some((name, stage)) = stage(&instruction) {
            let image =
                expand(name, &above.arguments).ok_or_else(|| unclear(&instruction, name))?;
            found.extend(Some(image).filter(|image| image != NOTHING && !above.is_stage(image)));
            above.stages.push(stage.unwrap_or_default().to_owned());
        } else if above.stages.is_empty() {
            declare(&instruction, given, &mut above.arguments);
        }
        for flag in flags_of_copy(&instruction) {
            // Engines take quotes and escapes out of flags.
            if !flag.is_ascii() || flag.contains(['$', '"', '\'', '\\']) {
                return Err(unclear(&instruction, flag));
            }
            let Some(name) = flag.strip_prefix("--from=") else {
                continue;
            };
            if !above.is_stage(name) && !is_number(name) {
                let image = expand(name, &Arguments::new());
                found.push(image.ok_or_else(|| unclear(&instruction, name))?);
            }
        }
    }
    Ok(found)
}

/// What was said above an instruction.
#[derive(Default)]
struct Above {
    arguments: Arguments,
    /// Their names, empty where they have none.
    stages: Vec<String>,
}

impl Above {
    /// By its name.
    fn is_stage(&self, name: &str) -> bool {
        let mut stages = self.stages.iter();
        stages.any(|stage| stage.eq_ignore_ascii_case(name))
    }
}

/// Whether COPY takes it for the number of a stage, be there one or not. For FROM it begins the id of an image.
fn is_number(name: &str) -> bool {
    name.parse::<i64>().is_ok()
}

fn unclear(instruction: &Instruction<'_>, name: &str) -> RecipeError {
    let message = format!(
        "it cannot be told which image {} is: write its name as it is, or use an ARG with a value above the first FROM",
        quote(name, QUOTED)
    );
    RecipeError::Dockerfile {
        line: instruction.line,
        message,
    }
}

/// The image and the name of a stage.
fn stage<'a>(instruction: &'a Instruction<'_>) -> Option<(&'a str, Option<&'a str>)> {
    let words = instruction.words_of("FROM");
    let mut words = words.into_iter().skip_while(|word| word.starts_with("--"));
    Some((words.next()?, words.nth(1)))
}

fn flags_of_copy<'a>(instruction: &'a Instruction<'_>) -> impl Iterator<Item = &'a str> {
    let words = instruction.words_of("COPY").into_iter();
    words.take_while(|word| word.starts_with("--"))
}

fn declare(instruction: &Instruction<'_>, given: &[(&str, &str)], arguments: &mut Arguments) {
    for word in instruction.words_of("ARG") {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, expand(default, arguments)),
            None => (word, None),
        };
        let of_build = given.iter().rev().find(|(other, _)| *other == name);
        let value = of_build.map(|(_, value)| (*value).to_owned()).or(default);
        arguments.insert(name.to_owned(), value);
    }
}

/// A word with the values of its variables; nothing where they are not known, or there is more to it than variables.
fn expand(word: &str, arguments: &Arguments) -> Option<String> {
    let quoted = word
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let (mut rest, mut text) = (quoted.unwrap_or(word), String::new());
    while let Some((before, after)) = rest.split_once('$') {
        let (name, fallback, end) = variable(after)?;
        let value = arguments.get(name)?.as_deref();
        let value = value.filter(|value| !value.is_empty()).or(fallback)?;
        text.extend([before, value]);
        rest = end;
        if text.len() > LONGEST {
            return None;
        }
    }
    text.push_str(rest);
    (text.len() <= LONGEST && is_name(&text)).then_some(text)
}

/// Whether it can be the name of an image, which becomes a part of the path of a request.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-:@/".contains(&b);
    text.bytes().all(plain) && text.split('/').all(|part| !["", ".", ".."].contains(&part))
}

/// `NAME`, `{NAME}` or `{NAME:-FALLBACK}`, and what follows.
fn variable(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (name, fallback, end) = if let Some(inner) = text.strip_prefix('{') {
        let (inner, end) = inner.split_once('}')?;
        let (name, fallback) = match inner.split_once(":-") {
            Some((name, fallback)) => (name, Some(fallback)),
            None => (inner, None),
        };
        (name, fallback, end)
    } else {
        let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let (name, end) = text.split_at(text.find(is_end).unwrap_or(text.len()));
        (name, None, end)
    };
    is_variable(name).then_some((name, fallback, end))
}
