//! A connection's timer for hyper, which asks for a new sleep with every request: here all of them are one entry of the
//! runtime's timer, moved only when it has passed. To enter and leave it with every request costs a wake-up each time.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};

type Entry = Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>;

/// The timer of one connection, whose sleeps follow one another: only the newest is waited for.
#[derive(Clone, Debug, Default)]
pub struct LazyTimer(Entry);

impl Timer for LazyTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(LazySleep { entry: Arc::clone(&self.0), deadline })
    }
}

struct LazySleep {
    entry: Entry,
    deadline: Instant,
}

impl Sleep for LazySleep {}

impl Future for LazySleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        let sleep = entry.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.deadline.into())));
        loop {
            if sleep.deadline() > self.deadline.into() {
                sleep.as_mut().reset(self.deadline.into());
            }
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() == self.deadline.into() {
                return Poll::Ready(());
            }
            // That was the end of a sleep before this one.
            sleep.as_mut().reset(self.deadline.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_secs(3600);
    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn every_sleep_has_its_own_end() {
        let timer = LazyTimer::default();
        // What was waited for before is earlier or later than the next sleep's end, was given up or was awaited.
        assert!(timer.sleep(LATE).now_or_never().is_none());
        timeout(PATIENCE, timer.sleep(SOON)).await.unwrap();
        let mut late = timer.sleep(LATE);
        assert!((&mut late).now_or_never().is_none());
        drop(late);
        assert!(timer.sleep(SOON).now_or_never().is_none());
        let mut late = timer.sleep(LATE);
        assert!(timeout(100 * SOON, &mut late).await.is_err(), "it ended with the one before");
        timeout(PATIENCE, timer.sleep(SOON)).await.unwrap();
    }
}
