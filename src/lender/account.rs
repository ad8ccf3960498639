//! What one gateway has of one function: leases of ours, and places in our queue.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Event, Line};
use crate::{
    function::FunctionKey,
    pool::{Asked, Instance, Lease, Place, Pool, Terms},
    runtime::InstanceId,
    stream::message::{Down, Held, Out, Refusal, Report},
};

/// See the module.
pub(super) struct Account {
    key: FunctionKey,
    /// Nothing once the function is no more.
    pool: Option<Arc<Pool>>,
    told: Option<Terms>,
    /// Leases that were sent on this stream.
    sent: u64,
    /// Those of them that the gateway had not seen when it last reported.
    flying: VecDeque<(u64, InstanceId)>,
    shares: HashMap<InstanceId, Share>,
    places: VecDeque<(u64, AbortOnDropHandle<()>)>,
    next_place: u64,
    waiting: usize,
    is_reported: bool,
}

/// What it has of an instance.
pub(super) struct Share {
    instance: Arc<Instance>,
    pub leases: Vec<Lease>,
    /// How many of them are asked back.
    pub recalled: u32,
    /// Tells when the instance is no more.
    _end: AbortOnDropHandle<()>,
}

impl Account {
    pub fn new(key: FunctionKey) -> Self {
        Self {
            key,
            pool: None,
            told: None,
            sent: 0,
            flying: VecDeque::new(),
            shares: HashMap::new(),
            places: VecDeque::new(),
            next_place: 0,
            waiting: 0,
            is_reported: false,
        }
    }

    /// The stream was lost: what it has, it may be using.
    pub fn cut(&mut self) {
        self.places.clear();
        self.flying.clear();
        (self.sent, self.told, self.waiting) = (0, None, 0);
        self.is_reported = false;
        for share in self.shares.values_mut() {
            share.recalled = 0;
            share.leases.iter_mut().for_each(Lease::wake);
        }
    }

    /// All was reported: what was not is not there.
    pub fn known(&mut self) {
        if !self.is_reported {
            self.shares.clear();
        }
    }

