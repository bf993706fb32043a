//! Files that a ring knows by number: an operation on one costs the kernel no look-up and no reference count.
//!
//! A registered file is open in the kernel until it is taken out again, so the table must not outlive the users of the
//! file: it keeps weak references, is told when a file closes, and takes it out before the next wait. A deleted
//! segment's space is free as soon as nobody reads it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use io_uring::Submitter;

use crate::device::DeviceFile;
use crate::io::Waker;

/// Files that one ring knows at a time; others are used by descriptor, as without registration.
const FILES_MAX: u32 = 128;

/// The table of registered files.
#[derive(Debug)]
pub(super) struct FileTable {
    entries: Vec<Option<Weak<DeviceFile>>>,
    free: Vec<u32>,
    // By address, which is unique while the weak reference in `entries` keeps the allocation.
    numbers: HashMap<usize, u32>,
    last: Option<(usize, u32)>,
    closed: Arc<AtomicBool>,
}

impl FileTable {
    /// An empty table in the ring of `submitter`; none where the kernel gives none.
    pub(super) fn new(submitter: &Submitter<'_>) -> Option<Self> {
        submitter.register_files_sparse(FILES_MAX).ok()?;
        Some(Self {
            entries: (0..FILES_MAX).map(|_| None).collect(),
            free: (0..FILES_MAX).rev().collect(),
            numbers: HashMap::new(),
            last: None,
            closed: Arc::default(),
        })
    }

    /// The number of `file`, which gets one if there is room. `waker` is woken when the file closes.
    pub(super) fn number<W: Waker + 'static>(
        &mut self,
        submitter: &Submitter<'_>,
        file: &Arc<DeviceFile>,
        waker: &Arc<W>,
    ) -> Option<u32> {
        let key = Arc::as_ptr(file).addr();
        if let Some((last, number)) = self.last
            && last == key
        {
            return Some(number);
        }
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => self.register(submitter, file, waker)?,
        };
        self.last = Some((key, number));
        Some(number)
    }

    fn register<W: Waker + 'static>(
        &mut self,
        submitter: &Submitter<'_>,
        file: &Arc<DeviceFile>,
        waker: &Arc<W>,
    ) -> Option<u32> {
        let number = *self.free.last()?;
        submitter.register_files_update(number, &[file.raw_fd()]).ok()?;
        self.free.pop();
        self.entries[number as usize] = Some(Arc::downgrade(file));
        self.numbers.insert(Arc::as_ptr(file).addr(), number);
        let (closed, waker) = (Arc::clone(&self.closed), Arc::clone(waker));
        file.when_closing(Arc::new(move || {
            closed.store(true, Ordering::SeqCst);
            waker.wake();
        }));
        Some(number)
    }

    /// Takes out the files that were closed.
    pub(super) fn sweep(&mut self, submitter: &Submitter<'_>) {
        if !self.closed.swap(false, Ordering::SeqCst) {
            return;
        }
        self.last = None;
        for (number, entry) in (0..).zip(&mut self.entries) {
            let Some(file) = entry.as_ref().filter(|file| file.strong_count() == 0) else { continue };
            // A failure leaves the old file in its place, where it stays until the ring is closed.
            if submitter.register_files_update(number, &[-1]).is_ok() {
                self.numbers.remove(&file.as_ptr().addr());
                *entry = None;
                self.free.push(number);
            }
        }
    }
}
