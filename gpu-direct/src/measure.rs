//! Measurements of a GPU, for `tierstream bench gpu`: copies from pageable and pinned memory, the cipher's kernel by share
//! of the GPU, and sealed blocks that are copied and opened while the next are copied.
//!
//! Every opened block's outcome is looked at, and the first and last compared with what was sealed: a fast wrong kernel
//! is an error here, not a number. Times are the host's, from before the first launch to after the last event; a run is
//! long enough that a launch's few microseconds do not count.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tierstream_crypto::{Cipher, Nonce, Sm4Schedule, aead};
use tierstream_storage::buf::{HeapAllocator, HostAllocator, HostMemory};
use tierstream_storage::clock::Clock;
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::cipher::opener::{DeviceKeys, launch};
use crate::cipher::{KeyTable, Message, Outcome, PackedMessages};
use crate::cuda::{Argument, DeviceMemory, Source, Stream, Upload};
use crate::gpu::Gpu;
use crate::pinned::PinnedAllocator;

/// AAD of a sealed file's block, in bytes.
const AAD_BYTES: usize = 48;
/// What a sealed file's block stores beside its payload.
const TRAILER_BYTES: usize = 64;
/// Copies under way at once.
const SLOTS: usize = 3;

/// Where host memory for copies comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// Plain memory.
    Pageable,
    /// Registered with the driver.
    Pinned,
}

/// Measures one GPU.
#[derive(Debug)]
pub struct Meter {
    gpu: Arc<Gpu>,
    pinned: PinnedAllocator,
    clock: Arc<dyn Clock>,
}

impl Meter {
    /// A meter of `gpu`.
    #[must_use]
    pub fn new(gpu: Arc<Gpu>, clock: Arc<dyn Clock>) -> Self {
        let pinned = PinnedAllocator::of(&gpu);
        Self { gpu, pinned, clock }
    }

    fn memory(&self, kind: HostKind, bytes: usize) -> Result<HostMemory> {
        match kind {
            HostKind::Pageable => HeapAllocator.allocate(bytes),
            HostKind::Pinned => self.pinned.allocate(bytes),
        }
    }

    fn rate(&self, bytes: u64, began: Duration) -> f64 {
        bytes as f64 / self.clock.now().saturating_sub(began).as_secs_f64().max(1e-9)
    }

    /// Bytes a second of `times` copies of `bytes` each to the GPU, one after the other on one stream.
    ///
    /// # Errors
    /// `Full` without memory, `Device` when the driver refuses.
    pub fn copy(&self, kind: HostKind, bytes: usize, times: u64) -> Result<f64> {
        let stream = Stream::new(self.gpu.context())?;
        let to = DeviceMemory::new(self.gpu.context(), bytes)?;
        let mut memory = self.memory(kind, bytes)?;
        memory.as_mut_slice().fill(7);
        // Once before, so that nothing is done for the first time.
        let source = stream.upload(Source::Memory(memory, bytes), &to, 0)?.finish()?;
        let mut sources = vec![source];
        if kind == HostKind::Pinned {
            // Several copies are queued, as a loader does: the link never waits for the host.
            for _ in 1..SLOTS {
                sources.push(Source::Memory(self.memory(kind, bytes)?, bytes));
            }
        }
        let mut under_way: VecDeque<Upload> = VecDeque::new();
        let began = self.clock.now();
        for _ in 0..times {
            let source = match (sources.pop(), under_way.pop_front()) {
                (Some(source), earlier) => {
                    under_way.extend(earlier);
                    source
                }
                (None, Some(copy)) => copy.finish()?,
                (None, None) => break,
            };
            under_way.push_back(stream.upload(source, &to, 0)?);
        }
        stream.synchronize()?;
        Ok(self.rate(to_u64(bytes) * times, began))
    }

