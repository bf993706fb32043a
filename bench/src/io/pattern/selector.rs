//! Which file an I/O goes to: fio's `file_service_type`.

use super::super::job::ServiceKind;
use super::distribution::Sampler;
use crate::random::Random;
use crate::{to_u64, to_usize};

#[derive(Debug)]
pub(super) struct Selector {
    kind: ServiceKind,
    files: usize,
    window: usize,
    /// Files of this pass that are not used up, in order; the first `window` are in use.
    open: Vec<usize>,
    at: usize,
    stays: u64,
    random: Random,
    sampler: Option<Sampler>,
}

impl Selector {
    pub(super) fn new(kind: ServiceKind, files: usize, window: Option<usize>, seed: u64) -> Self {
        let sampler = match kind {
            ServiceKind::Skewed(distribution) => Some(Sampler::new(distribution, to_u64(files).max(1), seed)),
            _ => None,
        };
        let mut selector = Self {
            kind,
            files,
            window: window.unwrap_or(files).max(1),
            open: Vec::with_capacity(files),
            at: 0,
            stays: 0,
            random: Random::new(seed),
            sampler,
        };
        selector.restart();
        selector
    }

    pub(super) fn restart(&mut self) {
        self.open.clear();
        self.open.extend(0..self.files);
        self.at = 0;
        self.stays = 0;
    }

    /// No more I/O of this pass in file `number`.
    pub(super) fn used_up(&mut self, number: usize) {
        if let Some(at) = self.open.iter().position(|open| *open == number) {
            self.open.remove(at);
            if self.at > at {
                self.at -= 1;
            }
        }
        self.stays = 0;
    }

    pub(super) fn next(&mut self) -> Option<usize> {
        if self.files == 1 {
            return self.open.first().copied();
        }
        let window = self.open.len().min(self.window);
        if window == 0 {
            return None;
        }
        let in_each = match self.kind {
            ServiceKind::Sequential => return self.open.first().copied(),
            ServiceKind::RoundRobin(times) | ServiceKind::Random(times) => times,
            ServiceKind::Skewed(_) => 1,
        };
        if self.stays == 0 {
            self.stays = in_each;
            self.at = match (&self.kind, &mut self.sampler) {
                (ServiceKind::Random(_), _) => to_usize(self.random.scaled(to_u64(window))),
                (ServiceKind::Skewed(_), Some(sampler)) => {
                    let wanted = to_usize(sampler.next());
                    self.open.iter().position(|open| *open == wanted).unwrap_or(wanted % window)
                }
                _ => self.at,
            };
        }
        self.stays -= 1;
        let number = self.open[self.at % window];
        if self.stays == 0 && matches!(self.kind, ServiceKind::RoundRobin(_)) {
            self.at = (self.at + 1) % window;
        }
        Some(number)
    }
}
