//! A Docker engine, or an API server, with bad days: a socket that passes everything on to the real one, but for the faults
//! that a test asks for.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, UnixListener, UnixStream},
    runtime::Runtime,
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// What becomes of an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It comes this much later.
    Delay(Duration),
    /// It is this one, and the engine is not asked: status and body.
    Answer(u16, String),
    /// The engine does what was asked, and the connection breaks before the answer comes.
    LoseAnswer,
    /// The connection breaks once the answer has said this.
    CutAfter(&'static str),
    /// It is no JSON.
    Garble,
    /// It never comes, and the connection stays.
    Silence,
}

/// A number of times that never comes.
pub const ALWAYS: usize = usize::MAX;

/// What a test puts before the real one.
pub struct Faulty {
    dir: tempfile::TempDir,
    /// The real one's socket.
    real: PathBuf,
    /// Where this one listens, if not on a socket in its directory.
    address: Option<SocketAddr>,
    state: Arc<Mutex<State>>,
    listening: Mutex<Option<JoinHandle<()>>>,
    /// It hangs: connections are accepted, and nothing is said or done on any of them.
    hangs: watch::Sender<bool>,
    /// Its own: tests block their threads while a server ends, and the server needs its engine for that.
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    /// First lines of the requests whose connections are open, and what cuts them.
    open: Vec<(String, CancellationToken)>,
    hits: usize,
}

struct Rule {
    method: &'static str,
    path: String,
    times: usize,
    fault: Fault,
}

impl Faulty {
    /// A good engine, for now.
    pub fn new() -> Self {
        let engine = Self::before(&faas::config::surroundings().unwrap().docker_socket);
        engine.begin();
        engine
    }

    /// The same for whoever has this socket and is reached by TCP.
    pub fn by_tcp(real: &Path) -> Self {
        let mut faulty = Self::before(real);
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        faulty.address = Some(free.local_addr().unwrap());
        drop(free);
        faulty.begin();
        faulty
    }

    fn before(real: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            real: real.to_owned(),
            address: None,
            state: Arc::default(),
            listening: Mutex::default(),
            hangs: watch::Sender::new(false),
            runtime: Some(runtime),
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }

    /// For `DOCKER_HOST`, or a kubeconfig.
    pub fn address(&self) -> String {
        match self.address {
            Some(address) => format!("http://{address}"),
            None => format!("unix://{}", self.socket().display()),
        }
    }

    /// From now on nobody listens, and open connections are cut.
    pub fn stop(&self) {
        if let Some(listening) = self.listening.lock().unwrap().take() {
            listening.abort();
        }
        let _ = std::fs::remove_file(self.socket());
        self.cut("");
    }

