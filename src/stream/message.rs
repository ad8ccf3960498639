//! What is said on the stream. A gateway says all that it has of a function, each time that changes; the controller answers
//! with slots, and asks for them back.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{
    function::{FunctionKey, Revision, status::Reason},
    ingress::door::Origin,
    plan::{Failure, Phase},
    pool::{LeaseError, Terms, slots::lent::Borrowed},
    runtime::{Address, InstanceId},
};

/// The first message: that it is a gateway, and what for it comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Of its service account, for this purpose alone.
    pub token: String,
    pub purpose: Purpose,
}

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// To have instances lent.
    Borrow {
        /// Nobody else's name, and the same after a crash.
        name: String,
        /// Of this process: another one of the name means that the one before is no more.
        run: String,
    },
    /// To pass on a request that is the controller's. The welcome is followed by HTTP, and no more frames.
    Pass(Origin),
}

/// The answer to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    Come,
    /// And why.
    Stay(String),
}

/// From a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up {
    Report(Report),
    /// Everything that it has was reported.
    Known,
    /// It ends, has given everything back, and will not come again.
    Leaving,
}

/// All that a gateway has of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub function: FunctionKey,
    /// How many loans of the function have come on this stream: those after are not in the report yet.
    pub seen: u64,
    /// Callers without an instance.
    pub waiting: u32,
    pub held: Vec<Held>,
}

/// What it has of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub instance: InstanceId,
    /// Calls that the instance may have from it.
    pub slots: u32,
    pub busy: u32,
    /// For how long it has had no call from it, if it ever had one.
    pub idle: Option<Duration>,
    pub answered: bool,
    pub out: Option<Out>,
}

/// Why an instance must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Out {
    Broken,
    Condemned,
}

/// From the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    Terms(FunctionKey, Box<Terms>),
    /// The function is no more.
    Gone(FunctionKey),
    /// What was not said does not exist.
    Complete,
    /// One call more of an instance.
    Lend {
        function: FunctionKey,
        instance: InstanceId,
        revision: Revision,
        address: Address,
    },
    /// So many are wanted back, as soon as they have no call.
    Recall {
        function: FunctionKey,
        instance: InstanceId,
        slots: u32,
    },
    /// The instance is no more.
    Ended {
        function: FunctionKey,
        instance: InstanceId,
    },
    /// Whoever waits does so in vain.
    Refuse(FunctionKey, Refusal),
}

/// Why callers wait in vain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    reason: String,
    message: String,
    attempts: u32,
    retry_in: Option<Duration>,
}

impl Held {
    /// Nothing of an instance.
    pub fn none(instance: InstanceId) -> Self {
        Self {
            instance,
            slots: 0,
            busy: 0,
            idle: None,
            answered: false,
            out: None,
        }
    }

    /// What is told of a loan.
    pub fn of(loan: &Borrowed, now: Instant) -> Self {
        Self {
            instance: loan.id.clone(),
            slots: loan.held,
            busy: loan.busy,
            idle: loan
                .idle_since
                .map(|since| now.saturating_duration_since(since)),
            answered: loan.answered,
            out: match loan.phase {
                Phase::Broken(_) => Some(Out::Broken),
                Phase::Condemned => Some(Out::Condemned),
                _ => None,
            },
        }
    }
}

impl Refusal {
    /// What a gateway's callers are told; nothing where they may as well go on waiting.
    pub fn of(error: &LeaseError, now: Instant) -> Option<Self> {
        let LeaseError::Failing(failure) = error else {
            return None;
        };
        let retry_in = failure.retry_at;
        Some(Self {
            reason: failure.reason.to_string(),
            message: failure.message.clone(),
            attempts: failure.attempts,
            retry_in: retry_in.map(|at| at.saturating_duration_since(now)),
        })
    }

    /// The same where they wait.
    pub fn error(self, now: Instant) -> LeaseError {
        LeaseError::Failing(Failure {
            reason: self.reason.parse().unwrap_or(Reason::StartFailed),
            message: self.message,
            attempts: self.attempts,
            retry_at: self.retry_in.map(|wait| now + wait),
            crash: None,
        })
    }
}
