//! What the machine did beside: other processes' CPU time, and what devices counted.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use super::super::target::Target;

/// Shares of the machine's CPU time that others may use before a reader is told.
const BUSY_SHARE: f64 = 0.10;

/// The counters of a block device: /sys/dev/block/MAJOR:MINOR/stat.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskCounters {
    pub(crate) name: String,
    /// ios, merges, sectors, ticks of reads; the same of writes; in flight, io ticks, queue ticks.
    values: Vec<u64>,
}

/// What a device did.
#[derive(Clone, Debug)]
pub(crate) struct DiskUse {
    pub(crate) name: String,
    pub(crate) ios: [u64; 2],
    pub(crate) merges: [u64; 2],
    pub(crate) ticks: [u64; 2],
    pub(crate) in_queue: u64,
    pub(crate) util: f64,
}

/// A look at the machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    busy: u64,
    all: u64,
    stolen: u64,
    disks: BTreeMap<String, DiskCounters>,
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

impl Machine {
    /// The CPUs and the devices of `targets` now.
    pub(crate) fn look<'a>(targets: impl Iterator<Item = &'a Target>) -> Self {
        let mut machine = Self::default();
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let cpu = stat.lines().next().map(numbers).unwrap_or_default();
        // user nice system idle iowait irq softirq steal
        machine.all = cpu.iter().take(8).sum();
        let idle = cpu.get(3).copied().unwrap_or(0) + cpu.get(4).copied().unwrap_or(0);
        machine.stolen = cpu.get(7).copied().unwrap_or(0);
        machine.busy = machine.all - idle - machine.stolen;
        for file in targets.flat_map(|target| &target.files) {
            let Ok(stat) = rustix::fs::fstat(file.as_fd()) else { continue };
            let device = if stat.st_rdev != 0 { stat.st_rdev } else { stat.st_dev };
            let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
            if machine.disks.contains_key(&number) {
                continue;
            }
            let place = format!("/sys/dev/block/{number}");
            let Ok(text) = std::fs::read_to_string(format!("{place}/stat")) else { continue };
            let name = std::fs::read_link(&place).ok();
            let name = name.and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
            let counters =
                DiskCounters { name: name.unwrap_or_else(|| number.clone()), values: numbers(&text) };
            machine.disks.insert(number, counters);
        }
        machine
    }

    /// What devices did since `earlier`, in `millis` milliseconds.
    pub(crate) fn disks_since(&self, earlier: &Self, millis: u64) -> Vec<DiskUse> {
        let mut uses = Vec::new();
        for (number, now) in &self.disks {
            let Some(before) = earlier.disks.get(number) else { continue };
            let of = |at: usize| {
                let value = |counters: &DiskCounters| counters.values.get(at).copied().unwrap_or(0);
                value(now).saturating_sub(value(before))
            };
            uses.push(DiskUse {
                name: now.name.clone(),
                ios: [of(0), of(4)],
                merges: [of(1), of(5)],
                ticks: [of(3), of(7)],
                in_queue: of(10),
                util: (100.0 * of(9) as f64 / millis.max(1) as f64).min(100.0),
            });
        }
        uses
    }

    /// A note when others used much of the machine since `earlier`; this run used `own_seconds` of CPU time itself.
    pub(crate) fn busy_note(&self, earlier: &Self, own_seconds: f64) -> Option<String> {
        let all = self.all.saturating_sub(earlier.all) as f64;
        if all < 20.0 {
            return None;
        }
        // A tick is a hundredth of a second (USER_HZ).
        let others = (self.busy.saturating_sub(earlier.busy) as f64 - own_seconds * 100.0).max(0.0) / all;
        let stolen = self.stolen.saturating_sub(earlier.stolen) as f64 / all;
        (others > BUSY_SHARE || stolen > BUSY_SHARE / 2.0).then(|| {
            format!(
                "the machine was busy: others used {:.0} % of its CPU time, the host took {:.0} %",
                others * 100.0,
                stolen * 100.0
            )
        })
    }
}
