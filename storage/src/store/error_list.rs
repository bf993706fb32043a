//! What a walk over many blocks or files found amiss: the first errors, and how many there were.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// Errors that are kept; more are only counted.
pub(super) const ERRORS_KEPT: usize = 100;

/// Errors, noted by several threads.
#[derive(Debug, Default)]
pub(super) struct ErrorList {
    count: AtomicU64,
    kept: Mutex<Vec<Error>>,
}

impl ErrorList {
    pub(super) fn note(&self, error: Error) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < ERRORS_KEPT {
            kept.push(error);
        }
    }

    /// The errors that were kept, by path, and how many there were in all.
    pub(super) fn into_parts(self) -> (Vec<Error>, u64) {
        let mut kept = self.kept.into_inner().unwrap_or_else(PoisonError::into_inner);
        kept.sort_by_key(|error| error.place().map(|place| (place.path.clone(), place.offset)));
        (kept, self.count.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_hundred_are_kept_and_all_are_counted() {
        let list = ErrorList::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| list.note(Error::new(ErrorKind::Corrupt, "read", "x"))));
            }
        });
        let (kept, count) = list.into_parts();
        assert_eq!((kept.len(), count), (ERRORS_KEPT, 200));
    }
}
