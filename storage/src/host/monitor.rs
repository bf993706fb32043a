//! A value behind a lock, and those who wait for it to change.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Bell;

/// A mutex with its condition variable.
pub struct Monitor<T> {
    value: Mutex<T>,
    changed: Condvar,
    // Changed under the lock, so that who changed the value under it sees all who wait: waking nobody is a system call.
    waiters: AtomicUsize,
    bell: Bell,
}

impl<T> fmt::Debug for Monitor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Monitor")
    }
}

impl<T> Monitor<T> {
    /// Guards `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            changed: Condvar::new(),
            waiters: AtomicUsize::new(0),
            bell: Bell::new(),
        }
    }

    /// The value, for this thread alone.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn anybody_waits(&self) -> bool {
        self.waiters.load(Ordering::SeqCst) > 0
    }

    /// Wakes one who waits for what was changed under the lock before.
    pub fn notify_one(&self) {
        if self.anybody_waits() {
            self.changed.notify_one();
        }
        // On a simulated host all look: who finds nothing waits on.
        self.bell.ring();
    }

    /// Wakes all who wait for what was changed under the lock before.
    pub fn notify_all(&self) {
        if self.anybody_waits() {
            self.changed.notify_all();
        }
        self.bell.ring();
    }

    /// Waits up to `timeout`, or for ever, while `condition` holds; it is asked under the lock. Returns the value as it
    /// is then, which may be as before when time ran out.
    pub fn wait_while(
        &self,
        timeout: Option<Duration>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'_, T> {
        let outcome = || {
            let mut guard = self.lock();
            (!condition(&mut guard)).then_some(guard)
        };
        match self.bell.wait_for(timeout, outcome) {
            Some(Some(guard)) => return guard,
            Some(None) => return self.lock(),
            None => {}
        }
        let guard = self.lock();
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let guard = match timeout {
            None => self.changed.wait_while(guard, condition).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout_while(guard, timeout, condition);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        guard
    }
}
