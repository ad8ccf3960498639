//! What is lent to this gateway, in pools that are called as any: what the controller says changes them, and what they have is
//! told to the controller whenever that changes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use tokio::sync::mpsc;

use crate::{
    controller::Turns,
    function::FunctionKey,
    pool::{Pool, Pools, Terms, slots::lent::Borrowed},
    stream::message::{Down, Held, Report, Up},
};

/// See the module.
pub(crate) struct Borrower {
    pools: Arc<Pools>,
    turns: Turns,
    /// Pools of functions that are no more, while calls run there.
    gone: HashMap<FunctionKey, Vec<Arc<Pool>>>,
    /// The way to the controller, if there is one.
    to: Option<mpsc::Sender<Up>>,
    /// Loans that came on this stream.
    seen: HashMap<FunctionKey, u64>,
    /// What was told last on this stream.
    told: HashMap<FunctionKey, State>,
    /// Functions that this stream has spoken of.
    named: HashSet<FunctionKey>,
}

/// All that is told of a function.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    seen: u64,
    waiting: u32,
    all: Vec<Borrowed>,
}

impl Borrower {
    /// Nothing is lent yet.
    pub(crate) fn new(pools: Arc<Pools>, turns: Turns) -> Self {
        Self {
            pools,
            turns,
            gone: HashMap::new(),
            to: None,
            seen: HashMap::new(),
            told: HashMap::new(),
            named: HashSet::new(),
        }
    }

    /// A stream begins: the controller learns what we have.
    pub(crate) fn begin(&mut self, to: mpsc::Sender<Up>) {
        self.to = Some(to);
        self.seen.clear();
        self.told.clear();
        self.named.clear();
        self.tell();
        self.say(Up::Known);
    }

    /// The server ends: all calls are over, and everything goes back.
    pub(crate) fn leave(&mut self) {
        self.forsake();
        self.tell();
        self.say(Up::Leaving);
        self.to = None;
    }

    /// What is lent takes no more calls.
    pub(crate) fn forsake(&self) {
        for pool in self.pools.all() {
            pool.forsake();
        }
    }

    /// A pool needs something, or gives something back.
    pub(crate) fn look(&mut self, key: &FunctionKey) {
        self.turns.begin(key);
        self.report(key);
    }

    /// Tells what has changed.
    pub(crate) fn tell(&mut self) {
        let pools = self.pools.all();
        let mut keys: HashSet<_> = pools.iter().map(|pool| pool.key().clone()).collect();
        keys.extend(self.gone.keys().cloned());
        for key in keys {
            self.report(&key);
        }
    }

    fn report(&mut self, key: &FunctionKey) {
        let pool = self.pools.get(key.namespace(), key.name());
        let gone = self.gone.get(key).into_iter().flatten();
        for pool in gone.clone().chain(&pool) {
            pool.hang_up();
        }
        let (waiting, mut all) = pool.as_ref().map(|p| p.borrowed()).unwrap_or_default();
        all.extend(gone.flat_map(|pool| pool.borrowed().1));
        let state = State {
            seen: self.seen.get(key).copied().unwrap_or_default(),
            waiting,
            all,
        };
        let is_news = match self.told.get(key) {
            Some(told) => *told != state,
            None => state != State::default(),
        };
        if !is_news {
            return;
        }
        let now = Instant::now();
        self.say(Up::Report(Report {
            function: key.clone(),
            seen: state.seen,
            waiting,
            held: state.all.iter().map(|loan| Held::of(loan, now)).collect(),
        }));
        let is_over = state.all.iter().all(|loan| loan.held == 0);
        if is_over {
            self.gone.remove(key);
        }
        self.told.insert(key.clone(), state);
    }

    /// A controller that does not read is gone, and so is the stream then.
    fn say(&mut self, up: Up) {
        if let Some(to) = &self.to
            && to.try_send(up).is_err()
        {
            self.to = None;
        }
    }

    /// What the controller says.
    pub(crate) fn hear(&mut self, down: Down) {
        match down {
            Down::Terms(key, terms) => self.go_by(key, *terms),
            Down::Gone(key) => self.forget(&key),
            Down::Complete => self.complete(),
            Down::Lend {
                function,
                instance,
                revision,
                address,
            } => {
                *self.seen.entry(function.clone()).or_default() += 1;
                match self.pools.get(function.namespace(), function.name()) {
                    Some(pool) => pool.borrow(instance, revision, address, 1),
                    None => self.report(&function),
                }
            }
            Down::Recall {
                function,
                instance,
                slots,
            } => {
                if let Some(pool) = self.pools.get(function.namespace(), function.name()) {
                    pool.recall(&instance, slots);
                }
            }
            Down::Ended { function, instance } => {
                let pool = self.pools.get(function.namespace(), function.name());
                let gone = self.gone.get(&function).into_iter().flatten();
                for pool in gone.chain(&pool) {
                    pool.ended(&instance);
                }
            }
            Down::Refuse(key, refusal) => {
                if let Some(pool) = self.pools.get(key.namespace(), key.name()) {
                    pool.refuse(&refusal.error(Instant::now()));
                }
            }
        }
    }

    /// A controller that has just begun may not know yet where calls go; that is no reason to send them nowhere.
    fn go_by(&mut self, key: FunctionKey, terms: Terms) {
        let pool = self.pools.ensure(&key);
        if let Some(route) = terms.route
            && pool.route().as_deref() != Some(&route)
        {
            pool.serve(Some(route));
        }
        pool.set_patience(terms.patience);
        pool.set_starved(terms.starved);
        pool.set_hindrance(terms.hindrance);
        self.named.insert(key);
    }

    /// The function is no more. Its calls end, and then everything goes back.
    fn forget(&mut self, key: &FunctionKey) {
        if let Some(pool) = self.pools.get(key.namespace(), key.name()) {
            self.pools.remove(key);
            pool.forsake();
            self.gone.entry(key.clone()).or_default().push(pool);
        }
        self.named.remove(key);
        self.report(key);
    }

    /// Of what exists, all was said.
    fn complete(&mut self) {
        for pool in self.pools.all() {
            if !self.named.contains(pool.key()) {
                self.forget(pool.key());
            }
        }
        self.pools.completed();
    }
}
