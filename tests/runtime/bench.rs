//! What every test stands on: specs, calls, and waiting for things.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use faas::{
    function::FunctionKey,
    runtime::{Address, InstanceSpec, Limits, Network, Runtime},
};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

/// Evaluates what it is sent, in the way that its variable MODE says.
pub const PROGRAM: &str = r"
const fs = require('fs'), os = require('os'), net = require('net'), http = require('http');
const child = require('child_process');
process.on('SIGTERM', () => process.env.MODE === 'stubborn' || process.exit(0));
const evaluate = async (code) => String(await eval(code));
const server = http.createServer((request, response) => {
  let input = '';
  request.on('data', (piece) => { input += piece; });
  request.on('end', async () => {
    try { response.end(await evaluate(input)); } catch (error) { response.end('error: ' + (error.code || error)); }
  });
});
const modes = {
  exit() { console.log('out of luck'); console.error('no such thing'); process.exitCode = 3; },
  silent() { console.log('thinking'); setInterval(() => {}, 1000); },
  hungry() { const all = []; setInterval(() => all.push(Buffer.alloc(1 << 24, 1)), 1); },
  link() { fs.symlinkSync('/var/run/docker.sock', process.env.FAAS_SOCKET); setInterval(() => {}, 1000); },
  tcp() { server.listen(process.env.PORT, '127.0.0.1'); },
};
const listen = () => server.listen(process.env.FAAS_SOCKET, () => console.log('listening'));
(modes[process.env.MODE] || listen)();
";

/// What is left of the instance of that name.
pub type Remains = dyn Fn(&str) -> Vec<String> + Send + Sync;

/// A runtime under test.
pub struct Bench {
    pub runtime: Arc<dyn Runtime>,
    pub image: String,
    /// What of an instance is left anywhere: containers, mounts, directories, processes.
    pub remains: Box<Remains>,
    /// Kept until the test ends.
    pub keep: Box<dyn std::any::Any + Send + Sync>,
}

impl Bench {
    /// A spec of a new instance, with these variables.
    pub fn spec(&self, env: &[(&str, &str)]) -> InstanceSpec {
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        InstanceSpec {
            id: format!("faas-sum-{}", random()),
            function: FunctionKey::new("default", "sum").unwrap(),
            uid: "0b54b3ae".to_owned(),
            revision: "00112233445566ff".parse().unwrap(),
            image: self.image.clone(),
            ready_made: false,
            env: env.iter().map(text).collect(),
            secrets: Vec::new(),
            limits: Limits {
                nano_cpus: 2_000_000_000,
                memory: 128 << 20,
                pids: 64,
                tmp: 1 << 20,
            },
            cpu_shares: 1024,
            network: Network::None,
            startup_timeout: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            declared: None,
        }
    }

    /// Starts an instance of that spec and has it evaluate something.
    pub async fn eval(&self, spec: &InstanceSpec, code: &str) -> String {
        let observed = self.runtime.start(spec).await.unwrap();
        invoke(&observed.address, code).await
    }

    pub async fn stop(&self, spec: &InstanceSpec) {
        self.runtime.stop(&spec.id, Duration::ZERO).await.unwrap();
        self.assert_gone(&spec.id);
    }

    pub fn assert_gone(&self, id: &str) {
        assert_eq!((self.remains)(id), [""; 0], "something of {id} stayed");
    }
}

/// Twelve hex digits.
pub fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..12].to_owned()
}

/// One call, as the proxy would make it.
pub async fn invoke(address: &Address, input: &str) -> String {
    let stream = address.connect().await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::post("/invoke")
        .header("host", "function")
        .body(Full::new(Bytes::copy_from_slice(input.as_bytes())))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

/// Fails a test that would wait for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(Duration::from_secs(60), future).await;
    outcome.unwrap_or_else(|_| panic!("{what}: not within a minute"))
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    soon(what, async {
        while !holds() {
            tick.tick().await;
        }
    })
    .await;
}
