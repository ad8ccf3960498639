//! What lends instances to gateways, where calls come to those.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use tokio::{net::TcpListener, sync::mpsc};

use super::{AppError, Tasks, doors::DoorError, stores::Opened};
use crate::{
    config::roles::GatewaysConfig,
    controller::{Controller, Turns},
    function::FunctionKey,
    ingress::{Ingress, door, passed::Passed},
    kubernetes::{
        notice::{Notice, Place},
        review::Reviews,
    },
    lender::{
        Lender,
        door::{Door, Judge},
    },
    pool::Pools,
    stream::tls::Identity,
};

/// Requests that gateways pass on, on their way to those who answer them.
const PASSED: usize = 16;

/// What stands between a controller's pools and gateways.
pub(super) struct Gateways {
    lender: Lender,
    keys: Pin<Box<dyn Stream<Item = FunctionKey> + Send>>,
    door: Door,
    notice: Notice,
    place: Place,
    passed: mpsc::Receiver<Passed>,
}

impl Gateways {
    /// Makes the pools those of a lender, if there are to be gateways.
    pub(super) async fn open(
        config: Option<&GatewaysConfig>,
        pools: Pools,
        opened: &Opened,
    ) -> Result<(Arc<Pools>, Option<Self>), AppError> {
        let (Some(config), Some((cluster, _)), Some(notice)) =
            (config, &opened.cluster, &opened.notice)
        else {
            return Ok((Arc::new(pools), None));
        };
        let address = config.listen;
        let failed = |error| DoorError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let identity = Identity::new()?;
        let (news, keys) = Turns::new();
        let pools = Arc::new(pools.lent_by(news.clone()));
        let fence = cluster.fence.clone();
        let reviews = Arc::new(Reviews::new(cluster.client.clone()));
        let (to, passed) = mpsc::channel(PASSED);
        let lender = Lender::new(Arc::clone(&pools), news, notice.clone(), fence);
        let door = Door {
            listener,
            acceptor: identity.acceptor,
            judge: Judge::account(reviews, &cluster.namespace, &config.account),
            notice: notice.clone(),
            events: lender.events(),
            passed: to,
        };
        let gateways = Self {
            lender,
            keys: keys.boxed(),
            door,
            notice: notice.clone(),
            place: Place {
                address: SocketAddr::new(config.told, port),
                certificate: identity.certificate,
            },
            passed,
        };
        Ok((pools, Some(gateways)))
    }

    /// Lets gateways in once it is known what there is to lend. What they pass on is heard by a listener as others are.
    pub(super) fn serve(
        self,
        tasks: &mut Tasks,
        listeners: &mut Tasks,
        controller: &Arc<Controller>,
        (ingress, rules): (&Arc<Ingress>, door::Door),
    ) {
        let ingress = Arc::clone(ingress);
        let passed = ingress.serve_passed(self.passed, rules, listeners.stop.clone());
        listeners.spawn("passed requests", passed);
        let (lender, knows) = (self.lender, Arc::clone(controller));
        tasks.spawn("lender", async move {
            knows.knows().await;
            lender.run(self.keys).await;
        });
        let (door, knows) = (self.door, Arc::clone(controller));
        tasks.spawn("gateways", async move {
            knows.knows().await;
            self.notice.change(|said| said.place = Some(self.place));
            door.run().await;
        });
    }
}
