//! Who controls: of several that serve the same Functions, the one that holds the Lease. The others wait.
//!
//! A holder that cannot renew in time writes nothing any more ([`Fence`]), however long it was stopped, but goes on answering:
//! when the server answers again and nobody else has taken the Lease, it is renewed.
//!
//! A namespace that is being deleted loses its Lease and takes no other, and yet it cannot go before what runs for its Functions
//! has ended. There nobody can hold it any more, so who asks goes on without it, as long as the server says so each time it is
//! asked. Only one that has seen another hold it leaves that to the other, which goes on likewise.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
    core::Status,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{sleep, timeout};

use super::notice::{Notice, Said};

/// Its name, in the namespace that we are in.
pub(super) const NAME: &str = "faas-controller";
/// How long others wait for a holder that renews no more.
const DURATION: Duration = Duration::from_secs(15);
/// How long the holder writes without having renewed. What it has sent by then must have arrived before others begin.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for an answer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// Between two looks.
const AGAIN: Duration = Duration::from_secs(2);
/// The cause of a refusal, in a namespace that is being deleted.
const ENDING: &str = "NamespaceTerminating";
/// How often it is read and written at once while others write to it.
const TRIES: u32 = 4;

/// Until when this process may write, in milliseconds since the machine began, its sleep included.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<AtomicU64>);

impl Fence {
    /// Whether nothing may be written at this moment.
    pub fn is_closed(&self) -> bool {
        uptime() >= self.0.load(Ordering::Acquire)
    }

    /// For how long nothing was written.
    pub fn closed_for(&self) -> Duration {
        Duration::from_millis(uptime().saturating_sub(self.0.load(Ordering::Acquire)))
    }

    /// For so long from now on.
    #[cfg(test)]
    pub(crate) fn open_for(&self, time: Duration) {
        self.open(uptime() + millis(time));
    }

    fn open(&self, until: u64) {
        self.0.store(until, Ordering::Release);
    }
}

/// A clock that goes on while the process, or the machine, is stopped.
fn uptime() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000_000
}

/// A Lease that is held, or is to be.
pub struct Lease {
    leases: Api<Object>,
    me: String,
    fence: Fence,
    notice: Notice,
    /// Whether this process has held it.
    held: bool,
    /// Who else was seen to hold it.
    other: Option<String>,
    /// The version that was last seen, and since when.
    seen: Option<(String, u64)>,
}

/// What to do about a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Take,
    /// Somebody holds it.
    Wait(String),
}

