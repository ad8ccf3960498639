//! What the instances of a Function write, for those who read it as it comes: each piece of those that run, and how each
//! one ended.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_stream::stream;
use bytes::{Bytes, BytesMut};
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream, SelectAll},
};

use tokio::time::MissedTickBehavior;

use super::{Controller, engine::Engine};
use crate::{function::FunctionKey, plan::Phase, runtime::InstanceId};

/// Instances that are remembered after their last piece: how one ended is known a moment later.
const LATELY: usize = 64;
/// Bytes of a line that are waited for: as much as runtimes keep together.
const LINE: usize = 16 * 1024;
/// Until an instance is listened to again that could not be read.
const AGAIN: Duration = Duration::from_secs(1);

/// As many instances are listened to as may be: each takes a descriptor, for a connection of the engine or a file.
#[derive(Debug, thiserror::Error)]
#[error("as many logs of instances are read as this server has descriptors for; try again later")]
pub struct TooManyRead;

/// What comes from an instance that runs.
enum Piece {
    Text(InstanceId, Bytes),
    /// There will be no more.
    End(InstanceId),
}

/// One who reads.
struct Reader {
    controller: Arc<Controller>,
    key: FunctionKey,
    tail: u32,
    /// Of instances that run.
    pieces: SelectAll<BoxStream<'static, Piece>>,
    /// Instances whose pieces still come.
    open: HashSet<InstanceId>,
    /// Instances that were listened to, the last one last.
    heard: VecDeque<InstanceId>,
    /// Those of them that said something.
    spoke: HashSet<InstanceId>,
    /// Those whose pieces ended before the first one: they cannot be read at this moment, or not any more.
    silent: HashSet<InstanceId>,
    /// Whether there are others, for which there was no place yet, or that could not be asked.
    waits: bool,
    /// Instances of which it was said how they ended.
    told: HashSet<InstanceId>,
}

impl Controller {
    /// What the last instances that are gone wrote, and then what those write that run. With `follow` it goes on until the
    /// Function is deleted or the engine is lost; instances that come are heard too, as soon as there is a place for them, and it is
    /// told how each one ends.
    ///
    /// # Errors
    /// When there is no place for any instance at this moment.
    pub fn logs(
        self: &Arc<Self>,
        key: FunctionKey,
        tail: u32,
        follow: bool,
    ) -> Result<impl Stream<Item = Bytes> + Send + 'static, TooManyRead> {
        if self.listening.available_permits() == 0 {
            return Err(TooManyRead);
        }
        let this = Arc::clone(self);
        Ok(stream! {
            let mut turned = this.turned.subscribe();
            let mut reader = Reader::new(this, key, tail);
            let mut again = tokio::time::interval(AGAIN);
            again.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                for end in reader.ends() {
                    yield end;
                }
                reader.listen(follow).await;
                tokio::select! {
                    piece = reader.pieces.next(), if !reader.pieces.is_empty() => {
                        if let Some(text) = piece.and_then(|piece| reader.take(piece)) {
                            yield text;
                        }
                    }
                    changed = turned.changed(), if follow => {
                        if changed.is_err() || reader.is_over() {
                            return;
                        }
                    }
                    _ = again.tick(), if reader.waits || follow && !reader.silent.is_empty() => reader.forget_silence(),
                    else => return,
                }
            }
        })
    }
}

impl Reader {
    fn new(controller: Arc<Controller>, key: FunctionKey, tail: u32) -> Self {
        Self {
            controller,
            key,
            tail,
            pieces: SelectAll::new(),
            open: HashSet::new(),
            heard: VecDeque::new(),
            spoke: HashSet::new(),
            silent: HashSet::new(),
            waits: false,
            told: HashSet::new(),
        }
    }

    /// How instances ended, of which that was not told yet; with their last words, if these were not heard.
    fn ends(&mut self) -> Vec<Bytes> {
        let entries = self.controller.entries();
        let Some(entry) = entries.get(&self.key) else {
            return Vec::new();
        };
        let mut ends = Vec::new();
        for ended in entry.last_words.iter() {
            // Its last pieces come first.
            if self.open.contains(&ended.id) || !self.told.insert(ended.id.clone()) {
                continue;
            }
            ends.push(if self.spoke.contains(&ended.id) {
                ended.end.clone()
            } else {
                ended.text(self.tail)
            });
        }
        ends
    }

