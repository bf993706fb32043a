//! One budget of bytes for all that is held ahead of need.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of bytes that plans share. Clones share the same budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: u64,
    used: AtomicU64,
}

/// Bytes taken from a [`Budget`]; they return when it is dropped.
#[derive(Debug)]
pub struct Permit {
    of: Budget,
    bytes: u64,
}

impl Budget {
    /// A budget of `total` bytes.
    #[must_use]
    pub fn new(total: u64) -> Self {
        Self(Arc::new(Inner { total, used: AtomicU64::new(0) }))
    }

    /// All of it, used or not.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.total
    }

    /// What is taken at this moment.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, if that many are left.
    #[must_use]
    pub fn take(&self, bytes: u64) -> Option<Permit> {
        let grow = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.0.total);
        self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).ok()?;
        Some(Permit { of: self.clone(), bytes })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_never_exceed_the_total_and_come_back() {
        let budget = Budget::new(100);
        let first = budget.take(60).unwrap();
        assert!(budget.take(41).is_none());
        let second = budget.take(40).unwrap();
        assert_eq!(budget.used(), 100);
        drop(first);
        assert_eq!(budget.used(), 40);
        assert!(budget.take(u64::MAX).is_none(), "no overflow");
        drop(second);
        assert_eq!(budget.used(), 0);
    }
}
