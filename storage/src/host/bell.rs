//! What the threads of a simulated host wait for; on a real machine, nothing at all.

use std::time::Duration;

/// Rings for those who wait on it, on a simulated host; elsewhere it takes no room and does nothing. Rings once more
/// when it is dropped, so that who waits sees the other end of a channel go.
#[derive(Clone, Debug, Default)]
pub struct Bell {
    #[cfg(any(test, feature = "testing"))]
    simulated: Option<Simulated>,
}

#[cfg(any(test, feature = "testing"))]
#[derive(Clone, Debug)]
struct Simulated {
    host: std::sync::Arc<dyn super::SimulatedHost>,
    // Its address names the bell.
    identity: std::sync::Arc<u8>,
}

#[cfg(any(test, feature = "testing"))]
impl Simulated {
    fn key(&self) -> usize {
        std::sync::Arc::as_ptr(&self.identity).addr()
    }
}

impl Bell {
    /// A bell of the host that this thread belongs to.
    #[must_use]
    pub fn new() -> Self {
        Self {
            #[cfg(any(test, feature = "testing"))]
            simulated: super::current().map(|host| Simulated { host, identity: std::sync::Arc::default() }),
        }
    }

    /// Lets those who wait look again.
    pub fn ring(&self) {
        #[cfg(any(test, feature = "testing"))]
        if let Some(simulated) = &self.simulated {
            simulated.host.ring(simulated.key());
        }
    }

    /// On a simulated host, waits as long as `outcome` says none, until it is rung for it to look again; gives up, with
    /// `Some(None)`, after `timeout`. `None` on a real machine, at once: the caller waits in its own way.
    pub fn wait_for<T>(
        &self,
        timeout: Option<Duration>,
        outcome: impl FnMut() -> Option<T>,
    ) -> Option<Option<T>> {
        #[cfg(any(test, feature = "testing"))]
        if let Some(simulated) = &self.simulated {
            return Some(simulated.wait_for(timeout, outcome));
        }
        let _real_machine = (timeout, outcome);
        None
    }
}

#[cfg(any(test, feature = "testing"))]
impl Simulated {
    fn wait_for<T>(&self, timeout: Option<Duration>, mut outcome: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = timeout.map(|timeout| self.host.now().saturating_add(timeout));
        // Somebody else's turn first, perhaps: orders that happen only under load are found this way.
        self.host.yield_now();
        loop {
            let found = outcome();
            if found.is_some() {
                return found;
            }
            if deadline.is_some_and(|deadline| self.host.now() >= deadline) {
                return None;
            }
            self.host.wait(self.key(), deadline);
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}