impl Lease {
    /// `me` must be nobody else's name, and should be the same after a crash: then nobody has to wait.
    pub fn new(client: Client, namespace: &str, me: String, fence: Fence) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            me,
            fence,
            notice: Notice::default(),
            held: false,
            other: None,
            seen: None,
        }
    }

    /// What is said in it while it is held.
    pub fn notice(&self) -> &Notice {
        &self.notice
    }

    /// Waits until this process is `fit` to hold it, and while somebody else does; `waits` is told who.
    ///
    /// # Errors
    /// When the server does not tell. Nothing may be written then, but [`Self::keep`] goes on trying.
    pub async fn take(
        &mut self,
        waits: impl Fn(&str),
        fit: impl AsyncFn() -> bool,
    ) -> Result<(), kube::Error> {
        let mut told = String::new();
        loop {
            if fit().await {
                let Some(holder) = self.try_once().await? else {
                    return Ok(());
                };
                if holder != told {
                    waits(&holder);
                    told = holder;
                }
            } else {
                told.clear();
            }
            sleep(AGAIN).await;
        }
    }

    /// Renews it for ever, or takes it as soon as the server answers. Ends when somebody else holds it, and tells who.
    pub async fn keep(&mut self) -> String {
        let mut said = self.notice.said();
        loop {
            // What is new is said at once, but no more often than this goes on.
            let _ = timeout(AGAIN, self.notice.differs(&said)).await;
            said = self.notice.said();
            match self.try_once().await {
                Ok(None) => {}
                Ok(Some(holder)) => return holder,
                Err(error) => tracing::warn!(%error, "The lease is not renewed"),
            }
        }
    }

    /// Others need not wait until it has run out. Nothing is written from now on.
    pub async fn give_back(&self) {
        self.fence.open(0);
        let given = timeout(ANSWER, async {
            let Some(mut current) = self.leases.get_opt(NAME).await? else {
                return Ok(());
            };
            if let Some(spec) = &mut current.spec
                && spec.holder_identity.as_deref() == Some(&self.me)
            {
                spec.holder_identity = None;
                let params = PostParams::default();
                self.leases.replace(NAME, &params, &current).await?;
            }
            Ok::<_, kube::Error>(())
        });
        match given.await {
            Ok(Ok(())) => {}
            // It runs out by itself.
            Ok(Err(error)) => tracing::warn!(%error, "The lease is not given back"),
            Err(_) => tracing::warn!("The lease is not given back: the API server does not answer"),
        }
    }

    /// Takes or renews it, unless somebody holds it.
    async fn try_once(&mut self) -> Result<Option<String>, kube::Error> {
        let sent = uptime();
        let late = || kube::Error::Service("the API server does not answer".into());
        let step = async {
            let mut tries = 1;
            loop {
                match self.step(sent).await {
                    // Somebody wrote to it at this moment: whether that was to hold it is seen when it is read again.
                    Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => {
                        tries += 1;
                    }
                    outcome => return outcome,
                }
            }
        };
        let tried = timeout(ANSWER, step).await;
        let holder = tried.map_err(|_| late())??;
        if holder.is_none() {
            self.fence.open(sent + millis(DEADLINE));
        }
        Ok(holder)
    }

    async fn step(&mut self, now: u64) -> Result<Option<String>, kube::Error> {
        let current = self.leases.get_opt(NAME).await?;
        let version = current.as_ref().and_then(ResourceExt::resource_version);
        if self.seen.as_ref().map(|(version, _)| version) != version.as_ref() {
            self.seen = version.map(|version| (version, now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        if !self.held {
            // Whom the one before knew.
            let before = current
                .as_ref()
                .map(|lease| Said::read(lease.annotations()));
            let gateways = before.unwrap_or_default().gateways;
            self.notice.change(|said| said.gateways = gateways);
        }
        let said = self.notice.said();
        let ours = self.object(current.as_ref(), &said);
        let written = match decide(current.as_ref(), &self.me, now.saturating_sub(since)) {
            Step::Wait(holder) => {
                self.other = Some(holder.clone());
                return Ok(Some(holder));
            }
            Step::Create => self.leases.create(&PostParams::default(), &ours).await,
            Step::Take => {
                self.leases
                    .replace(NAME, &PostParams::default(), &ours)
                    .await
            }
        };
        match written {
            Ok(_) => {
                self.held = true;
                self.other = None;
                self.notice.wrote(said);
                Ok(None)
            }
            Err(kube::Error::Api(status)) if is_ending(&status) => Ok(self.other.clone()),
            Err(error) => Err(error),
        }
    }

    /// What it is when we hold it.
    fn object(&self, current: Option<&Object>, said: &Said) -> Object {
        let now = MicroTime(Timestamp::now());
        let before = current
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let is_ours = before.holder_identity.as_deref() == Some(&self.me);
        let transitions = before.lease_transitions.unwrap_or_default();
        Object {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                resource_version: current.and_then(ResourceExt::resource_version),
                annotations: Some(said.annotations()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: before
                    .acquire_time
                    .filter(|_| is_ours)
                    .or(Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(transitions + i32::from(!is_ours)),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// Whether the namespace is being deleted, and therefore takes nothing new.
fn is_ending(refusal: &Status) -> bool {
    let causes = refusal.details.iter().flat_map(|details| &details.causes);
    refusal.code == 403 && causes.into_iter().any(|cause| cause.reason == ENDING)
}

/// `unchanged` is for how many milliseconds we have seen this version: clocks of others do not count.
fn decide(current: Option<&Object>, me: &str, unchanged: u64) -> Step {
    let Some(current) = current else {
        return Step::Create;
    };
    let spec = current.spec.clone().unwrap_or_default();
    let duration = spec.lease_duration_seconds.unwrap_or_default();
    let duration = u64::try_from(duration).unwrap_or_default() * 1000;
    match spec.holder_identity {
        Some(holder) if !holder.is_empty() && holder != me && unchanged < duration => {
            Step::Wait(holder)
        }
        _ => Step::Take,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: &str) -> Object {
        Object {
            metadata: ObjectMeta::default(),
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            }),
        }
    }

    #[test]
    fn a_lease_is_taken_when_nobody_else_renews_it() {
        for (current, unchanged, expected) in [
            (None, 0, Step::Create),
            (Some(held("")), 0, Step::Take),
            (Some(held("me")), 0, Step::Take),
            (Some(held("you")), 0, Step::Wait("you".to_owned())),
            (Some(held("you")), 14_999, Step::Wait("you".to_owned())),
            (Some(held("you")), 15_000, Step::Take),
            (Some(Object::default()), 0, Step::Take),
        ] {
            assert_eq!(decide(current.as_ref(), "me", unchanged), expected);
        }
    }

    #[test]
    fn a_namespace_that_ends_is_told_from_other_refusals() {
        let refusal = |code: u16, cause: &str| -> Status {
            let causes =
                serde_json::json!([{"reason": cause, "message": "it is being terminated"}]);
            let details = serde_json::json!({"name": NAME, "causes": causes});
            let status =
                serde_json::json!({"code": code, "reason": "Forbidden", "details": details});
            serde_json::from_value(status).unwrap()
        };
        assert!(is_ending(&refusal(403, "NamespaceTerminating")));
        assert!(!is_ending(&refusal(403, "QuotaExceeded")));
        assert!(!is_ending(&refusal(409, "NamespaceTerminating")));
        assert!(!is_ending(&Status::default()));
    }

    #[test]
    fn a_fence_is_closed_until_it_is_opened_and_after_its_time() {
        let fence = Fence::default();
        assert!(fence.is_closed());
        fence.open(uptime() + 60_000);
        assert!(!fence.is_closed());
        assert_eq!(fence.closed_for(), Duration::ZERO);
        fence.open(uptime());
        assert!(fence.is_closed());
    }
}
