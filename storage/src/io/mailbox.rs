//! Where requests wait for their I/O thread to look at them: taken all at once, so that a batch costs one lock and at
//! most one wake-up.
//!
//! What lies here is bounded by the buffers that requests carry and the threads that wait for a sync.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Request;
use super::config::{Lane, Priority};

/// What an I/O thread is told.
pub(super) enum Message {
    Submit(Request),
    Raise { lane: Lane, tag: u64, priority: Priority },
    Stop,
}

/// The mailbox of one I/O thread.
#[derive(Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    // Whether there is something, without the lock.
    posted: AtomicBool,
    sleeping: AtomicBool,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    closed: bool,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves `messages`; true when the thread sleeps and must be woken. Gives them back when the thread has ended.
    pub(super) fn post(
        &self,
        messages: impl IntoIterator<Item = Message>,
    ) -> std::result::Result<bool, Vec<Message>> {
        let mut state = self.lock();
        if state.closed {
            return Err(messages.into_iter().collect());
        }
        state.messages.extend(messages);
        // Where it is set already the thread has not looked since, and will before it sleeps.
        if !self.posted.load(Ordering::Relaxed) {
            self.posted.store(true, Ordering::SeqCst);
        }
        drop(state);
        Ok(self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst))
    }

    /// Moves everything that was posted to `into`, which is empty.
    pub(super) fn take(&self, into: &mut Vec<Message>) {
        if self.posted.load(Ordering::SeqCst) {
            let mut state = self.lock();
            self.posted.store(false, Ordering::SeqCst);
            std::mem::swap(&mut state.messages, into);
        }
    }

    /// The thread is about to sleep; false when something was posted and it must not. Who posts later sees that it
    /// sleeps.
    pub(super) fn may_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        let nothing = !self.posted.load(Ordering::SeqCst);
        if !nothing {
            self.awake();
        }
        nothing
    }

    /// The thread is awake: nobody need wake it.
    pub(super) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// The thread ends: gives back what was posted, and from now on everything to who posts it.
    pub(super) fn close(&self) -> Vec<Message> {
        let mut state = self.lock();
        state.closed = true;
        std::mem::take(&mut state.messages)
    }
}
