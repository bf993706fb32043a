//! `tierstream scrub`: checks what lies on the tiers and heals L2 from L3.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use serde::Serialize;
use tierstream_storage::catalog;
use tierstream_storage::store::{KnownDataSet, L2Scrub, VerifyProgress, VerifyReport, known_data_sets};
use tierstream_storage::tier::{Throttle, WriteRate};
use tierstream_storage::units::human_bytes;
use tierstream_storage::{Error, RangeSource, Result, Store, StoreConfig};

use crate::args::{IoArgs, L2Args, block_bytes_of, parse, parse_size};
use crate::demo::text_of;
use crate::interrupt::Interrupt;
use crate::key::KeyArgs;
use crate::output;

/// Check what lies on the tiers at a limited rate, and heal L2 from L3
///
/// Reads and authenticates every block of the L2 devices given, and every block of DATA on L3. A damaged block of L2 is
/// read from L3 and written again. Ends with 1 when damage remains: what L3 itself has lost. A store that is running on
/// the L2 must be stopped first.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["data", "l2"]).required(true).multiple(true))]
pub(crate) struct Scrub {
    /// Directory of a data set on L3 to check; without it only L2 is
    data: Option<PathBuf>,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    l2: L2Args,

    /// What remembers the contents of L2: redb, or rocksdb where it was built in
    #[arg(long, value_name = "NAME", default_value = "redb", value_parser = parse::<catalog::CatalogKind>)]
    catalog: catalog::CatalogKind,

    /// Bytes per second to read at most: 50M; without it as fast as the devices go, below all other work
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    rate: Option<u64>,

    #[command(flatten)]
    io: IoArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Verdict {
    ok: bool,
    l2: L2Counts,
    l3: L3Counts,
    unrepaired: u64,
    errors: Vec<Damage>,
}

#[derive(Serialize)]
struct L2Counts {
    bytes: u64,
    blocks: u64,
    damaged: u64,
    healed: u64,
    dropped: u64,
    unchecked: u64,
}

#[derive(Default, Serialize)]
struct L3Counts {
    bytes: u64,
    shards: usize,
    blocks: u64,
    damaged: u64,
}

/// Damage that remains.
#[derive(Serialize)]
struct Damage {
    path: Option<String>,
    block: Option<u64>,
    offset: Option<u64>,
    bytes: Option<u64>,
    error: String,
}

impl Damage {
    fn of(error: &Error) -> Self {
        let place = error.place();
        Self {
            path: place.map(|place| place.path.display().to_string()),
            block: place.and_then(|place| place.block).map(|(_, number)| number),
            offset: place.and_then(|place| place.offset),
            bytes: place.and_then(|place| place.len),
            error: error.to_string(),
        }
    }
}

impl Scrub {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let keys = self.key.open()?;
        let known = self.known()?;
        let here: Vec<&KnownDataSet> =
            known.iter().filter(|set| block_bytes_of(&set.location).is_ok()).collect();
        let locations = here.iter().map(|set| &set.location).chain(&self.data);
        let mut block_bytes = StoreConfig::default().block_bytes;
        for location in locations {
            block_bytes = block_bytes.max(block_bytes_of(location)?);
        }
        let config = StoreConfig {
            // Blocks are checked in buffers of their own: L1 stays empty.
            l1_bytes: 16 * u64::from(block_bytes),
            block_bytes,
            l2: self.l2.devices(),
            catalog: self.catalog,
            io: self.io.config(),
            ..StoreConfig::default()
        };
        let pace = self.rate.map(|rate| Throttle::new(WriteRate::per_second(rate), config.clock.clone()));
        let store = Store::open(config, keys)?;
        for location in here.iter().map(|set| &set.location).chain(&self.data) {
            // A data set whose manifest is damaged is said to be so below, or has blocks that cannot be checked.
            if let Err(error) = text_of(location).and_then(|location| store.open_data_set(location)) {
                output::say(&format!("warning: {error}"));
            }
        }
        let interrupt = Interrupt::catch(|| {})?;
        let progress = VerifyProgress { pace, ..VerifyProgress::default() };
        let (l2_bytes, _) = store.l2_stored();
        let bar = output::byte_bar(l2_bytes + self.l3_bytes(), "scrubbing");
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let work = || -> Result<(L2Scrub, Option<VerifyReport>)> {
            let l2 = store.scrub_l2(threads, &progress)?;
            let l3 = self.data.as_ref().map(|data| store.verify(data, threads, &progress)).transpose()?;
            Ok((l2, l3))
        };
        let found = interrupt.watch(&bar, &progress.bytes, &progress.stop, work);
        bar.finish_and_clear();
        let (l2, l3) = found?;
        let gone: Vec<&KnownDataSet> = known.iter().filter(|set| !here.contains(set)).collect();
        self.tell(l2_bytes, &l2, l3.as_ref(), &gone)
    }

