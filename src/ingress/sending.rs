//! A request that an instance has, and whose answer is awaited. Its caller may leave; the function goes on all the same, so
//! what it has of its instance stays taken until it has answered, or until its time is over.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{Request, Response, body::Incoming};
use tokio::runtime::Handle;

use super::{answer::Answer, body::Deadline};
use crate::pool::{
    Lease,
    connection::{Awaited, Connection, RequestBody, SendError},
};

/// What a call has of its instance.
struct Held {
    connection: Connection,
    lease: Lease,
    deadline: Deadline,
}

/// What came first: the head of an answer, or none; or the end of the call's time.
pub type Outcome = Option<Result<Response<Incoming>, SendError>>;

/// Ends with what came first, and gives back what the call has. Dropped before that, it goes on without its caller.
pub struct Sending {
    /// Until it has ended.
    held: Option<Held>,
    awaited: Option<Awaited>,
}

impl Sending {
    /// Sends the request.
    pub fn new(
        mut connection: Connection,
        lease: Lease,
        deadline: Deadline,
        request: Request<RequestBody>,
    ) -> Self {
        let awaited = connection.send(request);
        let held = Held {
            connection,
            lease,
            deadline,
        };
        Self {
            held: Some(held),
            awaited: Some(awaited),
        }
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let (Some(held), Some(awaited)) = (&mut self.held, &mut self.awaited) else {
            return Poll::Pending;
        };
        match held.connection.poll_answer(awaited, cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => held.deadline.poll_passed(cx).map(|()| None),
        }
    }
}

impl Future for Sending {
    type Output = (Outcome, Connection, Lease, Deadline);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.poll_outcome(cx) {
            Poll::Ready(outcome) if let Some(held) = self.held.take() => {
                Poll::Ready((outcome, held.connection, held.lease, held.deadline))
            }
            _ => Poll::Pending,
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let (Some(held), Some(awaited)) = (self.held.take(), self.awaited.take()) else {
            return;
        };
        // At the end of the server there is nobody to do it, and no instance that would be called again.
        if let Ok(runtime) = Handle::try_current() {
            let rest = Self {
                held: Some(held),
                awaited: Some(awaited),
            };
            runtime.spawn(go_on(rest));
        }
    }
}

/// To the end of a call without a caller.
async fn go_on(mut sending: Sending) {
    let outcome = std::future::poll_fn(|cx| sending.poll_outcome(cx)).await;
    let Some(held) = sending.held.take() else {
        return;
    };
    match outcome {
        Some(Ok(answer)) => {
            held.lease.answered();
            let (body, keep) = (answer.into_body(), false);
            // Goes on by itself.
            drop(Answer::new(
                body,
                held.connection,
                keep,
                held.lease,
                held.deadline,
            ));
        }
        // What the caller still owed of the request did not come; or a connection that was kept had closed, and nobody is left
        // for whom another would be opened.
        Some(Err(failed)) if failed.error.is_user() || failed.unsent.is_some() => {}
        Some(Err(_)) => held.lease.broke(),
        None => held.lease.condemn(),
    }
}
