//! Fetches what nobody announced: a thread that watches what is read, asks the predictor, and keeps what it fetched in L1
//! until it is used, or for as long as its share of L1 lasts.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tierstream_storage::store::{ReadEvent, ReadLog, Urgency};
use tierstream_storage::tier::{BlockKey, FileNo, Ticket};
use tierstream_storage::{Error, ErrorKind, Result, Store};

use crate::budget::{Budget, Permit};
use crate::learned::{Access, Config, Outcome, Predictor};
use crate::stats::Counters;

/// Blocks fetched ahead and not used yet: at most one in so many of L1, besides what plans leave of the budget.
const SHARE_OF_L1: usize = 8;
/// How soon to look again when nothing was read: short beside a disk's latency, long beside a wake-up's cost.
const LOOK_AGAIN: Duration = Duration::from_micros(500);
/// Reads looked at before hits are told to L1.
const BATCH: usize = 1024;

/// A predictor at work. Dropping it ends its thread and lets go of all it held.
pub struct Prediction {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prediction")
    }
}

impl Drop for Prediction {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the prediction thread panicked");
            }
        }
    }
}

pub(crate) fn start(store: &Store, budget: &Budget, counters: &Arc<Counters>) -> Result<Prediction> {
    let stop = Arc::new(AtomicBool::new(false));
    let room = (store.l1_blocks() / SHARE_OF_L1).max(1);
    let worker = Worker {
        log: store.read_log(),
        store: store.clone(),
        budget: budget.clone(),
        counters: Arc::clone(counters),
        stop: Arc::clone(&stop),
        predictor: Predictor::new(Config { capacity: u64::try_from(store.l1_blocks()).unwrap_or(u64::MAX) }),
        ahead: Ahead {
            room,
            held: HashMap::with_capacity(room + 1),
            order: VecDeque::with_capacity(2 * room + 2),
            turn: 0,
        },
        request: Vec::with_capacity(BATCH),
        hits: Vec::with_capacity(BATCH),
        wanted: Vec::with_capacity(BATCH),
        accesses: Vec::with_capacity(BATCH),
    };
    let thread = std::thread::Builder::new()
        .name("tier-predict".to_owned())
        .spawn(move || worker.run())
        .map_err(|error| Error::new(ErrorKind::Full, "start", format!("no prediction thread: {error}")))?;
    Ok(Prediction { stop, thread: Some(thread) })
}

/// What was fetched ahead and not used, oldest first.
struct Ahead {
    room: usize,
    held: HashMap<u64, Held>,
    // Blocks with the turn in which they came; those used meanwhile are still in it.
    order: VecDeque<(u64, u64)>,
    turn: u64,
}

struct Held {
    turn: u64,
    _ticket: Ticket,
    _permit: Permit,
}

impl Ahead {
    fn insert(&mut self, id: u64, ticket: Ticket, permit: Permit) {
        self.turn += 1;
        self.held.insert(id, Held { turn: self.turn, _ticket: ticket, _permit: permit });
        self.order.push_back((id, self.turn));
    }

    /// Lets go of the oldest, if there are more than fit.
    fn overflow(&mut self) -> Option<u64> {
        while let Some((id, turn)) = self.order.front().copied() {
            let present = self.held.get(&id).is_some_and(|held| held.turn == turn);
            if present && self.held.len() <= self.room {
                return None;
            }
            self.order.pop_front();
            if present {
                self.held.remove(&id);
                return Some(id);
            }
        }
        None
    }
}

struct Worker {
    log: Arc<ReadLog>,
    store: Store,
    budget: Budget,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    predictor: Predictor,
    ahead: Ahead,
    // Buffers that are used again.
    request: Vec<(BlockKey, bool)>,
    hits: Vec<BlockKey>,
    wanted: Vec<u64>,
    accesses: Vec<Access>,
}

impl Worker {
    fn run(mut self) {
        while !self.stop.load(Ordering::Acquire) {
            let mut looked = 0;
            while looked < BATCH
                && let Some(event) = self.log.pop()
            {
                looked += 1;
                match event {
                    ReadEvent::Hit(key) => {
                        self.hits.push(key);
                        self.request.push((key, true));
                    }
                    ReadEvent::Miss(key) => self.request.push((key, false)),
                    ReadEvent::End => self.end_of_request(),
                }
                // A request without end, when its end was lost.
                if self.request.len() >= BATCH {
                    self.end_of_request();
                }
            }
            if !self.hits.is_empty() {
                self.store.tell_hits(&self.hits);
                self.hits.clear();
            }
            if looked == 0 {
                std::thread::park_timeout(LOOK_AGAIN);
            }
        }
    }

    fn end_of_request(&mut self) {
        // One stream per file: what reads it is not known here.
        let mut from = 0;
        while let Some((first, _)) = self.request.get(from).copied() {
            let same = self.request[from..].iter().take_while(|(key, _)| key.file == first.file).count();
            self.reads_of_file(first.file, from..from + same);
            from += same;
        }
        self.request.clear();
    }

    fn reads_of_file(&mut self, file: FileNo, part: std::ops::Range<usize>) {
        self.accesses.clear();
        for (key, hit) in &self.request[part] {
            let id = key.tag();
            let ahead = self.ahead.held.remove(&id).is_some();
            let outcome = match (hit, ahead) {
                (true, true) => Outcome::FirstUse,
                (true, false) => Outcome::Hit,
                (false, true) => Outcome::Late,
                (false, false) => Outcome::Miss,
            };
            self.counters.count(outcome);
            self.accesses.push(Access { id, outcome });
        }
        let (store, held) = (&self.store, &self.ahead.held);
        let holds = |id: u64| held.contains_key(&id) || store.has(key_of(id));
        self.wanted.clear();
        self.predictor.request(u64::from(file.0), &self.accesses, &holds, &mut self.wanted);
        self.fetch();
    }

    fn fetch(&mut self) {
        for order in 0..self.wanted.len() {
            let id = self.wanted[order];
            let Some(permit) = self.budget.take(self.store.l1_block_bytes()) else {
                self.predictor.wasted(id);
                continue;
            };
            let urgency = Urgency::predicted(u64::try_from(order).unwrap_or(u64::MAX));
            // Otherwise there is no room, or no such block: a run ends with its file.
            if let Ok(Some(ticket)) = self.store.fetch(key_of(id), urgency) {
                self.counters.predicted_blocks.fetch_add(1, Ordering::Relaxed);
                self.ahead.insert(id, ticket, permit);
            }
        }
        while let Some(id) = self.ahead.overflow() {
            self.counters.unused_blocks.fetch_add(1, Ordering::Relaxed);
            self.predictor.wasted(id);
        }
    }
}

fn key_of(id: u64) -> BlockKey {
    let low = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    BlockKey { file: FileNo(low(id >> 32)), block: low(id) }
}
