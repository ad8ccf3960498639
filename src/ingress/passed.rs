//! Requests that gateways pass on to a controller, each on a connection of its own: what comes by it is heard and answered as if
//! its caller had come here.

use std::sync::Arc;

use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{
    Ingress,
    connections::Connections,
    door::{Caller, Door, Origin},
    wire::Wire,
};

/// Most that are answered at a time. A gateway passes on fewer.
const MOST: usize = 500;

/// A connection from a gateway, that is known to be one.
pub struct Passed {
    pub stream: TlsStream<TcpStream>,
    /// Of the gateway's caller.
    pub origin: Origin,
}

impl Ingress {
    /// Answers what comes until `stop`, and then all that has come.
    pub async fn serve_passed(
        self: Arc<Self>,
        mut passed: mpsc::Receiver<Passed>,
        door: Door,
        stop: CancellationToken,
    ) {
        let door = Arc::new(door);
        let mut connections = Connections::new(MOST);
        let next = async |passed: &mut mpsc::Receiver<Passed>| {
            tokio::select! {
                next = passed.recv() => next,
                () = stop.cancelled() => None,
            }
        };
        while let Some(one) = next(&mut passed).await {
            self.take(one, &door, &mut connections);
        }
        passed.close();
        while let Some(one) = passed.recv().await {
            self.take(one, &door, &mut connections);
        }
        connections.end(&self).await;
    }

    fn take(self: &Arc<Self>, passed: Passed, door: &Arc<Door>, connections: &mut Connections) {
        let caller = Caller {
            door: Arc::clone(door),
            origin: passed.origin,
        };
        let wire = Wire::Tls(Box::new(passed.stream));
        // It was read from on the runtime where management is, and stays there.
        let here = self.control.clone();
        self.hold(wire, caller, &here, connections);
    }
}
