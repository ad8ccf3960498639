//! What a function reaches.

use std::{
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    process::Command,
    thread,
};

use serde_json::{Value, json};

use super::{attacker, attempt, server};
use crate::support::{fresh, has_docker};

/// Where clouds tell machines their secrets, and a neighbour of it.
const LINK_LOCAL: [&str; 2] = ["169.254.169.254", "169.254.1.1"];

/// Addresses of this machine's interfaces, and those by which several of them are reached.
struct Host {
    addresses: Vec<IpAddr>,
    broadcasts: Vec<String>,
}

impl Host {
    fn look() -> Self {
        let output = Command::new("ip").args(["-o", "address"]).output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let (mut addresses, mut broadcasts) = (Vec::new(), Vec::new());
        for line in output.lines() {
            let mut words = line.split_whitespace();
            let address = words.nth(3).unwrap().split('/').next().unwrap();
            addresses.push(address.parse().unwrap());
            let after = words.skip_while(|word| *word != "brd").nth(1);
            broadcasts.extend(after.map(str::to_owned));
        }
        Self {
            addresses,
            broadcasts,
        }
    }

    /// All of them on one port.
    fn places(&self, port: u16) -> Vec<Value> {
        let named = self.addresses.iter().map(|address| match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => format!("{v6}%eth0"),
            other => other.to_string(),
        });
        named
            .map(|host| json!({"host": host, "port": port}))
            .collect()
    }
}

fn open(outcomes: &Value, places: &[Value]) -> Vec<Value> {
    let outcomes = outcomes.as_array().unwrap();
    assert_eq!(outcomes.len(), places.len());
    let both = outcomes.iter().zip(places);
    both.filter(|(outcome, _)| *outcome == "open")
        .map(|(_, place)| place.clone())
        .collect()
}

#[tokio::test]
async fn without_a_network_nothing_is_reached() {
    if !has_docker("e2e no network") {
        return;
    }
    let server = server().await;
    server.deploy("shut", attacker(json!({}))).await;
    let listeners = ["0.0.0.0:0", "[::]:0"].map(|address| TcpListener::bind(address).unwrap());
    let abstracted = fresh();
    let address = SocketAddr::from_abstract_name(&abstracted).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    UnixStream::connect_addr(&address).unwrap();

    let host = Host::look();
    let mut places = host.places(server.address.port());
    for listener in &listeners {
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("localhost", port)).unwrap();
        places.extend(host.places(port));
        places.extend(LINK_LOCAL.map(|host| json!({"host": host, "port": port})));
    }
    let paths = [
        format!("\0{abstracted}"),
        "/var/run/docker.sock".into(),
        "/run/docker.sock".into(),
    ];
    places.extend(paths.map(|path| json!({"path": path})));
    // One that it does reach.
    let own = json!({"path": "/run/faas/fn.sock"});
    places.push(own.clone());
    let outcomes = attempt(&server, "shut", "reach", json!({"places": places})).await;
    assert_eq!(open(&outcomes, &places), [own], "{outcomes}");
    server.delete("/functions/shut").await.expect(202);
}

#[tokio::test]
async fn on_the_internet_neither_this_machine_nor_another_function_is_reached() {
    if !has_docker("e2e neighbours on the internet") || !rustix::process::geteuid().is_root() {
        return;
    }
    let server = server().await;
    let spec = || attacker(json!({"network": "internet", "scale": {"min": 1, "max": 1}}));
    let here = TcpListener::bind("[::]:0").unwrap();
    let port = here.local_addr().unwrap().port();
    let echo = UdpSocket::bind(("0.0.0.0", port)).unwrap();
    thread::spawn(move || {
        let mut message = [0; 64];
        while let Ok((length, from)) = echo.recv_from(&mut message) {
            let _ = echo.send_to(&message[..length], from);
        }
    });
    let mut addresses = Vec::new();
    for name in ["caller", "callee"] {
        server.deploy(name, spec()).await;
        let address = attempt(&server, name, "listen", json!({"port": port})).await;
        let places = json!([{"host": address, "port": port}]);
        let reached = attempt(&server, name, "reach", json!({"places": places})).await;
        assert_eq!(reached, json!(["open"]), "it reaches itself");
        addresses.push(address.as_str().unwrap().to_owned());
    }
    let [own, other] = <[String; 2]>::try_from(addresses).unwrap();

    let host = Host::look();
    let mut places = host.places(port);
    places.extend(host.places(server.address.port()));
    places.extend(LINK_LOCAL.map(|host| json!({"host": host, "port": 80})));
    places.push(json!({"host": other, "port": port}));
    let to_itself = json!({"host": own, "port": port});
    places.push(to_itself.clone());
    let outcomes = attempt(&server, "caller", "reach", json!({"places": places})).await;
    let loopback = json!({"host": "127.0.0.1", "port": port});
    assert_eq!(
        open(&outcomes, &places),
        [loopback, to_itself],
        "{outcomes}"
    );

    let v4 = host
        .addresses
        .iter()
        .filter(|address| address.is_ipv4() && !address.is_loopback());
    let mut hosts: Vec<_> = v4.map(ToString::to_string).collect();
    // All of a network, all hosts here, and all that look for each other.
    hosts.extend(host.broadcasts.clone());
    hosts.extend(["255.255.255.255", "224.0.0.1", "224.0.0.251"].map(str::to_owned));
    hosts.push(other);
    let input = json!({"port": port, "hosts": hosts, "own": own});
    let heard = attempt(&server, "caller", "shout", input).await;
    assert_eq!(heard, json!([]));
    for name in ["caller", "callee"] {
        server
            .delete(&format!("/functions/{name}"))
            .await
            .expect(202);
    }
}
