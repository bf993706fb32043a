//! Launches on a real GPU.

use std::sync::Arc;

use tierstream_storage::buf::{HeapAllocator, HostAllocator};

use super::launch::{Argument, Kernel, Launch, Machine};
use crate::cuda::{self, DeviceMemory, Source, Stream};
use crate::gpu::Gpu;

/// The first GPU of the machine.
pub(super) struct Card {
    gpu: Arc<Gpu>,
    stream: Arc<Stream>,
}

impl Card {
    pub(super) fn open() -> Result<Self, String> {
        let gpu = Gpu::open(&crate::probe(), 0, None).map_err(|error| error.to_string())?;
        let stream = Stream::new(gpu.context()).map_err(|error| error.to_string())?;
        Ok(Self { gpu, stream })
    }
}

impl Machine for Card {
    fn run(&mut self, launch: &Launch) -> Vec<u8> {
        let bytes = launch.memory.len();
        let memory = DeviceMemory::new(self.gpu.context(), bytes).unwrap();
        let copy = self.stream.upload(Source::Bytes(launch.memory.clone()), &memory, 0).unwrap();
        let arguments: Vec<cuda::Argument> = launch
            .arguments
            .iter()
            .map(|argument| match *argument {
                Argument::Address(offset) => cuda::Argument::U64(memory.address() + offset),
                Argument::U64(value) => cuda::Argument::U64(value),
                Argument::U32(value) => cuda::Argument::U32(value),
            })
            .collect();
        let functions = self.gpu.functions();
        let function = match launch.kernel {
            Kernel::Open => &functions.open,
            Kernel::Normalize => &functions.normalize,
            Kernel::Widen => &functions.widen,
            Kernel::Gather => &functions.gather,
        };
        function.launch(&self.stream, launch.grid, launch.block, &arguments).unwrap();
        let landing = HeapAllocator.allocate(bytes).unwrap();
        let landed = self.stream.download(&memory, 0, bytes, landing).unwrap().finish().unwrap();
        drop(copy);
        landed.as_slice()[..bytes].to_vec()
    }
}
