//! What a seed draws: the machine, the store's settings, which faults there are and how often. No seed has everything,
//! so that no fault hides what another would show (swarm testing, Groce et al., ISSTA 2012).

use std::time::Duration;

use super::disk::{DiskConfig, Fault, FaultRates, Part};
use crate::keys::Cipher;
use crate::testing::Random;
use crate::tier::{L2Config, WriteRate};
use crate::units::{to_u64, to_usize};

/// What kind of trouble a seed has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// None: all must work.
    Calm,
    /// Crashes alone.
    Crashes,
    /// Faults alone.
    Faults,
    /// Both.
    All,
}

/// The draw of one seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What kind of trouble.
    pub mode: Mode,
    /// How often each fault strikes.
    pub faults: FaultRates,
    /// See [`DiskConfig::one_journal`].
    pub one_journal: bool,
    /// L2's devices, by their sizes; none reads from L3 alone.
    pub l2_bytes: Vec<u64>,
    /// What may be written to L2.
    pub l2_write_rate: Option<WriteRate>,
    /// Room on L2's devices, which share it.
    pub l2_device_bytes: u64,
    /// Stored length of a block.
    pub block_bytes: u32,
    /// Blocks that fit L1.
    pub l1_blocks: u64,
    /// Operations in flight per lane.
    pub depths: (usize, usize),
    /// Threads that open blocks.
    pub codec_threads: usize,
    /// Cipher of the data sets.
    pub cipher: Cipher,
    /// Whether they are compressed.
    pub compressed: bool,
    /// How often a thread gives up its turn before it must; 0 for never.
    pub yield_one_in: u64,
    /// How long reads wait.
    pub patience: Duration,
    /// Names of data sets that the client uses.
    pub targets: usize,
    /// Names of objects that it uses.
    pub objects: usize,
    /// Whether objects are drained only when the client says so.
    pub manual_drain: bool,
    /// Most blocks of a shard.
    pub shard_blocks: u64,
    /// What the client does.
    pub actions: usize,
    /// Weights of the client's actions.
    pub weights: [u64; super::client::ACTIONS],
    /// Changing operations between crashes, at most.
    pub crash_every: u64,
}

/// Directories of L2; the first has the catalog.
const L2_PATHS: [&str; 3] = ["/l2", "/l2-b", "/l2-c"];
/// The smallest L2 there is.
const L2_BYTES: u64 = 8 << 20;

impl Plan {
    /// The plan of `seed`.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x53a2);
        let mode = match random.below(8) {
            0 => Mode::Calm,
            1 | 2 => Mode::Crashes,
            3..=5 => Mode::Faults,
            _ => Mode::All,
        };
        let faults = match mode {
            Mode::Calm | Mode::Crashes => FaultRates::default(),
            Mode::Faults | Mode::All => draw_faults(&mut random),
        };
        let devices = if random.one_in(10) { 0 } else { 1 + random.below(to_u64(L2_PATHS.len())) };
        let l2_bytes: Vec<u64> = (0..devices).map(|_| L2_BYTES << random.below(2)).collect();
        let l2_write_rate = random.one_in(8).then(|| WriteRate::per_second(1 + random.below(1 << 20)));
        // Sometimes there is only just room for them and a catalog.
        let spare = if random.one_in(4) { (4 << 20) + (1 << 20) * random.below(8) } else { 1 << 30 };
        let l2_device_bytes = l2_bytes.iter().sum::<u64>() + spare;
        let mut weights = [0; super::client::ACTIONS];
        weights.iter_mut().for_each(|weight| *weight = random.below(6));
        // Publishing and reading are always there.
        weights[0] += 2;
        weights[1] += 4;
        weights[10] += 3;
        Self {
            seed,
            mode,
            faults,
            one_journal: random.one_in(2),
            l2_bytes,
            l2_write_rate,
            l2_device_bytes,
            block_bytes: 4096 << random.below(3),
            l1_blocks: 16 + random.below(3) * 16,
            depths: (1 + to_usize(random.below(8)), 1 + to_usize(random.below(4))),
            codec_threads: 1 + to_usize(random.below(2)),
            // The cipher decides most of a seed's time and nothing of its schedule.
            cipher: if random.one_in(4) { Cipher::Sm4Gcm } else { Cipher::Aes256Gcm },
            compressed: random.one_in(2),
            yield_one_in: [0, 2, 8, 32][to_usize(random.below(4))],
            patience: Duration::from_secs(60),
            targets: 1 + to_usize(random.below(4)),
            objects: if random.one_in(3) { 0 } else { 1 + to_usize(random.below(4)) },
            manual_drain: random.one_in(3),
            shard_blocks: 1 + random.below(12),
            actions: 6 + to_usize(random.below(24)),
            weights,
            crash_every: [30, 100, 300][to_usize(random.below(3))],
        }
    }

    /// Its disks.
    #[must_use]
    pub fn disk(&self) -> DiskConfig {
        DiskConfig {
            l2_bytes: self.l2_device_bytes,
            faults: self.faults,
            one_journal: self.one_journal,
            sabotage: None,
        }
    }

    /// The devices as the store is told.
    pub(super) fn l2_config(&self) -> Vec<L2Config> {
        let device = |(path, bytes): (&&str, &u64)| L2Config { path: path.into(), bytes: *bytes };
        L2_PATHS.iter().zip(&self.l2_bytes).map(device).collect()
    }

    /// Whether the machine crashes.
    #[must_use]
    pub fn crashes(&self) -> bool {
        matches!(self.mode, Mode::Crashes | Mode::All)
    }
}

fn draw_faults(random: &mut Random) -> FaultRates {
    let mut rates = FaultRates::default();
    // Which parts of the machine are bad, and how bad.
    let bad_l3 = random.one_in(3);
    let bad_catalog = random.one_in(4);
    for part in Part::ALL {
        let bad = match part {
            Part::L2 => true,
            Part::Catalog => bad_catalog,
            Part::L3 => bad_l3,
        };
        for fault in Fault::ALL {
            // redb checks no page that it reads: silent damage of the catalog is not in the plan.
            let fits = part != Part::Catalog
                || !(fault.is_silent()
                    || matches!(fault, Fault::FlippedRead | Fault::MisdirectedRead | Fault::Slow));
            // Harmless ones strike everywhere.
            if (bad || fault.is_harmless()) && fits && fault != Fault::Rot && random.one_in(3) {
                rates.set(part, fault, 4 << random.below(6));
            }
        }
        for fault in [Fault::Slow, Fault::Interrupted] {
            // An operation is tried a bounded number of times, and slow ones are rare.
            let often = rates.one_in(part, fault);
            if often > 0 {
                rates.set(part, fault, often.max(if fault == Fault::Slow { 64 } else { 8 }));
            }
        }
    }
    rates
}
