//! A batch where it is used, and its fields as tensors.

use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use tierstream_loader::{Batch, Dtype, LoaderState};
use tierstream_storage::buf::{HeapAllocator, HostAllocator};
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{Error, ErrorKind, Result};

use super::host::Converted;
use super::pipeline::Lease;
use crate::convert::Prepared;
use crate::cuda::Stream;
use crate::dlpack::{DLDevice, DLManagedTensor, DLManagedTensorVersioned, Exported};

/// Converted fields start at multiples of this in their memory: what kernels and DLPack ask for.
const FIELD_ALIGN: usize = 256;
/// DLPack's number of the legacy default stream.
const DEFAULT_STREAM: u64 = 1;

/// Where a field of a batch lies.
#[derive(Clone, Debug)]
pub(super) struct FieldPlace {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<i64>,
    pub(super) offsets: Option<Vec<u64>>,
    /// Whether in the memory of converted fields.
    pub(super) converted: bool,
    /// Where in its memory.
    pub(super) at: usize,
    pub(super) bytes: usize,
    /// Where in the loader's buffer, and how long there.
    pub(super) from: (usize, usize),
}

/// Says where the fields of `batch` will be, and how much memory those that are converted take.
pub(super) fn places(batch: &Batch, conversions: &[Option<Prepared>]) -> (Vec<FieldPlace>, usize) {
    let (start, mut end) = (batch.buffer().as_ptr().addr(), 0);
    let places = batch
        .fields()
        .zip(conversions)
        .map(|(view, conversion)| {
            let from = (view.bytes().as_ptr().addr() - start, view.bytes().len());
            let (dtype, at, bytes) = match conversion {
                None => (view.field().dtype, from.0, from.1),
                Some(conversion) => {
                    let at = usize::next_multiple_of(end, FIELD_ALIGN);
                    let bytes = conversion.bytes_of(from.1);
                    end = at + bytes;
                    (conversion.dtype, at, bytes)
                }
            };
            FieldPlace {
                name: view.field().name.clone(),
                dtype,
                shape: view.shape().iter().map(|length| i64::try_from(*length).unwrap_or(i64::MAX)).collect(),
                offsets: view.offsets().map(<[u64]>::to_vec),
                converted: conversion.is_some(),
                at,
                bytes,
                from,
            }
        })
        .collect();
    (places, end)
}

/// The memory of a batch.
pub(super) enum Place {
    Host {
        batch: Box<Batch>,
        /// Where the batch's buffer begins.
        base: u64,
        converted: Option<Converted>,
    },
    Device(Box<Lease>),
}

/// What tensors of a batch share with it.
struct Inner {
    place: Place,
    /// Streams that the job uses the batch on.
    streams: Mutex<Vec<u64>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Place::Device(lease) = &mut self.place {
            let streams = self.streams.get_mut().unwrap_or_else(PoisonError::into_inner);
            lease.give_back(streams);
        }
    }
}

/// A batch in device memory. It and the tensors made of it share that memory, which goes back to the loader when the last
/// of them is gone.
#[derive(Clone)]
pub struct DeviceBatch {
    inner: Arc<Inner>,
    fields: Arc<Vec<FieldPlace>>,
    identity: Arc<Identity>,
}

/// What a batch is of.
pub(super) struct Identity {
    pub(super) sample_ids: Vec<u64>,
    pub(super) epoch: u64,
    pub(super) number: u64,
    pub(super) loaded_bytes: u64,
    pub(super) state: LoaderState,
}

impl Identity {
    pub(super) fn of(batch: &Batch, state: LoaderState) -> Self {
        Self {
            sample_ids: batch.sample_ids().to_vec(),
            epoch: batch.epoch(),
            number: batch.number(),
            loaded_bytes: to_u64(batch.buffer().len()),
            state,
        }
    }
}

impl fmt::Debug for DeviceBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { number, epoch, sample_ids, .. } = &*self.identity;
        write!(f, "DeviceBatch({number} of epoch {epoch}: {} samples, {:?})", sample_ids.len(), self.device())
    }
}

impl DeviceBatch {
    pub(super) fn new(place: Place, fields: Vec<FieldPlace>, identity: Identity) -> Self {
        let inner = Arc::new(Inner { place, streams: Mutex::default() });
        Self { inner, fields: Arc::new(fields), identity: Arc::new(identity) }
    }

