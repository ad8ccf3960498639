//! More calls than a function can take, from callers that cost little: the bytes of HTTP and no client, on a thread of their
//! own. The pace is constant whatever comes back; a caller takes a connection that rests, or opens one.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::SOON;

/// What a caller got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Answer,
    /// The platform's status and code, and the seconds after which it may be tried again.
    Refusal(u16, String, Option<u64>),
    /// Nothing in its time: it left.
    Nothing,
    /// No connection, or one that broke.
    Broken(String),
}

#[derive(Clone, Debug)]
pub struct Shot {
    pub sent: Instant,
    pub took: Duration,
    pub got: Got,
}

/// Calls of one function, going on.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: JoinHandle<Vec<Shot>>,
}

struct Callers {
    address: SocketAddr,
    request: String,
    /// How long each waits for its answer.
    patience: Duration,
    resting: Mutex<Vec<TcpStream>>,
}

impl Load {
    /// `rate` calls a second. Each caller leaves when its `patience` is over.
    pub fn start(address: SocketAddr, name: &str, rate: u32, patience: Duration) -> Self {
        let callers = Arc::new(Callers::new(address, name, patience));
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(callers.go_on(Duration::from_secs(1) / rate, &stopped, &counted))
        });
        Self { stop, sent, thread }
    }

    /// How many calls were sent.
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends calling, and waits for the last answer.
    pub async fn stop(self) -> Volley {
        self.stop.store(true, Ordering::Relaxed);
        let shots = tokio::task::spawn_blocking(|| self.thread.join().unwrap());
        Volley(shots.await.unwrap())
    }
}

/// How many answers come in a second to so many callers, each of which calls again once it is answered.
pub async fn busy(address: SocketAddr, name: &str, callers: u32, calls: u32) -> f64 {
    let one = Arc::new(Callers::new(address, name, SOON));
    let begin = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..callers {
        let one = Arc::clone(&one);
        all.spawn(async move {
            for _ in 0..calls / callers {
                assert_eq!(Arc::clone(&one).call().await.got, Got::Answer);
            }
        });
    }
    all.join_all().await;
    f64::from(calls) / begin.elapsed().as_secs_f64()
}

impl Callers {
    fn new(address: SocketAddr, name: &str, patience: Duration) -> Self {
        let request = format!(
            "POST /functions/{name} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        Self {
            address,
            request,
            patience,
            resting: Mutex::default(),
        }
    }

    async fn go_on(
        self: Arc<Self>,
        pace: Duration,
        stop: &AtomicBool,
        sent: &AtomicU32,
    ) -> Vec<Shot> {
        let mut pace = tokio::time::interval(pace);
        let mut calls = JoinSet::new();
        while !stop.load(Ordering::Relaxed) {
            pace.tick().await;
            calls.spawn(Arc::clone(&self).call());
            sent.fetch_add(1, Ordering::Relaxed);
        }
        calls.join_all().await
    }

    async fn call(self: Arc<Self>) -> Shot {
        let sent = Instant::now();
        let got = match timeout(self.patience, self.exchange()).await {
            Ok(Ok(got)) => got,
            Ok(Err(error)) => Got::Broken(error.to_string()),
            Err(_) => Got::Nothing,
        };
        let took = sent.elapsed();
        Shot { sent, took, got }
    }

    async fn exchange(&self) -> io::Result<Got> {
        let resting = self.resting.lock().unwrap().pop();
        let mut stream = match resting {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await?,
        };
        stream.write_all(self.request.as_bytes()).await?;
        let head = answer(&mut stream).await?;
        self.resting.lock().unwrap().push(stream);
        Ok(head)
    }
}

/// Reads an answer to its end.
async fn answer(stream: &mut TcpStream) -> io::Result<Got> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
        while bytes.len() < end + 4 + length {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let Some(code) = field(&head, "x-faas-error") else {
            return Ok(Got::Answer);
        };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let retry = field(&head, "retry-after").map(|seconds| seconds.parse().unwrap());
        return Ok(Got::Refusal(status, code.to_owned(), retry));
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(": ");
    head.lines().find_map(value)
}

/// What came back.
pub struct Volley(pub Vec<Shot>);

impl Volley {
    /// How many answers came in this time.
    pub fn answers_between(&self, begin: Instant, end: Instant) -> usize {
        let came = |shot: &&Shot| (begin..end).contains(&(shot.sent + shot.took));
        let answers = self.0.iter().filter(|shot| shot.got == Got::Answer);
        answers.filter(came).count()
    }

    /// How long each took that got this, the quickest first.
    pub fn times(&self, is_it: impl Fn(&Got) -> bool) -> Vec<Duration> {
        let mut times: Vec<_> = self
            .0
            .iter()
            .filter(|s| is_it(&s.got))
            .map(|s| s.took)
            .collect();
        times.sort_unstable();
        times
    }

    /// How often came what.
    pub fn summary(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for shot in &self.0 {
            *counts.entry(format!("{:?}", shot.got)).or_default() += 1;
        }
        counts
    }
}

/// The time that so many in a hundred did not exceed.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let last = times.len().saturating_sub(1);
    times.get(last * percent / 100).copied().unwrap_or_default()
}