    /// Bytes a second that the cipher's kernel opens: `blocks` sealed blocks of `block_bytes` stored bytes, `times` over,
    /// with the share `part` of what the GPU runs at once.
    ///
    /// # Errors
    /// `Corrupt` when the kernel refuses a block or gives other bytes than were sealed; else as [`Meter::copy`].
    pub fn open(&self, block_bytes: usize, blocks: usize, part: f64, times: u64) -> Result<f64> {
        let stream = Stream::new(self.gpu.context())?;
        let sealed = Blocks::seal(block_bytes, blocks)?;
        let keys = DeviceKeys::new(&self.gpu, &stream, &[KeyTable::new(&sealed.schedule)])?;
        let plain_at = sealed.memory.len();
        let control_at = 2 * plain_at;
        let packed = PackedMessages::new(&sealed.messages(0, to_u64(plain_at)), to_u64(control_at))?;
        let device = DeviceMemory::new(self.gpu.context(), control_at + packed.as_bytes().len())?;
        drop(stream.upload(Source::Bytes(sealed.memory.clone()), &device, 0)?);
        let (base, control) = (device.address(), device.address() + to_u64(control_at));
        let mut spent = Duration::ZERO;
        for round in 0..=times {
            // States are zero again.
            drop(stream.upload(Source::Bytes(packed.as_bytes().to_vec()), &device, control_at)?);
            let began = self.clock.now();
            launch(&self.gpu, &stream, &keys, base, control, &packed, part)?;
            stream.synchronize()?;
            // The first round is not counted.
            if round > 0 {
                spent += self.clock.now().saturating_sub(began);
            }
        }
        let states = stream.download(
            &device,
            control_at,
            packed.state_bytes(),
            self.landing(packed.state_bytes())?,
        )?;
        check(&PackedMessages::outcomes(&states.finish()?.as_slice()[..packed.state_bytes()]))?;
        for number in [0, blocks - 1] {
            let (at, body) = (number * block_bytes, block_bytes - TRAILER_BYTES);
            let plain = stream.download(&device, plain_at + at, body, self.landing(body)?)?.finish()?;
            if plain.as_slice()[..body] != sealed.plain(number)[..] {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    "open on the GPU",
                    format!("block {number} differs"),
                ));
            }
        }
        Ok(to_u64(blocks * block_bytes * to_usize(times)) as f64 / spent.as_secs_f64().max(1e-9))
    }

    fn landing(&self, bytes: usize) -> Result<HostMemory> {
        self.memory(HostKind::Pinned, bytes)
    }

    /// Bytes a second of sealed blocks that come from pinned memory and are opened on the GPU, while the next ones are
    /// copied: `times` groups of `blocks` blocks.
    ///
    /// # Errors
    /// As [`Meter::open`].
    pub fn copy_and_open(&self, block_bytes: usize, blocks: usize, times: u64) -> Result<f64> {
        let (copies, opens) = (Stream::new(self.gpu.context())?, Stream::new(self.gpu.context())?);
        let sealed = Blocks::seal(block_bytes, blocks)?;
        let keys = DeviceKeys::new(&self.gpu, &opens, &[KeyTable::new(&sealed.schedule)])?;
        let bytes = sealed.memory.len();
        // In place: the slot holds the sealed blocks, then the plain ones.
        let packed = PackedMessages::new(&sealed.messages(0, 0), to_u64(bytes))?;
        let whole = bytes + packed.as_bytes().len();
        let mut sources = Vec::new();
        let mut slots = Vec::new();
        for _ in 0..SLOTS {
            let mut memory = self.memory(HostKind::Pinned, whole)?;
            memory.as_mut_slice()[..bytes].copy_from_slice(&sealed.memory);
            memory.as_mut_slice()[bytes..whole].copy_from_slice(packed.as_bytes());
            sources.push(Some(Source::Memory(memory, whole)));
            slots.push((DeviceMemory::new(self.gpu.context(), whole)?, None::<crate::cuda::Event>));
        }
        let mut under_way: Vec<Option<Upload>> = (0..SLOTS).map(|_| None).collect();
        let began = self.clock.now();
        for round in 0..to_usize(times) {
            let number = round % SLOTS;
            if let Some(copy) = under_way[number].take() {
                sources[number] = Some(copy.finish()?);
            }
            let Some(source) = sources[number].take() else { continue };
            let (device, opened) = &mut slots[number];
            if let Some(opened) = opened.take() {
                copies.wait_for(&opened)?;
            }
            let copy = copies.upload(source, device, 0)?;
            opens.wait_for(copy.event())?;
            let control = device.address() + to_u64(bytes);
            launch(&self.gpu, &opens, &keys, device.address(), control, &packed, 1.0)?;
            *opened = Some(opens.record()?);
            under_way[number] = Some(copy);
        }
        opens.synchronize()?;
        let rate = self.rate(to_u64(bytes) * times, began);
        for (device, _) in &slots[..SLOTS.min(to_usize(times))] {
            let states =
                opens.download(device, bytes, packed.state_bytes(), self.landing(packed.state_bytes())?)?;
            check(&PackedMessages::outcomes(&states.finish()?.as_slice()[..packed.state_bytes()]))?;
        }
        Ok(rate)
    }

    /// A kernel that computes for about `time` on every multiprocessor.
    ///
    /// # Errors
    /// `Device` when the driver refuses.
    pub fn compute(&self, time: Duration) -> Result<Compute> {
        let mut compute = Compute {
            stream: Stream::new(self.gpu.context())?,
            out: DeviceMemory::new(self.gpu.context(), 4)?,
            gpu: Arc::clone(&self.gpu),
            rounds: 10_000,
        };
        compute.start()?;
        compute.stream.synchronize()?;
        let began = self.clock.now();
        compute.start()?;
        compute.stream.synchronize()?;
        let took = self.clock.now().saturating_sub(began).as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of rounds")]
        let rounds = (compute.rounds as f64 * time.as_secs_f64() / took.max(1e-9)) as u64;
        compute.rounds = rounds.max(1);
        Ok(compute)
    }
}

