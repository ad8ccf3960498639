//! A desk, what callers and the controller do at it, and a book of what was promised. The book is kept without a lock that
//! the checker sees: it changes no schedule.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::{Duration, Instant},
};

use faas::{
    controller::Turns,
    function::{FunctionKey, Revision},
    plan::{Manners, Phase},
    pool::connection::Connections,
};
use futures::{Stream, poll};
use shuttle::{
    future::yield_now,
    rand::{Rng, thread_rng},
};
use tokio_util::sync::CancellationToken;

use crate::pool::{
    Instance, LeaseError, Route,
    desk::{Asked, Desk, Lease, Place},
};

/// How long a caller waits.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    Endless,
    /// Until it has looked so many times.
    Looks(usize),
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    Good,
    Broke,
    Condemned,
}

pub struct World {
    pub desk: Arc<Desk>,
    pub turns: Turns,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// All that ever were, so that each has an address of its own: that is what they are known by here, for ids come again.
    all: Vec<Arc<Instance>>,
    /// How many calls each may have at a time, noted for each call that it has.
    calls: BTreeMap<usize, Vec<u32>>,
    /// Nobody ever gets one of these again.
    retired: BTreeSet<usize>,
    /// Those that were condemned, broke or were removed: nobody who asks from now on gets one.
    out: BTreeSet<usize>,
    /// Number of the route that is served, or of one before it while it is being changed.
    routes: u64,
}

/// What was so before a caller asked.
struct Before {
    out: BTreeSet<usize>,
    routes: u64,
}

pub fn in_vain() -> LeaseError {
    LeaseError::NoCapacity {
        limit: Duration::ZERO,
    }
}

