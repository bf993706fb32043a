//! DLPack, the C structures through which array libraries hand each other memory (dlpack.h, versions 0.8 and 1.0).
//!
//! A capsule holds a structure of ours that holds the batch. Whoever consumes the capsule renames it and calls our
//! deleter when it has dropped the memory; one that nobody consumed calls the deleter itself.
#![expect(unsafe_code, reason = "structures of C, and pointers that other libraries hand back to us")]

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use tierstream_loader::Dtype;

use crate::array::View;
use crate::batch::Held;

/// kDLCPU, device 0.
pub(crate) const CPU: (i32, i32) = (1, 0);
const LEGACY: &CStr = c"dltensor";
const VERSIONED: &CStr = c"dltensor_versioned";
const READ_ONLY: u64 = 1;

#[repr(C)]
struct Device {
    kind: i32,
    number: i32,
}

#[repr(C)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    ndim: i32,
    dtype: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// DLManagedTensor.
#[repr(C)]
struct Legacy {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Legacy)>,
}

/// DLManagedTensorVersioned.
#[repr(C)]
struct Versioned {
    version: [u32; 2],
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: Tensor,
}

/// What lives as long as the consumer wants: behind `context` of either structure.
struct Context {
    shape: Box<[i64]>,
    strides: Box<[i64]>,
    _held: Arc<Held>,
}

fn data_type(dtype: Dtype) -> DataType {
    let code = match dtype {
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => 0,
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => 1,
        Dtype::F16 | Dtype::F32 | Dtype::F64 => 2,
        Dtype::Bf16 => 4,
    };
    let bits = u8::try_from(dtype.bytes() * 8).expect("at most 64");
    DataType { code, bits, lanes: 1 }
}

fn tensor(view: &View, context: &mut Context) -> Tensor {
    Tensor {
        data: ptr::with_exposed_provenance_mut(view.address),
        device: Device { kind: CPU.0, number: CPU.1 },
        ndim: i32::try_from(context.shape.len()).expect("a handful"),
        dtype: data_type(view.dtype),
        shape: context.shape.as_mut_ptr(),
        strides: context.strides.as_mut_ptr(),
        byte_offset: 0,
    }
}

fn context(view: &View, held: Arc<Held>) -> Box<Context> {
    let shape: Box<[i64]> =
        view.shape.iter().map(|length| i64::try_from(*length).expect("in memory")).collect();
    let mut strides: Box<[i64]> = shape.iter().map(|_| 1).collect();
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    Box::new(Context { shape, strides, _held: held })
}

/// A capsule of `view`, which lies in `held`.
pub(crate) fn capsule<'py>(
    py: Python<'py>,
    view: &View,
    held: Arc<Held>,
    versioned: bool,
) -> PyResult<Bound<'py, PyCapsule>> {
    let mut context = context(view, held);
    let tensor = tensor(view, &mut context);
    // The boxes' contents stay where they are when the box becomes a pointer.
    let context = Box::into_raw(context).cast::<c_void>();
    let (name, managed) = if versioned {
        let flags = if view.read_only { READ_ONLY } else { 0 };
        let made = Versioned { version: [1, 0], context, deleter: Some(delete_versioned), flags, tensor };
        (VERSIONED, Box::into_raw(Box::new(made)).cast::<c_void>())
    } else {
        let made = Legacy { tensor, context, deleter: Some(delete_legacy) };
        (LEGACY, Box::into_raw(Box::new(made)).cast::<c_void>())
    };
    let managed = NonNull::new(managed).expect("a box is somewhere");
    // SAFETY: `managed` points to a structure of the kind that `name` says, which stays until its deleter is called; and
    // `forget` expects just these two names.
    unsafe { PyCapsule::new_with_pointer_and_destructor(py, managed, name, Some(forget)) }
}

/// Ends a structure that a consumer has taken.
unsafe extern "C" fn delete_legacy(managed: *mut Legacy) {
    // SAFETY: DLPack calls a deleter once, with the pointer that was in the capsule: a box of ours.
    let managed = unsafe { Box::from_raw(managed) };
    // SAFETY: `context` came from a box in `capsule`, and nobody else frees it.
    drop(unsafe { Box::from_raw(managed.context.cast::<Context>()) });
}

/// As [`delete_legacy`].
unsafe extern "C" fn delete_versioned(managed: *mut Versioned) {
    // SAFETY: DLPack calls a deleter once, with the pointer that was in the capsule: a box of ours.
    let managed = unsafe { Box::from_raw(managed) };
    // SAFETY: `context` came from a box in `capsule`, and nobody else frees it.
    drop(unsafe { Box::from_raw(managed.context.cast::<Context>()) });
}

/// Ends a capsule: one that was consumed has another name by now, and its structure another owner.
unsafe extern "C" fn forget(capsule: *mut ffi::PyObject) {
    // SAFETY: Python calls the destructor with the capsule, attached to the interpreter; the name is a C string.
    if unsafe { ffi::PyCapsule_IsValid(capsule, LEGACY.as_ptr()) } == 1 {
        // SAFETY: the capsule has this name, as the line above says.
        let managed = unsafe { ffi::PyCapsule_GetPointer(capsule, LEGACY.as_ptr()) };
        // SAFETY: a capsule of this name holds a `Legacy` of ours that nobody has consumed.
        unsafe { delete_legacy(managed.cast()) };
    }
    // SAFETY: as above.
    if unsafe { ffi::PyCapsule_IsValid(capsule, VERSIONED.as_ptr()) } == 1 {
        // SAFETY: the capsule has this name, as the line above says.
        let managed = unsafe { ffi::PyCapsule_GetPointer(capsule, VERSIONED.as_ptr()) };
        // SAFETY: a capsule of this name holds a `Versioned` of ours that nobody has consumed.
        unsafe { delete_versioned(managed.cast()) };
    }
}
