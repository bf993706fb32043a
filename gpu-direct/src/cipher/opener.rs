//! Opens sealed messages on a GPU.

use std::sync::Arc;

use tierstream_storage::Result;

use super::key_table::{KEY_TABLE_BYTES, KeyTable};
use super::message::PackedMessages;
use crate::cuda::{Argument, DeviceMemory, Source, Stream};
use crate::gpu::Gpu;
use crate::kernels::OPEN_THREADS;

/// Thread blocks that a multiprocessor runs at once: what the kernel's launch bounds make room for.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 4;

/// Key tables in device memory, numbered from 0.
#[derive(Debug)]
pub(crate) struct DeviceKeys {
    memory: Arc<DeviceMemory>,
}

impl DeviceKeys {
    /// Brings `tables` to the device. Waits for the copy, so that the host's may be wiped.
    pub(crate) fn new(gpu: &Gpu, stream: &Stream, tables: &[KeyTable]) -> Result<Self> {
        let memory = DeviceMemory::new(gpu.context(), tables.len() * KEY_TABLE_BYTES)?;
        let bytes: Vec<u8> = tables.iter().flat_map(|table| table.as_bytes().iter().copied()).collect();
        let copied = stream.upload(Source::Bytes(bytes), &memory, 0)?.finish()?;
        if let Source::Bytes(mut bytes) = copied {
            zeroize::Zeroize::zeroize(&mut bytes);
        }
        Ok(Self { memory })
    }
}

/// Hands the kernel to `stream`: `messages`, which lie at `control` as packed, count their offsets from `base`. Uses the
/// share `part` of the GPU's multiprocessors, 1 for all.
pub(crate) fn launch(
    gpu: &Gpu,
    stream: &Stream,
    keys: &DeviceKeys,
    base: u64,
    control: u64,
    messages: &PackedMessages,
    part: f64,
) -> Result<()> {
    let room = gpu.report().multiprocessors * BLOCKS_PER_MULTIPROCESSOR;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a small number")]
    let blocks = (f64::from(room) * part.clamp(0.0, 1.0)).ceil() as u32;
    let arguments = [
        Argument::U64(base),
        Argument::U64(keys.memory.address()),
        Argument::U64(control + messages.messages_at()),
        Argument::U64(control + messages.work_at()),
        Argument::U32(messages.items()),
        Argument::U64(control),
    ];
    gpu.functions().open.launch(stream, blocks.clamp(1, messages.items().max(1)), OPEN_THREADS, &arguments)
}
