//! Streams, events, and copies that own the host memory they work on.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::{result, sys};
use tierstream_loader::Batch;
use tierstream_storage::Result;
use tierstream_storage::buf::HostMemory;

use super::{Context, DeviceMemory, bind, failed};

/// A queue of work for the device, in order.
pub(crate) struct Stream {
    context: Context,
    raw: sys::CUstream,
}

// SAFETY: the driver's handles may be used from any thread, several at once.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream(GPU {})", self.context.ordinal())
    }
}

impl Stream {
    /// A stream that waits for no other.
    pub(crate) fn new(context: &Context) -> Result<Arc<Self>> {
        bind(context, "make a stream")?;
        let raw = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(failed("make a stream"))?;
        Ok(Arc::new(Self { context: Arc::clone(context), raw }))
    }

    /// The driver's handle.
    pub(super) fn raw(&self) -> sys::CUstream {
        self.raw
    }

    /// The handle as a number, as DLPack has it.
    pub(crate) fn number(&self) -> u64 {
        tierstream_storage::units::to_u64(self.raw.addr())
    }

    pub(crate) fn bind(&self) -> Result<()> {
        bind(&self.context, "use the GPU")
    }

    /// Marks what was handed to the stream so far.
    pub(crate) fn record(&self) -> Result<Event> {
        self.bind()?;
        let event = Event::new(&self.context)?;
        // SAFETY: both handles are live: the stream's owner is borrowed, the event was just made.
        unsafe { result::event::record(event.raw, self.raw) }.map_err(failed("record an event"))?;
        Ok(event)
    }

    /// Lets what is handed to the stream from now on wait for `event`, on the device.
    pub(crate) fn wait_for(&self, event: &Event) -> Result<()> {
        self.bind()?;
        wait_on(self.raw, event)
    }

    /// Waits, on the host, for all that was handed to it.
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the handle is live.
        unsafe { result::stream::synchronize(self.raw) }.map_err(failed("wait for the GPU"))
    }

    /// Copies all bytes of `source` to offset `at` of `to`.
    ///
    /// # Panics
    /// When they do not fit.
    pub(crate) fn upload(&self, source: Source, to: &Arc<DeviceMemory>, at: usize) -> Result<Upload> {
        self.bind()?;
        let bytes = source.bytes();
        let address = to.range(at, bytes.len());
        if !bytes.is_empty() {
            // SAFETY: the destination is inside a live allocation, the source is owned by the `Upload` that is returned
            // (or, on an error below, leaked) until the event after the copy has come; nobody writes to it meanwhile.
            unsafe { result::memcpy_htod_async(address, bytes, self.raw) }
                .map_err(failed("copy to the GPU"))?;
        }
        match self.record() {
            Ok(event) => Ok(Upload { source: Some(source), to: Arc::clone(to), event }),
            Err(error) => {
                // The copy may still run, and nothing tells when it ends.
                let _kept = std::mem::ManuallyDrop::new(source);
                Err(error)
            }
        }
    }

    /// Copies `bytes` bytes at offset `at` of `from` to the start of `memory`.
    ///
    /// # Panics
    /// When either is shorter.
    pub(crate) fn download(
        &self,
        from: &Arc<DeviceMemory>,
        at: usize,
        bytes: usize,
        mut memory: HostMemory,
    ) -> Result<Download> {
        self.bind()?;
        let address = from.range(at, bytes);
        let to = &mut memory.as_mut_slice()[..bytes];
        // SAFETY: the source is inside a live allocation, the destination is owned by the `Download` until the event
        // after the copy has come; nobody touches it meanwhile.
        unsafe { result::memcpy_dtoh_async(to, address, self.raw) }.map_err(failed("copy from the GPU"))?;
        match self.record() {
            Ok(event) => Ok(Download { memory: Some(memory), event, bytes, from: Arc::clone(from) }),
            Err(error) => {
                let _kept = std::mem::ManuallyDrop::new(memory);
                Err(error)
            }
        }
    }
}

fn wait_on(stream: sys::CUstream, event: &Event) -> Result<()> {
    let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
    // SAFETY: the event is live; a stream handle that is not ours is the caller's promise (see `wait_on_foreign`).
    unsafe { result::stream::wait_event(stream, event.raw, flags) }.map_err(failed("wait on a stream"))
}

impl Drop for Stream {
    fn drop(&mut self) {
        let ended = self.context.bind_to_thread().and_then(|()| {
            // SAFETY: made by `new`, destroyed here alone; the driver ends what is queued first.
            unsafe { result::stream::destroy(self.raw) }
        });
        if let Err(error) = ended {
            tracing::warn!(%error, "a stream of the GPU could not be ended");
        }
    }
}

