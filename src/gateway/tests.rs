//! A gateway and a lender in one process, over real TLS on loopback.

use axum::{Extension, Router, body::Body};
use futures::future::join;
use http_body_util::BodyExt;
use hyper::{HeaderMap, Method, Request, Response, Uri, header::CONNECTION};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{passage::NotPassed, *};
use crate::{
    function::Revision,
    ingress::{
        Ingress,
        door::{self, Calls, Origin, Scope},
    },
    kubernetes::{lease::Fence, notice::Notice},
    lender::{
        Lender,
        door::{Door, Judge},
    },
    plan::Manners,
    pool::{Pool, Route},
    stream::tls::Identity,
    telemetry::Metrics,
    workers::Workers,
};

const WORD: &str = "open";

/// Longer than any of it takes.
const SOON: Duration = Duration::from_secs(60);

fn key() -> FunctionKey {
    "sum".parse().unwrap()
}

/// A controller's pools, and where gateways come to.
struct Owner {
    pool: Arc<Pool>,
    place: Place,
    _tasks: [tokio_util::task::AbortOnDropHandle<()>; 4],
}

impl Owner {
    async fn new() -> Self {
        let (turns, _) = Turns::new();
        let (news, keys) = Turns::new();
        let pools = Arc::new(Pools::new(turns).lent_by(news.clone()));
        let pool = pools.ensure(&key());
        pool.set_patience(SOON);
        let revision = Revision::of([b"a".as_slice()]);
        pool.serve(Some(Route {
            revision: revision.clone(),
            concurrency: 2,
            manners: Manners::Stays,
            timeout: Duration::from_secs(30),
        }));
        pool.add("one".to_owned(), revision, PathBuf::from("/nowhere"));
        let notice = Notice::default();
        let (identity, listener) = (Identity::new().unwrap(), listener().await);
        let place = Place {
            address: listener.local_addr().unwrap(),
            certificate: identity.certificate,
        };
        let (to, passed) = mpsc::channel(1);
        let ingress = Ingress::new(
            Arc::clone(&pools),
            Router::new().fallback(tell),
            Arc::new(Metrics::default()),
            Workers::alone().unwrap(),
        );
        let rules = door::Door {
            local: false,
            ..door::Door::local(Scope::Passed)
        };
        let lender = Lender::new(pools, news, notice.clone(), Fence::default());
        let door = Door {
            listener,
            acceptor: identity.acceptor,
            judge: Judge::Word(WORD),
            notice: notice.clone(),
            events: lender.events(),
            passed: to,
        };
        // What a Lease would do.
        let lease = async move {
            loop {
                let said = notice.said();
                notice.wrote(said.clone());
                notice.differs(&said).await;
            }
        };
        let tasks = [
            tokio::spawn(lender.run(keys)),
            tokio::spawn(door.run()),
            tokio::spawn(lease),
            tokio::spawn(ingress.serve_passed(passed, rules, CancellationToken::new())),
        ];
        Self {
            pool,
            place,
            _tasks: tasks.map(tokio_util::task::AbortOnDropHandle::new),
        }
    }

    fn busy(&self) -> u32 {
        self.pool.look().0.iter().map(|i| i.in_flight).sum()
    }
}

