//! What waits for one device: by priority, then deadline, then arrival; and which waiting reads are neighbours.
//!
//! A disk takes the most urgent reads that nobody waits for in the order of their places: its head goes up through them
//! and begins again at the lowest. Less urgent ones go before a read at most twice as often as a sweep has reads.
//!
//! Requests lie in a slab and are found through one list for each priority, which is in order already when requests
//! arrive in the order of their deadlines: the usual case costs a push and a pop.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::config::{LaneLimits, Priority};
use super::{OpKind, Request};
use crate::device::DeviceFile;
use crate::units::to_u64;

/// A request in the slab; the ticket tells it from an earlier one in the same place.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    request: Request,
}

/// Where a list finds a request.
#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: u64,
    ticket: u64,
    index: usize,
}

/// The queue of one lane.
#[derive(Debug)]
pub(super) struct LaneQueue {
    pub(super) limits: LaneLimits,
    pub(super) in_flight: usize,
    pub(super) bytes_in_flight: usize,
    slab: Vec<Option<Waiting>>,
    free: Vec<usize>,
    lists: [VecDeque<Entry>; Priority::COUNT],
    // Reads by file, offset and place in the slab: only where reads with others between them are merged.
    positions: Option<BTreeSet<(FileKey, u64, usize)>>,
    tickets: u64,
    // File and offset where the head is after the last read.
    head: (FileKey, u64),
    sweeps: [Sweep; Priority::COUNT],
}

/// Those that the head goes through before it begins again: up to this deadline and ticket, of those that had arrived.
#[derive(Clone, Copy, Debug, Default)]
struct Sweep {
    last: (u64, u64),
    arrived: u64,
}