    /// Data sets that the catalog of L2 knows.
    fn known(&self) -> Result<Vec<KnownDataSet>> {
        let Some(first) = self.l2.devices().into_iter().next() else { return Ok(Vec::new()) };
        if !first.path.is_dir() {
            let missing = std::io::ErrorKind::NotFound.into();
            return Err(Error::io("open", &first.path, missing)
                .hint("give the directories that --l2 named in the run"));
        }
        known_data_sets(&*catalog::open(self.catalog, &first.path)?)
    }

    /// Roughly what will be read of L3, for the bar alone.
    fn l3_bytes(&self) -> u64 {
        self.data.as_deref().map_or(0, crate::verify::stored_bytes)
    }

    fn tell(
        &self,
        l2_bytes: u64,
        l2: &L2Scrub,
        l3: Option<&VerifyReport>,
        gone: &[&KnownDataSet],
    ) -> Result<ExitCode> {
        let errors: Vec<&Error> = l2.errors.iter().chain(l3.iter().flat_map(|l3| &l3.errors)).collect();
        let unrepaired = l2.error_count + l3.map_or(0, |l3| l3.error_count);
        if self.json {
            let counts = |l3: &VerifyReport| L3Counts {
                bytes: l3.bytes,
                shards: l3.shards,
                blocks: l3.blocks,
                damaged: l3.error_count,
            };
            output::json(&Verdict {
                ok: unrepaired == 0,
                l2: L2Counts {
                    bytes: l2_bytes,
                    blocks: l2.blocks,
                    damaged: l2.damaged,
                    healed: l2.healed,
                    dropped: l2.dropped,
                    unchecked: l2.unchecked,
                },
                l3: l3.map(counts).unwrap_or_default(),
                unrepaired,
                errors: errors.iter().map(|error| Damage::of(error)).collect(),
            })?;
        } else {
            let mut rows = Vec::new();
            if !self.l2.l2.is_empty() {
                rows.push(("L2", l2_line(l2_bytes, l2)));
            }
            if let Some(l3) = l3 {
                let line = format!(
                    "{} blocks in {} shards, {}: {} damaged",
                    l3.blocks,
                    l3.shards,
                    human_bytes(l3.bytes),
                    l3.error_count
                );
                rows.push(("L3", line));
            }
            output::result(&output::table(&rows))?;
        }
        if l2.unchecked > 0 {
            let places: Vec<String> = gone.iter().map(|set| set.location.display().to_string()).collect();
            output::say(&format!(
                "warning: {} blocks of L2 were not checked: their data sets were not found{}{}",
                l2.unchecked,
                if places.is_empty() { "" } else { " any more at " },
                places.join(", ")
            ));
        }
        if unrepaired == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        errors.iter().for_each(|error| output::say(&format!("error: {error}")));
        let more = unrepaired.saturating_sub(u64::try_from(errors.len()).unwrap_or(u64::MAX));
        if more > 0 {
            output::say(&format!("and {more} more"));
        }
        output::say(&format!(
            "\n{unrepaired} blocks on L3 are damaged or unreadable\n\nhint: restore the files named above from their \
             source, or pack the data set again"
        ));
        Ok(ExitCode::FAILURE)
    }
}

fn l2_line(bytes: u64, l2: &L2Scrub) -> String {
    let mut line = format!("{} blocks, {}: {} damaged", l2.blocks, human_bytes(bytes), l2.damaged);
    if l2.damaged > 0 {
        line += &format!(", {} healed from L3, {} dropped", l2.healed, l2.dropped);
    }
    line
}
