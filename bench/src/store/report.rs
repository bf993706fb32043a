//! What was measured, for people and as JSON.

use std::fmt;

use serde::Serialize;

use super::StoreBench;

/// One measurement of reads.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Row {
    /// Reads per second.
    pub iops: f64,
    /// Gigabytes (1e9) per second.
    pub gbps: f64,
    /// CPU time of the whole process, user and system, per read.
    pub cpu_us_per_io: f64,
}

impl Row {
    /// Cores that were busy.
    pub(super) fn cores(&self) -> f64 {
        self.iops * self.cpu_us_per_io / 1e6
    }
}

/// Time from asking for a block in memory to its first byte.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct HitReport {
    /// Half took at most this.
    pub p50: f64,
    /// 99 of 100 took at most this.
    pub p99: f64,
    /// What the two looks at the clock take themselves; included above.
    pub clock: f64,
    /// Hits per second of two threads over those of one.
    pub two_threads: f64,
}

/// Reading through the store: looked up, read from L2, opened and delivered; in turns with the raw engine on the same
/// bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StoreRead {
    /// Plain gigabytes per second delivered as views of L1: nothing is copied, as the engine copies nothing.
    pub gbps: f64,
    /// Cores that was done with.
    pub cores: f64,
    /// Plain gigabytes per second copied to the caller, 16 MiB a call, as the loader fills batches.
    pub copied_gbps: f64,
    /// Cores that was done with.
    pub copied_cores: f64,
    /// The raw engine in the same rounds: reads of 64 KiB, 32 in flight.
    pub engine_64k_gbps: f64,
    /// Cores that was done with.
    pub engine_64k_cores: f64,
    /// The raw engine in the same rounds: reads of 1 MiB, 16 in flight.
    pub engine_1m_gbps: f64,
    /// Cores that was done with.
    pub engine_1m_cores: f64,
    /// Stored gigabytes opened per second of one core: decryption alone.
    pub open_gbps: f64,
    /// What all cores could open per second at that rate if they did nothing else.
    pub cipher_limit_gbps: f64,
    /// What the machine could deliver if reads took the engine's CPU time at 1 MiB and blocks that of the cipher, on all
    /// cores: at a rate near this one the processor is the limit, not the device.
    pub cpu_limit_gbps: f64,
    /// What keeps it from being faster: "device" or "CPU".
    pub limit: &'static str,
}

/// Rounds of the store and the engine on the same bytes.
#[derive(Debug, Default)]
pub(super) struct StoreSides {
    pub(super) views: Side,
    pub(super) copies: Side,
    pub(super) engine_64k: Side,
    pub(super) engine_1m: Side,
}

/// With more of the processor than this in use, the processor is the limit.
const CPU_EXHAUSTED: f64 = 0.85;

/// Percentages of L1 that hold no bytes of a tensor.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Fragmentation {
    /// The tensors of a BERT-base training step, in one data set.
    pub bert_base_step: f64,
    /// Images of all sizes and short token sequences, in one data set.
    pub image_token_loader: f64,
    /// The tensors of a BERT-base training step, each an object of its own.
    pub bert_base_step_apart: f64,
    /// Images of all sizes and short token sequences, each an object of its own.
    pub image_token_loader_apart: f64,
}

/// Measurements of one side, in order.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Side(Vec<Row>);

impl Side {
    pub(super) fn push(&mut self, row: Row) {
        self.0.push(row);
    }

    /// The median of each number.
    fn median(&self) -> Option<Row> {
        let of = |number: fn(&Row) -> f64| {
            let mut all: Vec<f64> = self.0.iter().map(number).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied()
        };
        Some(Row {
            iops: of(|row| row.iops)?,
            gbps: of(|row| row.gbps)?,
            cpu_us_per_io: of(|row| row.cpu_us_per_io)?,
        })
    }
}

/// The engine and fio on the same job.
#[derive(Clone, Debug, Default)]
pub(super) struct Sides {
    pub(super) engine: Side,
    pub(super) fio: Side,
}

