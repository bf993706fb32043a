//! The predictor: told of every read, it says which blocks to fetch ahead.

use super::credit::Credit;
use super::cursors::{Cursor, Cursors};
use super::hash::{join, magnitude, whole};
use super::history::{History, Seen};
use super::model::{Contexts, Model, slot};
use super::pending::{Pending, PendingTable};
use super::regions::{self, Region, Regions};
use super::runs::{Run, Runs};
use super::streams::Streams;

/// What memory said to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was there, and had been read before.
    Hit,
    /// It was there because it was fetched ahead, and is read for the first time.
    FirstUse,
    /// It is on its way because it was fetched ahead.
    Late,
    /// It was not there.
    Miss,
}

/// One block of a request.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The block.
    pub id: u64,
    /// What memory said.
    pub outcome: Outcome,
}

/// Where a candidate came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// The continuation of a run.
    Run = 0,
    /// What was read together before, in the neighbourhood.
    Region = 1,
    /// What followed before.
    Replay = 2,
    /// What came right behind the same block before.
    Next = 3,
}

/// How many sources there are.
pub const SOURCES: usize = 4;

/// Sizes of a predictor.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Blocks that memory holds.
    pub capacity: u64,
}

/// What became of candidates of a source.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceCounts {
    /// Candidates scored.
    pub scored: u64,
    /// Fetched.
    pub issued: u64,
    /// Fetched and used.
    pub used: u64,
}

/// Chance at and above which a candidate is fetched when nothing is wasted.
const THRESHOLD: f32 = 0.45;
/// Wasted fetches per miss that are paid for coverage.
const WASTE: f32 = 0.11;
/// Share of fetched blocks that are to be used.
const ACCURACY: f32 = 0.66;
/// Candidates proposed for one request at most, and for each of its blocks.
const PROPOSALS: u32 = 32;

/// See the module.
pub struct Predictor {
    config: Config,
    history: History,
    streams: Streams,
    runs: Runs,
    regions: Regions,
    cursors: Cursors,
    pending: PendingTable,
    model: Model,
    // Misses that there would have been without fetching ahead.
    misses: u32,
    horizon: u32,
    threshold: f32,
    waste: f32,
    // Share of fetched blocks that were used, of late.
    accuracy: f32,
    counts: [SourceCounts; SOURCES],
    credit: Credit,
    // Requests that a fetch takes.
    latency: f32,
    stream: u64,
    trigger: u64,
    draws: u32,
}

#[derive(Clone, Copy)]
struct Candidate {
    id: u64,
    source: Source,
    owner: u32,
    step: u32,
    // What the source knows: how sure and how far, and how it went of late.
    far: u64,
    state: u64,
}