/// A kernel that stands for a training step.
#[derive(Debug)]
pub struct Compute {
    gpu: Arc<Gpu>,
    stream: Arc<Stream>,
    out: Arc<DeviceMemory>,
    rounds: u64,
}

impl Compute {
    /// Hands it to its stream once.
    ///
    /// # Errors
    /// `Device` when the driver refuses.
    pub fn start(&self) -> Result<()> {
        let arguments = [Argument::U64(self.out.address()), Argument::U64(self.rounds)];
        // Half of the threads that a multiprocessor holds: conversions and the cipher find room beside it.
        self.gpu.functions().compute.launch(&self.stream, self.gpu.report().multiprocessors, 1024, &arguments)
    }

    /// The number of its stream, as DLPack counts.
    #[must_use]
    pub fn stream(&self) -> i64 {
        i64::try_from(self.stream.number()).unwrap_or(1)
    }

    /// Waits for what was started.
    ///
    /// # Errors
    /// `Device` when the driver refuses.
    pub fn finish(&self) -> Result<()> {
        self.stream.synchronize()
    }
}

fn check(outcomes: &[Outcome]) -> Result<()> {
    match outcomes.iter().position(|outcome| *outcome != Outcome::Opened) {
        None => Ok(()),
        Some(number) => {
            let why =
                format!("block {number} of {}: {:?}, expected it to open", outcomes.len(), outcomes[number]);
            Err(Error::new(ErrorKind::Corrupt, "open on the GPU", why))
        }
    }
}

/// Sealed blocks as they lie in a file: ciphertext, AAD, tag.
struct Blocks {
    memory: Vec<u8>,
    block_bytes: usize,
    schedule: Sm4Schedule,
}

/// The key of a measurement.
const KEY: [u8; 16] = [0x42; 16];

