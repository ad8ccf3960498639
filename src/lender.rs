//! The controller's side of gateways: leases of our instances go to gateways, and places in our queues stand for their callers.
//!
//! The pools stay the one authority: what a gateway has of an instance are leases that it holds (`account.rs`). So `concurrency`
//! holds over all gateways, and whatever waits for the end of calls waits for theirs. Which slots are asked back is decided in
//! `recalls.rs`. All of it is one task, which hears of everything in turn; connections (`door.rs`) only carry messages.
//!
//! A gateway that is lost may go on using what it has: its leases count as busy until it is back, until another process of its
//! name comes, or until it must have noticed by itself that it is cut off ([`CUT`]) and its last call has ended.

mod account;
mod balance;
pub mod door;
mod recalls;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;

use self::account::Account;
use crate::{
    controller::Turns,
    function::FunctionKey,
    kubernetes::{lease::Fence, notice::Notice},
    pool::{Instance, Lease, LeaseError, Pool, Pools},
    stream::{
        CUT,
        message::{Down, Report, Up},
    },
};

/// How often it is looked whether a time is over.
const TICK: Duration = Duration::from_secs(1);
/// Events on their way. Connections wait when there are more.
const MAILBOX: usize = 1024;

/// What happens.
pub enum Event {
    /// A gateway is here. Its number is this stream's.
    Joined {
        name: String,
        run: String,
        stream: u64,
        to: mpsc::Sender<Down>,
    },
    Said(String, u64, Up),
    Lost(String, u64),
    /// A place in the queue of a function was somebody's turn, or was in vain.
    Turn {
        gateway: String,
        key: FunctionKey,
        place: u64,
        turn: Result<Lease, LeaseError>,
    },
    /// An instance that was lent is no more.
    Ended(FunctionKey, Arc<Instance>),
}

/// Lends the instances of all pools.
pub struct Lender {
    pools: Arc<Pools>,
    /// Which functions to look at.
    news: Turns,
    notice: Notice,
    fence: Fence,
    gateways: BTreeMap<String, Gateway>,
    /// Those that may hold leases since before we began, and have not come yet.
    missing: BTreeSet<String>,
    began: Instant,
    events: mpsc::Sender<Event>,
    mailbox: mpsc::Receiver<Event>,
}

struct Gateway {
    run: String,
    line: Line,
    /// Since when its stream is lost.
    lost: Option<Instant>,
    /// It has said what it has.
    is_known: bool,
    accounts: HashMap<FunctionKey, Account>,
}

/// The way to a gateway.
struct Line {
    name: String,
    stream: u64,
    /// Nothing when it is lost, or reads too slowly.
    to: Option<mpsc::Sender<Down>>,
}

impl Line {
    fn say(&mut self, down: Down) {
        let said = self.to.as_ref().is_some_and(|to| to.try_send(down).is_ok());
        if !said {
            self.to = None;
        }
    }
}

impl Lender {
    /// Without gateways. `news` is what the pools ask for turns.
    pub fn new(pools: Arc<Pools>, news: Turns, notice: Notice, fence: Fence) -> Self {
        let (events, mailbox) = mpsc::channel(MAILBOX);
        Self {
            missing: BTreeSet::new(),
            pools,
            news,
            notice,
            fence,
            gateways: BTreeMap::new(),
            began: Instant::now(),
            events,
            mailbox,
        }
    }

    /// Where to tell what happens.
    pub fn events(&self) -> mpsc::Sender<Event> {
        self.events.clone()
    }

