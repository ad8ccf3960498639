//! What is measured: `faas` as its users start it, and nginx before the same instance. Both end with their value.

use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use faas::store::state;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Args;

/// Between two looks at `/status`, whose answer is work for the server.
const LOOK: Duration = Duration::from_millis(200);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// A running `faas start`.
pub struct Faas {
    child: Child,
    /// Its other end: nobody may write to a closed pipe.
    _stdout: BufReader<ChildStdout>,
    client: reqwest::Client,
    pub address: SocketAddr,
    pub state: PathBuf,
}

impl Faas {
    /// Starts it on `dir` and waits until it listens.
    pub fn start(args: &Args, dir: &Path, state: &Path) -> Outcome<Self> {
        fs::create_dir_all(state)?;
        let log = fs::File::create(state.with_extension("log"))?;
        let mut child = Command::new(&args.faas)
            .args(["start", "--listen", "127.0.0.1:0", "--dir"])
            .arg(dir)
            .arg("--state-dir")
            .arg(state)
            .args(&args.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let address = listening(&mut stdout)
            .ok_or_else(|| fs::read_to_string(state.with_extension("log")).unwrap_or_default())?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self {
            child,
            _stdout: stdout,
            client,
            address,
            state: state.to_owned(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `/status` as it is now.
    pub async fn status(&self) -> Outcome<Value> {
        let body = self
            .client
            .get(format!("http://{}/status", self.address))
            .send()
            .await?
            .bytes()
            .await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Waits until so many Functions have had their turn and are Ready.
    pub async fn until_ready(&self, count: usize) -> Outcome<()> {
        self.until("Functions are not Ready", |status| {
            functions(status).filter(|f| is_ready(f)).count() == count
        })
        .await
    }

    /// Waits until `/status` satisfies.
    pub async fn until(&self, complaint: &str, satisfies: impl Fn(&Value) -> bool) -> Outcome<()> {
        let began = Instant::now();
        loop {
            let status = self.status().await?;
            if satisfies(&status) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                let some = functions(&status).find(|f| !is_ready(f));
                return Err(format!("{complaint} after {PATIENCE:?}: {some:?}").into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The socket of a Function's only instance.
    pub async fn socket(&self, name: &str) -> Outcome<PathBuf> {
        let status = self.status().await?;
        let function = functions(&status)
            .find(|f| f["name"] == name)
            .ok_or("no such Function")?;
        let id = function["instances"][0]["id"]
            .as_str()
            .ok_or("no instance")?;
        let owner = state::owner(&self.state)?;
        let user = rustix::process::geteuid().as_raw();
        let roots = [
            "/run/faas".to_owned(),
            format!("/run/user/{user}/faas"),
            format!("/dev/shm/faas-{user}"),
        ];
        let directories = roots
            .iter()
            .map(|root| Path::new(root).join(&owner).join(id));
        let mut files = directories
            .filter_map(|path| fs::read_dir(path).ok())
            .flatten()
            .flatten();
        Ok(files.next().ok_or("the instance has no socket")?.path())
    }
}

/// The Functions that `/status` names.
pub fn functions(status: &Value) -> impl Iterator<Item = &Value> {
    status["functions"].as_array().into_iter().flatten()
}

fn is_ready(function: &Value) -> bool {
    let conditions = function["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    ready && function["turns"].as_u64() > Some(0)
}

fn listening(stdout: &mut impl BufRead) -> Option<SocketAddr> {
    stdout
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("listening on http://")?.parse().ok())
}

impl Drop for Faas {
    /// Drains, which ends its instances.
    fn drop(&mut self) {
        end(&mut self.child, Signal::INT);
    }
}

/// Takes away the images of a server that has ended and will not start again.
pub fn remove_images(state: &Path) {
    if let Ok(owner) = state::owner(state) {
        let label = format!("label=faas.dev/owner={owner}");
        let _ = Command::new("docker")
            .args(["image", "prune", "--all", "--force", "--filter", &label])
            .output();
    }
}

/// nginx with two workers and kept connections to the instance.
pub struct Nginx {
    child: Child,
    pub address: SocketAddr,
}

impl Nginx {
    /// Starts it in `dir`, before `socket`.
    pub async fn start(program: &Path, dir: &Path, socket: &Path) -> Outcome<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        fs::create_dir_all(dir)?;
        fs::write(dir.join("nginx.conf"), configuration(dir, socket, address))?;
        let child = Command::new(program)
            .arg("-p")
            .arg(dir)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-e")
            .arg(dir.join("error.log"))
            .stdin(Stdio::null())
            .spawn()?;
        let nginx = Self { child, address };
        let began = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            if began.elapsed() > PATIENCE {
                return Err(format!(
                    "nginx does not listen: {}",
                    fs::read_to_string(dir.join("error.log"))?
                )
                .into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        end(&mut self.child, Signal::TERM);
    }
}

/// Connections are closed after 1,000 requests unless told otherwise, which would not be fair to it. Those that rest are
/// closed soon: all ways share the descriptors that the instance may have.
fn configuration(dir: &Path, socket: &Path, address: SocketAddr) -> String {
    let (dir, socket) = (dir.display(), socket.display());
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    format!(
        "{user} daemon off; worker_processes 2; pid {dir}/pid;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; keepalive_requests 1000000000;
            client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
            uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
            upstream instance {{ server unix:{socket}; keepalive 256; keepalive_requests 1000000000; keepalive_timeout 2s; }}
            server {{
                listen {address} backlog=1024;
                location / {{
                    proxy_pass http://instance; proxy_http_version 1.1; proxy_set_header Connection '';
                }}
            }}
        }}\n"
    )
}

fn end(child: &mut Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
    let _ = child.wait();
}