/// Ratios of what belongs together, each of medians of one run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Ratios {
    /// Ours over fio's: at least 1 is the aim.
    pub iops_4k: Option<f64>,
    /// Ours over fio's: at most 1 is the aim.
    pub cpu_4k: Option<f64>,
    /// Ours over fio's: at least 0.97 is the aim.
    pub gbps_1m: Option<f64>,
    /// Two devices over one, 4 KiB.
    pub striped_4k: Option<f64>,
    /// Views through the store over the raw engine at 64 KiB, the length of the store's blocks: at least 0.9 is the aim
    /// where the cipher is not the limit.
    pub store_read: Option<f64>,
    /// The same over the raw engine at 1 MiB, the longest read that the store makes.
    pub store_read_1m: Option<f64>,
    /// Copied through the store over the raw engine at 64 KiB.
    pub store_copied: Option<f64>,
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub directory: String,
    /// 4 KiB random reads, 32 in flight, through the store's I/O service.
    pub engine_4k: Option<Row>,
    /// The same by fio; null with a reason in `fio_absent`.
    pub fio_4k: Option<Row>,
    /// 1 MiB sequential reads, 16 in flight.
    pub engine_1m: Option<Row>,
    /// The same by fio.
    pub fio_1m: Option<Row>,
    /// 64 KiB sequential reads, 32 in flight: the raw engine at the store's block size.
    pub engine_64k: Option<Row>,
    /// 4 KiB random reads over two devices, 32 in flight on each.
    pub striped_4k: Option<Row>,
    /// Blocks of a packed data set through the store.
    pub store_read: StoreRead,
    /// A zero-copy view of a 64 KiB block in memory, in nanoseconds.
    pub l1_hit_ns: HitReport,
    /// Committed bytes of L1 that hold none of a tensor, in percent: the worst of two mixes in two ways.
    pub fragmentation_percent: f64,
    /// Each of them.
    pub fragmentation: Fragmentation,
    /// Ratios of what belongs together.
    pub ratios: Ratios,
    /// Cores that a million 4 KiB reads per second take.
    pub cores_per_million_iops: Option<f64>,
    /// fio's version.
    pub fio: Option<String>,
    /// Why there is no fio row.
    pub fio_absent: Option<String>,
    /// Whether buffers lie on huge pages of the machine's pool, ours and fio's.
    pub huge_pages: bool,
    /// What a reader of the numbers has to know.
    pub notes: Vec<String>,
    /// Every round: engine 4k, fio 4k, engine 1m, fio 1m, striped 4k; then on the data set's bytes: engine 64k, engine 1m,
    /// store as views, store copied.
    rounds: Vec<Side>,
}

impl Report {
    pub(super) fn new(bench: &StoreBench, fio: std::result::Result<String, String>) -> Self {
        // Of both sides at a time: 16 buffers of 1 MiB.
        let huge_pages = number_of("/proc/meminfo", "HugePages_Free:").is_some_and(|free| free >= 16.0);
        let (fio, fio_absent) = match fio {
            Ok(version) => (Some(version), None),
            Err(why) => (None, Some(why)),
        };
        let mut report = Self {
            directory: bench.directory.display().to_string(),
            engine_4k: None,
            fio_4k: None,
            engine_1m: None,
            fio_1m: None,
            engine_64k: None,
            striped_4k: None,
            store_read: StoreRead::default(),
            l1_hit_ns: HitReport::default(),
            fragmentation_percent: 0.0,
            fragmentation: Fragmentation::default(),
            ratios: Ratios::default(),
            cores_per_million_iops: None,
            fio,
            fio_absent,
            huge_pages,
            notes: Vec::new(),
            rounds: Vec::new(),
        };
        if !huge_pages {
            report.note("no huge pages in the pool: sysctl vm.nr_hugepages=64, and large reads cost less");
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if let Some(load) = number_of("/proc/loadavg", "")
            && load > 0.3
        {
            report.note(&format!("the machine was busy before it began: load {load:.1} on {cores} cores"));
        }
        report
    }

    pub(super) fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }

    pub(super) fn raw(&mut self, four: Sides, one: Sides, striped: Side) {
        (self.engine_4k, self.fio_4k) = (four.engine.median(), four.fio.median());
        (self.engine_1m, self.fio_1m) = (one.engine.median(), one.fio.median());
        self.striped_4k = striped.median();
        self.rounds = vec![four.engine, four.fio, one.engine, one.fio, striped];
    }

    /// What reading through the store gave, with `open_gbps` of the cipher on one core of `cores`.
    pub(super) fn store(&mut self, sides: StoreSides, open_gbps: f64, cores: usize) {
        let of = |side: &Side| side.median().map_or((0.0, 0.0), |row| (row.gbps, row.cores()));
        let ((gbps, used), (copied_gbps, copied_cores)) = (of(&sides.views), of(&sides.copies));
        let (engine_64k, engine_1m) = (of(&sides.engine_64k), of(&sides.engine_1m));
        let all = cores as f64;
        // Core-seconds for a gigabyte.
        let needed = engine_1m.1 / engine_1m.0 + 1.0 / open_gbps;
        self.store_read = StoreRead {
            gbps,
            cores: used,
            copied_gbps,
            copied_cores,
            engine_64k_gbps: engine_64k.0,
            engine_64k_cores: engine_64k.1,
            engine_1m_gbps: engine_1m.0,
            engine_1m_cores: engine_1m.1,
            open_gbps,
            cipher_limit_gbps: open_gbps * all,
            cpu_limit_gbps: all / needed,
            limit: if used > CPU_EXHAUSTED * all { "CPU" } else { "device" },
        };
        self.engine_64k = sides.engine_64k.median();
        self.rounds.extend([sides.engine_64k, sides.engine_1m, sides.views, sides.copies]);
    }

