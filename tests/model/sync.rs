//! Locks and channels that the checker controls: its own lock, and the product's channel with a stop before each use.

pub use shuttle::sync::{Mutex, MutexGuard};

pub mod oneshot {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use shuttle::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::oneshot;

    #[derive(Debug)]
    pub struct Sender<T>(oneshot::Sender<T>);

    #[derive(Debug)]
    pub struct Receiver<T>(Option<oneshot::Receiver<T>>);

    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Sender(sender), Receiver(Some(receiver)))
    }

    impl<T> Sender<T> {
        pub fn send(self, value: T) -> Result<(), T> {
            stop();
            self.0.send(value)
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, oneshot::error::RecvError>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            stop();
            let receiver = self.0.as_mut().expect("only dropping takes it");
            Pin::new(receiver).poll(cx)
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            stop();
            self.0 = None;
        }
    }

    /// Another task may go on here: the checker stops at every use of what it controls.
    fn stop() {
        AtomicBool::new(false).load(Ordering::SeqCst);
    }
}
