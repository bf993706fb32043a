//! Threads: every one has a name and is joined.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Bell;

/// A thread that was started, to be joined.
#[derive(Debug)]
pub struct JoinHandle {
    thread: std::thread::JoinHandle<()>,
    ended: Arc<AtomicBool>,
    bell: Bell,
}

impl JoinHandle {
    /// Waits for its end.
    ///
    /// # Errors
    /// When it panicked.
    pub fn join(self) -> std::thread::Result<()> {
        let _simulated = self.bell.wait_for(None, || self.ended.load(Ordering::SeqCst).then_some(()));
        self.thread.join()
    }
}

/// Set and rung when a thread ends, by a panic too.
struct End {
    ended: Arc<AtomicBool>,
    bell: Bell,
    #[cfg(any(test, feature = "testing"))]
    turn: Option<(Arc<dyn super::SimulatedHost>, usize)>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.bell.ring();
        // The last thing it does on a simulated host: from here on another thread runs beside it.
        #[cfg(any(test, feature = "testing"))]
        if let Some((host, thread)) = self.turn.take() {
            self.bell = Bell::default();
            drop(super::enter(None));
            host.end(thread);
        }
    }
}

/// Starts a thread called `name`.
///
/// # Errors
/// When the system gives none.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle> {
    let (bell, ended) = (Bell::new(), Arc::new(AtomicBool::new(false)));
    let mut end = End {
        ended: Arc::clone(&ended),
        bell: bell.clone(),
        #[cfg(any(test, feature = "testing"))]
        turn: super::current().map(|host| {
            let thread = host.add_thread(name);
            (host, thread)
        }),
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        #[cfg(any(test, feature = "testing"))]
        if let Some((host, thread)) = &end.turn {
            super::enter(Some(Arc::clone(host)));
            host.begin(*thread);
        }
        run();
        // Named, so that it is dropped last and whatever way the thread ends.
        let _last = &mut end;
    })?;
    Ok(JoinHandle { thread, ended, bell })
}

/// Stops this thread for `duration`: for the few waits that have no event to wait for.
pub fn pause(duration: Duration) {
    if Bell::new().wait_for(Some(duration), || None::<()>).is_none() {
        std::thread::park_timeout(duration);
    }
}
