//! What engines say when something fails, in our words and the same for both builders.

use bollard::errors::Error;

use super::{super::BuildError, report::Report};
use crate::{runtime::docker::engine::NO_SPACE, text};

/// What builders put before the cause.
const PREFIXES: [&str; 6] = [
    "failed to solve with frontend dockerfile.v0: ",
    "failed to solve: ",
    "failed to build LLB: ",
    "failed to create LLB definition: ",
    "rpc error: code = Unknown desc = ",
    "process ",
];

/// How much of the engine's words an error repeats, in bytes.
const WORDS: usize = 2048;

/// What the engine said, fit to be shown; the cause comes last.
pub(super) fn told(words: &str) -> String {
    text::tail(words.as_bytes(), WORDS)
}

/// A failure that is not about a build's content.
#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(super) fn engine(error: Error) -> BuildError {
    let message = told(&error.to_string());
    if is_full(&message) {
        return BuildError::NoSpace(message);
    }
    match error {
        Error::DockerResponseServerError { .. } => BuildError::EngineFailed(message),
        _ => BuildError::Engine(message),
    }
}

/// A failure while building.
pub(super) fn build(error: Error, report: &Report) -> BuildError {
    let words = match error {
        Error::DockerStreamError { error } => error,
        // Before it begins, the classic builder refuses a Dockerfile that it cannot read.
        Error::DockerResponseServerError {
            status_code: 400,
            message,
        } => message,
        // There was an answer, or it would have broken off sooner.
        broken @ (Error::HyperResponseError { .. }
        | Error::JsonDataError { .. }
        | Error::JsonSerdeError { .. }
        | Error::IOError { .. }) => return BuildError::Interrupted(told(&broken.to_string())),
        other => return engine(other),
    };
    let message = cause(&words);
    report.fail(&message);
    if is_full(&words) || is_full(&report.last_words()) {
        return BuildError::NoSpace(message);
    }
    if is_lost(&words) || is_offline(&words) {
        return BuildError::EngineFailed(message);
    }
    let step = report.culprit();
    if let Some(image) = pulled_image(step) {
        return BuildError::Pull {
            image: image.into(),
            message,
        };
    }
    BuildError::Failed {
        step: step.into(),
        message: with_last_words(message, &report.last_words()),
    }
}

/// What an engine cannot read it names by a line of the Dockerfile that it got; `own` tells the user's.
pub(super) fn by_own_lines(mut error: BuildError, own: impl FnOnce(usize) -> usize) -> BuildError {
    const MARK: &str = "line ";
    if let BuildError::Failed { message, .. } = &mut error
        && message.starts_with("dockerfile parse error")
        && let Some(at) = message.find(MARK)
    {
        let begin = at + MARK.len();
        let digits = message[begin..].bytes().take_while(u8::is_ascii_digit);
        let end = begin + digits.count();
        if let Ok(line) = message[begin..end].parse() {
            message.replace_range(begin..end, &own(line).to_string());
        }
    }
    error
}

pub(super) fn is_missing(error: &Error) -> bool {
    status(error) == Some(404)
}

/// A container uses what should be removed.
pub(super) fn is_in_use(error: &Error) -> bool {
    status(error) == Some(409)
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether a layer went away while it was in use: another image that had it in common was just removed. Once more helps.
pub(super) fn is_lost(message: &str) -> bool {
    let marks = [
        "unrecognized image ID",
        "unknown parent image",
        "layer does not exist",
        "unable to find image \"sha256:",
        "failed to get digest sha256:",
        "failed to set parent sha256:",
    ];
    marks.iter().any(|mark| message.contains(mark))
}

/// Whether the engine has no network for the commands of a build, whatever they are.
fn is_offline(message: &str) -> bool {
    message.contains("failed to create endpoint") || message.contains("could not find bridge")
}

fn is_full(message: &str) -> bool {
    message.contains(NO_SPACE)
}

fn with_last_words(message: String, words: &str) -> String {
    if words.is_empty() {
        return message;
    }
    format!("{message}; its last words: {words}")
}

/// `The command '/bin/sh -c x' returned a non-zero code: 1` and `executor failed running [/bin/sh -c x]: exit code: 1`
/// are both `exit code 1`.
fn cause(words: &str) -> String {
    for mark in ["returned a non-zero code: ", "exit code: "] {
        if let Some((_, rest)) = words.rsplit_once(mark) {
            let code: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if !code.is_empty() {
                return format!("exit code {code}");
            }
        }
    }
    let mut cause = words.trim();
    while let Some(rest) = PREFIXES.iter().find_map(|p| cause.strip_prefix(p)) {
        cause = rest;
    }
    told(cause)
}

/// The image of a FROM: when such a step fails, its image could not be had.
fn pulled_image(step: &str) -> Option<&str> {
    let mut words = step.split_ascii_whitespace();
    words
        .next()
        .filter(|word| word.eq_ignore_ascii_case("FROM"))?;
    words.find(|word| !word.starts_with("--"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::BuildLog;

    struct Nowhere;

    impl BuildLog for Nowhere {
        fn write(&self, _: &[u8]) {}
    }

    #[test]
    fn an_engine_without_a_network_is_not_the_users_fault() {
        for (words, users) in [
            (
                "The command '/bin/sh -c npm ci' returned a non-zero code: 1",
                true,
            ),
            (
                "failed to create endpoint x on network bridge: adding interface veth1 to bridge docker0 failed",
                false,
            ),
            (
                "process \"/bin/sh -c npm ci\" did not complete: could not find bridge docker0: no such network interface",
                false,
            ),
        ] {
            let mut report = Report::new(std::sync::Arc::new(Nowhere));
            report.step("RUN npm ci");
            let error = Error::DockerStreamError {
                error: words.to_owned(),
            };
            let error = build(error, &report);
            let failed = matches!(error, BuildError::Failed { .. });
            assert_eq!(failed, users, "{error}");
        }
    }
}
