//! The load generator: so many connections, each with one request at a time, on one thread. It reads no more of an answer
//! than tells where it ends, and takes nothing but 200 for an answer.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

/// Before counting begins, so that connections are made and code is warm.
const WARM_UP: Duration = Duration::from_millis(200);
/// Longest answer with its head; those of the bench are some hundred bytes.
const LONGEST: usize = 8 * 1024;

/// Where requests go.
#[derive(Clone, Debug)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What one round brought.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Answers a second.
    pub rate: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Sends `request` again and again over so many connections for this long.
///
/// # Errors
/// When a connection fails, or an answer is another than 200.
pub async fn run(
    target: &Target,
    request: &[u8],
    connections: usize,
    time: Duration,
) -> io::Result<Round> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + time;
    let workers = (0..connections).map(|_| {
        let (target, request) = (target.clone(), request.to_owned());
        tokio::spawn(async move { work(connect(&target).await?, &request, begin, end).await })
    });
    let mut took = Vec::new();
    for worker in try_join_all(workers).await? {
        took.extend(worker?);
    }
    took.sort_unstable();
    let at = |percent: usize| {
        took.get(took.len() * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    Ok(Round {
        rate: took.len() as f64 / time.as_secs_f64(),
        p50: at(50),
        p99: at(99),
    })
}

/// One connection's requests, and how long each took that was answered between `begin` and `end`.
async fn work(
    mut stream: Box<dyn Stream>,
    request: &[u8],
    begin: Instant,
    end: Instant,
) -> io::Result<Vec<Duration>> {
    let mut took = Vec::new();
    let mut buffer = vec![0; LONGEST];
    let mut sent = Instant::now();
    while sent < end {
        stream.write_all(request).await?;
        read_answer(&mut stream, &mut buffer).await?;
        let now = Instant::now();
        if (begin..end).contains(&now) {
            took.push(now - sent);
        }
        sent = now;
    }
    Ok(took)
}

async fn connect(target: &Target) -> io::Result<Box<dyn Stream>> {
    match target {
        Target::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        Target::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}

async fn read_answer(stream: &mut Box<dyn Stream>, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        filled += read;
        let answer = &buffer[..filled];
        match end_of(answer) {
            Some(end) if end == filled => return Ok(()),
            None if read > 0 && filled < buffer.len() => {}
            Some(end) if end > filled && read > 0 && end <= buffer.len() => {}
            _ => {
                return Err(io::Error::other(format!(
                    "unexpected answer: {}",
                    String::from_utf8_lossy(answer)
                )));
            }
        }
    }
}

/// Where an answer ends, once its head is there; 0 when it is no good one.
fn end_of(answer: &[u8]) -> Option<usize> {
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..body]).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let good = head.starts_with("HTTP/1.1 200 ");
    Some(length.filter(|_| good).map_or(0, |length| body + length))
}