/// What the controller saw of a request.
async fn tell(
    Extension(origin): Extension<Origin>,
    Extension(Calls(calls)): Extension<Calls>,
    (method, uri, headers): (Method, Uri, HeaderMap),
    body: String,
) -> String {
    let id = headers["x-request-id"].to_str().unwrap();
    assert_eq!(headers.get(CONNECTION), None);
    format!("{} {calls} {id} {method} {uri} {body}", origin.peer)
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn hello(name: &str, token: &str) -> Hello {
    Hello {
        token: token.to_owned(),
        purpose: Purpose::Borrow {
            name: name.to_owned(),
            run: "1".to_owned(),
        },
    }
}

/// A gateway's pools, and its stream.
struct Borrowing {
    pools: Arc<Pools>,
    leave: CancellationToken,
    talk: JoinHandle<io::Result<()>>,
}

impl Borrowing {
    async fn at(place: &Place, name: &str) -> Self {
        let (turns, keys) = Turns::new();
        let pools = Arc::new(Pools::new(turns.clone()));
        let mut borrower = Borrower::new(Arc::clone(&pools), turns);
        let frames = reach(place, &hello(name, WORD)).await.unwrap();
        let leave = CancellationToken::new();
        let leaves = leave.clone();
        let talk = tokio::spawn(async move {
            let keys = pin!(keys);
            talk(&mut borrower, frames, keys, &leaves).await
        });
        timeout(SOON, pools.complete()).await.unwrap();
        Self { pools, leave, talk }
    }

    async fn call(&self) -> crate::pool::Lease {
        let pool = self.pools.get(key().namespace(), key().name()).unwrap();
        timeout(SOON, pool.lease()).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn slots_go_where_callers_are_and_come_back_over_tls() {
    let owner = Owner::new().await;
    let first = Borrowing::at(&owner.place, "first").await;
    let second = Borrowing::at(&owner.place, "second").await;
    let calls = [first.call().await, first.call().await];
    let (other, ()) = join(second.call(), async {
        // There are two slots, and both are taken; the one that is free next goes where a caller waits.
        while owner.pool.look().1.waiting == 0 {
            tokio::task::yield_now().await;
        }
        drop(calls);
    })
    .await;
    assert_eq!(other.instance.id, "one");

    assert!(!owner.pool.retire("one"), "it has a call");
    second.leave.cancel();
    drop(other);
    for gone in [first, second] {
        gone.leave.cancel();
        timeout(SOON, gone.talk).await.unwrap().unwrap().unwrap();
    }
    let all_back = async {
        while !owner.pool.retire("one") {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, all_back).await.unwrap();
    assert_eq!(owner.busy(), 0);
}

#[tokio::test]
async fn strangers_are_told_that_they_are_and_a_stranger_is_not_told_our_word() {
    let owner = Owner::new().await;
    let refused = reach(&owner.place, &hello("gateway", "another")).await;
    assert!(matches!(refused, Err(Unreached::Refused(_))), "{refused:?}");
    let refused = reach(&owner.place, &hello("two names,", WORD)).await;
    assert!(matches!(refused, Err(Unreached::Refused(_))), "{refused:?}");
    let stranger = Place {
        certificate: Identity::new().unwrap().certificate,
        ..owner.place.clone()
    };
    let refused = reach(&stranger, &hello("gateway", WORD)).await;
    let Err(Unreached::Io(error)) = refused else {
        panic!("{refused:?}")
    };
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// A gateway's way to this place.
fn passage(place: Option<&Place>, word: &str) -> (Passage, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), word).unwrap();
    let (_, reached) = watch::channel(place.cloned());
    let stop = CancellationToken::new();
    (Passage::new(reached, file.path().to_owned(), stop), file)
}

async fn pass(passage: &Passage) -> Result<Response<Body>, NotPassed> {
    let request = Request::put("/functions/sum?a=b")
        .header("host", "faas.example")
        .header("x-request-id", "one")
        .header(CONNECTION, "close");
    let origin = Origin {
        peer: "192.0.2.1".parse().unwrap(),
        https: true,
    };
    let request = request.body(Body::from("body")).unwrap();
    timeout(SOON, passage.pass(request, origin)).await.unwrap()
}

#[tokio::test]
async fn what_is_passed_on_is_answered_as_its_callers_own_and_strangers_pass_nothing_on() {
    let owner = Owner::new().await;
    let (way, _file) = passage(Some(&owner.place), WORD);
    for _ in 0..2 {
        let answer = pass(&way).await.unwrap();
        assert_eq!(answer.headers()["x-request-id"], "one");
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        let seen = "192.0.2.1 https://faas.example one PUT /functions/sum?a=b body";
        assert_eq!(text, seen);
    }
    let (stranger, _file) = passage(Some(&owner.place), "another");
    let refused = pass(&stranger).await;
    assert!(matches!(refused, Err(NotPassed::NoController)));
    let (nowhere, _file) = passage(None, WORD);
    assert!(matches!(pass(&nowhere).await, Err(NotPassed::NoController)));

    // So many at a time, and each until its answer's end.
    let held: Vec<_> = futures::future::join_all((0..100).map(|_| pass(&way))).await;
    assert!(held.iter().all(Result::is_ok));
    assert!(matches!(pass(&way).await, Err(NotPassed::Crowded)));
    drop(held);
    assert!(pass(&way).await.is_ok());
}
