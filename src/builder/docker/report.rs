//! What a build says, in one shape for both builders: `==> STEP`, and below it what the step wrote.

use std::{collections::VecDeque, sync::Arc};

use crate::{builder::BuildLog, text};

/// How much of a step's last words an error repeats, in bytes.
const TAIL: usize = 2048;
/// Of how many steps words are kept: those of today's builds run beside each other, and a program can print lines that look
/// like steps without end.
const STEPS: usize = 64;
/// How much of a step is shown, in bytes.
const STEP: usize = 512;

/// A step as it is shown: one line, without what the Dockerfile's author indents with.
pub(super) fn shown(step: &str) -> String {
    text::quote(step.replace('\t', " ").trim_end(), STEP)
}

/// Writes the log and remembers what an error will need.
pub(super) struct Report {
    log: Arc<dyn BuildLog>,
    /// The step that spoke last.
    current: String,
    /// The step that is known to have failed.
    failed: Option<String>,
    /// The last words of steps, the latest at the end.
    tails: VecDeque<(String, Vec<u8>)>,
}

impl Report {
    pub(super) fn new(log: Arc<dyn BuildLog>) -> Self {
        Self {
            log,
            current: String::new(),
            failed: None,
            tails: VecDeque::new(),
        }
    }

    /// A step begins, or goes on after others had the word.
    pub(super) fn step(&mut self, step: &str) {
        if step != self.current {
            step.clone_into(&mut self.current);
            self.log.write(format!("==> {step}\n").as_bytes());
        }
    }

    /// The current step needs not be done again.
    pub(super) fn cached(&self) {
        self.log.write(b"cached\n");
    }

    /// The current step wrote something.
    pub(super) fn output(&mut self, bytes: &[u8]) {
        self.log.write(bytes);
        let known = self.tails.iter().position(|(s, _)| *s == self.current);
        let (step, mut tail) = known
            .and_then(|at| self.tails.remove(at))
            .unwrap_or_else(|| (self.current.clone(), Vec::new()));
        tail.extend_from_slice(bytes);
        if tail.len() > 4 * TAIL {
            tail.drain(..tail.len() - 2 * TAIL);
        }
        self.tails.push_back((step, tail));
        if self.tails.len() > STEPS {
            self.tails.pop_front();
        }
    }

    /// A step failed.
    pub(super) fn failed(&mut self, step: &str) {
        self.failed = Some(step.to_owned());
    }

    /// The step that failed, as far as is known.
    pub(super) fn culprit(&self) -> &str {
        match self.failed.as_deref().unwrap_or(&self.current) {
            "" => "Dockerfile",
            step => step,
        }
    }

    /// The last words of the step that failed.
    pub(super) fn last_words(&self) -> String {
        let culprit = self.culprit();
        let tail = self
            .tails
            .iter()
            .find(|(step, _)| step == culprit)
            .map_or(&[][..], |(_, tail)| tail);
        text::tail(tail, TAIL).trim().to_owned()
    }

    /// The end of a log that failed.
    pub(super) fn fail(&self, message: &str) {
        self.log
            .write(format!("\n==> failed: {message}\n").as_bytes());
    }
}