impl World {
    /// Without instances, and the keys of functions for which a turn is asked.
    pub fn new() -> (Arc<Self>, Pin<Box<dyn Stream<Item = FunctionKey> + Send>>) {
        let (turns, keys) = Turns::new();
        let world = Self {
            desk: Desk::new("sum".parse().unwrap(), turns.clone()),
            turns,
            book: Mutex::default(),
        };
        (Arc::new(world), Box::pin(keys))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// The route's number travels as its timeout.
    pub fn serve(&self, revision: &str, concurrency: u32) {
        let number = self.book().routes + 1;
        let route = Arc::new(Route {
            revision: named(revision),
            concurrency,
            manners: Manners::Stays,
            timeout: Duration::from_secs(number),
        });
        self.desk.change(|slots| slots.serve(Some(route)));
        self.book().routes = number;
    }

    pub fn add(&self, id: &str, revision: &str) {
        let instance = Arc::new(Instance {
            id: id.to_owned(),
            revision: named(revision),
            address: PathBuf::new().into(),
            connections: Connections::default(),
            gone: CancellationToken::default(),
        });
        self.book().all.push(Arc::clone(&instance));
        self.desk
            .change(|slots| slots.add(id.to_owned(), named(revision), instance, Instant::now()));
    }

    /// Something that the controller or the engine may do, to some instance that is there.
    pub fn any_change(&self) {
        let all: Vec<_> = self.desk.slots().handles().cloned().collect();
        let some = (!all.is_empty()).then(|| &all[thread_rng().gen_range(0..all.len())]);
        match (thread_rng().gen_range(0..8), some) {
            (0, _) => self.serve("a", thread_rng().gen_range(1..3)),
            (1, _) => self.serve("b", thread_rng().gen_range(1..3)),
            (2, _) => self.desk.refuse(&in_vain()),
            (3, Some(one)) => self.retire(one),
            (4, Some(one)) => {
                self.desk.condemn(&one.id);
                self.is_out(one);
            }
            (5, Some(one)) => self.remove(one),
            (6, Some(one)) => {
                // Gone, and found again: the engine had not told of it for a moment.
                self.remove(one);
                self.add(&one.id, "a");
            }
            _ => {
                let number = self.book().all.len();
                let revision = ["a", "b"][thread_rng().gen_range(0..2)];
                self.add(&format!("more {number}"), revision);
            }
        }
    }

    fn retire(&self, one: &Arc<Instance>) {
        // One step: nobody ends a call between the answer and the look into the book.
        let mut slots = self.desk.slots();
        if slots.retire(&one.id) {
            let mut book = self.book();
            let calls = book.calls.get(&address(one));
            assert!(calls.is_none(), "{} is retired with a call", one.id);
            book.retired.insert(address(one));
        }
    }

    fn remove(&self, one: &Arc<Instance>) {
        self.desk.slots().remove(&one.id);
        self.is_out(one);
    }

    fn is_out(&self, one: &Arc<Instance>) {
        self.book().out.insert(address(one));
    }

    /// A lease, for there is a free slot.
    pub fn take(&self) -> Lease {
        let before = self.before();
        let Asked::Lease(lease) = self.desk.ask().unwrap() else {
            panic!("no slot is free")
        };
        self.began(&lease, &before);
        lease
    }

    /// A place in the queue, for there is no free slot.
    pub fn queue_up(&self) -> Place {
        match self.desk.ask().unwrap() {
            Asked::Lease(lease) => panic!("{lease:?} is one too many"),
            Asked::Place(place) => place,
        }
    }

    fn before(&self) -> Before {
        let book = self.book();
        Before {
            out: book.out.clone(),
            routes: book.routes,
        }
    }

    /// One caller, from its question to the end of its call.
    pub async fn call(&self, patience: Patience, ending: Ending) {
        let before = self.before();
        let lease = match self.desk.ask().unwrap() {
            Asked::Lease(lease) => lease,
            Asked::Place(place) => match wait(place, patience).await {
                Some(Ok(lease)) => lease,
                Some(Err(error)) => return assert_eq!(error, in_vain()),
                None => return,
            },
        };
        self.began(&lease, &before);
        yield_now().await;
        self.use_up(lease, ending);
    }

    /// The end of a call.
    pub fn use_up(&self, lease: Lease, ending: Ending) {
        match ending {
            Ending::Good => {}
            Ending::Broke => lease.broke(),
            Ending::Condemned => lease.condemn(),
        }
        if !matches!(ending, Ending::Good) {
            self.is_out(&lease.instance);
        }
        self.ends(&lease);
        drop(lease);
    }

    fn began(&self, lease: &Lease, before: &Before) {
        let Lease {
            instance, route, ..
        } = lease;
        assert_eq!(
            instance.revision, route.revision,
            "of the revision that is served"
        );
        let number = route.timeout.as_secs();
        assert!(
            before.routes <= number,
            "by a route that was over: {number}"
        );
        let (id, address) = (&instance.id, address(instance));
        assert!(
            !before.out.contains(&address),
            "{id} was out before its caller asked"
        );
        let mut book = self.book();
        assert!(!book.retired.contains(&address), "{id} was retired");
        let calls = book.calls.entry(address).or_default();
        calls.push(route.calls_at_a_time());
        let most = calls.iter().copied().max().unwrap_or(0);
        assert!(
            calls.len() <= most as usize,
            "{id} has {} of {most} calls",
            calls.len()
        );
    }

    fn ends(&self, lease: &Lease) {
        let mut book = self.book();
        let address = address(&lease.instance);
        let calls = book.calls.get_mut(&address).unwrap();
        let most = lease.route.calls_at_a_time();
        let at = calls.iter().position(|one| *one == most).unwrap();
        calls.swap_remove(at);
        if calls.is_empty() {
            book.calls.remove(&address);
        }
    }

    /// Nobody waits beside a free slot, at this moment.
    pub fn look(&self) {
        let slots = self.desk.slots();
        let Some(route) = slots.route().filter(|_| slots.demand().waiting > 0) else {
            return;
        };
        for instance in slots.instances() {
            let serves = instance.revision == route.revision && instance.phase == Phase::Ready;
            let is_free = serves && instance.in_flight < route.calls_at_a_time();
            assert!(!is_free, "someone waits beside {instance:?}");
        }
    }

    /// Removes what is out of service and has no call, as the controller does.
    pub fn end_what_is_done(&self) {
        let mut slots = self.desk.slots();
        let done: Vec<_> = slots
            .instances()
            .filter(|i| i.phase != Phase::Ready && i.in_flight == 0)
            .map(|i| i.id)
            .collect();
        for id in done {
            let removed = slots.remove(&id).unwrap();
            assert!(!removed.busy, "{id} is ended with a call");
        }
    }

    pub fn is_empty(&self) -> bool {
        self.desk.slots().instances().next().is_none()
    }

    /// All calls are over: no slot is taken, and nobody waits.
    pub fn is_at_rest(&self) {
        let slots = self.desk.slots();
        let taken: Vec<_> = slots.instances().filter(|i| i.in_flight > 0).collect();
        assert!(taken.is_empty(), "slots are lost: {taken:?}");
        assert_eq!(slots.demand().waiting, 0, "someone waits who has left");
        assert!(self.book().calls.is_empty());
    }
}

/// Waits for a turn; nothing if the patience was over before.
async fn wait(place: Place, patience: Patience) -> Option<Result<Lease, LeaseError>> {
    let Patience::Looks(looks) = patience else {
        return Some(place.await);
    };
    let mut place = pin!(place);
    for _ in 0..looks {
        if let Poll::Ready(turn) = poll!(&mut place) {
            return Some(turn);
        }
        yield_now().await;
    }
    None
}

fn named(revision: &str) -> Revision {
    Revision::of([revision.as_bytes()])
}

fn address(instance: &Arc<Instance>) -> usize {
    Arc::as_ptr(instance) as usize
}
