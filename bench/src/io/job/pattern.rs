//! Offsets, directions and lengths.

use super::super::options::table::pattern_words;
use super::super::options::value;
use super::super::options::{OptionSet, misuse};
use crate::Result;

/// Lengths of the I/Os of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BlockSize {
    Fixed(u64),
    /// From the first to the second.
    Range(u64, u64),
    /// Sizes with their percent.
    Split(Vec<(u64, u64)>),
}

impl BlockSize {
    pub(crate) fn least(&self) -> u64 {
        match self {
            Self::Fixed(bytes) | Self::Range(bytes, _) => *bytes,
            Self::Split(parts) => parts.iter().map(|part| part.0).min().unwrap_or(0),
        }
    }

    pub(crate) fn greatest(&self) -> u64 {
        match self {
            Self::Fixed(bytes) | Self::Range(_, bytes) => *bytes,
            Self::Split(parts) => parts.iter().map(|part| part.0).max().unwrap_or(0),
        }
    }
}

/// Which offsets are met more often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Distribution {
    Uniform,
    Zipf { theta: f64, centre: Option<f64> },
    Pareto { power: f64, centre: Option<f64> },
    Normal { deviation: f64, centre: Option<f64> },
}

impl Distribution {
    /// `random`, `zipf:THETA[/CENTRE]`, ... as fio writes them.
    pub(crate) fn parse(key: &str, text: &str) -> Result<Self> {
        let (word, rest) = text.split_once(':').map_or((text, None), |(word, rest)| (word, Some(rest)));
        let word = value::word(key, word, &["random", "zipf", "pareto", "normal", "gauss"])?;
        if word == "random" {
            return Ok(Self::Uniform);
        }
        let form = match word {
            "zipf" => "zipf:THETA, such as zipf:1.2",
            "pareto" => "pareto:POWER, such as pareto:0.2",
            _ => "normal:DEVIATION in percent, such as normal:20",
        };
        let rest = rest.ok_or_else(|| value::bad(key, text, form))?;
        let (number, centre) =
            rest.split_once([':', '/']).map_or((rest, None), |(number, centre)| (number, Some(centre)));
        let number = value::float(key, number)?;
        let centre = centre.map(|centre| value::float(key, centre)).transpose()?;
        match word {
            "zipf" if number > 0.0 && (number - 1.0).abs() > 1e-9 => Ok(Self::Zipf { theta: number, centre }),
            "pareto" if number > 0.0 && number < 1.0 => Ok(Self::Pareto { power: number, centre }),
            "normal" | "gauss" if number <= 100.0 => Ok(Self::Normal { deviation: number, centre }),
            "zipf" => Err(value::bad(key, text, "a theta above 0 that is not 1")),
            "pareto" => Err(value::bad(key, text, "a power between 0 and 1")),
            _ => Err(value::bad(key, text, "a deviation of at most 100 percent")),
        }
    }
}

/// What `rw=randread:N` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sequencer {
    /// Goes on behind the last I/O.
    Sequential,
    /// Repeats its offset.
    Identical,
}

/// The order of a job's I/O.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    pub(crate) random: bool,
    /// Random jobs: I/Os from one random offset. At least 1.
    pub(crate) sequence: u64,
    /// Sequential jobs: bytes to leave out behind each I/O.
    pub(crate) skip: u64,
    pub(crate) sequencer: Sequencer,
    pub(crate) bs: [BlockSize; 2],
    pub(crate) unaligned: bool,
    pub(crate) align: [u64; 2],
    pub(crate) rwmixread: u64,
    pub(crate) percentage_random: [u64; 2],
    pub(crate) distribution: Distribution,
    pub(crate) random_map: bool,
    pub(crate) seed: u64,
}

/// One I/O moves at most this much.
const BLOCK_BYTES_MAX: u64 = 1 << 30;

