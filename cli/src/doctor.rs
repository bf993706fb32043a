//! `tierstream doctor`: what this machine gives, and what to change.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use tierstream_gpu_direct::{GpuReport, choose, probe};
use tierstream_storage::Result;
use tierstream_storage::buf::{Arena, SharedAllocator};
use tierstream_storage::catalog::CatalogKind;
use tierstream_storage::device::{DirectIo, Directory};
use tierstream_storage::io::{EngineChoice, ladder};
use tierstream_storage::keys::{Cipher, cipher_kernel, cpu_features, forced_kernel, kernels};
use tierstream_storage::store::object::objects_in;
use tierstream_storage::units::human_bytes;

use crate::output;

/// Say which I/O engine, cipher kernel and GPU path this machine gives, and what to change
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Directories meant for L2 or L3, to look at as well
    directories: Vec<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    kernel: String,
    cores: usize,
    memory_bytes: Option<u64>,
    io_engine: String,
    io_engine_detail: String,
    io_engine_fallback: Vec<String>,
    locked_memory_limit_bytes: Option<u64>,
    huge_pages_bytes: u64,
    cpu_features: String,
    cipher_kernels: Vec<(&'static str, &'static str)>,
    cipher_kernels_supported: Vec<&'static str>,
    cipher_kernel_forced: Option<&'static str>,
    gpu: GpuReport,
    batch_path: String,
    directories: Vec<DirectoryReport>,
    advice: Vec<String>,
}

#[derive(Serialize)]
struct DirectoryReport {
    path: PathBuf,
    direct: Option<bool>,
    /// Its alignment, or why there is none.
    direct_detail: Option<String>,
    free_bytes: Option<u64>,
    /// Objects that this L2 alone has, and their bytes.
    dirty_objects: Option<u64>,
    dirty_bytes: Option<u64>,
    problem: Option<String>,
}

/// What a store with the default depth and blocks registers with the kernel.
const REGISTERED_BYTES: u64 = 6 << 20;

impl Doctor {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let report = self.examine()?;
        if self.json {
            output::json(&report)?;
        } else {
            output::result(&report.text())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn examine(&self) -> Result<Report> {
        let slots = 96;
        let arena = Arena::new("doctor", 64 << 10, slots, &SharedAllocator { prefer_huge: true })?;
        let (_engine, engine) = ladder::open(EngineChoice::Auto, slots, Some(&arena))?;
        let gpu = probe();
        let (path, _) = choose(&gpu);
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION"),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: meminfo("MemTotal"),
            io_engine: engine.name.to_owned(),
            io_engine_detail: engine.detail,
            io_engine_fallback: engine.fallback,
            locked_memory_limit_bytes: getrlimit(Resource::Memlock).current,
            huge_pages_bytes: meminfo("Hugetlb").unwrap_or(0),
            cpu_features: cpu_features().to_string(),
            cipher_kernels: Cipher::ALL.map(|cipher| (cipher.name(), cipher_kernel(cipher))).to_vec(),
            cipher_kernels_supported: supported_kernels(),
            cipher_kernel_forced: forced_kernel(),
            gpu,
            batch_path: path.to_string(),
            directories: self.directories.iter().map(|path| directory(path)).collect(),
            advice: Vec::new(),
        };
        report.advice = advice(&report);
        Ok(report)
    }
}

/// The cipher kernels that this CPU runs, for each cipher best first.
pub(crate) fn supported_kernels() -> Vec<&'static str> {
    let all = Cipher::ALL.into_iter().flat_map(kernels);
    all.filter(|kernel| kernel.supported).map(|kernel| kernel.name).collect()
}

/// A value of /proc/meminfo, in bytes.
fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

fn directory(path: &Path) -> DirectoryReport {
    let looked = Directory::open(path).and_then(|directory| {
        let free = directory.free_bytes()?;
        Ok((directory.probe_direct(), free))
    });
    let mut report = DirectoryReport {
        path: path.to_owned(),
        direct: None,
        direct_detail: None,
        free_bytes: None,
        dirty_objects: None,
        dirty_bytes: None,
        problem: None,
    };
    match looked {
        Ok((direct, free)) => {
            report.free_bytes = Some(free);
            match direct {
                Ok(DirectIo::Works { align }) => {
                    report.direct = Some(true);
                    report.direct_detail = align.map(|(memory, offset)| {
                        format!("memory aligned to {memory}, offsets to {offset} bytes")
                    });
                }
                Ok(DirectIo::Refused(why)) => {
                    (report.direct, report.direct_detail) = (Some(false), Some(why));
                }
                Err(error) => report.problem = Some(error.to_string()),
            }
        }
        Err(error) => report.problem = Some(error.to_string()),
    }
    match objects_in(CatalogKind::Redb, path) {
        Ok(Some(summary)) => {
            report.dirty_objects = Some(summary.dirty_objects);
            report.dirty_bytes = Some(summary.dirty_bytes);
        }
        Ok(None) => {}
        Err(error) => report.problem = report.problem.or_else(|| Some(error.to_string())),
    }
    report
}

