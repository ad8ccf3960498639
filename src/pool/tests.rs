//! Leases as callers see them; the counts below them are in files of their own.

mod any_order;
mod lent;
mod pace;
mod slots;

use std::{pin::Pin, task::Poll};

use futures::{FutureExt, Stream, StreamExt, poll};

use super::*;
use crate::function::status::Reason;

/// Longer than any test.
const PATIENCE: Duration = Duration::from_secs(3600);

fn key() -> FunctionKey {
    "sum".parse().unwrap()
}

fn revision() -> Revision {
    Revision::of([b"a".as_slice()])
}

type Keys = Pin<Box<dyn Stream<Item = FunctionKey> + Send>>;

fn pools() -> (Pools, Keys) {
    let (turns, keys) = Turns::new();
    (Pools::new(turns), Box::pin(keys))
}

/// A pool that serves, each instance one call at a time.
fn pool(pools: &Pools) -> Arc<Pool> {
    let pool = pools.ensure(&key());
    pool.set_patience(PATIENCE);
    let timeout = Duration::from_secs(30);
    pool.serve(Some(Route {
        revision: revision(),
        concurrency: 1,
        manners: Manners::Stays,
        timeout,
    }));
    pool
}

fn add(pool: &Arc<Pool>, id: &str) {
    pool.add(
        id.to_owned(),
        revision(),
        std::path::PathBuf::from("/nowhere"),
    );
}

fn in_flight(pool: &Pool) -> u32 {
    pool.look().0.iter().map(|i| i.in_flight).sum()
}

fn waiting(pool: &Pool) -> u32 {
    pool.look().1.waiting
}

fn failure() -> Failure {
    Failure {
        reason: Reason::StartFailed,
        message: "it exits at once".to_owned(),
        attempts: 1,
        retry_at: None,
        crash: None,
    }
}

#[tokio::test]
async fn a_warm_instance_is_leased_at_once_and_returned_by_dropping() {
    let (pools, mut keys) = pools();
    let pool = pool(&pools);
    add(&pool, "1");
    let lease = pool.lease().now_or_never().unwrap().unwrap();
    assert_eq!((lease.instance.id.as_str(), in_flight(&pool)), ("1", 1));
    drop(lease);
    assert_eq!(
        (in_flight(&pool), pool.look().1.last_call.is_some()),
        (0, true)
    );
    assert_eq!(
        keys.next().now_or_never(),
        None,
        "nothing for the controller"
    );
}

#[tokio::test]
async fn a_caller_without_an_instance_waits_and_asks_for_a_turn() {
    let (pools, mut keys) = pools();
    let pool = pool(&pools);
    let mut caller = Box::pin(pool.lease());
    assert!(poll!(&mut caller).is_pending());
    assert_eq!(
        (waiting(&pool), keys.next().now_or_never()),
        (1, Some(Some(key())))
    );
    add(&pool, "1");
    let Poll::Ready(Ok(lease)) = poll!(&mut caller) else {
        panic!("an instance is ready")
    };
    assert_eq!((waiting(&pool), in_flight(&pool)), (0, 1));
    let mut next = Box::pin(pool.lease());
    assert!(poll!(&mut next).is_pending());
    drop(lease);
    assert!(
        poll!(&mut next).is_ready(),
        "the end of a call is the next one's beginning"
    );
}

#[tokio::test]
async fn a_caller_that_leaves_is_forgotten_at_once() {
    let (pools, mut keys) = pools();
    let pool = pool(&pools);
    let mut caller = Box::pin(pool.lease());
    assert!(poll!(&mut caller).is_pending());
    keys.next().await;
    pools.turns.begin(&key());
    drop(caller);
    assert_eq!(
        (waiting(&pool), keys.next().now_or_never()),
        (0, Some(Some(key()))),
        "the controller hears of it"
    );
}

#[tokio::test]
async fn what_a_caller_got_but_did_not_take_goes_to_the_next() {
    let (pools, _keys) = pools();
    let pool = pool(&pools);
    let mut callers: Vec<_> = (0..3).map(|_| Box::pin(pool.lease())).collect();
    for caller in &mut callers {
        assert!(poll!(caller).is_pending());
    }
    add(&pool, "1");
    // The first has been granted the instance, but goes before it looks.
    drop(callers.remove(0));
    assert_eq!((waiting(&pool), in_flight(&pool)), (1, 1));
    let lease = callers.remove(0).now_or_never().unwrap().unwrap();
    drop((lease, callers));
    assert_eq!((waiting(&pool), in_flight(&pool)), (0, 0));
}

#[tokio::test]
async fn a_thousand_wait_and_one_more_is_refused() {
    let (pools, _keys) = pools();
    let pool = pool(&pools);
    let mut callers: Vec<_> = (0..super::slots::MAX_WAITING)
        .map(|_| Box::pin(pool.lease()))
        .collect();
    for caller in &mut callers {
        assert!(poll!(caller).is_pending());
    }
    let refused = pool.lease().now_or_never().unwrap();
    assert_eq!(
        refused.err(),
        Some(LeaseError::QueueFull(QueueFull {
            waiting: 1000,
            takes: None
        }))
    );
    callers.pop();
    assert!(
        pool.lease().now_or_never().is_none(),
        "there is a place again"
    );
}