    /// Where it lies.
    #[must_use]
    pub fn device(&self) -> DLDevice {
        match &self.inner.place {
            Place::Host { .. } => DLDevice::CPU,
            Place::Device(lease) => DLDevice::cuda(lease.ordinal()),
        }
    }

    /// Samples in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.identity.sample_ids.len()
    }

    /// Never: a batch has at least one sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identity.sample_ids.is_empty()
    }

    /// Numbers of the samples in their data set, in order.
    #[must_use]
    pub fn sample_ids(&self) -> &[u64] {
        &self.identity.sample_ids
    }

    /// The epoch it belongs to, from 0.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.identity.epoch
    }

    /// Its number in the epoch, from 0.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.identity.number
    }

    /// Bytes of all fields as the loader made them.
    #[must_use]
    pub fn loaded_bytes(&self) -> u64 {
        self.identity.loaded_bytes
    }

    /// Where the loader stood after it.
    #[must_use]
    pub fn state(&self) -> &LoaderState {
        &self.identity.state
    }

    /// All fields, in the schema's order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = DeviceField<'_>> {
        self.fields.iter().map(|place| DeviceField { batch: self, place })
    }

    /// The field of this name, if there is one.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<DeviceField<'_>> {
        self.fields().find(|field| field.name() == name)
    }

    /// Lets `stream` wait, on the device, until the batch is there, and keeps the batch's memory from being reused until
    /// the stream has passed what was handed to it before the batch's end. Without a GPU there is nothing to wait for.
    ///
    /// Streams are numbered as in DLPack's Python interface: none and 1 are the legacy default stream, 2 the default one
    /// of each thread, greater ones are handles, and -1 waits for nothing.
    ///
    /// # Errors
    /// `Misuse` for 0 and other negative numbers, `Device` when the driver refuses.
    pub fn use_on(&self, stream: Option<i64>) -> Result<()> {
        let Place::Device(lease) = &self.inner.place else { return Ok(()) };
        let number = match stream {
            None => DEFAULT_STREAM,
            // Whoever orders its work itself does so with regard to the default stream.
            Some(-1) => return self.used_on(DEFAULT_STREAM),
            Some(number) => u64::try_from(number).ok().filter(|number| *number > 0).ok_or_else(|| {
                Error::new(
                    ErrorKind::Misuse,
                    "use batch",
                    format!("stream {number}, expected -1, 1, 2 or a handle"),
                )
            })?,
        };
        lease.ready().hold_back(number)?;
        self.used_on(number)
    }

    /// Waits, on the host, until the batch is there: for measurements; a job's streams wait by themselves.
    ///
    /// # Errors
    /// `Device` when the driver refuses.
    pub fn wait(&self) -> Result<()> {
        match &self.inner.place {
            Place::Host { .. } => Ok(()),
            Place::Device(lease) => lease.ready().wait(),
        }
    }

    fn used_on(&self, stream: u64) -> Result<()> {
        let mut streams = self.inner.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if !streams.contains(&stream) {
            streams.push(stream);
        }
        Ok(())
    }
}

/// What `__cuda_array_interface__` (version 3) says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaArrayInterface {
    /// Lengths of the dimensions.
    pub shape: Vec<i64>,
    /// "<f4", say.
    pub typestr: String,
    /// Address on the device.
    pub data: u64,
    /// The stream that the array is ready on: the one it was asked for, which waits for it.
    pub stream: u64,
}

/// One field of a batch: an array, contiguous and row major.
#[derive(Clone, Copy)]
pub struct DeviceField<'a> {
    batch: &'a DeviceBatch,
    place: &'a FieldPlace,
}

impl fmt::Debug for DeviceField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceField(`{}`, {} {:?})", self.name(), self.dtype(), self.shape())
    }
}

