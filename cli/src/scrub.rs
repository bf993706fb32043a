//! `tierstream scrub`: checks what lies on the tiers and heals L2 from L3.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use serde::Serialize;
use tierstream_storage::catalog;
use tierstream_storage::store::object::{ObjectScrub, objects_in};
use tierstream_storage::store::{
    KnownDataSet, L2Scrub, VerifyProgress, VerifyReport, ask_status, known_data_sets,
};
use tierstream_storage::tier::{Throttle, WriteRate};
use tierstream_storage::units::human_bytes;
use tierstream_storage::{Error, ErrorKind, RangeSource, Result, Store, StoreConfig};

use crate::args::{IoArgs, L2Args, block_bytes_of, parse, parse_size};
use crate::demo::text_of;
use crate::interrupt::Interrupt;
use crate::key::KeyArgs;
use crate::objects::{OBJECT_BLOCK_BYTES, object_config};
use crate::output;

/// Check what lies on the tiers at a limited rate, and heal L2 from L3
///
/// Reads and authenticates every block of the L2 devices given, every block of DATA on L3, and with --l3 every object on
/// both tiers. A damaged block of L2 is read from L3 and written again; a damaged object is healed by its copy on the other
/// tier. Ends with 1 when damage remains: what is damaged on the only tier that has it. A store that is running on the L2
/// must be stopped first; DATA alone can be scrubbed beside it.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["data", "l2", "l3"]).required(true).multiple(true))]
pub(crate) struct Scrub {
    /// Directory of a data set on L3 to check; without it only L2 is
    data: Option<PathBuf>,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    l2: L2Args,

    /// Directory on L3 where objects live: with it the objects there and on L2 are checked
    #[arg(long, value_name = "DIR")]
    l3: Option<PathBuf>,

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
    objects: Option<ObjectCounts>,
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

/// Files of objects by tier.
#[derive(Serialize)]
struct ObjectCounts {
    l2_files: u64,
    l2_damaged: u64,
    l2_healed: u64,
    l3_files: u64,
    l3_damaged: u64,
    l3_healed: u64,
    blocks: u64,
}

/// What was found.
struct Found {
    l2: L2Scrub,
    l3: Option<VerifyReport>,
    objects: Option<ObjectScrub>,
}

impl Found {
    fn errors(&self) -> impl Iterator<Item = &Error> {
        let l3 = self.l3.iter().flat_map(|l3| &l3.errors);
        self.l2.errors.iter().chain(l3).chain(self.objects.iter().flat_map(|objects| &objects.errors))
    }

    fn error_count(&self) -> u64 {
        let objects = self.objects.as_ref().map_or(0, |objects| objects.error_count);
        self.l2.error_count + self.l3.as_ref().map_or(0, |l3| l3.error_count) + objects
    }
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
        let known = self.known().map_err(|error| self.is_running(error))?;
        self.mind_objects()?;
        let here: Vec<&KnownDataSet> =
            known.iter().filter(|set| block_bytes_of(&set.location).is_ok()).collect();
        let locations = here.iter().map(|set| &set.location).chain(&self.data);
        let mut block_bytes = StoreConfig::default().block_bytes;
        for location in locations {
            block_bytes = block_bytes.max(block_bytes_of(location)?);
        }
        let mut config = StoreConfig {
            // Blocks are checked in buffers of their own: L1 stays empty.
            l1_bytes: 16 * u64::from(block_bytes),
            block_bytes,
            l2: self.l2.devices(),
            catalog: self.catalog,
            io: self.io.config(),
            ..StoreConfig::default()
        };
        if let Some(l3) = &self.l3 {
            // Blocks of data sets keep what they have of L2: nothing is written for objects.
            config.objects = Some(object_config(&mut config.l2.clone(), l3));
            config.block_bytes = config.block_bytes.max(OBJECT_BLOCK_BYTES);
            config.l1_bytes = 16 * u64::from(config.block_bytes);
        }
        let pace = self.rate.map(|rate| Throttle::new(WriteRate::per_second(rate), config.clock.clone()));
        let store = Store::open(config, keys).map_err(|error| self.is_running(error))?;
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
        let work = || -> Result<Found> {
            let l2 = store.scrub_l2(threads, &progress)?;
            let l3 = self.data.as_ref().map(|data| store.verify(data, threads, &progress)).transpose()?;
            let objects = self.l3.as_ref().map(|_| store.scrub_objects(threads, &progress)).transpose()?;
            Ok(Found { l2, l3, objects })
        };
        let found = interrupt.watch(&bar, &progress.bytes, &progress.stop, work);
        bar.finish_and_clear();
        let found = found?;
        let gone: Vec<&KnownDataSet> = known.iter().filter(|set| !here.contains(set)).collect();
        self.tell(l2_bytes, &found, &gone)
    }