    pub(super) fn finish(&mut self) {
        let over = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs?);
        let iops = |row: Option<Row>| row.map(|row| row.iops);
        let gbps = |row: Option<Row>| row.map(|row| row.gbps);
        let cpu = |row: Option<Row>| row.map(|row| row.cpu_us_per_io);
        self.ratios = Ratios {
            iops_4k: over(iops(self.engine_4k), iops(self.fio_4k)),
            cpu_4k: over(cpu(self.engine_4k), cpu(self.fio_4k)),
            gbps_1m: over(gbps(self.engine_1m), gbps(self.fio_1m)),
            striped_4k: over(iops(self.striped_4k), iops(self.engine_4k)),
            store_read: over(Some(self.store_read.gbps), Some(self.store_read.engine_64k_gbps)),
            store_read_1m: over(Some(self.store_read.gbps), Some(self.store_read.engine_1m_gbps)),
            store_copied: over(Some(self.store_read.copied_gbps), Some(self.store_read.engine_64k_gbps)),
        };
        // Microseconds per read are cores per million reads a second.
        self.cores_per_million_iops = cpu(self.engine_4k);
        let of = &self.fragmentation;
        self.fragmentation_percent = of
            .bert_base_step
            .max(of.image_token_loader)
            .max(of.bert_base_step_apart)
            .max(of.image_token_loader_apart);
    }
}

/// The first number behind `label` in a file of /proc.
fn number_of(path: &str, label: &str) -> Option<f64> {
    let text = std::fs::read_to_string(path).ok()?;
    text[text.find(label)? + label.len()..].split_whitespace().next()?.parse().ok()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.directory)?;
        let mut line = |name: &str, row: Option<Row>| match row {
            None => Ok(()),
            Some(Row { iops, gbps, cpu_us_per_io }) => {
                writeln!(
                    f,
                    "{name:<14} {iops:>9.0} IOPS {gbps:>7.2} GB/s {cpu_us_per_io:>8.2} us of CPU per I/O"
                )
            }
        };
        line("engine 4k", self.engine_4k)?;
        line("fio 4k", self.fio_4k)?;
        line("striped 4k", self.striped_4k)?;
        line("engine 64k", self.engine_64k)?;
        line("engine 1m", self.engine_1m)?;
        line("fio 1m", self.fio_1m)?;
        let of = &self.store_read;
        let mut through = |name: &str, gbps: f64, cores: f64| {
            writeln!(f, "{name:<14} {gbps:>24.2} GB/s on {cores:.2} cores")
        };
        through("store, views", of.gbps, of.cores)?;
        through("store, copied", of.copied_gbps, of.copied_cores)?;
        through("  engine 64k", of.engine_64k_gbps, of.engine_64k_cores)?;
        through("  engine 1m", of.engine_1m_gbps, of.engine_1m_cores)?;
        writeln!(
            f,
            "{:<14} {}; the cipher opens {:.2} GB/s a core, reads and cipher at most {:.2} GB/s on all",
            "  limit", of.limit, of.open_gbps, of.cpu_limit_gbps
        )?;
        let HitReport { p50, p99, clock, two_threads } = self.l1_hit_ns;
        writeln!(
            f,
            "{:<14} p50 {p50:.0} ns, p99 {p99:.0} ns (of which the clock {clock:.0}); two threads {two_threads:.2}x",
            "L1 hit"
        )?;
        let of = &self.fragmentation;
        writeln!(
            f,
            "{:<14} BERT-base step {:.1} %, image and token loader {:.1} %; each tensor by itself {:.1} %, {:.1} %",
            "fragmentation",
            of.bert_base_step,
            of.image_token_loader,
            of.bert_base_step_apart,
            of.image_token_loader_apart
        )?;
        if let Some(cores) = self.cores_per_million_iops {
            writeln!(f, "{:<14} {cores:.2} cores", "1 M IOPS cost")?;
        }
        let Ratios { iops_4k, cpu_4k, gbps_1m, striped_4k, store_read, store_read_1m, store_copied } =
            self.ratios;
        let ratios = [
            ("4k IOPS / fio", iops_4k),
            ("4k CPU / fio", cpu_4k),
            ("1m GB/s / fio", gbps_1m),
            ("striped / one", striped_4k),
            ("store / 64k", store_read),
            ("store / 1m", store_read_1m),
            ("copied / 64k", store_copied),
        ];
        for (name, ratio) in ratios {
            if let Some(ratio) = ratio {
                writeln!(f, "{name:<14} {ratio:.2}")?;
            }
        }
        if let Some(why) = &self.fio_absent {
            writeln!(f, "no fio rows: {why}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}
