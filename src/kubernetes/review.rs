//! Callers as the API server knows them: whose a bearer token is (`TokenReview`), and what that one may do with Functions
//! (`SubjectAccessReview`). What it said is remembered for a few seconds, so that a caller who asks often costs it little.

mod recent;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{
        ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
        SubjectAccessReview, SubjectAccessReviewSpec,
    },
};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, PostParams},
};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use self::recent::Recent;
use crate::function::{Function, GROUP};

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Most questions at a time.
const AT_A_TIME: usize = 16;

/// Somebody whom the API server knows.
#[derive(Clone, Debug, PartialEq)]
pub struct User(UserInfo);

impl User {
    /// By what name.
    pub fn name(&self) -> &str {
        self.0.username.as_deref().unwrap_or_default()
    }
}

/// What somebody may do with Functions, or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Right {
    pub verb: &'static str,
    /// In one namespace, or in all of them.
    pub namespace: Option<String>,
    /// With one, or with any.
    pub name: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} functions.{GROUP}", self.verb)?;
        match &self.namespace {
            Some(namespace) => write!(f, " --namespace {namespace}"),
            None => write!(f, " --all-namespaces"),
        }
    }
}

/// The API server does not say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotReviewed(String);

/// For whom a token is, unless it is for the API server itself; and its digest.
type Key = (Option<&'static str>, [u8; 32]);

/// Asks, and remembers.
pub struct Reviews {
    client: Client,
    users: Mutex<Recent<Key, Option<Arc<User>>>>,
    rights: Mutex<Recent<(String, Right), bool>>,
    places: Semaphore,
}

impl Reviews {
    /// Nothing was asked yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            users: Mutex::default(),
            rights: Mutex::default(),
            places: Semaphore::new(AT_A_TIME),
        }
    }

    /// Whose token this is, nothing if it is nobody's, or not for this audience. Without one, it is for the API server.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn user(
        &self,
        token: &str,
        audience: Option<&'static str>,
    ) -> Result<Option<Arc<User>>, NotReviewed> {
        let key = (audience, Sha256::digest(token).into());
        if let Some(known) = lock(&self.users).get(&key, Instant::now()) {
            return Ok(known);
        }
        let asked = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec {
                audiences: audience.map(|audience| vec![audience.to_owned()]),
                token: token.to_owned(),
            },
            status: None,
        };
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let params = PostParams::default();
        let reviewed = self.ask(reviews.create(&params, &asked)).await?;
        let status = reviewed.status.unwrap_or_default();
        // An API server that knows nothing of audiences names none.
        let is_for_it = audience.is_none_or(|audience| {
            let named = status.audiences.as_deref().unwrap_or_default();
            named.iter().any(|one| one == audience)
        });
        let user = status.user.filter(|user| {
            let has_name = user.username.as_ref().is_some_and(|name| !name.is_empty());
            status.authenticated == Some(true) && is_for_it && has_name
        });
        let user = user.map(|user| Arc::new(User(user)));
        lock(&self.users).put(key, user.clone(), Instant::now());
        Ok(user)
    }

    /// Whether somebody may do this.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn may(&self, user: &User, right: &Right) -> Result<bool, NotReviewed> {
        // Two of the same name may be in other groups.
        let who = serde_json::to_string(&user.0).map_err(|error| NotReviewed(error.to_string()))?;
        let key = (who, right.clone());
        if let Some(known) = lock(&self.rights).get(&key, Instant::now()) {
            return Ok(known);
        }
        let asked = SubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: spec(&user.0, right),
            status: None,
        };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let params = PostParams::default();
        let reviewed = self.ask(reviews.create(&params, &asked)).await?;
        let status = reviewed.status.unwrap_or_default();
        let may = status.allowed && status.denied != Some(true);
        lock(&self.rights).put(key, may, Instant::now());
        Ok(may)
    }

    async fn ask<T>(
        &self,
        asked: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, NotReviewed> {
        let asked = timeout(ANSWER, async {
            let _place = self.places.acquire().await;
            asked.await
        });
        let late = |_| NotReviewed("it does not answer".to_owned());
        let answer = asked.await.map_err(late)?;
        answer.map_err(|error| NotReviewed(error.to_string()))
    }
}

/// Whether we may ask whose a token is. Nobody is asked for long: who cannot tell it is taken to let us.
pub async fn may_review(client: &Client) -> bool {
    let review = TokenReview::plural(&());
    let asked = SelfSubjectAccessReview {
        metadata: ObjectMeta::default(),
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(TokenReview::group(&()).into_owned()),
                resource: Some(review.into_owned()),
                verb: Some("create".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        status: None,
    };
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let params = PostParams::default();
    let said = timeout(ANSWER, reviews.create(&params, &asked)).await;
    let said = said.ok().and_then(Result::ok);
    said.and_then(|said| said.status)
        .is_none_or(|status| status.allowed)
}

fn lock<T>(known: &Mutex<T>) -> MutexGuard<'_, T> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spec(user: &UserInfo, right: &Right) -> SubjectAccessReviewSpec {
    SubjectAccessReviewSpec {
        user: user.username.clone(),
        uid: user.uid.clone(),
        groups: user.groups.clone(),
        extra: user.extra.clone(),
        resource_attributes: Some(ResourceAttributes {
            group: Some(GROUP.to_owned()),
            resource: Some(Function::plural(&()).into_owned()),
            verb: Some(right.verb.to_owned()),
            namespace: right.namespace.clone(),
            name: right.name.clone(),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    }
}
