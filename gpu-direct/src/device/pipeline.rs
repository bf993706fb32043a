//! The thread that brings batches to the GPU: slot, copy, convert, hand over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use tierstream_loader::Loader;
use tierstream_storage::units::to_u64;
use tierstream_storage::{Error, ErrorKind, Result};

use super::batch::{DeviceBatch, FieldPlace, Identity, Place, places, room_for};
use crate::convert::{Kind, Prepared};
use crate::cuda::{Argument, DeviceMemory, Event, Source, Stream, Upload};
use crate::gpu::Gpu;

/// Threads of a thread block of the conversions, and elements that each has at a time: what is read is 4 or 8 bytes.
const THREADS: u32 = 256;
const ELEMENTS: u64 = 4;
/// Thread blocks for each multiprocessor: enough to keep memory busy.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 8;

/// Memory for one batch on the device.
pub(super) struct Slot {
    raw: Arc<DeviceMemory>,
    converted: Arc<DeviceMemory>,
}

/// What comes back to the thread.
pub(super) enum Returned {
    /// A slot, free when the events have come.
    Slot(Slot, Vec<Arc<Event>>),
    /// Nobody wants batches any more.
    Stop,
}

/// A slot in use by a batch.
pub(super) struct Lease {
    gpu: Arc<Gpu>,
    // None only after it was given back.
    slot: Option<Slot>,
    ready: Arc<Event>,
    returned: Sender<Returned>,
}

impl Lease {
    pub(super) fn ordinal(&self) -> u32 {
        self.gpu.report().ordinal
    }

    /// Comes when the batch is whole.
    pub(super) fn ready(&self) -> &Event {
        &self.ready
    }

    pub(super) fn memory(&self, converted: bool) -> &Arc<DeviceMemory> {
        let slot = self.slot.as_ref().expect("present until it is given back");
        if converted { &slot.converted } else { &slot.raw }
    }

    pub(super) fn address(&self, converted: bool) -> u64 {
        self.memory(converted).address()
    }

    /// Gives the slot back: what `streams` were handed until now comes before its next batch.
    pub(super) fn give_back(&mut self, streams: &[u64]) {
        let events =
            streams.iter().map(|stream| Event::recorded_on(self.gpu.context(), *stream).map(Arc::new));
        match (events.collect::<Result<Vec<_>>>(), self.slot.take()) {
            (Ok(mut events), Some(slot)) => {
                // A batch that nobody used may not even be whole yet.
                events.push(Arc::clone(&self.ready));
                // The thread may have ended: then the slot is freed here.
                let _nobody = self.returned.send(Returned::Slot(slot, events));
            }
            (Err(error), slot) => {
                // When the streams are done with it is unknown. Freeing waits for the whole device.
                tracing::error!(%error, "a batch's memory on the GPU is given up");
                drop(slot);
                let _nobody = self.returned.send(Returned::Stop);
            }
            (Ok(_), None) => {}
        }
    }
}

/// Scales and shifts of a field's channels on the device.
type Tables = Option<Arc<DeviceMemory>>;

/// All that the thread works with.
pub(super) struct Pipeline {
    gpu: Arc<Gpu>,
    conversions: Vec<Option<Prepared>>,
    tables: Vec<Tables>,
    copies: Arc<Stream>,
    converts: Arc<Stream>,
    returned: Sender<Returned>,
    free: Receiver<Returned>,
    slots: usize,
    under_way: VecDeque<Upload>,
}

impl Pipeline {
    /// Makes streams, slots and tables.
    pub(super) fn new(
        gpu: Arc<Gpu>,
        conversions: Vec<Option<Prepared>>,
        slots: usize,
        returned: Sender<Returned>,
        free: Receiver<Returned>,
    ) -> Result<Self> {
        let (copies, converts) = (Stream::new(gpu.context())?, Stream::new(gpu.context())?);
        let mut tables = Vec::new();
        for conversion in &conversions {
            tables.push(match conversion.as_ref().map(|conversion| &conversion.kind) {
                Some(Kind::Normalize { scale, shift, .. }) => {
                    let bytes: Vec<u8> =
                        scale.iter().chain(shift).flat_map(|value| value.to_le_bytes()).collect();
                    let memory = DeviceMemory::new(gpu.context(), bytes.len())?;
                    copies.upload(Source::Bytes(bytes), &memory, 0)?.finish()?;
                    Some(memory)
                }
                _ => None,
            });
        }
        for _ in 0..slots {
            let memory = || DeviceMemory::new(gpu.context(), room_for(0));
            let _alive =
                returned.send(Returned::Slot(Slot { raw: memory()?, converted: memory()? }, Vec::new()));
        }
        let under_way = VecDeque::new();
        Ok(Self { gpu, conversions, tables, copies, converts, returned, free, slots, under_way })
    }

