//! The threads that connections live on. A connection stays on the thread that it was given to, with all that its calls
//! need, the instance's connection included: a call wakes no other thread, and shares no timer and no queue with others.

use std::{
    cell::Cell,
    io,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How often a worker looks at its clock. A time limit that ends before all others costs a wake-up when it begins, as that
/// of nearly every call would if nothing ended sooner.
const TICK: Duration = Duration::from_secs(1);

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// Number of the worker that asks, from 0. Other threads count as the first.
pub fn current() -> usize {
    NUMBER.get()
}

/// Single-threaded runtimes. They end with this value, and what runs on them is dropped.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    next: AtomicUsize,
    stop: CancellationToken,
}

impl Workers {
    /// One for each core.
    ///
    /// # Errors
    /// When the system gives no thread, or no descriptors for one.
    pub fn alone() -> io::Result<Self> {
        Self::start(thread::available_parallelism()?.get())
    }

    /// One for every two cores, on a machine that the functions run on as well. A call is more work for its function than
    /// for us, and threads beyond what is left to us would take their turns from the functions.
    ///
    /// # Errors
    /// As [`Workers::alone`].
    pub fn beside_functions() -> io::Result<Self> {
        Self::start(thread::available_parallelism()?.get().div_ceil(2))
    }

    fn start(count: usize) -> io::Result<Self> {
        let mut workers = Self {
            handles: Vec::new(),
            next: AtomicUsize::new(0),
            stop: CancellationToken::new(),
        };
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            workers.handles.push(runtime.handle().clone());
            let stop = workers.stop.clone();
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    NUMBER.set(number);
                    runtime.block_on(async {
                        while timeout(TICK, stop.cancelled()).await.is_err() {}
                    });
                })?;
        }
        Ok(workers)
    }

    /// The one whose turn it is: connections are dealt out evenly.
    pub fn next(&self) -> &Handle {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        &self.handles[next % self.handles.len()]
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_are_dealt_out_and_end_with_the_workers() {
        let count = 3;
        let workers = Workers::start(count).unwrap();
        let mut numbers = Vec::new();
        for _ in 0..2 * count {
            numbers.push(workers.next().spawn(async { current() }).await.unwrap());
        }
        let all: Vec<_> = (0..count).chain(0..count).collect();
        assert_eq!(numbers, all);

        let endless = workers.next().spawn(std::future::pending::<()>());
        drop(workers);
        assert!(endless.await.unwrap_err().is_cancelled());
    }
}