    /// Listens, again.
    pub fn begin(&self) {
        let runtime = self.runtime.as_ref().unwrap();
        let carrier = Carrier {
            real: self.real.clone(),
            state: Arc::clone(&self.state),
            hangs: self.hangs.subscribe(),
        };
        let _entered = runtime.enter();
        // Connections break in many ways here; the test looks at what faas makes of it.
        let listening = if let Some(address) = self.address {
            let listener = std::net::TcpListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            runtime.spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(carrier.clone().carry(client));
                }
            })
        } else {
            let listener = UnixListener::bind(self.socket()).unwrap();
            runtime.spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(carrier.clone().carry(client));
                }
            })
        };
        *self.listening.lock().unwrap() = Some(listening);
    }

    /// Hangs from now on as if its process were stopped, without a word and with all connections open. What it is asked
    /// meanwhile it does once it goes on, whether anybody still waits for it or not.
    pub fn hang(&self) {
        self.hangs.send_replace(true);
    }

    /// Goes on.
    pub fn go_on(&self) {
        self.hangs.send_replace(false);
    }

    /// Cuts open connections whose first line has this in it.
    pub fn cut(&self, line: &str) {
        for (_, cut) in lock(&self.state)
            .open
            .iter()
            .filter(|(open, _)| open.contains(line))
        {
            cut.cancel();
        }
    }

    /// The next `times` requests of this method whose path contains this meet this fault; the first rule that fits decides.
    pub fn on(&self, method: &'static str, path: &str, times: usize, fault: Fault) {
        let path = path.to_owned();
        lock(&self.state).rules.push(Rule {
            method,
            path,
            times,
            fault,
        });
    }

    /// No faults any more.
    pub fn heal(&self) {
        lock(&self.state).rules.clear();
    }

    /// How many requests have met a fault.
    pub fn hits(&self) -> usize {
        lock(&self.state).hits
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

/// Carries requests and their answers.
#[derive(Clone)]
struct Carrier {
    real: PathBuf,
    state: Arc<Mutex<State>>,
    hangs: watch::Receiver<bool>,
}

impl Carrier {
    /// One of each.
    async fn carry(self, mut client: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        awake(&self.hangs).await;
        let head = head(&mut client).await?;
        let line = String::from_utf8_lossy(&head);
        let line = line.lines().next().unwrap_or_default().to_owned();
        let cut = CancellationToken::new();
        let fault = {
            let mut state = lock(&self.state);
            state.open.retain(|(_, cut)| !cut.is_cancelled());
            state.open.push((line.clone(), cut.clone()));
            state.fault(&line)
        };
        let _closed = cut.clone().drop_guard();
        cut.run_until_cancelled(self.pass(client, head, fault))
            .await
            .unwrap_or(Ok(()))
    }

    async fn pass(
        &self,
        mut client: impl AsyncRead + AsyncWrite + Unpin,
        head: Vec<u8>,
        fault: Option<Fault>,
    ) -> io::Result<()> {
        if let Some(Fault::Answer(status, body)) = fault {
            return refuse(&mut client, status, &body).await;
        }
        let mut real = UnixStream::connect(&self.real).await?;
        real.write_all(&head).await?;
        let (mut from_client, to_client) = split(client);
        let (from_real, mut to_real) = real.into_split();
        tokio::select! {
            left = tokio::io::copy(&mut from_client, &mut to_real) => left.map(drop),
            answered = answer(from_real, to_client, fault, &self.hangs) => answered,
        }
    }
}

impl State {
    fn fault(&mut self, line: &str) -> Option<Fault> {
        let rule = self.rules.iter_mut().find(|rule| {
            rule.times > 0 && line.starts_with(rule.method) && line.contains(&rule.path)
        })?;
        rule.times -= 1;
        self.hits += 1;
        Some(rule.fault.clone())
    }
}

/// The head of a request, with what came along, and changed so that none follows on the connection.
async fn head(client: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::new();
    loop {
        if client.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = head.windows(END.len()).position(|four| four == END) else {
            continue;
        };
        let fields = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
        if !fields.contains("\r\nupgrade:") {
            head.splice(end..end, *b"\r\nConnection: close");
        }
        return Ok(head);
    }
}

/// Comes when the engine does not hang.
async fn awake(hangs: &watch::Receiver<bool>) {
    // Once the engine is no more, nothing matters.
    let _ = hangs.clone().wait_for(|hangs| !hangs).await;
}

async fn refuse(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    status: u16,
    body: &str,
) -> io::Result<()> {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Fault\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await?;
    // What the request has more is taken, so that the answer is read.
    tokio::io::copy(client, &mut tokio::io::sink())
        .await
        .map(drop)
}

async fn answer(
    mut real: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
    fault: Option<Fault>,
    hangs: &watch::Receiver<bool>,
) -> io::Result<()> {
    let mut said = Vec::new();
    let mut piece = Vec::new();
    while real.read_buf(&mut piece).await? > 0 {
        match &fault {
            Some(Fault::LoseAnswer) => return Ok(()),
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Delay(time)) if said.is_empty() => tokio::time::sleep(*time).await,
            // Lengths and chunks stay as they are.
            Some(Fault::Garble) => piece
                .iter_mut()
                .filter(|b| **b == b'{')
                .for_each(|b| *b = b'#'),
            _ => {}
        }
        awake(hangs).await;
        client.write_all(&piece).await?;
        said.append(&mut piece);
        if let Some(Fault::CutAfter(word)) = &fault
            && String::from_utf8_lossy(&said).contains(word)
        {
            return Ok(());
        }
    }
    Ok(())
}