#[tokio::test]
async fn patience_ends() {
    let (pools, _keys) = pools();
    let pool = pool(&pools);
    let limit = Duration::from_millis(1);
    pool.set_patience(limit);
    assert_eq!(
        pool.lease().await.err(),
        Some(LeaseError::NoInstance { limit, cause: None })
    );
    pool.set_hindrance(Some("the engine is away".to_owned()));
    let error = pool.lease().await.unwrap_err().to_string();
    assert!(error.ends_with(": the engine is away"), "{error}");
    pool.set_starved(true);
    assert_eq!(
        pool.lease().await.err(),
        Some(LeaseError::NoCapacity { limit })
    );
    assert_eq!(waiting(&pool), 0);
}

#[tokio::test]
async fn all_who_wait_are_told_why_it_is_in_vain() {
    let (pools, _keys) = pools();
    let pool = pool(&pools);
    let mut callers: Vec<_> = (0..2).map(|_| Box::pin(pool.lease())).collect();
    for caller in &mut callers {
        assert!(poll!(caller).is_pending());
    }
    pool.refuse(&LeaseError::Failing(failure()));
    for caller in callers {
        assert_eq!(
            caller.now_or_never().unwrap().err(),
            Some(LeaseError::Failing(failure()))
        );
    }
    assert!(
        pool.lease().now_or_never().is_none(),
        "who comes later may wait again"
    );
}

#[tokio::test]
async fn callers_of_a_deleted_function_are_told() {
    let (pools, _keys) = pools();
    let pool = pool(&pools);
    let mut caller = Box::pin(pool.lease());
    assert!(poll!(&mut caller).is_pending());
    pools.remove(&key());
    assert_eq!(
        caller.now_or_never().unwrap().err(),
        Some(LeaseError::Deleted)
    );
    assert!(pools.get("default", "sum").is_none());
    assert!(pools.all().is_empty());
    pools.remove(&key());
}

#[tokio::test]
async fn a_function_has_one_pool() {
    let (pools, _keys) = pools();
    let (one, two) = (pools.ensure(&key()), pools.ensure(&key()));
    assert!(Arc::ptr_eq(&one, &two));
    assert!(Arc::ptr_eq(&one, &pools.get("default", "sum").unwrap()));
    assert!(pools.get("other", "sum").is_none());
}

#[tokio::test]
async fn a_condemned_instance_takes_no_more_and_the_controller_hears_of_it() {
    let (pools, mut keys) = pools();
    let pool = pool(&pools);
    add(&pool, "1");
    let lease = pool.lease().await.unwrap();
    lease.condemn();
    assert_eq!(keys.next().now_or_never(), Some(Some(key())));
    pools.turns.begin(&key());
    drop(lease);
    assert_eq!(
        keys.next().now_or_never(),
        Some(Some(key())),
        "its last call is over"
    );
    assert!(pool.lease().now_or_never().is_none());
    let removed = pool.remove("1").unwrap();
    assert_eq!(
        (removed.phase, removed.answered),
        (plan::Phase::Condemned, false)
    );
}

#[tokio::test]
async fn an_answer_of_one_that_stays_is_not_noted() {
    for (manners, answered) in [
        (Manners::Stays, false),
        (Manners::Unknown, true),
        (Manners::Single, true),
    ] {
        let (pools, _keys) = pools();
        let pool = pool(&pools);
        let timeout = Duration::from_secs(30);
        pool.serve(Some(Route {
            revision: revision(),
            concurrency: 4,
            manners,
            timeout,
        }));
        add(&pool, "1");
        pool.lease().await.unwrap().answered();
        assert_eq!(pool.remove("1").unwrap().answered, answered, "{manners:?}");
    }
}

#[tokio::test]
async fn to_what_is_given_back_no_connection_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fn.sock");
    let _listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (pools, _keys) = pools();
    let pool = pool(&pools);
    let keep = async || {
        let lease = pool.lease().await.unwrap();
        let instance = Arc::clone(&lease.instance);
        let opened = connection::Connection::open(&instance.address, &instance.gone).await;
        instance.connections.put(opened.unwrap(), Instant::now());
        instance
    };
    let is_kept = |instance: &Instance| instance.connections.take(Instant::now()).is_some();

    pool.borrow("one".to_owned(), revision(), path.clone().into(), 1);
    let instance = keep().await;
    pool.hang_up();
    assert!(is_kept(&instance), "it is ours");
    let instance = keep().await;
    pool.recall("one", 1);
    pool.hang_up();
    assert!(!is_kept(&instance));

    pool.borrow("one".to_owned(), revision(), path.into(), 1);
    let instance = keep().await;
    pool.remove("one");
    assert!(!is_kept(&instance));
}
