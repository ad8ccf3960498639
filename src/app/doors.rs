//! Where the server listens, and who may come in there.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Tasks;
use crate::{
    access::{
        Access,
        book::BookError,
        secret::{Keeper, SecretError},
        tls::{Tls, TlsError},
        users::Users,
    },
    config::{self, DoorsConfig, access::AccessConfig},
    ingress::{
        Ingress,
        door::{Door, Scope},
    },
    kubernetes::Cluster,
};

/// Which part of a server has these doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// Its gateways answer calls.
    Controller,
    /// A controller that waits until it controls.
    Standby,
    /// Its controller manages.
    Gateway,
}

/// Most connections of a listener.
const MAX_CONNECTIONS: usize = 10_000;

/// Why nobody could come in, or anybody.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Tokens(#[from] BookError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(
        "{address} asks for tokens, and there is no valid one. Make the first, and start again:\n  \
         faas token create admin --scope admin --state-dir {}", state.display()
    )]
    NoToken { address: SocketAddr, state: PathBuf },
}

/// The listeners with their rules.
pub struct Doors {
    main: Bound,
    /// For calls alone.
    invoke: Option<Bound>,
    access: Option<Arc<Access>>,
    tls: Option<Arc<Tls>>,
    /// What keeps tokens and certificate as a cluster says.
    keeper: Option<Arc<Keeper>>,
    public_url: Option<String>,
}

struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    door: Door,
}

impl Doors {
    /// Before anything is served, so that what is missing, or a conflict, is found early. Where tokens are asked for, these users
    /// may manage too.
    pub async fn open(
        config: &DoorsConfig,
        state: &Path,
        cluster: Option<&Cluster>,
        part: Part,
        users: Option<Users>,
    ) -> Result<Self, DoorError> {
        // What is missing whoever controls makes.
        let makes = matches!(part, Part::Whole | Part::Controller);
        let hosts = makes.then(|| config.access.hosts());
        let keeper = keeper(&config.access, state, cluster, hosts).await?;
        let keeper = keeper.map(Arc::new);
        let mut addresses = [Some(config.listen), config.invoke].into_iter().flatten();
        let asks = addresses.find(|address| config.access.asks_for_tokens(*address));
        let mut doors = Self {
            main: Bound::at(config.listen, Scope::All).await?,
            invoke: None,
            access: access(state, asks, part)?.map(|access| Arc::new(access.and(users))),
            tls: match &config.access.tls {
                Some(files) => Some(Arc::new(Tls::open(files.clone())?)),
                None => None,
            },
            keeper,
            public_url: config.access.public_url.clone(),
        };
        if let Some(address) = config.invoke {
            doors.invoke = Some(Bound::at(address, Scope::Invoke).await?);
        }
        for bound in [Some(&mut doors.main), doors.invoke.as_mut()]
            .into_iter()
            .flatten()
        {
            let (access, tls) = (doors.access.clone(), doors.tls.clone());
            bound.door.access = access.filter(|_| config.access.asks_for_tokens(bound.address));
            bound.door.tls = tls.filter(|_| config.access.speaks_tls(bound.address));
        }
        doors.main.door.scope = match part {
            Part::Gateway => Scope::Gateway,
            Part::Whole if doors.invoke.is_none() => Scope::All,
            Part::Whole | Part::Controller | Part::Standby => Scope::Manage {
                calls: doors.calls(),
            },
        };
        Ok(doors)
    }

    /// The URL of management.
    pub fn url(&self) -> String {
        self.main.url()
    }

    /// The URL of the listener for calls alone, if there is one.
    pub fn invoke_url(&self) -> Option<String> {
        self.invoke.as_ref().map(Bound::url)
    }

    /// What holds for requests that gateways pass on, from wherever.
    pub fn for_passed(&self) -> Door {
        Door {
            scope: Scope::Passed,
            local: false,
            access: self.access.clone(),
            tls: None,
        }
    }

    /// Where calls go.
    pub fn calls(&self) -> String {
        let listener = self.invoke.as_ref().unwrap_or(&self.main);
        self.public_url.clone().unwrap_or_else(|| listener.url())
    }

    /// Keeps tokens and certificate as their files are.
    pub fn follow(&self, tasks: &mut Tasks) {
        if let Some(keeper) = self.keeper.clone() {
            tasks.spawn("access", async move { keeper.follow().await });
        }
        if let Some(access) = self.access.clone() {
            tasks.spawn("tokens", async move { access.follow().await });
        }
        if let Some(tls) = self.tls.clone() {
            tasks.spawn("certificate", async move { tls.follow().await });
        }
    }

    /// Serves on both listeners, or on the one for everything.
    pub fn serve(self, ingress: &Arc<Ingress>, stop: &CancellationToken) -> Tasks {
        let listeners = if self.invoke.is_some() { 2 } else { 1 };
        // A call takes two descriptors, its caller's and its instance's.
        let limit = MAX_CONNECTIONS.min(tenth_of_descriptors() * 4 / listeners);
        let mut tasks = Tasks {
            stop: stop.clone(),
            ..Tasks::default()
        };
        let serve = |bound: Bound| {
            Arc::clone(ingress).serve(bound.listener, bound.door, limit, stop.clone())
        };
        tasks.spawn("listener", serve(self.main));
        if let Some(invoke) = self.invoke {
            tasks.spawn("invoke listener", serve(invoke));
        }
        tasks
    }
}

impl Bound {
    async fn at(address: SocketAddr, scope: Scope) -> Result<Self, DoorError> {
        let failed = |error| DoorError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let door = Door {
            local: address.ip().is_loopback(),
            ..Door::local(scope)
        };
        Ok(Self {
            listener,
            address,
            door,
        })
    }

    fn url(&self) -> String {
        format!("{}://{}", self.door.scheme(), self.address)
    }
}

/// Of the descriptors, eight tenths are for calls, and one for the logs of instances; the engine and files need some too.
pub fn tenth_of_descriptors() -> usize {
    usize::try_from(config::descriptor_limit() / 10).unwrap_or(usize::MAX / 10)
}

/// What keeps tokens and certificate, where a Secret of the cluster has them; their files are there now.
async fn keeper(
    access: &AccessConfig,
    state: &Path,
    cluster: Option<&Cluster>,
    hosts: Option<Vec<String>>,
) -> Result<Option<Keeper>, DoorError> {
    let (Some(name), Some(cluster)) = (&access.secret, cluster) else {
        return Ok(None);
    };
    let (client, namespace) = (cluster.client.clone(), cluster.namespace.clone());
    let keeper = Keeper::open(client, namespace, name.clone(), hosts, state.to_owned()).await?;
    Ok(Some(keeper))
}

/// The tokens. One at least must be good where a listener asks for them.
fn access(state: &Path, asks: Option<SocketAddr>, part: Part) -> Result<Option<Access>, DoorError> {
    // Whoever comes by a gateway needs one.
    if asks.is_none() && part != Part::Controller {
        return Ok(None);
    }
    let access = Access::open(state)?;
    match asks {
        Some(address) if !access.has_valid(Timestamp::now()) => {
            let state = state.to_owned();
            Err(DoorError::NoToken { address, state })
        }
        _ => Ok(Some(access)),
    }
}