/// A mark in a stream.
pub(crate) struct Event {
    context: Context,
    raw: sys::CUevent,
}

// SAFETY: the driver's handles may be used from any thread, several at once.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event(come: {:?})", self.has_come())
    }
}

impl Event {
    fn new(context: &Context) -> Result<Self> {
        let raw = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        Ok(Self { context: Arc::clone(context), raw: raw.map_err(failed("make an event"))? })
    }

    /// Marks what was handed so far to a stream that somebody else made: `number` is its handle, 0 for the default one.
    ///
    /// A number that is no stream of this process is an error of the driver, or undefined: it comes from the framework
    /// whose stream it is.
    pub(crate) fn recorded_on(context: &Context, number: u64) -> Result<Self> {
        bind(context, "record an event")?;
        let event = Self::new(context)?;
        // SAFETY: the event was just made; the stream is the framework's, which keeps it alive as long as tensors use it.
        unsafe { result::event::record(event.raw, foreign(number)) }.map_err(failed("record an event"))?;
        Ok(event)
    }

    /// Lets a stream that somebody else made wait for this, on the device.
    pub(crate) fn hold_back(&self, number: u64) -> Result<()> {
        bind(&self.context, "wait on a stream")?;
        wait_on(foreign(number), self)
    }

    /// Whether all before it is done.
    pub(crate) fn has_come(&self) -> Result<bool> {
        bind(&self.context, "look at an event")?;
        // SAFETY: the handle is live.
        match unsafe { result::event::query(self.raw) } {
            Ok(()) => Ok(true),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            Err(error) => Err(failed("look at an event")(error)),
        }
    }

    /// Waits, on the host, until all before it is done.
    pub(crate) fn wait(&self) -> Result<()> {
        bind(&self.context, "wait for the GPU")?;
        // SAFETY: the handle is live.
        unsafe { result::event::synchronize(self.raw) }.map_err(failed("wait for the GPU"))
    }
}

/// 1 is the legacy default stream and 2 the one per thread, in DLPack as in the driver.
fn foreign(number: u64) -> sys::CUstream {
    std::ptr::without_provenance_mut(tierstream_storage::units::to_usize(number))
}

impl Drop for Event {
    fn drop(&mut self) {
        let ended = self.context.bind_to_thread().and_then(|()| {
            // SAFETY: made by `new`, destroyed here alone; one that has not come may be destroyed.
            unsafe { result::event::destroy(self.raw) }
        });
        if let Err(error) = ended {
            tracing::warn!(%error, "an event of the GPU could not be ended");
        }
    }
}

/// Host memory with an owner, for an upload: whoever owns it keeps its bytes where they are.
pub(crate) enum Source {
    /// A batch of a loader.
    Batch(Box<Batch>),
    /// A region of memory, up to a length.
    Memory(HostMemory, usize),
    /// Plain bytes, which the driver copies through its own pinned memory.
    Bytes(Vec<u8>),
}

impl Source {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Batch(batch) => batch.buffer(),
            Self::Memory(memory, bytes) => &memory.as_slice()[..*bytes],
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// A copy to the device that is under way. Owns both ends; dropped, it waits.
pub(crate) struct Upload {
    // None only after `finish`.
    source: Option<Source>,
    to: Arc<DeviceMemory>,
    event: Event,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({:?}, to {:?})", self.event, self.to)
    }
}

impl Upload {
    /// The mark after the copy.
    pub(crate) fn event(&self) -> &Event {
        &self.event
    }

    /// The source, after waiting for the copy.
    pub(crate) fn finish(mut self) -> Result<Source> {
        self.event.wait()?;
        Ok(self.source.take().expect("present until now"))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.source.is_some()
            && let Err(error) = self.event.wait()
        {
            // Whether the device still reads is unknown: the memory stays.
            tracing::error!(%error, "a copy to the GPU did not end");
            let _kept = std::mem::ManuallyDrop::new(self.source.take());
        }
    }
}

/// A copy from the device that is under way. Owns both ends; dropped, it waits.
pub(crate) struct Download {
    // None only after `finish`.
    memory: Option<HostMemory>,
    event: Event,
    bytes: usize,
    from: Arc<DeviceMemory>,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Download({} bytes, {:?}, from {:?})", self.bytes, self.event, self.from)
    }
}

impl Download {
    /// The memory with what was copied, after waiting for the copy.
    pub(crate) fn finish(mut self) -> Result<HostMemory> {
        self.event.wait()?;
        Ok(self.memory.take().expect("present until now"))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.memory.is_some()
            && let Err(error) = self.event.wait()
        {
            tracing::error!(%error, "a copy from the GPU did not end");
            let _kept = std::mem::ManuallyDrop::new(self.memory.take());
        }
    }
}
