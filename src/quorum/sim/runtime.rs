//! The runtime that openraft is given in tests: tokio's, or in a simulation the executor's.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use tokio::sync::oneshot;

use super::executor::{self, Sleep};

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Runtime;

pub enum JoinHandle<T> {
    Tokio(tokio::task::JoinHandle<T>),
    Simulated(oneshot::Receiver<T>),
}

pub enum JoinError {
    Tokio(tokio::task::JoinError),
    Gone,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Tokio(error) => error.fmt(f),
            JoinError::Gone => f.write_str("its process is gone"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            JoinHandle::Tokio(handle) => Pin::new(handle).poll(context).map_err(JoinError::Tokio),
            JoinHandle::Simulated(result) => Pin::new(result).poll(context).map_err(|_| JoinError::Gone),
        }
    }
}

type Tokio<R, T> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;

impl AsyncRuntime for Runtime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Tokio<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        if !executor::is_running() {
            return JoinHandle::Tokio(TokioRuntime::spawn(future));
        }
        let (done, result) = oneshot::channel();
        executor::spawn(async move { drop(done.send(future.await)) });
        JoinHandle::Simulated(result)
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::new(TokioRuntime::sleep(duration))
    }

    fn sleep_until(deadline: Self::Instant) -> Sleep {
        Sleep::new(TokioRuntime::sleep_until(deadline))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Tokio<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Tokio<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &JoinError) -> bool {
        matches!(error, JoinError::Tokio(error) if error.is_panic())
    }

    /// What openraft draws is the patience of its own election, which is off.
    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
    where
        T: OptionalSend,
    {
        TokioRuntime::oneshot()
    }
}
