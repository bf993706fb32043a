#![expect(unsafe_code, reason = "DLPack is a C interface: tensors leave as raw pointers with a deleter")]
//! DLPack (dmlc/dlpack, `dlpack.h`): tensors for other frameworks, without a copy.
//!
//! An exported tensor owns a share of the batch it is of: its memory goes back to the loader when the last tensor and the
//! batch itself are gone. Who takes the pointer calls its deleter exactly once.

use std::any::Any;
use std::ffi::c_void;
use std::ptr::NonNull;

use tierstream_loader::Dtype;

/// Where a tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DLDevice {
    /// 1 for the CPU, 2 for CUDA.
    pub device_type: i32,
    /// The GPU's number.
    pub device_id: i32,
}

impl DLDevice {
    /// Host memory.
    pub const CPU: Self = Self { device_type: 1, device_id: 0 };

    /// Memory of GPU `ordinal`.
    #[must_use]
    pub fn cuda(ordinal: u32) -> Self {
        Self { device_type: 2, device_id: i32::try_from(ordinal).unwrap_or(0) }
    }
}

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DLDataType {
    /// 0 signed, 1 unsigned, 2 IEEE float, 4 bfloat.
    pub code: u8,
    /// Bits of an element.
    pub bits: u8,
    /// Elements of a vector: 1.
    pub lanes: u16,
}

impl From<Dtype> for DLDataType {
    fn from(dtype: Dtype) -> Self {
        let code = match dtype {
            Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => 0,
            Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => 1,
            Dtype::F16 | Dtype::F32 | Dtype::F64 => 2,
            Dtype::Bf16 => 4,
        };
        Self { code, bits: u8::try_from(8 * dtype.bytes()).unwrap_or(0), lanes: 1 }
    }
}

/// A tensor by reference.
#[derive(Debug)]
#[repr(C)]
pub struct DLTensor {
    /// Its first element.
    pub data: *mut c_void,
    /// Where that is.
    pub device: DLDevice,
    /// Dimensions.
    pub ndim: i32,
    /// Element type.
    pub dtype: DLDataType,
    /// `ndim` lengths.
    pub shape: *mut i64,
    /// Null: contiguous, row major.
    pub strides: *mut i64,
    /// 0.
    pub byte_offset: u64,
}

/// A tensor with its owner: `DLManagedTensor` of DLPack before 1.0, which every framework takes (capsule `dltensor`).
#[derive(Debug)]
#[repr(C)]
pub struct DLManagedTensor {
    /// The tensor.
    pub dl_tensor: DLTensor,
    /// The owner.
    pub manager_ctx: *mut c_void,
    /// Gives the tensor back.
    pub deleter: Option<unsafe extern "C" fn(*mut DLManagedTensor)>,
}

/// `DLManagedTensorVersioned` of DLPack 1.0 (capsule `dltensor_versioned`).
#[derive(Debug)]
#[repr(C)]
pub struct DLManagedTensorVersioned {
    /// Major version of the interface: 1.
    pub major: u32,
    /// Minor version: 0.
    pub minor: u32,
    /// The owner.
    pub manager_ctx: *mut c_void,
    /// Gives the tensor back.
    pub deleter: Option<unsafe extern "C" fn(*mut DLManagedTensorVersioned)>,
    /// 0: the tensor may be written, and is no copy.
    pub flags: u64,
    /// The tensor.
    pub dl_tensor: DLTensor,
}

/// What keeps the memory of a tensor, and the tensor's shape.
struct Owner {
    shape: Vec<i64>,
    _batch: Box<dyn Any + Send + Sync>,
}

/// A tensor to be exported.
pub(crate) struct Exported {
    pub(crate) address: u64,
    pub(crate) device: DLDevice,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<i64>,
    /// Dropped when the tensor is.
    pub(crate) owner: Box<dyn Any + Send + Sync>,
}

impl Exported {
    fn parts(self) -> (DLTensor, Box<Owner>) {
        let mut owner = Box::new(Owner { shape: self.shape, _batch: self.owner });
        let tensor = DLTensor {
            data: std::ptr::with_exposed_provenance_mut(tierstream_storage::units::to_usize(self.address)),
            device: self.device,
            ndim: i32::try_from(owner.shape.len()).unwrap_or(0),
            dtype: self.dtype.into(),
            // The heap of the vector stays where it is while the box moves as a pointer.
            shape: owner.shape.as_mut_ptr(),
            strides: std::ptr::null_mut(),
            byte_offset: 0,
        };
        (tensor, owner)
    }

