//! Channels: crossbeam's, whose waits a simulated host can see.

pub use crossbeam::channel::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use std::fmt;
use std::time::Duration;

use crossbeam::channel as real;

use super::Bell;

/// The sending end.
pub struct Sender<T> {
    inner: real::Sender<T>,
    // Dropped after `inner`: who waits at the other end then sees that this one is gone.
    bell: Bell,
}

/// The receiving end.
pub struct Receiver<T> {
    inner: real::Receiver<T>,
    bell: Bell,
}

/// A channel for at most `capacity` messages.
#[must_use]
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    ends(real::bounded(capacity))
}

/// A channel without limit, for messages that are bounded otherwise.
#[must_use]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    ends(real::unbounded())
}

fn ends<T>((sender, receiver): (real::Sender<T>, real::Receiver<T>)) -> (Sender<T>, Receiver<T>) {
    let bell = Bell::new();
    (Sender { inner: sender, bell: bell.clone() }, Receiver { inner: receiver, bell })
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), bell: self.bell.clone() }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), bell: self.bell.clone() }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({} waiting)", self.inner.len())
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({} waiting)", self.inner.len())
    }
}

impl<T> Sender<T> {
    /// Sends, waiting for room.
    ///
    /// # Errors
    /// When nobody can receive any more.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut message = Some(message);
        let attempt = || match self.inner.try_send(message.take()?) {
            Ok(()) => Some(Ok(())),
            Err(TrySendError::Disconnected(unsent)) => Some(Err(SendError(unsent))),
            Err(TrySendError::Full(unsent)) => {
                message = Some(unsent);
                None
            }
        };
        let sent = match self.bell.wait_for(None, attempt) {
            Some(sent) => sent.expect("a wait without a deadline ends with an outcome"),
            None => self.inner.send(message.expect("not sent yet")),
        };
        self.bell.ring();
        sent
    }

    /// Sends if there is room.
    ///
    /// # Errors
    /// When there is none, or nobody can receive any more.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let sent = self.inner.try_send(message);
        self.bell.ring();
        sent
    }
}

impl<T> Receiver<T> {
    /// The next message, waiting for it.
    ///
    /// # Errors
    /// When nobody can send any more.
    pub fn recv(&self) -> Result<T, RecvError> {
        match self.bell.wait_for(None, || self.outcome()) {
            Some(received) => received.expect("a wait without a deadline ends with an outcome"),
            None => self.inner.recv(),
        }
    }

    /// The next message, waiting up to `timeout` for it.
    ///
    /// # Errors
    /// When none came, or nobody can send any more.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        match self.bell.wait_for(Some(timeout), || self.outcome()) {
            Some(None) => Err(RecvTimeoutError::Timeout),
            Some(Some(received)) => received.map_err(RecvTimeoutError::from),
            None => self.inner.recv_timeout(timeout),
        }
    }

    /// The next message, if there is one.
    ///
    /// # Errors
    /// When there is none, or nobody can send any more.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let received = self.inner.try_recv();
        if received.is_ok() {
            self.bell.ring();
        }
        received
    }

    /// Whether no message waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    fn outcome(&self) -> Option<Result<T, RecvError>> {
        match self.try_recv() {
            Ok(message) => Some(Ok(message)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(RecvError)),
        }
    }
}