    /// Hears instances that were not heard yet.
    async fn listen(&mut self, follow: bool) {
        let running = self.running();
        self.waits = false;
        for id in running {
            if self.heard.contains(&id) || self.told.contains(&id) {
                continue;
            }
            let Ok(place) = Arc::clone(&self.controller.listening).try_acquire_owned() else {
                self.waits = true;
                return;
            };
            let runtime = &self.controller.ports.runtime;
            let Ok(log) = runtime.logs(&id, self.tail, follow).await else {
                self.waits |= follow;
                continue;
            };
            let (speaker, ended) = (id.clone(), id.clone());
            let texts = lines(log.map(|piece| piece.bytes))
                .map(move |text| Piece::Text(speaker.clone(), text));
            let end = stream::once(async move {
                drop(place);
                Piece::End(ended)
            });
            self.pieces.push(texts.chain(end).boxed());
            self.open.insert(id.clone());
            self.heard.push_back(id);
        }
    }

    fn running(&mut self) -> Vec<InstanceId> {
        let entries = self.controller.entries();
        let Some(entry) = entries.get(&self.key) else {
            return Vec::new();
        };
        let there = entry.instances().0.into_iter();
        let running = there.filter(|i| !matches!(i.phase, Phase::Starting));
        let running: Vec<_> = running.map(|i| i.id).collect();
        // What is gone and forgotten is not asked for any more.
        let is_known = |id: &InstanceId| {
            self.open.contains(id)
                || running.contains(id)
                || entry.last_words.iter().any(|ended| ended.id == *id)
        };
        self.told.retain(is_known);
        let mut older = self.heard.len().saturating_sub(LATELY);
        self.heard.retain(|id| {
            let is_old = older > 0;
            older = older.saturating_sub(1);
            !is_old || is_known(id)
        });
        self.spoke.retain(|id| self.heard.contains(id));
        running
    }

    fn take(&mut self, piece: Piece) -> Option<Bytes> {
        match piece {
            Piece::Text(id, text) => {
                self.spoke.insert(id);
                Some(text)
            }
            Piece::End(id) => {
                self.open.remove(&id);
                if !self.spoke.contains(&id) {
                    self.silent.insert(id);
                }
                None
            }
        }
    }

    /// Who could not be read is listened to again, if it still runs.
    fn forget_silence(&mut self) {
        let silent = std::mem::take(&mut self.silent);
        self.heard.retain(|id| !silent.contains(id));
    }

    /// Whether there is nothing more to come: the Function is gone, or the engine, whose silence would look like a function
    /// that says nothing.
    fn is_over(&self) -> bool {
        let lost = matches!(self.controller.engine(), Engine::Away(_));
        lost || self.controller.ports.store.get(&self.key).is_none()
    }
}

/// Whole lines, so that instances that write at once do not tear each other's; what is longer goes on as it comes.
fn lines(mut pieces: impl Stream<Item = Bytes> + Unpin + Send) -> impl Stream<Item = Bytes> + Send {
    stream! {
        let mut begun = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            begun.extend_from_slice(&piece);
            let whole = match begun.iter().rposition(|byte| *byte == b'\n') {
                Some(end) => end + 1,
                None if begun.len() >= LINE => begun.len(),
                None => continue,
            };
            yield begun.split_to(whole).freeze();
        }
        if !begun.is_empty() {
            yield begun.freeze();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_stay_whole_unless_they_are_too_long() {
        let long = "x".repeat(LINE);
        for (pieces, expected) in [
            (vec![], vec![]),
            (vec!["one\n", "two\n"], vec!["one\n", "two\n"]),
            (vec!["o", "ne\ntw", "o\n"], vec!["one\n", "two\n"]),
            (vec!["one\ntwo\nthr", "ee"], vec!["one\ntwo\n", "three"]),
            (vec!["x", &long, "y\n"], vec![&format!("x{long}"), "y\n"]),
        ] {
            let pieces = pieces
                .into_iter()
                .map(|p| Bytes::copy_from_slice(p.as_bytes()));
            let lines: Vec<_> = lines(stream::iter(pieces)).collect().await;
            assert_eq!(lines, expected);
        }
    }
}