    /// Brings the loader's batches to the device until they end, one fails, or nobody takes them any more.
    pub(super) fn run(mut self, mut loader: Loader, batches: &SyncSender<Result<DeviceBatch>>) {
        while let Some(next) = loader.next() {
            let made = next.and_then(|batch| {
                let identity = Identity::of(&batch, loader.state_dict());
                match self.free.recv() {
                    Ok(Returned::Slot(slot, events)) => {
                        self.bring(Source::Batch(Box::new(batch)), identity, slot, events)
                    }
                    Ok(Returned::Stop) | Err(_) => {
                        Err(Error::new(ErrorKind::Closed, "load batch", "the loader ends"))
                    }
                }
            });
            let failed = made.is_err();
            if batches.send(made).is_err() || failed {
                return;
            }
            // Their buffers go back to the loader.
            while self.under_way.len() > self.slots
                || self.under_way.front().is_some_and(|copy| copy.event().has_come().unwrap_or(true))
            {
                drop(self.under_way.pop_front());
            }
        }
    }

    fn bring(
        &mut self,
        source: Source,
        identity: Identity,
        mut slot: Slot,
        events: Vec<Arc<Event>>,
    ) -> Result<DeviceBatch> {
        let Source::Batch(batch) = &source else { unreachable!("batches alone are brought") };
        let (fields, converted_bytes) = places(batch, &self.conversions);
        let bytes = batch.buffer().len();
        if slot.raw.bytes() < bytes || slot.converted.bytes() < converted_bytes {
            // Memory that is given up must not be in use.
            events.iter().try_for_each(|event| event.wait())?;
            let context = self.gpu.context();
            let (raw, converted) = (bytes.max(slot.raw.bytes()), converted_bytes.max(slot.converted.bytes()));
            slot = Slot {
                raw: DeviceMemory::new(context, room_for(raw))?,
                converted: DeviceMemory::new(context, room_for(converted))?,
            };
        } else {
            events.iter().try_for_each(|event| self.copies.wait_for(event))?;
        }
        let copy = self.copies.upload(source, &slot.raw, 0)?;
        let ready = if converted_bytes == 0 {
            self.copies.record()?
        } else {
            self.converts.wait_for(copy.event())?;
            for (number, place) in fields.iter().enumerate() {
                self.convert(number, place, &slot)?;
            }
            self.converts.record()?
        };
        self.under_way.push_back(copy);
        let (gpu, ready, returned) = (Arc::clone(&self.gpu), Arc::new(ready), self.returned.clone());
        let lease = Lease { gpu, slot: Some(slot), ready, returned };
        Ok(DeviceBatch::new(Place::Device(Box::new(lease)), fields, identity))
    }

    fn convert(&self, number: usize, place: &FieldPlace, slot: &Slot) -> Result<()> {
        let Some(conversion) = &self.conversions[number] else { return Ok(()) };
        let (from, to) =
            (slot.raw.address() + to_u64(place.from.0), slot.converted.address() + to_u64(place.at));
        let elements = to_u64(place.bytes / conversion.dtype.bytes());
        let room = self.gpu.report().multiprocessors * BLOCKS_PER_MULTIPROCESSOR;
        let blocks = elements.div_ceil(u64::from(THREADS) * ELEMENTS).min(u64::from(room));
        let grid = u32::try_from(blocks).unwrap_or(room);
        let functions = self.gpu.functions();
        match (&conversion.kind, &self.tables[number]) {
            (Kind::Widen { wide }, _) => {
                let arguments = [
                    Argument::U64(from),
                    Argument::U64(to),
                    Argument::U64(elements),
                    Argument::U32(u32::from(*wide)),
                ];
                functions.widen.launch(&self.converts, grid, THREADS, &arguments)
            }
            (Kind::Normalize { scale, inner, format, .. }, Some(tables)) => {
                let channels = u32::try_from(scale.len()).unwrap_or(u32::MAX);
                let arguments = [
                    Argument::U64(from),
                    Argument::U64(to),
                    Argument::U64(elements),
                    Argument::U64(tables.address()),
                    Argument::U64(tables.address() + 4 * u64::from(channels)),
                    Argument::U32(channels),
                    Argument::U32(*inner),
                    Argument::U32(*format),
                ];
                functions.normalize.launch(&self.converts, grid, THREADS, &arguments)
            }
            (Kind::Normalize { .. }, None) => unreachable!("tables are made for every normalisation"),
        }
    }
}
