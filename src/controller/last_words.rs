//! What instances that are gone wrote last (pure), so that a crash can be read of after it, and a call that was its
//! instance's only one.

use std::collections::VecDeque;

use bytes::Bytes;
use jiff::Timestamp;

use crate::runtime::{Exit, InstanceId, LAST_WORDS, log_tail};

/// Instances of a Function that are remembered.
const INSTANCES: usize = 8;

/// The ends of a Function's last instances, the oldest first: a few of them, and [`LAST_WORDS`] bytes in all.
#[derive(Debug, Default)]
pub struct LastWords(VecDeque<Ended>);

/// An instance that is gone.
#[derive(Debug)]
pub struct Ended {
    pub id: InstanceId,
    log: Bytes,
    /// How it ended, in a line.
    pub end: Bytes,
}

impl Ended {
    /// Its last `tail` lines, and how it ended.
    pub fn text(&self, tail: u32) -> Bytes {
        let mut text = log_tail::lines(&self.log, tail).to_vec();
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(&self.end);
        text.into()
    }
}

impl LastWords {
    /// An instance has ended by itself.
    pub fn exited(&mut self, exit: &Exit, log: &Bytes, now: Timestamp) {
        self.add(&exit.id, log, format!("[{now:.0} {exit}]\n"));
    }

    /// An instance was ended.
    pub fn ended(&mut self, id: &InstanceId, log: &Bytes, now: Timestamp) {
        if !log.is_empty() {
            self.add(id, log, format!("[{now:.0} instance {id} was ended]\n"));
        }
    }

    /// The oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Ended> {
        self.0.iter()
    }

    fn add(&mut self, id: &InstanceId, log: &Bytes, end: String) {
        // A copy: bytes that came in a larger piece would keep all of it.
        let log = Bytes::copy_from_slice(&log[log.len().saturating_sub(LAST_WORDS)..]);
        self.0.push_back(Ended {
            id: id.clone(),
            log,
            end: end.into(),
        });
        let bytes = |all: &VecDeque<Ended>| all.iter().map(|ended| ended.log.len()).sum::<usize>();
        while self.0.len() > INSTANCES || bytes(&self.0) > LAST_WORDS {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::End;

    fn exit(id: usize, code: i64) -> Exit {
        Exit {
            id: format!("faas-sum-{id}"),
            function: "sum".parse().unwrap(),
            code,
            end: if code == 137 {
                End::OutOfMemory
            } else {
                End::Itself
            },
        }
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00.25Z".parse().unwrap()
    }

    fn text(words: &LastWords, tail: u32) -> Vec<String> {
        let texts = words.iter().map(|ended| ended.text(tail).to_vec());
        texts.map(|t| String::from_utf8(t).unwrap()).collect()
    }

    #[test]
    fn an_end_is_told_below_the_last_lines() {
        let mut words = LastWords::default();
        words.exited(&exit(1, 137), &Bytes::from_static(b"a\nb\nc"), now());
        words.ended(&"faas-sum-2".to_owned(), &Bytes::from_static(b"d\n"), now());
        words.exited(&exit(3, 1), &Bytes::new(), now());
        let expected = [
            "b\nc\n[2026-01-01T00:00:00Z instance faas-sum-1 exited with code 137 (out of memory; see spec.resources.memory)]\n",
            "d\n[2026-01-01T00:00:00Z instance faas-sum-2 was ended]\n",
            "[2026-01-01T00:00:00Z instance faas-sum-3 exited with code 1]\n",
        ];
        assert_eq!(text(&words, 2), expected);
    }

    #[test]
    fn an_orderly_end_without_a_word_is_not_worth_a_line() {
        let mut words = LastWords::default();
        words.ended(&"faas-sum-2".to_owned(), &Bytes::new(), now());
        assert_eq!(text(&words, 2), [""; 0]);
    }

    #[test]
    fn memory_is_bounded_and_the_last_one_stays() {
        let mut words = LastWords::default();
        for id in 0..2 * INSTANCES {
            words.exited(&exit(id, 1), &Bytes::from_static(b"x"), now());
        }
        assert_eq!(words.0.len(), INSTANCES);
        words.exited(&exit(99, 1), &vec![b'y'; 2 * LAST_WORDS].into(), now());
        assert_eq!(words.0.len(), 1);
        assert_eq!(words.0[0].log.len(), LAST_WORDS);
    }
}