impl Pattern {
    pub(super) fn new(set: &OptionSet) -> Result<Self> {
        let (word, modifier) = match set.text("rw") {
            Some(text) => {
                let (word, modifier) = text.split_once(':').map_or((text, None), |(w, m)| (w, Some(m)));
                (set.parsed("rw", |_| value::word("rw", word, pattern_words()))?.unwrap_or("read"), modifier)
            }
            None => ("read", None),
        };
        let random = word.starts_with("rand");
        let base = set.kb_base()?;
        let modifier = modifier.map(|text| value::bytes_of("rw", text, base)).transpose()?;
        let bs = block_sizes(set, base)?;
        let least = [bs[0].least(), bs[1].least()];
        let align = set
            .parsed("blockalign", |text| {
                value::by_direction(text, &least, |part| value::bytes_of("blockalign", part, base))
            })?
            .unwrap_or(least);
        if align.contains(&0) {
            return Err(misuse("blockalign=0: expected a size above zero"));
        }
        let percent = |text: &str| {
            value::by_direction(text, &[100, 100], |part| value::number("percentage_random", part, 0..=100))
        };
        let mixed = set.number("rwmixread")?;
        let by_write = set.number("rwmixwrite")?.map(|percent| 100 - percent);
        let seed = set.number("randseed")?;
        let repeats = set.switch("randrepeat")?.unwrap_or(true);
        Ok(Self {
            reads: !word.ends_with("write") || word == "readwrite",
            writes: word.ends_with("write") || word.ends_with("rw"),
            random,
            sequence: modifier.filter(|_| random).unwrap_or(1).max(1),
            skip: modifier.filter(|_| !random).unwrap_or(0),
            sequencer: match set.word("rw_sequencer")? {
                Some("identical") => Sequencer::Identical,
                _ => Sequencer::Sequential,
            },
            bs,
            unaligned: set.switch("bs_unaligned")?.unwrap_or(false),
            align,
            rwmixread: mixed.or(by_write).unwrap_or(50),
            percentage_random: set.parsed("percentage_random", percent)?.unwrap_or([100, 100]),
            distribution: set
                .parsed("random_distribution", |text| Distribution::parse("random_distribution", text))?
                .unwrap_or(Distribution::Uniform),
            random_map: !set.switch("norandommap")?.unwrap_or(false),
            seed: seed.unwrap_or_else(|| if repeats { 0 } else { crate::random::unpredictable() }),
        })
    }

    /// Whether any I/O writes.
    pub(crate) fn writes(&self) -> bool {
        self.writes
    }

    /// Longest I/O of a direction that occurs.
    pub(crate) fn block_bytes_max(&self) -> u64 {
        let of = |occurs: bool, bs: &BlockSize| if occurs { bs.greatest() } else { 0 };
        of(self.reads, &self.bs[0]).max(of(self.writes, &self.bs[1]))
    }

    /// Shortest I/O of a direction that occurs.
    pub(crate) fn block_bytes_min(&self) -> u64 {
        let of = |occurs: bool, bs: &BlockSize| if occurs { bs.least() } else { u64::MAX };
        of(self.reads, &self.bs[0]).min(of(self.writes, &self.bs[1]))
    }
}

fn block_sizes(set: &OptionSet, base: u64) -> Result<[BlockSize; 2]> {
    let default = [BlockSize::Fixed(4096), BlockSize::Fixed(4096)];
    let fixed = set.parsed("bs", |text| {
        value::by_direction(text, &default, |part| {
            let bytes = value::bytes_of("bs", part, base)?;
            if (1..=BLOCK_BYTES_MAX).contains(&bytes) {
                Ok(BlockSize::Fixed(bytes))
            } else {
                Err(value::bad("bs", part, "a size from 1 to 1g"))
            }
        })
    })?;
    let fixed = fixed.unwrap_or(default);
    let ranged = set.parsed("bsrange", |text| {
        value::by_direction(text, &fixed, |part| match value::range("bsrange", part, base)? {
            (low, high) if low == high && low > 0 => Ok(BlockSize::Fixed(low)),
            (low, high) if (1..=BLOCK_BYTES_MAX).contains(&low) && high <= BLOCK_BYTES_MAX => {
                Ok(BlockSize::Range(low, high))
            }
            _ => Err(value::bad("bsrange", part, "sizes from 1 to 1g")),
        })
    })?;
    let before = ranged.unwrap_or(fixed);
    let split = set.parsed("bssplit", |text| value::by_direction(text, &before, |part| split(part, base)))?;
    Ok(split.unwrap_or(before))
}

/// `4k/60:64k/40`; what has no percent shares the rest.
fn split(text: &str, base: u64) -> Result<BlockSize> {
    let mut parts = Vec::new();
    let mut open = 0;
    for part in text.split(':') {
        let (size, percent) = part.split_once('/').unwrap_or((part, ""));
        let size = value::bytes_of("bssplit", size, base)?;
        if !(1..=BLOCK_BYTES_MAX).contains(&size) {
            return Err(value::bad("bssplit", part, "sizes from 1 to 1g"));
        }
        open += u64::from(percent.is_empty());
        let percent =
            if percent.is_empty() { None } else { Some(value::number("bssplit", percent, 0..=100)?) };
        parts.push((size, percent));
    }
    let sum: u64 = parts.iter().filter_map(|part| part.1).sum();
    if sum > 100 || (open == 0 && sum != 100) {
        return Err(misuse(format!("bssplit={text}: the shares are {sum} percent, expected 100")));
    }
    let share = (100 - sum).checked_div(open).unwrap_or(0);
    let mut left = (100 - sum) - share * open;
    let parts = parts.into_iter().map(|(size, percent)| {
        // The last crumbs of a division go to the first that has no percent of its own.
        let extra = if percent.is_none() { std::mem::take(&mut left) } else { 0 };
        (size, percent.unwrap_or(share + extra))
    });
    Ok(BlockSize::Split(parts.collect()))
}