fn advice(report: &Report) -> Vec<String> {
    let mut advice = Vec::new();
    if report.io_engine != "io_uring" {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
        advice.push(match disabled.trim() {
            "1" | "2" => "io_uring is switched off: sysctl kernel.io_uring_disabled=0".to_owned(),
            _ => "io_uring is not allowed here: in a container, allow it in the seccomp profile".to_owned(),
        });
    }
    if report.locked_memory_limit_bytes.is_some_and(|limit| limit < REGISTERED_BYTES) {
        advice.push(
            "raise the limit on locked memory (ulimit -l, LimitMEMLOCK=infinity), so that buffers can be \
                     registered and pinned"
                .to_owned(),
        );
    }
    if report.huge_pages_bytes == 0 {
        advice.push(
            "reserve huge pages (sysctl vm.nr_hugepages=N, of 2 MiB each: as many as --l1-size takes), so that large \
             reads cost less and L1 can be shared with other processes"
                .to_owned(),
        );
    }
    if report.gpu.devices.is_empty() && report.gpu.driver_version.is_some() {
        advice.push("there is a CUDA driver but no usable GPU: look at nvidia-smi".to_owned());
    }
    for directory in &report.directories {
        if directory.direct == Some(false) {
            advice.push(format!(
                "{}: its file system takes no O_DIRECT, so that data is cached twice; use ext4 or xfs",
                directory.path.display()
            ));
        }
    }
    advice
}

/// What there is of GPUs, each with the reason where it is absent.
fn gpu_rows(gpu: &GpuReport) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    rows.extend(gpu.absent_because.iter().map(|why| ("GPU", format!("none: {why}"))));
    for device in &gpu.devices {
        let (major, minor) = device.compute_capability;
        let link = device.link.as_ref().map_or("link unknown".to_owned(), |link| {
            format!("{} x{} (at most {} x{})", link.speed, link.width, link.speed_max, link.width_max)
        });
        let node = device.numa_node.map_or(String::new(), |node| format!(", NUMA node {node}"));
        let (sms, memory) = (device.multiprocessors, human_bytes(device.memory_bytes));
        rows.push(("GPU", format!("{}, {major}.{minor}, {sms} SMs, {memory}, {link}{node}", device.name)));
    }
    let driver = gpu
        .driver_version
        .map_or("none".to_owned(), |version| format!("CUDA {}.{}", version / 1000, version % 1000 / 10));
    rows.push(("CUDA driver", driver));
    rows.push(("NVRTC", gpu.nvrtc.clone()));
    rows.push(("GPUDirect Storage", gpu.gpudirect_storage.clone()));
    rows
}

impl Report {
    fn text(&self) -> String {
        let limit = self.locked_memory_limit_bytes.map_or("none".to_owned(), human_bytes);
        let mut rows = vec![
            ("tierstream", self.version.to_owned()),
            ("kernel", self.kernel.clone()),
            ("cores", self.cores.to_string()),
            ("memory", self.memory_bytes.map_or("unknown".to_owned(), human_bytes)),
            ("I/O engine", format!("{} ({})", self.io_engine, self.io_engine_detail)),
        ];
        rows.extend(self.io_engine_fallback.iter().map(|reason| ("", format!("because: {reason}"))));
        rows.push(("locked memory limit", limit));
        rows.push(("huge pages", human_bytes(self.huge_pages_bytes)));
        rows.push(("CPU features", self.cpu_features.clone()));
        rows.extend(self.cipher_kernels.iter().map(|(cipher, kernel)| {
            let forced = if self.cipher_kernel_forced == Some(*kernel) { ", forced" } else { "" };
            (*cipher, format!("{kernel}{forced}"))
        }));
        rows.push(("cipher kernels", self.cipher_kernels_supported.join(" ")));
        rows.extend(gpu_rows(&self.gpu));
        rows.push(("batches go to", self.batch_path.clone()));
        let mut text = output::table(&rows);
        for directory in &self.directories {
            let direct = match directory.direct {
                Some(true) => "O_DIRECT",
                Some(false) => "page cache",
                None => "unknown",
            };
            let free = directory.free_bytes.map_or("unknown".to_owned(), human_bytes);
            let problem = directory.problem.as_ref().map_or(String::new(), |problem| format!(", {problem}"));
            let dirty = match (directory.dirty_objects, directory.dirty_bytes) {
                (Some(objects), Some(bytes)) if objects > 0 => {
                    format!(", {} in {objects} objects that are nowhere else", human_bytes(bytes))
                }
                _ => String::new(),
            };
            let detail =
                directory.direct_detail.as_ref().map_or(String::new(), |detail| format!(" ({detail})"));
            text += &format!("{}: {direct}{detail}, {free} free{dirty}{problem}\n", directory.path.display());
        }
        if self.advice.is_empty() {
            text += "\nnothing to change\n";
        } else {
            text += "\nwhat to change:\n";
            self.advice.iter().for_each(|line| text += &format!("- {line}\n"));
        }
        text
    }
}
