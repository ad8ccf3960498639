//! What a build says, in one shape for both builders: `==> STEP`, and below it what the step wrote.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    builder::BuildLog,
    text::{self, Plain},
};

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
    /// What steps wrote last, the latest at the end.
    spoken: VecDeque<Spoken>,
}

/// What a step wrote. Its words are made plain as they come, and not with those of others that come between.
#[derive(Default)]
struct Spoken {
    step: String,
    plain: Plain,
    tail: Vec<u8>,
}

impl Report {
    pub(super) fn new(log: Arc<dyn BuildLog>) -> Self {
        Self {
            log,
            current: String::new(),
            failed: None,
            spoken: VecDeque::new(),
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
        let known = self.spoken.iter().position(|s| s.step == self.current);
        let mut spoken = known
            .and_then(|at| self.spoken.remove(at))
            .unwrap_or_else(|| Spoken {
                step: self.current.clone(),
                ..Spoken::default()
            });
        let words = spoken.plain.read(bytes);
        self.log.write(words.as_bytes());
        let tail = &mut spoken.tail;
        tail.extend_from_slice(words.as_bytes());
        if tail.len() > 4 * TAIL {
            tail.drain(..tail.len() - 2 * TAIL);
        }
        self.spoken.push_back(spoken);
        if self.spoken.len() > STEPS {
            self.spoken.pop_front();
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
        let spoken = self.spoken.iter().find(|s| s.step == culprit);
        let tail = spoken.map_or(&[][..], |s| &s.tail);
        text::tail(tail, TAIL).trim().to_owned()
    }

    /// The end of a log that failed.
    pub(super) fn fail(&self, message: &str) {
        self.log
            .write(format!("\n==> failed: {message}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<u8>>);

    impl BuildLog for Log {
        fn write(&self, piece: &[u8]) {
            self.0.lock().unwrap().extend_from_slice(piece);
        }
    }

    #[test]
    fn colours_are_gone_however_steps_take_turns() {
        let log = Arc::new(Log::default());
        let mut report = Report::new(log.clone());
        for (step, words) in [
            ("RUN a", "\u{1b}[9"),
            ("RUN b", "\u{1b}[91mb fai"),
            ("RUN a", "1ma goes on\n"),
            ("RUN b", "led\u{1b}[0m\n"),
        ] {
            report.step(step);
            report.output(words.as_bytes());
        }
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            log,
            "==> RUN a\n==> RUN b\nb fai==> RUN a\na goes on\n==> RUN b\nled\n"
        );
        report.failed("RUN b");
        assert_eq!(report.last_words(), "b failed");
    }
}
