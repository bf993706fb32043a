//! The mode that would have hit most of late: each has a shadow, a small cache without bytes for a sample of all blocks,
//! and the best one's policy rules the frames. No single policy is safe on every stream of reads, and shadows cost a few
//! per cent of what a hit costs.

use super::shadow::Shadow;
use super::{EvictionMode, EvictionPolicy, Residents};
use crate::tier::index::spread;
use crate::tier::{BlockKey, FileNo};
use crate::units::to_usize;

/// Frames of a shadow at most, unless the sample would be larger than one block in 64.
const SHADOW_FRAMES: usize = 1024;
const SAMPLE_BITS_MAX: u32 = 6;
/// What a mode must hit more than the one that rules to take its place.
const BETTER: f64 = 1.02;

/// See the module.
#[derive(Debug)]
pub struct Auto {
    frames: usize,
    mode: EvictionMode,
    rules: Box<dyn EvictionPolicy>,
    // What every frame has, to move them from one policy to another.
    keys: Box<[BlockKey]>,
    shadows: Vec<(EvictionMode, Shadow, f64)>,
    sample_bits: u32,
    window: u32,
    seen: u32,
    switches: u64,
    // Who hears of no hits cannot compare, and stays with a policy that needs to hear of none.
    hears_hits: bool,
}

impl Auto {
    /// A policy for frames `0..frames`.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        let mut sample_bits = 0;
        while frames >> sample_bits > SHADOW_FRAMES && sample_bits < SAMPLE_BITS_MAX {
            sample_bits += 1;
        }
        let shadow_frames = (frames >> sample_bits).max(1);
        let mode = EvictionMode::Lru;
        Self {
            frames,
            mode,
            rules: mode.policy(frames),
            keys: vec![BlockKey { file: FileNo(0), block: 0 }; frames].into(),
            shadows: EvictionMode::ALL.map(|mode| (mode, Shadow::new(mode, shadow_frames), 0.0)).into(),
            sample_bits,
            window: u32::try_from(shadow_frames.clamp(256, 4096)).unwrap_or(4096),
            seen: 0,
            switches: 0,
            hears_hits: true,
        }
    }

    /// As [`Auto::new`], ruled by S3-FIFO until it is told of a hit: perhaps nobody tells.
    #[must_use]
    pub fn until_told(frames: usize) -> Self {
        let mode = EvictionMode::S3Fifo;
        Self { mode, rules: mode.policy(frames), hears_hits: false, ..Self::new(frames) }
    }

    /// The mode that rules now, and how often it changed.
    #[must_use]
    pub fn mode(&self) -> (EvictionMode, u64) {
        (self.mode, self.switches)
    }

    fn read(&mut self, key: BlockKey) {
        let sampled = spread(key) << 8 >> (64 - 8) < (1 << 8 >> self.sample_bits);
        if !sampled {
            return;
        }
        for (_, shadow, hits) in &mut self.shadows {
            *hits += f64::from(u8::from(shadow.read(key)));
        }
        self.seen += 1;
        if self.seen >= self.window {
            self.seen = 0;
            self.choose();
        }
    }

    fn choose(&mut self) {
        let rules = self.shadows.iter().find(|(mode, ..)| *mode == self.mode).map_or(0.0, |(.., hits)| *hits);
        let best =
            self.shadows.iter().max_by(|a, b| a.2.total_cmp(&b.2)).map(|(mode, _, hits)| (*mode, *hits));
        if let Some((mode, hits)) = best
            && hits > rules * BETTER + 1.0
        {
            self.switch(mode);
        }
        self.shadows.iter_mut().for_each(|(.., hits)| *hits *= 0.9);
    }

    /// Gives the frames to another policy, in the order in which this one would let them go.
    fn switch(&mut self, mode: EvictionMode) {
        let mut next = mode.policy(self.frames);
        let mut leaving = Everything { keys: &self.keys };
        while let Some(frame) = self.rules.evict(&mut leaving) {
            next.adopted(frame, self.keys[to_usize(u64::from(frame))]);
        }
        (self.rules, self.mode) = (next, mode);
        self.switches += 1;
    }
}

/// Frames that all may leave.
struct Everything<'a> {
    keys: &'a [BlockKey],
}

impl Residents for Everything<'_> {
    fn reads(&self, _: u32) -> u8 {
        0
    }

    fn set_reads(&mut self, _: u32, _: u8) {}

    fn key(&self, frame: u32) -> BlockKey {
        self.keys[to_usize(u64::from(frame))]
    }

    fn take_out(&mut self, _: u32) -> bool {
        true
    }
}

impl EvictionPolicy for Auto {
    fn inserted(&mut self, frame: u32, key: BlockKey) {
        self.keys[to_usize(u64::from(frame))] = key;
        self.rules.inserted(frame, key);
        if self.hears_hits {
            self.read(key);
        }
    }

    fn hit(&mut self, frame: u32) {
        self.hears_hits = true;
        self.rules.hit(frame);
        self.read(self.keys[to_usize(u64::from(frame))]);
    }

    fn evict(&mut self, residents: &mut dyn Residents) -> Option<u32> {
        self.rules.evict(residents)
    }
}