    /// Lends for ever; `keys` are the functions that `news` was asked to look at.
    pub async fn run(mut self, keys: impl Stream<Item = FunctionKey> + Send + 'static) {
        self.notice.written(|_| true).await;
        self.missing = self.notice.said().gateways;
        self.began = Instant::now();
        let mut keys = std::pin::pin!(keys);
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                Some(event) = self.mailbox.recv() => self.happened(event),
                Some(key) = keys.next() => {
                    self.news.begin(&key);
                    self.look(&key);
                }
                _ = tick.tick() => self.tick(Instant::now()),
            }
        }
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Joined {
                name,
                run,
                stream,
                to,
            } => self.joined(name, run, stream, to),
            Event::Said(name, stream, up) => {
                let gateway = self.gateways.get(&name);
                if gateway.is_some_and(|gateway| gateway.line.stream == stream) {
                    self.said(&name, up);
                }
            }
            Event::Lost(name, stream) => self.lost(&name, stream),
            Event::Turn {
                gateway,
                key,
                place,
                turn,
            } => {
                let events = &self.events;
                if let Some(gateway) = self.gateways.get_mut(&gateway)
                    && let Some(account) = gateway.accounts.get_mut(&key)
                {
                    account.turn(place, turn, &mut gateway.line, events);
                }
            }
            Event::Ended(key, instance) => {
                for gateway in self.gateways.values_mut() {
                    if let Some(account) = gateway.accounts.get_mut(&key)
                        && account.knows(&instance)
                    {
                        account.ended(&instance.id, &mut gateway.line);
                    }
                }
            }
        }
    }

    fn lost(&mut self, name: &str, stream: u64) {
        if let Some(gateway) = self.gateways.get_mut(name)
            && gateway.line.stream == stream
        {
            tracing::warn!(gateway = %name, "Gateway lost; what it has stays its own for a while");
            gateway.cut();
            gateway.lost = Some(Instant::now());
        }
    }

    fn joined(&mut self, name: String, run: String, stream: u64, to: mpsc::Sender<Down>) {
        tracing::info!(gateway = %name, "Gateway joined");
        let line = Line {
            name: name.clone(),
            stream,
            to: Some(to),
        };
        let mut gateway = Gateway {
            run,
            line,
            lost: None,
            is_known: false,
            accounts: HashMap::new(),
        };
        // Another process of the name: the one before is no more, and has nothing.
        if let Some(mut before) = self.gateways.remove(&name)
            && before.run == gateway.run
        {
            before.cut();
            gateway.accounts = before.accounts;
        }
        self.gateways.insert(name, gateway);
    }

    fn said(&mut self, name: &str, up: Up) {
        match up {
            Up::Report(report) => self.report(name, &report),
            Up::Known => self.known(name),
            Up::Leaving => {
                tracing::info!(gateway = %name, "Gateway left");
                self.forget(name);
            }
        }
    }

    fn report(&mut self, name: &str, report: &Report) {
        let key = &report.function;
        let pool = self.pools.get(key.namespace(), key.name());
        let Some(gateway) = self.gateways.get_mut(name) else {
            return;
        };
        let account = gateway.accounts.entry(key.clone());
        let account = account.or_insert_with(|| Account::new(key.clone()));
        match &pool {
            Some(pool) => account.sync(pool, &mut gateway.line),
            None => gateway.line.say(Down::Gone(key.clone())),
        }
        account.report(report, &mut gateway.line, &self.events);
        if pool.is_none() && account.is_empty() {
            gateway.accounts.remove(key);
        } else if gateway.is_known {
            account.demand(&mut gateway.line, &self.events);
            self.balance(key);
        }
    }

    /// It has said all that it has: from now on it gets what it needs, and of each function something ahead.
    fn known(&mut self, name: &str) {
        if let Some(gateway) = self.gateways.get_mut(name) {
            gateway.is_known = true;
            gateway.accounts.values_mut().for_each(Account::known);
        }
        self.came(name);
        for pool in self.pools.all() {
            self.look(pool.key());
        }
        if let Some(gateway) = self.gateways.get_mut(name) {
            gateway.line.say(Down::Complete);
            for account in gateway.accounts.values_mut() {
                account.demand(&mut gateway.line, &self.events);
            }
        }
        for pool in self.pools.all() {
            self.balance(pool.key());
        }
    }

    /// Nobody has to wait for it any more.
    fn came(&mut self, name: &str) {
        if self.missing.remove(name) && self.missing.is_empty() {
            for pool in self.pools.all() {
                pool.release();
            }
        }
    }

    /// Sees that every gateway knows of a function, and has something of it.
    fn look(&mut self, key: &FunctionKey) {
        let pool = self.pools.get(key.namespace(), key.name());
        if let Some(pool) = &pool
            && self.all_are_known(pool, Instant::now())
        {
            pool.release();
        }
        let events = &self.events;
        for gateway in self.gateways.values_mut().filter(|g| g.is_known) {
            let line = &mut gateway.line;
            let Some(pool) = &pool else {
                if let Some(account) = gateway.accounts.get_mut(key)
                    && account.close(line)
                {
                    gateway.accounts.remove(key);
                }
                continue;
            };
            let account = gateway.accounts.entry(key.clone());
            let account = account.or_insert_with(|| Account::new(key.clone()));
            account.sync(pool, line);
            if account.is_empty()
                && let Some(mut lease) = pool.spare()
            {
                lease.rest(None);
                account.lend(lease, line, events);
            }
        }
        self.balance(key);
    }

    /// Gives up what must be over by now. Who may not write may not know either who is gone.
    fn tick(&mut self, now: Instant) {
        if self.fence.is_closed() {
            return;
        }
        if !self.missing.is_empty() {
            for pool in self.pools.all() {
                if self.all_are_known(&pool, now) {
                    pool.release();
                }
            }
        }
        let mut gone = Vec::new();
        for (name, gateway) in &mut self.gateways {
            let Some(lost) = gateway.lost else {
                continue;
            };
            let pools = &self.pools;
            gateway.accounts.retain(|key, _| {
                let pool = pools.get(key.namespace(), key.name());
                now.saturating_duration_since(lost) < pool.map_or(CUT, |pool| gives_up(&pool))
            });
            if gateway.accounts.is_empty() && now.saturating_duration_since(lost) >= CUT {
                gone.push(name.clone());
            }
        }
        for name in gone {
            tracing::warn!(gateway = %name, "Gateway given up");
            self.forget(&name);
        }
    }

    /// Whether nobody can hold leases of a pool that we do not know.
    fn all_are_known(&self, pool: &Pool, now: Instant) -> bool {
        self.missing.is_empty() || now.saturating_duration_since(self.began) >= gives_up(pool)
    }

    fn forget(&mut self, name: &str) {
        self.gateways.remove(name);
        self.came(name);
        self.notice.change(|said| {
            said.gateways.remove(name);
        });
    }
}

impl Gateway {
    fn cut(&mut self) {
        self.line.to = None;
        self.is_known = false;
        self.accounts.values_mut().for_each(Account::cut);
    }
}

/// When whoever is lost has no call of this function any more.
fn gives_up(pool: &Pool) -> Duration {
    let timeout = pool.route().map(|route| route.timeout);
    CUT + timeout.unwrap_or_default()
}

#[cfg(test)]
mod tests;
