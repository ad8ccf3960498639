//! The lease while the server runs: renewed until the server has ended, then given back.

use std::future::pending;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::lease::Lease;

/// See the module. Without a lease nobody else can want it.
pub(super) struct Tenure {
    /// Ends with the name of who has it now.
    renewing: Option<JoinHandle<Option<String>>>,
    over: CancellationToken,
}

impl Tenure {
    pub(super) fn begin(lease: Option<Lease>) -> Self {
        let over = CancellationToken::new();
        let is_over = over.clone();
        let renewing = lease.map(|mut lease| {
            tokio::spawn(async move {
                tokio::select! {
                    holder = lease.keep() => return Some(holder),
                    () = is_over.cancelled() => {}
                }
                lease.give_back().await;
                None
            })
        });
        Self { renewing, over }
    }

    /// Ends when somebody else has it, and tells who.
    pub(super) async fn lost(&mut self) -> String {
        if let Some(renewing) = &mut self.renewing
            && let Ok(Some(holder)) = renewing.await
        {
            self.renewing = None;
            return holder;
        }
        pending().await
    }

    /// Lets the next one begin.
    pub(super) async fn end(self) {
        self.over.cancel();
        if let Some(renewing) = self.renewing {
            // It may have been lost meanwhile, and that is no matter any more.
            let _ = renewing.await;
        }
    }
}