impl std::fmt::Debug for Predictor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Predictor")
            .field("misses", &self.misses)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Predictor {
    /// A predictor that has seen nothing.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            history: History::new(18),
            streams: Streams::new(10),
            runs: Runs::new(12),
            regions: Regions::new(14),
            cursors: Cursors::new(256),
            pending: PendingTable::new(15),
            model: Model::new(SOURCES),
            misses: 0,
            horizon: u32::try_from(config.capacity.clamp(32, 1 << 20)).unwrap_or(1 << 20),
            threshold: 0.6,
            waste: 0.0,
            accuracy: ACCURACY,
            counts: [SourceCounts::default(); SOURCES],
            credit: Credit::new(SOURCES),
            latency: 0.0,
            stream: 0,
            trigger: 0,
            draws: 0,
        }
    }

    /// Tells how many requests pass while a fetch is under way.
    pub fn fetch_took(&mut self, requests: f32) {
        self.latency += (requests - self.latency) / 64.0;
    }

    /// A fetched block left memory unused.
    pub fn wasted(&mut self, id: u64) {
        self.waste += 1.0 / 1024.0;
        self.accuracy -= self.accuracy / 256.0;
        if let Some(pending) = self.pending.take(id) {
            self.learn(&pending, false);
        }
    }

    /// What became of the candidates of each source.
    #[must_use]
    pub fn counts(&self) -> &[SourceCounts; SOURCES] {
        &self.counts
    }

    /// Chance at which candidates are fetched now, and the model's mean loss.
    #[must_use]
    pub fn state(&self) -> (f32, f32, f32, [f32; SOURCES]) {
        (
            self.threshold,
            self.model.loss(),
            self.waste,
            std::array::from_fn(|source| self.credit.accuracy(source)),
        )
    }

    /// A request read `accesses`, all at once. `out` gets the blocks to fetch, likely first; `holds` says which blocks
    /// are in memory or on their way.
    pub fn request(
        &mut self,
        stream: u64,
        accesses: &[Access],
        holds: &impl Fn(u64) -> bool,
        out: &mut Vec<u64>,
    ) {
        self.stream = stream;
        let mut at = 0;
        while at < accesses.len() {
            // A segment of neighbours.
            let mut end = at + 1;
            while end < accesses.len() && accesses[end].id == accesses[end - 1].id.wrapping_add(1) {
                end += 1;
            }
            self.segment(&accesses[at..end], holds, out);
            at = end;
        }
    }

    fn segment(&mut self, segment: &[Access], holds: &impl Fn(u64) -> bool, out: &mut Vec<u64>) {
        let (first, last) = (segment[0].id, segment[segment.len() - 1].id);
        let mut run = self.runs.touch(first, last.wrapping_add(1));
        let mut missed = false;
        for access in segment.iter().filter(|access| access.outcome != Outcome::Hit) {
            missed = true;
            self.missed(access.id, access.outcome, segment.len(), holds, out);
        }
        self.trigger = last;
        if missed || run.requests > 1 {
            self.propose_run(&mut run, last.wrapping_add(1), holds, out);
        }
        self.runs.keep(run, self.misses);
    }

    fn propose_run(&mut self, run: &mut Run, end: u64, holds: &impl Fn(u64) -> bool, out: &mut Vec<u64>) {
        let stride = run.stride();
        let far =
            (1 << run.requests.min(2)) + u64::from(whole(2.0 * self.latency)) * u64::from(run.requests > 2);
        let reach = (far * stride).clamp(8, 512);
        if self.asleep(Source::Run) {
            run.ahead = run.ahead.max(end);
            return;
        }
        let mut budget = PROPOSALS.min(8 + 2 * u32::try_from(stride).unwrap_or(8));
        let mut poor = if self.yields(Source::Run) < 0.1 { 3 } else { 0 };
        while run.ahead < end.saturating_add(reach) && budget > 0 && poor < 4 {
            let id = run.ahead;
            let distance = (id - end) / stride;
            let candidate = Candidate {
                id,
                source: Source::Run,
                owner: 0,
                step: 0,
                far: u64::from(run.requests.min(12))
                    | (u64::from(magnitude(distance, 7)) << 4)
                    | (u64::from(magnitude(stride, 7)) << 8),
                state: u64::from(magnitude(u64::from(run.blocks), 12))
                    | ((id & 15) << 4)
                    | (u64::from(run.requests.min(3)) << 8),
            };
            let chance = self.propose(candidate, holds, out);
            if chance < 0.15 {
                poor += 1;
            }
            run.ahead += 1;
            budget -= 1;
        }
    }

    /// A block that memory alone would have missed.
    fn missed(
        &mut self,
        id: u64,
        outcome: Outcome,
        together: usize,
        holds: &impl Fn(u64) -> bool,
        out: &mut Vec<u64>,
    ) {
        self.misses = self.misses.wrapping_add(1).max(1);
        self.waste -= self.waste / 1024.0;
        self.adjust();
        self.expire();
        self.trigger = id;
        if outcome != Outcome::Miss {
            self.accuracy += (1.0 - self.accuracy) / 256.0;
        }
        let stream = self.streams.get(self.stream, self.misses);
        let (place, known) = self.history.push(id, stream.last);
        stream.last = place;
        let region = self.regions.miss(id, self.misses, self.horizon);
        let pending = self.pending.take(id);
        let mut followed = false;
        if let Some(pending) = pending {
            self.learn(&pending, true);
            if pending.issued {
                self.counts[usize::from(pending.source)].used += u64::from(outcome != Outcome::Miss);
            }
            if pending.owner != 0
                && let Some((at, mut cursor)) = self.cursors.get(pending.owner)
            {
                followed = true;
                cursor.confirm(pending.step, 16 + u32::from(whole(2.0 * self.latency)));
                self.propose_replay(&mut cursor, at, holds, out);
                self.cursors.keep(at, cursor, self.misses);
            }
        }
        if let Some(known) = known {
            if !followed {
                let (at, mut cursor) = self.cursors.begin(known.last, known.before, self.misses);
                self.propose_replay(&mut cursor, at, holds, out);
                self.cursors.keep(at, cursor, self.misses);
            }
            self.propose_next(known.last, 4, false, holds, out);
            self.propose_next(known.before, 2, true, holds, out);
        }
        self.propose_region(id, &region, together, holds, out);
    }

    fn propose_replay(
        &mut self,
        cursor: &mut Cursor,
        at: usize,
        holds: &impl Fn(u64) -> bool,
        out: &mut Vec<u64>,
    ) {
        let owner = Cursors::owner(at, cursor);
        let mut looked = 0;
        while cursor.step - cursor.confirmed < cursor.depth && looked < 24 {
            looked += 1;
            let Some((id, agrees)) = cursor.advance(&self.history) else { break };
            if holds(id) {
                continue;
            }
            cursor.step += 1;
            let distance = cursor.step - cursor.confirmed;
            let candidate = Candidate {
                id,
                source: Source::Replay,
                owner,
                step: cursor.step,
                far: u64::from(cursor.ends & 0x7f)
                    | (u64::from(agrees) << 8)
                    | (u64::from(magnitude(u64::from(distance), 7)) << 12),
                state: u64::from(magnitude(u64::from(cursor.step), 8))
                    | (u64::from(agrees) << 8)
                    | (u64::from(distance.min(6)) << 12),
            };
            let chance = self.propose(candidate, holds, out);
            if chance < 0.1 {
                break;
            }
        }
    }

    /// Proposes what came right behind `place`.
    fn propose_next(
        &mut self,
        place: u32,
        count: u64,
        far: bool,
        holds: &impl Fn(u64) -> bool,
        out: &mut Vec<u64>,
    ) {
        let mut at = place;
        for distance in 1..=count {
            let Some((id, _)) = self.history.at(at).and_then(|(_, next)| {
                at = next;
                self.history.at(next)
            }) else {
                return;
            };
            let candidate = Candidate {
                id,
                source: Source::Next,
                owner: 0,
                step: 0,
                far: distance | (u64::from(far) << 4),
                state: distance | (u64::from(far) << 4),
            };
            self.propose(candidate, holds, out);
        }
    }

    /// Share of the candidates of a source that were used, in this stream.
    fn yields(&self, source: Source) -> f32 {
        self.credit.yields(self.stream, usize::from(source as u8))
    }

    /// Whether a source is so rarely right that it is asked one time in sixteen.
    fn asleep(&self, source: Source) -> bool {
        self.yields(source) < 0.02 && !self.misses.is_multiple_of(16)
    }

    fn propose_region(
        &mut self,
        id: u64,
        region: &Region,
        together: usize,
        holds: &impl Fn(u64) -> bool,
        out: &mut Vec<u64>,
    ) {
        let seen = region.now.count_ones();
        let others = (region.last | region.older) & !region.now;
        if others == 0 || !(seen.is_power_of_two() || together > 1) {
            return;
        }
        let base = id - id % regions::BLOCKS;
        let overlap = (region.now & region.last).count_ones();
        let mut left = others;
        let mut budget = 12;
        while left != 0 && budget > 0 {
            // From the block on, then around.
            let shift = u32::try_from(id % regions::BLOCKS).unwrap_or(0);
            let bit = (left.rotate_right(shift).trailing_zeros() + shift) % 64;
            left &= !(1 << bit);
            let candidate_id = base + u64::from(bit);
            let was = ((region.last >> bit) & 1) | (((region.older >> bit) & 1) << 1);
            let distance = candidate_id.abs_diff(id);
            let candidate = Candidate {
                id: candidate_id,
                source: Source::Region,
                owner: 0,
                step: 0,
                far: was
                    | (u64::from(magnitude(distance, 6)) << 2)
                    | (u64::from(candidate_id > id) << 5)
                    | (u64::from(overlap.min(7)) << 6)
                    | (u64::from(magnitude(u64::from(seen), 7)) << 9),
                state: was
                    | (u64::from(magnitude(u64::from(region.last.count_ones()), 7)) << 2)
                    | (u64::from(magnitude(u64::from((region.now & !region.last).count_ones()), 5)) << 5)
                    | (u64::from(magnitude(u64::from(overlap), 6)) << 8),
            };
            let chance = self.propose(candidate, holds, out);
            budget -= 1;
            if chance < 0.05 {
                budget = budget.min(4);
            }
        }
    }

    /// Scores a candidate and fetches it if that pays; returns its chance.
    fn propose(&mut self, of: Candidate, holds: &impl Fn(u64) -> bool, out: &mut Vec<u64>) -> f32 {
        let source = of.source as u64;
        let bit = 1_u8 << of.source as u8;
        let mut sources = bit;
        let mut again = None;
        let mut before = 0;
        if let Some(pending) = self.pending.get_mut(of.id) {
            if pending.issued {
                return 1.0;
            }
            sources |= pending.sources;
            again = Some(pending.at);
            before = u64::from(pending.chance) + 1;
        } else if holds(of.id) {
            return 1.0;
        }
        let contexts = self.contexts(&of, source, sources, before);
        let chance = self.model.score(usize::from(of.source as u8), &contexts);
        let counts = &mut self.counts[usize::from(of.source as u8)];
        counts.scored += 1;
        let likely = chance >= self.threshold;
        let issued = likely && self.credit.allows(self.stream, usize::from(of.source as u8));
        if issued {
            counts.issued += 1;
            out.push(of.id);
        }
        // Of what is hardly ever used a part is enough to learn from.
        self.draws = self.draws.wrapping_add(0x9e37_79b9);
        if chance < 0.06 && again.is_none() && self.draws >> 30 != 0 {
            return chance;
        }
        let pending = Pending {
            id: of.id,
            contexts,
            at: self.misses,
            owner: of.owner,
            step: of.step,
            source: of.source as u8,
            chance: u8::try_from(whole(chance * 15.99)).unwrap_or(15),
            issued,
            likely: if likely { bit } else { 0 },
            stream: u32::try_from(self.stream & 0xffff_ffff).unwrap_or(0),
            sources,
            ..Pending::default()
        };
        if again.is_some() {
            if let Some(old) = self.pending.get_mut(of.id) {
                old.replace(pending);
            }
        } else {
            self.expire();
            self.pending.push(pending);
        }
        chance
    }

    fn contexts(&self, of: &Candidate, source: u64, sources: u8, before: u64) -> Contexts {
        let near = self.regions.get(of.id).map_or(0, |region| {
            let bit = of.id % regions::BLOCKS;
            let around = (region.now << 8 >> bit) & 0x3ff;
            around | (((region.last >> bit) & 1) << 10) | (((region.older >> bit) & 1) << 11)
        });
        let seen: Seen = self.history.seen(of.id).unwrap_or_default();
        let age = if seen.last == 0 { 0 } else { u64::from(self.history.newest().wrapping_sub(seen.last)) };
        let gap = if seen.before == 0 { 0 } else { u64::from(seen.last.wrapping_sub(seen.before)) };
        let due = (age * 8).checked_div(gap).map_or(0, |due| due.min(31) + 1);
        let key = |number: u64, value: u64| slot(join(number * 64 + source, value));
        [
            key(0, of.far),
            key(1, of.state),
            key(
                2,
                join(
                    self.stream,
                    (of.far & 0xf00f) | (self.credit.level(self.stream, usize::from(of.source as u8)) << 20),
                ),
            ),
            key(3, join(self.trigger, of.id)),
            key(4, of.id),
            key(5, u64::from(seen.times.min(7)) | (due << 3) | (u64::from(magnitude(age, 20)) << 9)),
            key(6, near),
            key(
                7,
                u64::from(sources)
                    | (u64::from(seen.outcomes) << 8)
                    | (before << 16)
                    | ((of.far & 0xff) << 24),
            ),
        ]
    }

    fn learn(&mut self, pending: &Pending, used: bool) {
        self.model.learn(usize::from(pending.source), &pending.contexts, used);
        self.history.note(pending.id, used);
        for source in 0..SOURCES {
            if pending.sources >> source & 1 != 0 {
                self.credit.ended(u64::from(pending.stream), source, used);
            }
            if pending.likely >> source & 1 != 0 {
                self.credit.note(u64::from(pending.stream), source, used);
            }
        }
    }

    fn expire(&mut self) {
        while let Some(pending) = self.pending.expired(self.misses, self.horizon) {
            self.learn(&pending, false);
        }
    }

    /// Raises the threshold while more is wasted than is paid for.
    fn adjust(&mut self) {
        let error = (self.waste - WASTE).max((ACCURACY - self.accuracy) * 0.5);
        self.threshold = (self.threshold + error / 512.0).clamp(THRESHOLD, 0.97);
    }

    /// Blocks that memory holds, as configured.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.config.capacity
    }
}
