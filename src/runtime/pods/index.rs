//! The pods of all instances as the watches say, and who wants to hear of their changes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{Stream, StreamExt, future::ready};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, runtime::watcher::Event};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

use super::{
    seen::function,
    status::{Ended, State, state},
};
use crate::runtime::{End, Exit, InstanceId};

/// Exits that a reader may be behind; one further behind observes anew.
const EXITS: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    pods: Mutex<HashMap<InstanceId, Arc<Pod>>>,
    /// Those that we have deleted, until they are gone.
    deleted: Mutex<HashSet<InstanceId>>,
    /// Places of which the first list is not whole yet.
    unlisted: watch::Sender<usize>,
    changed: watch::Sender<()>,
    exits: broadcast::Sender<Exit>,
}

/// What one watch has listed since it began anew.
#[derive(Debug, Default)]
pub(super) struct Listing {
    seen: HashSet<InstanceId>,
    is_done: bool,
}

impl Index {
    pub(super) fn new(places: usize) -> Self {
        Self {
            pods: Mutex::default(),
            deleted: Mutex::default(),
            unlisted: watch::Sender::new(places),
            changed: watch::Sender::new(()),
            exits: broadcast::Sender::new(EXITS),
        }
    }

    /// Takes what the watch of a place says. `is_its` tells which instances are of that place.
    pub(super) fn follow(
        &self,
        event: Event<Pod>,
        listing: &mut Listing,
        is_its: impl Fn(&Pod) -> bool,
    ) {
        match event {
            Event::Init => listing.seen.clear(),
            Event::InitApply(pod) => {
                listing.seen.insert(pod.name_any());
                self.put(pod);
            }
            Event::InitDone => {
                let gone: Vec<_> = self
                    .pods()
                    .values()
                    .filter(|pod| is_its(pod) && !listing.seen.contains(&pod.name_any()))
                    .map(|pod| pod.name_any())
                    .collect();
                for id in gone {
                    self.remove(&id, None);
                }
                if !std::mem::replace(&mut listing.is_done, true) {
                    self.unlisted.send_modify(|count| *count -= 1);
                }
            }
            Event::Apply(pod) => self.put(pod),
            Event::Delete(pod) => self.remove(&pod.name_any(), Some(&pod)),
        }
        self.changed.send_replace(());
    }

    fn put(&self, pod: Pod) {
        let pod = Arc::new(pod);
        let before = self.pods().insert(pod.name_any(), Arc::clone(&pod));
        let was = before.as_deref().map(state);
        let is = state(&pod);
        if was.as_ref() != Some(&is) {
            self.tell(&pod, was.as_ref(), &is);
        }
    }

    fn remove(&self, id: &str, last: Option<&Pod>) {
        let Some(before) = self.pods().remove(id) else {
            return;
        };
        lock(&self.deleted).remove(id);
        let was = state(&before);
        let ended = match last.map(state) {
            Some(ended @ State::Ended(_)) => ended,
            _ => State::Ended(Ended {
                code: 0,
                end: End::Engine,
                words: String::new(),
            }),
        };
        self.tell(last.unwrap_or(&before), Some(&was), &ended);
    }

    /// Tells of the end of an instance, and of the beginning of an end that others have ordered; of each once.
    fn tell(&self, pod: &Pod, was: Option<&State>, is: &State) {
        let (code, end) = match is {
            State::Ended(_) | State::NotRunnable(_)
                if matches!(was, Some(State::Ended(_) | State::NotRunnable(_))) =>
            {
                return;
            }
            State::Ended(ended) => (ended.code, ended.end),
            State::NotRunnable(_) => (-1, End::Itself),
            State::Leaving if lock(&self.deleted).contains(&pod.name_any()) => return,
            State::Leaving => (0, End::Leaving),
            State::Waiting(_) | State::NoImage(_) | State::Running(_) => return,
        };
        if let Some(function) = function(pod) {
            // Nobody listening is no error.
            let _ = self.exits.send(Exit {
                id: pod.name_any(),
                function,
                code,
                end,
            });
        }
    }

    /// We are about to delete it, and need not be told.
    pub(super) fn will_delete(&self, id: &str) {
        if self.pods().contains_key(id) {
            lock(&self.deleted).insert(id.to_owned());
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Pod>> {
        self.pods().get(id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Pod>> {
        self.pods().values().cloned().collect()
    }

    /// Waits until every place was listed once.
    pub(super) async fn listed(&self) {
        // Fails only if the sender is gone, and we hold it.
        let _ = self
            .unlisted
            .subscribe()
            .wait_for(|count| *count == 0)
            .await;
    }

    /// Waits until an answer can be given about this instance.
    pub(super) async fn until<T>(
        &self,
        id: &str,
        mut answer: impl FnMut(Option<&Pod>) -> Option<T>,
    ) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(answer) = answer(self.get(id).as_deref()) {
                return answer;
            }
            if changes.changed().await.is_err() {
                // The sender is ours.
                std::future::pending::<()>().await;
            }
        }
    }

    pub(super) fn exits(&self) -> impl Stream<Item = Exit> + Send + use<> {
        BroadcastStream::new(self.exits.subscribe())
            .take_while(|exit| ready(exit.is_ok()))
            .filter_map(|exit| ready(exit.ok()))
    }

    fn pods(&self) -> MutexGuard<'_, HashMap<InstanceId, Arc<Pod>>> {
        lock(&self.pods)
    }
}

/// Maps and sets are whole after any panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