impl Blocks {
    fn seal(block_bytes: usize, count: usize) -> Result<Self> {
        if count == 0 || block_bytes <= TRAILER_BYTES || !block_bytes.is_multiple_of(16) {
            let why =
                format!("{count} blocks of {block_bytes} bytes, expected some of a multiple of 16 above 64");
            return Err(Error::new(ErrorKind::Misuse, "measure", why));
        }
        let cipher = aead(Cipher::Sm4Gcm, &KEY)
            .map_err(|error| Error::new(ErrorKind::Misuse, "measure", error.to_string()))?;
        let mut blocks =
            Self { memory: vec![0; block_bytes * count], block_bytes, schedule: Sm4Schedule::expand(&KEY) };
        for number in 0..count {
            let plain = blocks.plain(number);
            let block = &mut blocks.memory[number * block_bytes..(number + 1) * block_bytes];
            let (body, trailer) = block.split_at_mut(block_bytes - TRAILER_BYTES);
            trailer[..AAD_BYTES].fill(low_byte(number));
            let tag = cipher.seal_into(&nonce(number), &trailer[..AAD_BYTES], &plain, body);
            trailer[AAD_BYTES..].copy_from_slice(&tag);
        }
        Ok(blocks)
    }

    fn plain(&self, number: usize) -> Vec<u8> {
        (0..self.block_bytes - TRAILER_BYTES).map(|at| low_byte(at * 31 + number * 7)).collect()
    }

    /// The blocks at offset `sealed` of the device's memory, to be opened to `plain`.
    fn messages(&self, sealed: u64, plain: u64) -> Vec<Message> {
        let blocks = self.memory.chunks_exact(self.block_bytes).enumerate();
        blocks
            .map(|(number, block)| {
                let (body, trailer) = block.split_at(self.block_bytes - TRAILER_BYTES);
                let mut tag = [0; 16];
                tag.copy_from_slice(&trailer[AAD_BYTES..]);
                let at = to_u64(number * self.block_bytes);
                Message {
                    sealed: sealed + at,
                    plain: plain + at,
                    bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
                    key: 0,
                    nonce: nonce(number),
                    aad: trailer[..AAD_BYTES].to_vec(),
                    tag,
                }
            })
            .collect()
    }
}

fn low_byte(number: usize) -> u8 {
    number.to_le_bytes()[0]
}

fn nonce(number: usize) -> Nonce {
    Nonce::block(1, to_u64(number))
}

#[cfg(test)]
mod tests {
    use tierstream_storage::clock::SystemClock;
    use tierstream_storage::testing::skip;

    use super::*;

    #[test]
    fn blocks_are_sealed_as_the_cpu_opens_them() {
        let blocks = Blocks::seal(4096, 3).unwrap();
        let cipher = aead(Cipher::Sm4Gcm, &KEY).unwrap();
        for (number, message) in blocks.messages(0, 0).iter().enumerate() {
            let at = number * 4096;
            let mut body = blocks.memory[at..at + 4032].to_vec();
            cipher.open_in_place(&message.nonce, &message.aad, &mut body, &message.tag).unwrap();
            assert_eq!(body, blocks.plain(number));
        }
        assert!(Blocks::seal(100, 1).is_err() && Blocks::seal(4096, 0).is_err());
    }

    #[test]
    fn a_gpu_is_measured() {
        let gpu = match Gpu::open(&crate::probe(), 0, None) {
            Ok(gpu) => gpu,
            Err(error) => return skip("gpu", &error.to_string()),
        };
        let meter = Meter::new(gpu, Arc::new(SystemClock::new()));
        for kind in [HostKind::Pageable, HostKind::Pinned] {
            assert!(meter.copy(kind, 1 << 20, 5).unwrap() > 0.0);
        }
        assert!(meter.open(65536, 70, 1.0, 2).unwrap() > 0.0);
        assert!(meter.open(1 << 20, 3, 0.1, 1).unwrap() > 0.0);
        assert!(meter.copy_and_open(65536, 64, 8).unwrap() > 0.0);
        let compute = meter.compute(Duration::from_millis(2)).unwrap();
        compute.start().unwrap();
        compute.finish().unwrap();
    }
}