    /// The tensor as a pointer that its taker gives back through the deleter.
    pub(crate) fn into_managed(self) -> NonNull<DLManagedTensor> {
        let (dl_tensor, owner) = self.parts();
        let manager_ctx = Box::into_raw(owner).cast();
        let managed = Box::new(DLManagedTensor { dl_tensor, manager_ctx, deleter: Some(delete) });
        NonNull::from(Box::leak(managed))
    }

    /// The same as DLPack 1.0 has it.
    pub(crate) fn into_versioned(self) -> NonNull<DLManagedTensorVersioned> {
        let (dl_tensor, owner) = self.parts();
        let manager_ctx = Box::into_raw(owner).cast();
        let deleter = Some(delete_versioned as unsafe extern "C" fn(*mut DLManagedTensorVersioned));
        let managed =
            DLManagedTensorVersioned { major: 1, minor: 0, manager_ctx, deleter, flags: 0, dl_tensor };
        NonNull::from(Box::leak(Box::new(managed)))
    }
}

unsafe extern "C" fn delete(managed: *mut DLManagedTensor) {
    if managed.is_null() {
        return;
    }
    // SAFETY: made by `into_managed`, and DLPack's contract is one call for each tensor.
    let managed = unsafe { Box::from_raw(managed) };
    // SAFETY: as above; the context is the owner's box.
    drop(unsafe { Box::from_raw(managed.manager_ctx.cast::<Owner>()) });
}

unsafe extern "C" fn delete_versioned(managed: *mut DLManagedTensorVersioned) {
    if managed.is_null() {
        return;
    }
    // SAFETY: made by `into_versioned`, and DLPack's contract is one call for each tensor.
    let managed = unsafe { Box::from_raw(managed) };
    // SAFETY: as above; the context is the owner's box.
    drop(unsafe { Box::from_raw(managed.manager_ctx.cast::<Owner>()) });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn exported(owner: &Arc<Vec<u8>>) -> Exported {
        let address = owner.as_ptr().expose_provenance() as u64;
        let owner = Box::new(Arc::clone(owner));
        Exported { address, device: DLDevice::CPU, dtype: Dtype::Bf16, shape: vec![2, 3], owner }
    }

    #[test]
    fn a_tensor_shares_its_batch_until_it_is_deleted() {
        let owner = Arc::new(vec![0_u8; 12]);
        let (old, new) = (exported(&owner).into_managed(), exported(&owner).into_versioned());
        assert_eq!(Arc::strong_count(&owner), 3);
        // SAFETY: the tensor was just made, and is not deleted yet.
        let tensor = unsafe { &old.as_ref().dl_tensor };
        // SAFETY: the shape has as many lengths as there are dimensions.
        let shape = unsafe { std::slice::from_raw_parts(tensor.shape, 2) };
        assert_eq!((tensor.ndim, shape), (2, &[2, 3][..]));
        assert_eq!(tensor.dtype, DLDataType { code: 4, bits: 16, lanes: 1 });
        assert_eq!(tensor.data.addr(), owner.as_ptr().addr());
        // SAFETY: deleted once, and not looked at any more.
        unsafe { delete(old.as_ptr()) };
        assert_eq!(Arc::strong_count(&owner), 2);
        // SAFETY: as above.
        let (version, deleter) = unsafe { (new.as_ref().major, delete_versioned) };
        assert_eq!(version, 1);
        // SAFETY: as above.
        unsafe { deleter(new.as_ptr()) };
        assert_eq!(Arc::strong_count(&owner), 1);
    }

    #[test]
    fn the_layout_is_that_of_the_header() {
        assert_eq!((size_of::<DLTensor>(), size_of::<DLManagedTensor>()), (48, 64));
        assert_eq!(size_of::<DLManagedTensorVersioned>(), 80);
        assert_eq!(std::mem::offset_of!(DLManagedTensorVersioned, dl_tensor), 32);
    }
}
