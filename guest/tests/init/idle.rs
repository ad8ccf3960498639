//! Waiting until nobody speaks with a program.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};

use crate::harness::{INIT, until};

const LONG: &str = "600";

fn until_idle(listener: &TcpListener, seconds: &str) -> Child {
    let port = listener.local_addr().unwrap().port().to_string();
    let mut init = Command::new(INIT);
    init.args(["--until-idle", &port, seconds]).spawn().unwrap()
}

fn ends(mut init: Child) {
    let ended = until("it ends", || init.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn it_ends_when_the_last_connection_has() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    ends(until_idle(&listener, LONG));

    let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    ends(until_idle(&listener, "2"));
    let mut waits = until_idle(&listener, LONG);
    // Another one that began later ends by its time before this one.
    ends(until_idle(&listener, "2"));
    assert!(waits.try_wait().unwrap().is_none(), "somebody is connected");
    drop((caller, accepted));
    ends(waits);
}