impl DeviceField<'_> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// Its element type, after conversion.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.place.dtype
    }

    /// The shape of the array of all values; see [`FieldView::shape`](tierstream_loader::FieldView::shape).
    #[must_use]
    pub fn shape(&self) -> &[i64] {
        &self.place.shape
    }

    /// For ragged fields: where each sample begins, and where the last one ends. In host memory.
    #[must_use]
    pub fn offsets(&self) -> Option<&[u64]> {
        self.place.offsets.as_deref()
    }

    /// Where its first element lies, on the device that it is on.
    #[must_use]
    pub fn address(&self) -> u64 {
        let base = match &self.batch.inner.place {
            Place::Host { converted: Some(converted), .. } if self.place.converted => converted.address(),
            Place::Host { base, .. } => *base,
            Place::Device(lease) => lease.address(self.place.converted),
        };
        base + to_u64(self.place.at)
    }

    /// A copy of its bytes in host memory. Waits until the batch is there: for looking at, not for training.
    ///
    /// # Errors
    /// `Device` when the driver refuses.
    pub fn to_host(&self) -> Result<Vec<u8>> {
        let FieldPlace { at, bytes, .. } = *self.place;
        match &self.batch.inner.place {
            Place::Host { converted: Some(converted), .. } if self.place.converted => {
                Ok(converted.bytes()[at..at + bytes].to_vec())
            }
            Place::Host { batch, .. } => Ok(batch.buffer()[at..at + bytes].to_vec()),
            Place::Device(lease) => {
                let memory = lease.memory(self.place.converted);
                let stream = Stream::new(memory.context())?;
                stream.wait_for(lease.ready())?;
                let landed = stream.download(memory, at, bytes, HeapAllocator.allocate(bytes)?)?.finish()?;
                Ok(landed.as_slice()[..bytes].to_vec())
            }
        }
    }

    fn export(&self, stream: Option<i64>) -> Result<Exported> {
        self.batch.use_on(stream)?;
        Ok(Exported {
            address: self.address(),
            device: self.batch.device(),
            dtype: self.dtype(),
            shape: self.shape().to_vec(),
            owner: Box::new(Arc::clone(&self.batch.inner)),
        })
    }

    /// The field as a DLPack tensor for a consumer that uses it on `stream` (see [`DeviceBatch::use_on`]). Whoever takes it
    /// calls its deleter once.
    ///
    /// # Errors
    /// As [`DeviceBatch::use_on`].
    pub fn to_dlpack(&self, stream: Option<i64>) -> Result<NonNull<DLManagedTensor>> {
        Ok(self.export(stream)?.into_managed())
    }

    /// The same as DLPack 1.0 has it.
    ///
    /// # Errors
    /// As [`DeviceBatch::use_on`].
    pub fn to_dlpack_versioned(&self, stream: Option<i64>) -> Result<NonNull<DLManagedTensorVersioned>> {
        Ok(self.export(stream)?.into_versioned())
    }

    /// What `__cuda_array_interface__` says of it, for a consumer on the default stream. Whoever holds the answer keeps
    /// the batch.
    ///
    /// # Errors
    /// `Unsupported` for arrays in host memory and for bfloat16, which the interface has no name for.
    pub fn cuda_array_interface(&self) -> Result<CudaArrayInterface> {
        let unsupported = |why: &str| Error::new(ErrorKind::Unsupported, "export array", why);
        if self.batch.device() == DLDevice::CPU {
            return Err(unsupported("the batch is in host memory").hint("use DLPack, which can say so"));
        }
        let dtype = self.dtype();
        let kind = match dtype {
            Dtype::Bf16 => {
                return Err(unsupported("__cuda_array_interface__ has no bfloat16").hint("use DLPack"));
            }
            Dtype::F16 | Dtype::F32 | Dtype::F64 => 'f',
            Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => 'u',
            Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => 'i',
        };
        self.batch.use_on(None)?;
        let order = if dtype.bytes() == 1 { '|' } else { '<' };
        Ok(CudaArrayInterface {
            shape: self.shape().to_vec(),
            typestr: format!("{order}{kind}{}", dtype.bytes()),
            data: self.address(),
            stream: DEFAULT_STREAM,
        })
    }
}

/// Where an address of the host's is in memory.
pub(super) fn exposed(start: *mut u8) -> u64 {
    to_u64(start.expose_provenance())
}

/// Bytes of `places` that are converted, rounded so that memory of that size serves the next batch too.
pub(super) fn room_for(bytes: usize) -> usize {
    to_usize(to_u64(bytes.max(FIELD_ALIGN))).next_power_of_two()
}
