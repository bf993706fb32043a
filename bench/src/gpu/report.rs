//! What was measured, as JSON and as text.

use std::fmt;

use serde::Serialize;
use tierstream_gpu_direct::kernels::Origin;
use tierstream_gpu_direct::{DeviceReport, GpuReport};

use super::batches::BatchesReport;

/// What `tierstream bench gpu` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Why there are no numbers of a GPU; none where there are.
    pub not_measured_because: Option<String>,
    /// What the machine has.
    pub probe: GpuReport,
    /// SM4-GCM opened by one core, GB/s.
    pub core_open_gbps: f64,
    /// One for each GPU.
    pub cards: Vec<CardReport>,
}

/// One GPU.
#[derive(Clone, Debug, Serialize)]
pub struct CardReport {
    /// Which one.
    pub gpu: DeviceReport,
    /// Where its kernels came from.
    pub kernels: Origin,
    /// Registers of a thread of the cipher's kernel.
    pub cipher_registers: i32,
    /// Bytes of it that spill.
    pub cipher_spill_bytes: i32,
    /// Copies from plain memory, GB/s.
    pub h2d_pageable_gbps: f64,
    /// Copies from pinned memory: the link's speed, GB/s.
    pub h2d_pinned_gbps: f64,
    /// The cipher's kernel.
    pub cipher: Vec<CipherRow>,
    /// Sealed blocks of 64 KiB copied and opened, GB/s.
    pub sealed_to_gpu_gbps: f64,
    /// That beside copies alone.
    pub sealed_to_h2d: f64,
    /// Who should open how much.
    pub share: Share,
    /// Batches through the device loader.
    pub batches: BatchesReport,
}

/// The cipher's kernel at one size.
#[derive(Clone, Debug, Serialize)]
pub struct CipherRow {
    /// Stored bytes of a block.
    pub block_bytes: usize,
    /// Share of the thread blocks that the GPU runs at once.
    pub part: f64,
    /// Opened in kernel time, GB/s.
    pub gbps: f64,
}

/// How the work of opening is split: the CPU opens what its cores can, the GPU the rest, up to the link's speed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// What both together bring, GB/s.
    pub wanted_gbps: f64,
    /// Part of the bytes that the CPU opens.
    pub cpu: f64,
    /// Part that the GPU opens.
    pub gpu: f64,
}

impl Share {
    /// The split for a link of `link` GB/s, a kernel of `kernel` GB/s and `cores` cores of `core` GB/s each.
    #[must_use]
    pub fn of(link: f64, kernel: f64, core: f64, cores: usize) -> Self {
        let host = core * cores as f64;
        let wanted_gbps = link.min(host + kernel);
        let cpu = if wanted_gbps > 0.0 { (host / wanted_gbps).min(1.0) } else { 1.0 };
        Self { wanted_gbps, cpu, gpu: 1.0 - cpu }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "SM4-GCM opened by one core          {:8.2} GB/s", self.core_open_gbps)?;
        if let Some(why) = &self.not_measured_because {
            writeln!(f, "GPU                                 not measured: {why}")?;
        }
        self.cards.iter().try_for_each(|card| write!(f, "{card}"))
    }
}

impl fmt::Display for CardReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "GPU {}: {} ({})", self.gpu.ordinal, self.gpu.name, self.kernels)?;
        writeln!(f, "  copies from plain memory          {:8.2} GB/s", self.h2d_pageable_gbps)?;
        writeln!(f, "  copies from pinned memory         {:8.2} GB/s", self.h2d_pinned_gbps)?;
        for CipherRow { block_bytes, part, gbps } in &self.cipher {
            let what = format!("opened, blocks of {} KiB, {:3.0} %", block_bytes >> 10, part * 100.0);
            writeln!(f, "  {what:<34}{gbps:8.2} GB/s")?;
        }
        let (rate, ratio) = (self.sealed_to_gpu_gbps, self.sealed_to_h2d);
        writeln!(f, "  sealed blocks copied and opened   {rate:8.2} GB/s, {ratio:.2} of copies alone")?;
        let Share { wanted_gbps, cpu, gpu } = self.share;
        let (cpu, gpu) = (cpu * 100.0, gpu * 100.0);
        writeln!(
            f,
            "  for {wanted_gbps:.0} GB/s                        CPU opens {cpu:.0} %, GPU {gpu:.0} %"
        )?;
        write!(f, "{}", self.batches)
    }
}