impl LaneQueue {
    pub(super) fn new(limits: LaneLimits) -> Self {
        Self {
            limits,
            in_flight: 0,
            bytes_in_flight: 0,
            slab: Vec::new(),
            free: Vec::new(),
            lists: Default::default(),
            positions: (limits.merge.gap_bytes > 0).then(BTreeSet::new),
            tickets: 0,
            head: ((0, 0), 0),
            sweeps: Default::default(),
        }
    }

    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    pub(super) fn push(&mut self, request: Request) {
        self.tickets += 1;
        let ticket = self.tickets;
        let (priority, deadline) = (request.priority, request.deadline);
        let index = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            self.slab.len() - 1
        });
        if let (Some(positions), Some(position)) = (&mut self.positions, position(&request, index)) {
            positions.insert(position);
        }
        self.slab[index] = Some(Waiting { ticket, request });
        self.enlist(priority, Entry { deadline, ticket, index });
    }

    fn enlist(&mut self, priority: Priority, entry: Entry) {
        let list = &mut self.lists[priority as usize];
        let key = (entry.deadline, entry.ticket);
        if list.back().is_none_or(|last| (last.deadline, last.ticket) < key) {
            list.push_back(entry);
        } else {
            let place = list.partition_point(|other| (other.deadline, other.ticket) < key);
            list.insert(place, entry);
        }
    }

    /// Whether one more operation of `priority` may start: what nobody waits for leaves an eighth of the depth free, so
    /// that a demand does not find the device full of it.
    fn may_start(&self, priority: Priority, len: usize) -> bool {
        let reserve = if priority == Priority::Demand { 0 } else { self.limits.depth / 8 };
        let fits = self.in_flight == 0 || self.bytes_in_flight + len <= self.limits.bytes;
        self.in_flight + reserve < self.limits.depth && fits
    }

    /// The next request, if the limits let it start.
    pub(super) fn pop(&mut self) -> Option<Request> {
        if self.len() == 0 {
            return None;
        }
        for priority in 0..Priority::COUNT {
            while let Some(entry) = self.lists[priority].front().copied() {
                let Some(waiting) =
                    self.slab[entry.index].as_ref().filter(|found| found.ticket == entry.ticket)
                else {
                    // Merged or raised meanwhile.
                    self.lists[priority].pop_front();
                    continue;
                };
                let swept = waiting.request.priority != Priority::Demand && self.limits.sweep > 1;
                let place = if swept { self.next_in_sweep(priority) } else { 0 };
                let entry = self.lists[priority][place];
                let waiting = self.slab[entry.index].as_ref().expect("the sweep passes over what is gone");
                if !self.may_start(waiting.request.priority, waiting.request.op.len) {
                    return None;
                }
                self.lists[priority].remove(place);
                let request = self.take(entry.index);
                self.moved_to(&request);
                return Some(request);
            }
        }
        None
    }

    /// Where in its list the read is that the head meets next in this sweep; the first, when that is no read. A sweep has
    /// the most urgent that wait when it begins, and ends before the next begins: so none waits longer than two.
    fn next_in_sweep(&mut self, priority: usize) -> usize {
        let valid =
            |entry: &&Entry| self.slab[entry.index].as_ref().is_some_and(|of| of.ticket == entry.ticket);
        let key = |entry: &Entry| (entry.deadline, entry.ticket);
        let list = &self.lists[priority];
        let mut sweep = self.sweeps[priority];
        let belongs =
            |sweep: &Sweep, entry: &Entry| key(entry) <= sweep.last && entry.ticket <= sweep.arrived;
        if !list.iter().filter(valid).any(|entry| belongs(&sweep, entry)) {
            let most_urgent = list.iter().filter(valid).take(self.limits.sweep);
            sweep = Sweep { last: most_urgent.last().map_or((0, 0), key), arrived: self.tickets };
            self.sweeps[priority] = sweep;
        }
        let reads = list.iter().enumerate().filter_map(|(place, entry)| {
            let found = self.slab[entry.index].as_ref().filter(|found| found.ticket == entry.ticket)?;
            Some((place, belongs(&sweep, entry), position(&found.request, place)))
        });
        let reads = reads.take_while(|(place, _, at)| *place > 0 || at.is_some());
        let reads = reads.filter_map(|(place, belongs, at)| Some((place, at.filter(|_| belongs)?)));
        let ahead = |at: &(FileKey, u64, usize)| (at.0, at.1) >= self.head;
        reads.min_by_key(|(_, at)| (!ahead(at), *at)).map_or(0, |(place, _)| place)
    }

    /// The head is behind `request` now, if that is a read.
    fn moved_to(&mut self, request: &Request) {
        if let Some((file, offset, _)) = position(request, 0) {
            self.head = (file, offset + to_u64(request.op.len));
        }
    }

    /// Any request, limits or not.
    pub(super) fn pop_any(&mut self) -> Option<Request> {
        let index = self.slab.iter().position(Option::is_some)?;
        Some(self.take(index))
    }

    fn take(&mut self, index: usize) -> Request {
        let Waiting { request, .. } = self.slab[index].take().expect("the caller found it");
        self.free.push(index);
        if let (Some(positions), Some(position)) = (&mut self.positions, position(&request, index)) {
            positions.remove(&position);
        }
        request
    }

    /// Raises the request of that tag to `priority`.
    pub(super) fn raise(&mut self, tag: u64, priority: Priority) {
        // Rare (a demand meets its own announced read), and the queue is bounded by the buffers there are.
        let found = self.slab.iter_mut().enumerate().find_map(|(index, waiting)| {
            waiting
                .as_mut()
                .filter(|waiting| waiting.request.op.is_named(tag))
                .map(|waiting| (index, waiting))
        });
        let Some((index, waiting)) = found.filter(|(_, waiting)| waiting.request.priority > priority) else {
            return;
        };
        waiting.request.priority = priority;
        let (old, deadline) = (waiting.ticket, waiting.request.deadline);
        // It keeps its arrival; the old entry is skipped where it lies when the place is empty or of another ticket.
        let entry = Entry { deadline, ticket: old, index };
        for list in &mut self.lists {
            list.retain(|other| other.ticket != old);
        }
        self.enlist(priority, entry);
    }

    /// Takes the waiting reads that lie beside `head` in its file, as far as the limits let, and returns them sorted by
    /// offset with the head not among them.
    pub(super) fn take_neighbours(&mut self, head: &Request) -> Vec<Request> {
        let merge = self.limits.merge;
        let mergeable = |request: &Request| {
            request.op.kind == OpKind::Read && request.op.done == 0 && request.op.len <= merge.piece_bytes
        };
        if self.len() == 0 || !mergeable(head) || merge.span_bytes <= head.op.len {
            return Vec::new();
        }
        if self.positions.is_some() {
            self.take_around(head, &mergeable)
        } else {
            self.take_following(head, &mergeable)
        }
    }

    /// Neighbours that come next in the order of the queue anyway, each where the one before ends.
    fn take_following(&mut self, head: &Request, mergeable: &dyn Fn(&Request) -> bool) -> Vec<Request> {
        let mut taken = Vec::new();
        let (mut end, mut span) = (head.op.offset + to_u64(head.op.len), head.op.len);
        while let Some(entry) = self.lists[head.priority as usize].front().copied() {
            let waiting = self.slab[entry.index].as_ref().filter(|found| found.ticket == entry.ticket);
            let fits = waiting.is_some_and(|Waiting { request, .. }| {
                Arc::ptr_eq(&request.op.file, &head.op.file)
                    && request.op.offset == end
                    && mergeable(request)
                    && span + request.op.len <= self.limits.merge.span_bytes
            });
            if !fits {
                break;
            }
            self.lists[head.priority as usize].pop_front();
            let request = self.take(entry.index);
            (end, span) = (end + to_u64(request.op.len), span + request.op.len);
            taken.push(request);
        }
        taken
    }

    /// Neighbours of any priority, wherever they wait, with at most the gap between each and the next.
    fn take_around(&mut self, head: &Request, mergeable: &dyn Fn(&Request) -> bool) -> Vec<Request> {
        let merge = self.limits.merge;
        let (gap, span) = (to_u64(merge.gap_bytes), to_u64(merge.span_bytes));
        let file = file_key(&head.op.file);
        let (mut start, mut end) = (head.op.offset, head.op.offset + to_u64(head.op.len));
        let mut taken = Vec::new();
        // What lies behind first: a disk reads on for free.
        while let Some(positions) = &self.positions {
            let next = positions.range((file, end, 0)..).next();
            let Some((_, offset, index)) = next.filter(|next| next.0 == file && next.1 <= end + gap) else {
                break;
            };
            let (offset, index) = (*offset, *index);
            let request = &self.slab[index].as_ref().expect("positions name waiting requests").request;
            let new_end = offset + to_u64(request.op.len);
            if !mergeable(request) || new_end - start > span {
                break;
            }
            taken.push(self.take(index));
            end = new_end;
        }
        while let Some(positions) = &self.positions {
            let before = positions.range((file, 0, 0)..(file, start, 0)).next_back();
            let Some((_, offset, index)) = before else { break };
            let (offset, index) = (*offset, *index);
            let request = &self.slab[index].as_ref().expect("positions name waiting requests").request;
            let its_end = offset + to_u64(request.op.len);
            if !mergeable(request) || its_end > start || start > its_end + gap || end - offset > span {
                break;
            }
            taken.push(self.take(index));
            start = offset;
        }
        taken.sort_by_key(|request| request.op.offset);
        if let Some(last) = taken.last().filter(|last| last.op.offset > head.op.offset) {
            self.moved_to(last);
        }
        taken
    }
}

/// Tells a file from all others, and orders files as a disk has them: an address alone would order them at random.
type FileKey = (u64, usize);

fn file_key(file: &Arc<DeviceFile>) -> FileKey {
    (file.order(), Arc::as_ptr(file).addr())
}

fn position(request: &Request, index: usize) -> Option<(FileKey, u64, usize)> {
    let op = &request.op;
    (op.kind == OpKind::Read).then(|| (file_key(&op.file), op.offset, index))
}
