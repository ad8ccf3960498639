//! What a build says, in one shape for both builders: `==> STEP`, and below it what the step wrote.

use std::{collections::HashMap, sync::Arc};

use crate::{builder::BuildLog, text};

/// How much of a step's last words an error repeats, in bytes.
const TAIL: usize = 2048;

/// Writes the log and remembers what an error will need.
pub(super) struct Report {
    log: Arc<dyn BuildLog>,
    /// The step that spoke last.
    current: String,
    /// The step that is known to have failed.
    failed: Option<String>,
    tails: HashMap<String, Vec<u8>>,
}

impl Report {
    pub(super) fn new(log: Arc<dyn BuildLog>) -> Self {
        Self {
            log,
            current: String::new(),
            failed: None,
            tails: HashMap::new(),
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
        let tail = self.tails.entry(self.current.clone()).or_default();
        tail.extend_from_slice(bytes);
        if tail.len() > 4 * TAIL {
            tail.drain(..tail.len() - 2 * TAIL);
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
        let tail = self
            .tails
            .get(self.culprit())
            .map_or(&[][..], Vec::as_slice);
        text::tail(tail, TAIL).trim().to_owned()
    }

    /// The end of a log that failed.
    pub(super) fn fail(&self, message: &str) {
        self.log
            .write(format!("\n==> failed: {message}\n").as_bytes());
    }
}
