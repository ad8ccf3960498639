//! Users of a cluster: a bearer token that is none of ours is judged by the API server, and so is what its user may do with
//! Functions.

use std::sync::Arc;

use kube::Client;

use super::{
    Denied,
    rights::{Deed, Place},
};
use crate::kubernetes::{
    review::{Reviews, Right, User},
    watch::Scope,
};

/// Of tokens that are made for faas and are good for nothing else. Those for the API server are good too.
const AUDIENCE: &str = "faas.dev";

/// Judges users by the API server.
#[derive(Clone)]
pub struct Users {
    reviews: Arc<Reviews>,
    /// The namespaces whose Functions are managed here.
    served: Scope,
}

/// A user who asks.
#[derive(Clone)]
pub struct Asker {
    users: Users,
    user: Arc<User>,
    /// By which they ask.
    token: Arc<str>,
}

impl Users {
    /// Those of this API server.
    pub fn new(client: Client, served: Scope) -> Self {
        Self {
            reviews: Arc::new(Reviews::new(client)),
            served,
        }
    }

    /// Whose token this is.
    pub async fn asker(&self, token: &str) -> Result<Asker, Denied> {
        for audience in [None, Some(AUDIENCE)] {
            if let Some(user) = self.reviews.user(token, audience).await? {
                return Ok(Asker {
                    users: self.clone(),
                    user,
                    token: token.into(),
                });
            }
        }
        Err(Denied::NoUser)
    }
}

impl Asker {
    /// What the audit calls them: tokens of ours have no such names.
    pub fn name(&self) -> String {
        format!("kubernetes:{}", self.user.name())
    }

    /// Whether their token is still good.
    pub async fn is_known(&self) -> Result<(), Denied> {
        self.users.asker(&self.token).await.map(drop)
    }

    /// Whether they may do this.
    pub async fn may(&self, deed: &Deed) -> Result<(), Denied> {
        let (name, namespaces) = match &deed.place {
            Place::One(key) => (Some(key.name()), vec![Some(key.namespace().to_owned())]),
            Place::Namespace(namespace) => (None, vec![Some(namespace.clone())]),
            Place::Served => (None, self.users.served.places()),
            Place::Anywhere => (None, vec![None]),
            // It is asked again when the body has said which one it is.
            Place::Body => return self.may_somewhere(deed.verbs).await,
        };
        for namespace in namespaces {
            self.may_all(deed.verbs, namespace, name).await?;
        }
        Ok(())
    }

    /// Whoever may nowhere need not send a body. Where all namespaces are served, it cannot be asked of each.
    async fn may_somewhere(&self, verbs: &[&'static str]) -> Result<(), Denied> {
        let mut verdict = Ok(());
        for namespace in self.users.served.places().into_iter().flatten() {
            verdict = self.may_all(verbs, Some(namespace), None).await;
            if verdict.is_ok() {
                break;
            }
        }
        verdict
    }

    async fn may_all(
        &self,
        verbs: &[&'static str],
        namespace: Option<String>,
        name: Option<&str>,
    ) -> Result<(), Denied> {
        for verb in verbs {
            let right = Right {
                verb,
                namespace: namespace.clone(),
                name: name.map(str::to_owned),
            };
            if !self.users.reviews.may(&self.user, &right).await? {
                let user = self.name();
                return Err(Denied::MayNot { user, right });
            }
        }
        Ok(())
    }
}