    /// Says that objects on L2 are passed over, which only their L3 tells apart from leftovers.
    fn mind_objects(&self) -> Result<()> {
        let Some(first) = self.l2.devices().into_iter().next().filter(|_| self.l3.is_none()) else {
            return Ok(());
        };
        let there = objects_in(self.catalog, &first.path)?.map_or(0, |summary| summary.objects);
        if there > 0 {
            output::say(&format!("warning: {there} objects are not checked: give their directory with --l3"));
        }
        Ok(())
    }

    /// Says so when a store has the L2 open.
    fn is_running(&self, error: Error) -> Error {
        let first = self.l2.devices().into_iter().next().filter(|_| error.kind() == ErrorKind::Retry);
        let Some(report) = first.and_then(|first| ask_status(&first.path).ok().flatten()) else {
            return error;
        };
        let why =
            format!("a store is running on this L2: process {}, up {:.0} s", report.pid, report.uptime_s);
        Error::new(ErrorKind::Retry, "scrub", why).hint(
            "scrub it when that has ended; a data set on L3 can be scrubbed beside it: tierstream scrub DATA, \
             without --l2",
        )
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

    fn tell(&self, l2_bytes: u64, found: &Found, gone: &[&KnownDataSet]) -> Result<ExitCode> {
        let Found { l2, l3, objects } = found;
        let (l3, objects) = (l3.as_ref(), objects.as_ref());
        let (errors, unrepaired) = (found.errors().collect::<Vec<_>>(), found.error_count());
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
                objects: objects.map(object_counts),
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
            if let Some(objects) = objects {
                let (l2, l3) = (tier_line(objects, |pair| pair.0), tier_line(objects, |pair| pair.1));
                rows.push(("objects on L2", format!("{l2} dropped, L3 has them")));
                rows.push(("objects on L3", format!("{l3} written again from L2")));
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
            "\n{unrepaired} blocks are damaged or unreadable where nothing else has them\n\nhint: restore the files \
             named above from their source, pack the data set again, or put the object again"
        ));
        Ok(ExitCode::FAILURE)
    }
}

fn object_counts(objects: &ObjectScrub) -> ObjectCounts {
    ObjectCounts {
        l2_files: objects.files.0,
        l2_damaged: objects.damaged.0,
        l2_healed: objects.healed.0,
        l3_files: objects.files.1,
        l3_damaged: objects.damaged.1,
        l3_healed: objects.healed.1,
        blocks: objects.blocks,
    }
}

fn tier_line(objects: &ObjectScrub, of: impl Fn((u64, u64)) -> u64) -> String {
    format!("{} files: {} damaged, {}", of(objects.files), of(objects.damaged), of(objects.healed))
}

fn l2_line(bytes: u64, l2: &L2Scrub) -> String {
    let mut line = format!("{} blocks, {}: {} damaged", l2.blocks, human_bytes(bytes), l2.damaged);
    if l2.damaged > 0 {
        line += &format!(", {} healed from L3, {} dropped", l2.healed, l2.dropped);
    }
    line
}