    /// Tells where the function is called and how, if that is news.
    pub fn sync(&mut self, pool: &Arc<Pool>, line: &mut Line) {
        if !self
            .pool
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, pool))
        {
            self.close(line);
            self.pool = Some(Arc::clone(pool));
        }
        let terms = pool.terms();
        if self.told.as_ref() != Some(&terms) {
            line.say(Down::Terms(self.key.clone(), Box::new(terms.clone())));
            self.told = Some(terms);
        }
    }

    /// The function is no more; what the gateway has of it comes back. Says whether it has nothing.
    pub fn close(&mut self, line: &mut Line) -> bool {
        if self.pool.take().is_some() {
            line.say(Down::Gone(self.key.clone()));
        }
        self.places.clear();
        self.told = None;
        self.is_empty()
    }

    /// Whether the gateway has nothing of it.
    pub fn is_empty(&self) -> bool {
        self.shares.values().all(|share| share.leases.is_empty())
    }

    /// Whether it is this pool's.
    pub fn is_of(&self, pool: &Arc<Pool>) -> bool {
        self.pool
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, pool))
    }

    pub fn waiting(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    pub fn shares(&mut self) -> impl Iterator<Item = (&InstanceId, &mut Share)> {
        self.shares.iter_mut()
    }

    /// Gives it one call of an instance more.
    pub fn lend(&mut self, lease: Lease, line: &mut Line, events: &mpsc::Sender<Event>) {
        let instance = Arc::clone(&lease.instance);
        if let Some(pool) = self.pool.clone() {
            // The terms of this lease must be there before it is.
            self.sync(&pool, line);
        }
        self.found_again(&instance, line);
        let share = self.share(&instance, events);
        share.leases.push(lease);
        self.sent += 1;
        self.flying.push_back((self.sent, instance.id.clone()));
        line.say(Down::Lend {
            function: self.key.clone(),
            instance: instance.id.clone(),
            revision: instance.revision.clone(),
            address: instance.address.clone(),
        });
    }

    /// An instance that had disappeared is another one when it is found again, though it has the same id.
    fn found_again(&mut self, instance: &Arc<Instance>, line: &mut Line) {
        let known = self.shares.get(&instance.id);
        if known.is_some_and(|share| !Arc::ptr_eq(&share.instance, instance)) {
            self.ended(&instance.id, line);
        }
    }

    /// An instance is no more.
    pub fn ended(&mut self, id: &InstanceId, line: &mut Line) {
        self.flying.retain(|(_, flying)| flying != id);
        self.shares.remove(id);
        line.say(Down::Ended {
            function: self.key.clone(),
            instance: id.clone(),
        });
    }

    /// Whether it knows this very instance.
    pub fn knows(&self, instance: &Arc<Instance>) -> bool {
        let known = self.shares.get(&instance.id);
        known.is_some_and(|share| Arc::ptr_eq(&share.instance, instance))
    }

    fn share(&mut self, instance: &Arc<Instance>, events: &mpsc::Sender<Event>) -> &mut Share {
        let key = &self.key;
        self.shares.entry(instance.id.clone()).or_insert_with(|| {
            let (events, key, of) = (events.clone(), key.clone(), Arc::clone(instance));
            let end = async move {
                of.gone.cancelled().await;
                // Fails only at the end of everything.
                let _ = events.send(Event::Ended(key, of)).await;
            };
            Share {
                instance: Arc::clone(instance),
                leases: Vec::new(),
                recalled: 0,
                _end: AbortOnDropHandle::new(tokio::spawn(end)),
            }
        })
    }

    /// What the gateway says that it has.
    pub fn report(&mut self, report: &Report, line: &mut Line, events: &mpsc::Sender<Event>) {
        self.is_reported = true;
        while self
            .flying
            .front()
            .is_some_and(|(number, _)| *number <= report.seen)
        {
            self.flying.pop_front();
        }
        let now = Instant::now();
        for held in &report.held {
            if !self.claim(held, events) {
                self.ended(&held.instance, line);
                continue;
            }
            let flying = self.flying_to(&held.instance);
            if let Some(share) = self.shares.get_mut(&held.instance) {
                share.learn(held);
                share.settle(held, flying, now);
            }
        }
        let told: HashSet<_> = report.held.iter().map(|held| &held.instance).collect();
        let untold = self.shares.keys().filter(|id| !told.contains(id));
        for id in untold.cloned().collect::<Vec<_>>() {
            let flying = self.flying_to(&id);
            if let Some(share) = self.shares.get_mut(&id) {
                share.settle(&Held::none(id), flying, now);
            }
        }
        self.waiting = usize::try_from(report.waiting).unwrap_or(usize::MAX);
    }

    fn flying_to(&self, id: &InstanceId) -> usize {
        self.flying.iter().filter(|(_, to)| to == id).count()
    }

    /// What it has had since before we knew of it becomes a share of ours. Says whether the instance is there.
    fn claim(&mut self, held: &Held, events: &mpsc::Sender<Event>) -> bool {
        let has = |account: &Self| {
            let share = account.shares.get(&held.instance);
            share.map(|share| share.leases.len())
        };
        let slots = usize::try_from(held.slots).unwrap_or(usize::MAX);
        // One at least: what happened to an instance is told by a lease of it.
        while has(self).is_none_or(|has| has < slots) {
            let pool = self.pool.as_ref();
            let Some(lease) = pool.and_then(|pool| pool.claim(&held.instance)) else {
                return has(self).is_some();
            };
            let instance = Arc::clone(&lease.instance);
            self.share(&instance, events).leases.push(lease);
        }
        true
    }

    /// Sees to it that as many places are in the queue as callers wait for whom nothing is on its way.
    pub fn demand(&mut self, line: &mut Line, events: &mpsc::Sender<Event>) {
        let Some(pool) = self.pool.clone() else {
            return;
        };
        let wanted = self.waiting.saturating_sub(self.flying.len());
        while self.places.len() > wanted {
            // Whoever waited longest was served, or has left.
            self.places.pop_front();
        }
        for _ in self.places.len()..wanted {
            match pool.ask() {
                Ok(Asked::Lease(lease)) => self.lend(lease, line, events),
                Ok(Asked::Place(place)) => self.wait(place, line, events),
                // They wait where they are, and ask again with the next that comes or goes.
                Err(_) => break,
            }
        }
    }

    fn wait(&mut self, place: Place, line: &Line, events: &mpsc::Sender<Event>) {
        let number = self.next_place;
        self.next_place += 1;
        let (key, gateway, events) = (self.key.clone(), line.name.clone(), events.clone());
        let turn = async move {
            let turn = Event::Turn {
                gateway,
                key,
                place: number,
                turn: place.await,
            };
            // Fails only at the end of everything.
            let _ = events.send(turn).await;
        };
        let turn = AbortOnDropHandle::new(tokio::spawn(turn));
        self.places.push_back((number, turn));
    }

    /// The turn of a place has come, or never will. One that was given up is the next one's.
    pub fn turn(
        &mut self,
        place: u64,
        turn: Result<Lease, crate::pool::LeaseError>,
        line: &mut Line,
        events: &mpsc::Sender<Event>,
    ) {
        let Some(at) = self.places.iter().position(|(number, _)| *number == place) else {
            return;
        };
        match turn {
            Ok(lease) => {
                self.places.remove(at);
                self.lend(lease, line, events);
            }
            Err(error) => {
                // All who wait were told.
                self.places.clear();
                self.waiting = 0;
                if let Some(refusal) = Refusal::of(&error, Instant::now()) {
                    line.say(Down::Refuse(self.key.clone(), refusal));
                }
            }
        }
    }

    /// Asks slots back.
    pub fn recall(&mut self, id: &InstanceId, slots: u32, line: &mut Line) {
        if let Some(share) = self.shares.get_mut(id) {
            share.recalled += slots;
            line.say(Down::Recall {
                function: self.key.clone(),
                instance: id.clone(),
                slots,
            });
        }
    }
}

impl Share {
    /// What happened to the instance.
    fn learn(&self, held: &Held) {
        let Some(lease) = self.leases.first() else {
            return;
        };
        if held.answered {
            lease.answered();
        }
        match held.out {
            Some(Out::Broken) => lease.broke(),
            Some(Out::Condemned) => lease.condemn(),
            None => {}
        }
    }

    /// Takes back what the gateway has no more, and notes which of the rest have calls.
    fn settle(&mut self, held: &Held, flying: usize, now: Instant) {
        let count = |slots: u32| usize::try_from(slots).unwrap_or(usize::MAX);
        let (keeps, busy) = (count(held.slots) + flying, count(held.busy) + flying);
        let since = held.idle.and_then(|idle| now.checked_sub(idle));
        for (number, lease) in self.leases.iter_mut().enumerate() {
            if number < busy {
                lease.wake();
            } else {
                lease.rest(since);
            }
        }
        let back = self.leases.len().saturating_sub(keeps);
        self.leases.truncate(keeps);
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        self.recalled = self.recalled.saturating_sub(back);
    }
}
